//! Nothing gets past the filter of calls, or gains by the supervisor that answers for them.

use std::fs::{self};
use std::path::PathBuf;
use std::process::Command;

use super::{World, names};

fn compile(world: &World, flags: &[&str], source: &str) -> Option<PathBuf> {
    let (from, to) = (world.at("program.c"), world.at("program"));
    fs::write(&from, source).unwrap();
    let built = Command::new("cc").args(flags).arg("-o").arg(&to).arg(&from).output();
    match built {
        Ok(built) if built.status.success() => Some(to),
        other => {
            eprintln!("cannot compile: {other:?}");
            None
        }
    }
}

#[test]
fn calls_that_get_past_a_filter_do_not_exist() {
    let world = World::new();
    let source = r#"
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    char room[256] = {0};
    long ring = syscall(425, 8, room);
    if (ring != -1 || errno != ENOSYS) return 1;
#ifdef __x86_64__
    if (syscall(0x40000000 | 84, "dist") != -1 || errno != ENOSYS) return 2;
#endif
    return 0;
}"#;
    let Some(program) = compile(&world, &["-O1"], source) else { return };
    world.run(&world.overlay(), &mut Command::new(program)).ok();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_are_answered_too() {
    let source = r#"
static int call(int nr, const void *a, int b) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(nr), "b"(a), "c"(b) : "memory");
    return result;
}
void _start(void) {
    int code = 0;
    call(10, "dist/f", 0);                 /* unlink */
    if (call(40, "dist", 0) != 0) code = 1;      /* rmdir */
    if (call(33, "dist", 0) != -2) code = 2;     /* access */
    if (call(40, "dist", 0) != -2) code = 3;
    if (call(39, "dist", 0755) != 0) code = 4;   /* mkdir */
    if (call(38, "dist", (int)"away") != 0) code = 5; /* rename */
    if (call(38, "away", (int)"dist") != 0) code = 6;
    if (call(425, (void *)8, 0) != -38) code = 7;
    call(39, "dist/made", 0755);
    call(1, (void *)code, 0);
}"#;
    let world = World::with(|dist| fs::write(dist.join("f"), "x").unwrap());
    let Some(program) = compile(
        &world,
        &["-m32", "-nostdlib", "-static", "-fno-stack-protector", "-fno-pie", "-no-pie", "-O1"],
        source,
    ) else {
        return;
    };
    if Command::new(&program).current_dir("/nonexistent").status().is_ok() {
        return;
    }
    let outcome = world.run(&world.overlay(), &mut Command::new(program)).ok();
    assert_eq!(names(outcome.whole()), ["made"]);
}

/// A program that changes the path of a call while it waits for an answer.
#[test]
fn who_races_the_supervisor_reaches_nothing_more() {
    let source = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static char path[8] = "dist";
static volatile int stop;
static void *flip(void *unused) {
    while (!stop) { memcpy(path, "keep", 5); memcpy(path, "dist", 5); }
    return unused;
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, flip, 0);
    for (int i = 0; i < 300; i++) {
        rmdir(path); mkdir(path, 0700); rename(path, "moved"); rename("moved", path); rename(path, "keep/x");
        rename("keep/x", "dist");
    }
    stop = 1;
    pthread_join(thread, 0);
    return 0;
}"#;
    for overlay in [true, false] {
        let world = World::with(|_| {});
        fs::create_dir(world.at("keep")).unwrap();
        fs::write(world.at("keep/file"), "kept").unwrap();
        let Some(program) = compile(&world, &["-O1", "-pthread"], source) else { return };
        let capture = if overlay { world.overlay() } else { world.directory() };
        world.run(&capture, &mut Command::new(program)).ok();
        // The program may move `keep` itself, with or without a capture.
        let kept = |at: &str| fs::read_to_string(world.at(at).join("file")).is_ok_and(|text| text == "kept");
        let places = ["keep", "moved", "place/stage"].map(str::to_owned).into_iter();
        let mut places = places.chain((1..4000).map(|number| format!("place/root-{number}")));
        assert!(places.any(|at| kept(&at)));
    }
}

/// A process that has given up rights has no directory moved for it.
#[test]
fn who_gave_up_rights_gets_no_help() {
    let source = r#"
#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    unsigned long long attr[2] = {1 << 4, 0}; /* LANDLOCK_ACCESS_FS_REMOVE_DIR */
    mkdir("t", 0755);
    long ruleset = syscall(444, attr, 8, 0);
    if (ruleset < 0) return 77;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(446, ruleset, 0)) return 77;
    if (rename("t", "dist") != -1 || errno != EXDEV) return 1;
    return 0;
}"#;
    let world = World::with(|_| {});
    let Some(program) = compile(&world, &["-O1"], source) else { return };
    let outcome = world.run(&world.overlay(), &mut Command::new(program));
    assert!(matches!(outcome.status.code(), Some(0 | 77)), "{:?}", outcome.status);
    assert!(world.at("t").exists());
}
