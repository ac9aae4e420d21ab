//! The model against the kernel: the same operations, the same answers, the same tree.

use std::collections::BTreeMap;

use proptest::test_runner::TestRunner;

use super::*;

/// Choices of one operation, taken modulo what there is to choose from.
pub(super) type Choices = (u8, u8, u8, u8, u8, u8);

const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
const FILE_MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o400];
const DIR_MODES: [u32; 5] = [0o755, 0o700, 0o755, 0o500, 0o300];

fn show<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.raw_os_error().map(Errno::from_raw)),
    }
}

fn shown_stat(stat: txfs::fs::Stat) -> String {
    // What a directory counts as size and links is the file system's own affair.
    let (links, size) = if stat.is_dir() { (0, 0) } else { (stat.nlink, stat.size) };
    format!("{:?} {:o} links {links} size {size}", stat.kind, stat.mode)
}

/// Performs one operation and says what came of it; opened directories join `dirs`.
pub(super) fn perform<F: Fs>(fs: &F, dirs: &mut Vec<F::Dir>, (kind, d1, n1, d2, n2, x): Choices) -> String {
    let name = |n: u8| NAMES[usize::from(n) % NAMES.len()];
    let (at, to) = (usize::from(d1) % dirs.len(), usize::from(d2) % dirs.len());
    let (n1, n2) = (name(n1), name(n2));
    let (dir, other) = (&dirs[at], &dirs[to]);
    let x = usize::from(x);
    match kind % 25 {
        0 => {
            let result =
                fs.create_file(dir, n1, FILE_MODES[x % 4]).and_then(|mut file| fs.write(&mut file, &vec![7; x]));
            format!("create {at} {n1:?}: {}", show(result))
        }
        1..=3 => format!("mkdir {at} {n1:?}: {}", show(fs.make_dir(dir, n1, DIR_MODES[x % 5]))),
        4 => format!("symlink {at} {n1:?}: {}", show(fs.make_symlink(dir, n1, n2))),
        5 => format!("link {at} {n1:?} {to} {n2:?}: {}", show(fs.link(dir, n1, other, n2))),
        6..=12 => {
            let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange][x % 3];
            format!("rename {at} {n1:?} {to} {n2:?} {mode:?}: {}", show(fs.rename(dir, n1, other, n2, mode)))
        }
        13 => format!("unlink {at} {n1:?}: {}", show(fs.remove_file(dir, n1))),
        14 => format!("rmdir {at} {n1:?}: {}", show(fs.remove_dir(dir, n1))),
        15 | 16 => {
            let mut path = RelPath::new(n1).unwrap();
            if x % 2 == 0 {
                path = path.join(n2).unwrap();
            }
            let opened = fs.open_dir(dir, &path);
            let result = show(
                opened.as_ref().map(drop).map_err(|error| io::Error::from_raw_os_error(error.raw_os_error().unwrap())),
            );
            dirs.extend(opened);
            format!("open {at} {path}: {result}")
        }
        17 => {
            let listed = fs.list(dir).map(|listed| {
                let mut listed: Vec<_> = listed.into_iter().map(|entry| (entry.name, entry.kind)).collect();
                listed.sort_by(|a, b| a.0.cmp(&b.0));
                listed
            });
            format!("list {at}: {}", show(listed))
        }
        18 => format!("stat {at} {n1:?}: {}", show(fs.stat(dir, n1).map(shown_stat))),
        19 => format!("readlink {at} {n1:?}: {}", show(fs.read_link(dir, n1))),
        20 => {
            let read = fs.open_file(dir, n1).and_then(|(mut file, opened)| {
                let mut buffer = [0; 300];
                let n = fs.read(&mut file, &mut buffer)?;
                let stats = [opened, fs.stat_file(&file)?].map(shown_stat);
                Ok((buffer[..n].to_vec(), stats, show(fs.write(&mut file, b"x"))))
            });
            format!("read {at} {n1:?}: {}", show(read))
        }
        21 => {
            let result = fs.open_write(dir, n1).and_then(|mut file| {
                fs.write(&mut file, &vec![9; x])?;
                fs.set_mtime(&file, Timestamp { seconds: 5, nanos: 7 })?;
                fs.set_mode(&file, FILE_MODES[x % 4])?;
                Ok((fs.stat_file(&file)?.mtime, show(fs.sync_file(&file))))
            });
            format!("write {at} {n1:?}: {}", show(result))
        }
        22 => format!("chmod {at}: {}", show(fs.set_dir_mode(dir, DIR_MODES[x % 3]))),
        23 => format!("sync {at}: {} {}", show(fs.sync_dir(dir)), shown_stat(fs.stat_dir(dir).unwrap())),
        _ => {
            let synced = fs.open_file(dir, n1).and_then(|(file, _)| fs.sync_file(&file));
            format!("fsync {at} {n1:?}: {}", show(synced))
        }
    }
}

fn dump<F: Fs>(fs: &F, dir: &F::Dir, at: &str, into: &mut Vec<String>) {
    let Ok(listed) = fs.list(dir) else { return into.push(format!("{at}: closed")) };
    let mut names: Vec<_> = listed.into_iter().map(|entry| entry.name).collect();
    names.sort();
    for name in names {
        let path = format!("{at}/{}", String::from_utf8_lossy(&name));
        into.push(format!("{path} {}", show(fs.stat(dir, &name).map(shown_stat))));
        if let Ok(dir) = fs.open_dir(dir, &RelPath::new(&name).unwrap()) {
            dump(fs, &dir, &path, into);
        }
    }
}

fn outcome<F: Fs>(fs: &F, root: &Path, choices: &[Choices]) -> Vec<String> {
    let mut dirs = vec![fs.open_anchor(root).unwrap()];
    let mut said: Vec<String> = choices.iter().map(|&choices| perform(fs, &mut dirs, choices)).collect();
    dump(fs, &dirs[0], "", &mut said);
    said
}

/// How many random cases a test tries.
pub(super) fn cases(default: u32) -> u32 {
    std::env::var("TXFS_SIM_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// As another user than root, this compares the permission checks too.
#[test]
fn answers_are_the_kernels() {
    let config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::with_cases(cases(200)) };
    let answers = Mutex::new(BTreeMap::<String, u64>::new());
    let strategy = proptest::collection::vec(any::<Choices>(), 1..120);
    let run = TestRunner::new(config).run(&strategy, |choices| {
        let real = tempfile::tempdir().unwrap();
        let linux = LinuxFs::new();
        let sim = SimFs::new(Config { uid: linux.user(), ..Config::default() });
        let kernel = outcome(&linux, real.path(), &choices);
        let model = outcome(&sim, Path::new("/"), &choices);
        for line in &kernel {
            let call = line.split(' ').next().unwrap_or_default();
            let answer = line.split_once("Some(E").map_or("ok", |(_, rest)| rest.split(')').next().unwrap_or_default());
            *answers.lock().unwrap().entry(format!("{call} {answer}")).or_default() += 1;
        }
        prop_assert_eq!(kernel, model);
        Ok(())
    });
    run.unwrap();
    answers.lock().unwrap().retain(|call, _| !call.starts_with('/'));
    println!("compared with the kernel: {:?}", answers.lock().unwrap());
}
