//! What programs write, remove and rename goes elsewhere, and looks to them as if it had not.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use txfs_capture::{Capture, Change, Error, Root, changes, flatten, remove};

use super::{World, copy, names};

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        eprintln!("{program} is not here");
    }
    found
}

#[test]
fn what_is_written_goes_elsewhere() {
    let world = World::new();
    let outcome = world.sh("cat dist/sub/b > before
         echo appended >> dist/a
         : > dist/sub/b
         echo new > dist/new
         mkdir dist/made; echo 1 > dist/made/1
         ln dist/new dist/made/hard
         ln -sf sub dist/link
         chmod 600 dist/sub/deep/c
         cat dist/a");
    assert_eq!(outcome.stdout, "old a\nappended\n");
    let upper = outcome.ok().upper().to_path_buf();
    assert_eq!(fs::read_to_string(world.at("before")).unwrap(), "old b\n");
    assert_eq!(flatten(&upper).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(
        names(&upper),
        ["a", "link", "made", "made/1", "made/hard", "new", "sub", "sub/b", "sub/deep", "sub/deep/c"]
    );
    assert_eq!(fs::read_to_string(upper.join("a")).unwrap(), "old a\nappended\n");
    assert_eq!(fs::metadata(upper.join("sub/deep/c")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(upper.join("new")).unwrap().nlink(), 2);
    assert_eq!(xattr::list(upper.join("a")).unwrap().count(), 0, "the overlay's attributes are gone");
    assert_eq!(xattr::list(upper.join("sub")).unwrap().count(), 0);
}

#[test]
fn what_is_removed_is_told() {
    let world = World::new();
    let outcome = world
        .sh("rm dist/a; rm -r dist/sub; mkdir dist/sub; echo 1 > dist/sub/n; rm dist/link; echo 2 > dist/link")
        .ok();
    let mut told: Vec<_> = changes(outcome.upper()).unwrap().map(Result::unwrap).collect();
    told.sort_by_key(|change| format!("{change:?}"));
    let path = PathBuf::from;
    assert_eq!(
        told,
        [
            Change::Removed(path("a")),
            Change::Replaced(path("sub")),
            Change::Written(path("link")),
            Change::Written(path("sub/n")),
        ]
    );
    assert_eq!(flatten(outcome.upper()).unwrap(), [path("a"), path("sub")]);
    assert_eq!(names(outcome.upper()), ["link", "sub", "sub/n"]);
    assert_eq!(flatten(outcome.upper()).unwrap(), Vec::<PathBuf>::new(), "it is an ordinary directory now");
}

/// What a program sees of an output that it has removed.
const LOOKS: &str = r#"
import os, sys, errno
def gone(what, act, *also):
    try: act()
    except OSError as error:
        assert error.errno in (errno.ENOENT,) + also, (what, error)
    else: raise AssertionError(what)
gone("stat", lambda: os.stat("dist"))
gone("lstat", lambda: os.lstat("./dist/"))
gone("open path", lambda: os.open("dist", os.O_PATH))
gone("list", lambda: os.listdir("dist"))
gone("chdir", lambda: os.chdir("dist"))
gone("rmdir", lambda: os.rmdir("dist"))
gone("create", lambda: open("dist/x", "w"), errno.EROFS)
gone("look below", lambda: os.stat("dist/a"))
gone("make below", lambda: os.mkdir("dist/x"), errno.EROFS)
gone("rename", lambda: os.rename("dist", "other"))
assert not os.access("dist", os.F_OK) and not os.access(os.path.abspath("dist"), os.F_OK)
assert not os.path.exists("dist") and not os.path.isdir("dist")
"#;

#[test]
fn a_removed_output_is_not_there() {
    if !has("python3") {
        return;
    }
    for ghost in [true, false] {
        let world = World::new();
        let script =
            format!("import shutil; shutil.rmtree('dist')\n{LOOKS}\nos.mkdir('dist', 0o750); open('dist/n', 'w')");
        let capture = if ghost { world.overlay() } else { world.overlay().without_ghost() };
        let outcome = world.run(&capture, Command::new("python3").args(["-c", &script])).ok();
        assert_eq!(names(outcome.whole()), ["n"]);
        assert_eq!(fs::metadata(outcome.whole()).unwrap().mode() & 0o777, 0o750);
    }
}

#[test]
fn programs_remove_the_output_and_make_it_anew() {
    let scripts = [
        ("sh", "-ec", "rm -rf dist && mkdir dist && echo 1 > dist/n"),
        ("sh", "-ec", "rm -rf dist; mkdir -p dist/ ; echo 1 > dist/n"),
        ("sh", "-ec", "rm -rf ./dist/; test ! -e dist; [ -d dist ] || mkdir dist; echo 1 > dist/n"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; cp -r t dist"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; mv t dist; test ! -e t"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; mv -T t dist; test ! -e t"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; cp -a t/. dist/"),
        ("sh", "-ec", "mv dist old; test ! -e dist; test -e old/sub/deep/c; mkdir dist; echo 1 > dist/n; rm -rf old"),
        ("sh", "-ec", "w=$PWD; cd dist/sub; rm -rf \"$w/dist\"; mkdir \"$w/dist\"; echo 1 > \"$w/dist/n\""),
        (
            "sh",
            "-ec",
            "for i in 1 2 3; do rm -rf dist; mkdir dist; mkdir t; mv dist d2; mv d2 dist; echo 1 > dist/n; rmdir t; done",
        ),
        (
            "sh",
            "-ec",
            "for i in 1 2 3; do rm -rf dist; mkdir t; echo 1 > t/n; mv t dist; mv dist old; mv old dist; done; test ! -e old",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nshutil.rmtree('dist'); os.makedirs('dist'); open('dist/n','w').write('1')",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nos.mkdir('t'); open('t/n','w').write('1'); shutil.rmtree('dist'); os.rename('t','dist')",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nos.mkdir('t'); open('t/n','w').write('1'); shutil.rmtree('dist'); shutil.copytree('t','dist')",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nos.mkdir('t'); open('t/n','w').write('1'); shutil.rmtree('dist'); shutil.move('t','dist')",
        ),
        (
            "node",
            "-e",
            "const fs=require('fs'); fs.rmSync('dist',{recursive:true}); if(!fs.existsSync('dist')) fs.mkdirSync('dist'); fs.writeFileSync('dist/n','1')",
        ),
        (
            "node",
            "-e",
            "const fs=require('fs'); fs.rmSync('dist',{recursive:true}); fs.mkdirSync('t'); fs.writeFileSync('t/n','1'); fs.renameSync('t','dist')",
        ),
        (
            "node",
            "-e",
            "const fs=require('fs'); fs.rmSync('dist',{recursive:true}); fs.mkdirSync('t'); fs.writeFileSync('t/n','1'); fs.cpSync('t','dist',{recursive:true})",
        ),
    ];
    for (program, flag, script) in scripts.into_iter().filter(|(program, ..)| has(program)) {
        for (ghost, overlay) in [(true, true), (false, true), (true, false)] {
            let world = World::new();
            let capture = if overlay { world.overlay() } else { world.directory() };
            if !overlay {
                copy(&world.at("dist"), &world.at("place/stage"));
            }
            let capture = if ghost { capture } else { capture.without_ghost() };
            let outcome = world.run(&capture, Command::new(program).args([flag, script]));
            assert!(outcome.status.success(), "{script} (overlay {overlay}, ghost {ghost}): {:?}", outcome.captured);
            assert_eq!(names(outcome.whole()), ["n"], "{script} (overlay {overlay}, ghost {ghost})");
        }
    }
}

#[test]
fn an_output_that_is_removed_or_moved_away_for_good_is_nothing() {
    for script in ["rm -rf dist", "mv dist elsewhere", "rm -rf dist; mkdir dist; rmdir dist"] {
        let world = World::new();
        assert_eq!(world.sh(script).ok().captured.root, Root::Nothing, "{script}");
    }
}

#[test]
fn what_the_kernel_would_refuse_is_refused() {
    if !has("python3") {
        return;
    }
    let script = r#"
import os, errno
def fails(errno_, act):
    try: act()
    except OSError as error: assert error.errno == errno_, (errno_, error)
    else: raise AssertionError(errno_)
fails(errno.ENOTEMPTY, lambda: os.rmdir("dist"))
fails(errno.EEXIST, lambda: os.mkdir("dist"))
os.mkdir("t"); open("f", "w").close()
fails(errno.ENOTEMPTY, lambda: os.rename("t", "dist"))
fails(errno.EISDIR, lambda: os.rename("f", "dist"))
fails(errno.EXDEV, lambda: os.rename("dist", "away"))
fails(errno.ENOTEMPTY, lambda: os.rename("dist/sub", "dist"))
# Names that only look like it.
os.mkdir("dist/dist"); os.rename("dist/dist", "dist/dist2"); os.rmdir("dist/dist2")
os.mkdir("t/dist"); os.rename("t/dist", "t/x"); os.mkdir("t/dist"); os.rmdir("t/dist")
"#;
    let world = World::new();
    world.run(&world.overlay(), Command::new("python3").args(["-c", script])).ok();
}

#[test]
fn directories_that_were_there_before_are_renamed_by_copying_or_in_a_captured_directory() {
    if !has("python3") {
        return;
    }
    let rename = "import os; os.rename('dist/sub', 'dist/moved')";
    let world = World::new();
    let outcome = world.sh("mv dist/sub dist/moved").ok();
    assert_eq!(flatten(outcome.upper()).unwrap(), [PathBuf::from("sub")]);
    assert_eq!(names(outcome.upper()), ["moved", "moved/b", "moved/deep", "moved/deep/c"]);
    let world = World::new();
    assert!(!world.run(&world.overlay(), Command::new("python3").args(["-c", rename])).status.success(), "EXDEV");
    let world = World::new();
    copy(&world.at("dist"), &world.at("place/stage"));
    let outcome = world.run(&world.directory(), Command::new("python3").args(["-c", rename])).ok();
    assert_eq!(names(outcome.whole()), ["a", "link", "moved", "moved/b", "moved/deep", "moved/deep/c"]);
}

#[test]
fn an_output_that_is_not_there_is_not_there_until_it_is_made() {
    for script in [
        "test ! -e dist; mkdir dist; echo 1 > dist/n",
        "mkdir t; echo 1 > t/n; cp -r t dist",
        "mkdir t; echo 1 > t/n; mv t dist",
        "mkdir -p dist/x; rmdir dist/x; echo 1 > dist/n",
        "rm -rf dist; mkdir dist; rm -rf dist dist; rm -f dist; mkdir dist; echo 1 > dist/n",
    ] {
        let world = World::with(|_| {});
        fs::remove_dir(world.at("dist")).unwrap();
        let outcome = world.run(&world.directory(), Command::new("sh").args(["-ec", script])).ok();
        assert_eq!(names(outcome.whole()), ["n"], "{script}");
        assert!(!world.at("dist").exists());
        fs::create_dir(world.at("dist")).unwrap();
    }
    let world = World::with(|_| {});
    fs::remove_dir(world.at("dist")).unwrap();
    let outcome = world.run(&world.directory(), &mut Command::new("true")).ok();
    assert_eq!(outcome.captured.root, Root::Nothing);
    assert!(!world.at("dist").exists());
    let missing = world.directory().spawn(&mut Command::new("/nonexistent/program"));
    assert!(matches!(missing, Err(Error::Command(_))));
    assert!(!world.at("dist").exists());
    fs::create_dir(world.at("dist")).unwrap();
}

/// But to who changes its mode or time, links to it, or opens it as a file: nobody does who did not look before.
#[test]
fn what_is_not_there_is_told_as_what_was_never_there() {
    if !has("python3") {
        return;
    }
    let script = r#"
import errno, os
def calls(name):
    yield 'stat', lambda: os.stat(name)
    yield 'lstat', lambda: os.lstat(name)
    yield 'access', lambda: os.access(name, os.R_OK) or os.stat(name)
    yield 'unlink', lambda: os.unlink(name)
    yield 'unlinkat', lambda: os.unlink(name, dir_fd=-100)
    yield 'rmdir', lambda: os.rmdir(name)
    yield 'rename', lambda: os.rename(name, 'other')
    yield 'chdir', lambda: os.chdir(name)
    yield 'list', lambda: os.listdir(name)
    yield 'open as a directory', lambda: os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    yield 'open as a path', lambda: os.open(name, os.O_PATH)
    yield 'open below', lambda: os.open(name + '/n', os.O_WRONLY | os.O_CREAT)
    yield 'stat below', lambda: os.stat(name + '/n')
    yield 'mkdir below', lambda: os.mkdir(name + '/n')
    yield 'unlink below', lambda: os.unlink(name + '/n')
def told(call):
    try: call()
    except OSError as error: return errno.errorcode[error.errno]
    return 'done'
for (what, there), (_, never) in zip(calls('dist'), calls('none')):
    there, never = told(there), told(never)
    if there != never: print(what, there, never)
"#;
    for began in ["there", "absent"] {
        let world = World::with(|_| {});
        if began == "absent" {
            fs::remove_dir(world.at("dist")).unwrap();
        }
        let removed = format!("import os, shutil\nif os.path.exists('dist'): shutil.rmtree('dist')\n{script}");
        let outcome = world.run(&world.directory(), Command::new("python3").args(["-c", &removed])).ok();
        assert_eq!(outcome.stdout, "", "an output that was {began}");
        let _ = fs::create_dir(world.at("dist"));
    }
}

#[test]
fn rsync_and_cp_do_what_they_do() {
    let world = World::new();
    fs::create_dir_all(world.at("new/sub")).unwrap();
    fs::write(world.at("new/sub/b"), "new b").unwrap();
    if has("rsync") {
        let outcome = world.sh("rsync -a --delete new/ dist/; find dist -type f").ok();
        assert_eq!(outcome.stdout, "dist/sub/b\n");
    }
    let world = World::new();
    let outcome = world.sh("cp -a dist/. copy; cp -a copy dist/again; find dist -type f | sort").ok();
    assert_eq!(
        outcome.stdout,
        "dist/a\ndist/again/a\ndist/again/sub/b\ndist/again/sub/deep/c\ndist/sub/b\ndist/sub/deep/c\n"
    );
}

#[test]
fn files_of_all_kinds_go_through() {
    if !has("python3") {
        return;
    }
    let world = World::with(|dist| {
        fs::write(dist.join("mapped"), vec![b'x'; 10_000]).unwrap();
        fs::write(dist.join("h1"), "linked").unwrap();
        fs::hard_link(dist.join("h1"), dist.join("h2")).unwrap();
        fs::create_dir(dist.join("group")).unwrap();
        fs::set_permissions(dist.join("group"), fs::Permissions::from_mode(0o2775)).unwrap();
        let sparse = File::create(dist.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    });
    let script = r#"
import os, mmap
with open("dist/mapped", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0); m[5000:5003] = b"new"; m.flush(); m.close()
open("dist/h1", "a").write("+")
os.makedirs("dist/group/made"); open("dist/group/made/f", "w").close()
assert os.stat("dist/group/made").st_mode & 0o2000
with open("dist/sparse", "r+b") as f: f.seek(1 << 20); f.write(b"mid")
with open("dist/hole", "wb") as f: f.seek(1 << 30); f.write(b"x")
deep = os.open("dist", os.O_PATH)
for i in range(40):
    os.mkdir("d" * 200, dir_fd=deep); deep = os.open("d" * 200, os.O_PATH, dir_fd=deep)
os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
for name in (b"a\nb", b"\xff\xfe", b"a b", b"-rf", b"'\"", b"x" * 255, b"comma,colon:"):
    open(b"dist/" + name, "w").close()
"#;
    let outcome = world.run(&world.overlay(), Command::new("python3").args(["-c", script])).ok();
    let upper = outcome.upper();
    assert_eq!(flatten(upper).unwrap(), Vec::<PathBuf>::new());
    let mapped = fs::read(upper.join("mapped")).unwrap();
    assert_eq!(&mapped[4999..5004], b"xnewx");
    assert_eq!(fs::read_to_string(upper.join("h1")).unwrap(), "linked+");
    assert!(!upper.join("h2").exists());
    assert_ne!(fs::metadata(upper.join("group/made")).unwrap().mode() & 0o2000, 0);
    assert_eq!(
        fs::metadata(upper.join("group/made/f")).unwrap().gid(),
        fs::metadata(world.at("dist/group")).unwrap().gid()
    );
    let hole = fs::metadata(upper.join("hole")).unwrap();
    assert!(hole.blocks() < 1000 && hole.len() > 1 << 30);
    assert!(changes(upper).unwrap().all(|change| change.is_ok()));
    assert!(upper.join("comma,colon:").exists());
    // Deeper than a path may be long.
    assert!(Command::new("rm").arg("-rf").arg(upper).status().unwrap().success());
    fs::create_dir(upper).unwrap();
}

#[test]
fn odd_names_of_the_output_itself_are_no_matter() {
    for name in ["a,b:c\\d", "a b\nc", "-rf", "\u{202e}x", &"n".repeat(255)] {
        let world = World::with(|_| {});
        let out = world.at(name);
        fs::create_dir(&out).unwrap();
        fs::write(out.join("f"), "old").unwrap();
        for script in ["echo new > \"$1/n\"; cat \"$1/f\"", "rm -rf -- \"$1\"; mkdir -- \"$1\"; echo new > \"$1/n\""] {
            let capture = Capture::overlay(&out, &world.at("place"), "stage").unwrap();
            let outcome = world.run(&capture, Command::new("sh").args(["-ec", script, "sh"]).arg(&out)).ok();
            assert_eq!(names(&out), ["f"]);
            match &outcome.captured.root {
                Root::Upper(root) | Root::Whole(root) => assert!(root.join("n").exists()),
                other => panic!("{other:?}"),
            }
            remove(&world.at("place"), None).unwrap();
        }
    }
}
