//! What every file system has to do the same way: one list of behaviours, run wherever it is told to.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use txfs::fs::Fs;
use txfs::{BeginOptions, Error, OpenOptions, Place, Problem, RecoverOptions, RelPath, Store};

use crate::{bytes, lenient, publish, read};

/// Where the suite runs, and how.
#[derive(Clone)]
pub struct Ground<F: Fs> {
    pub dir: PathBuf,
    pub options: OpenOptions<F>,
    /// Whether directories can change places with other kinds.
    pub exchange: bool,
    /// Whether the file system keeps holes, so that a huge file costs nothing.
    pub sparse: bool,
    /// How deep the deepest tree is: descent by path costs the square of it.
    pub levels: usize,
}

impl<F: Fs> Ground<F> {
    fn at(&self, name: &str) -> Self {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).unwrap();
        Self { dir, ..self.clone() }
    }

    fn out(&self) -> PathBuf {
        self.dir.join("dist")
    }

    fn store(&self) -> Store<F> {
        Store::open_with(&self.options, self.out()).unwrap()
    }
}

type Behaviour<F> = (&'static str, fn(&Ground<F>));

/// Runs everything that the ground can show, and returns how many behaviours that were.
pub fn run<F: Fs>(ground: &Ground<F>) -> usize {
    let behaviours: &[Behaviour<F>] = &[
        ("additions-replacements-removals", additions_replacements_removals),
        ("kinds", kinds),
        ("modes", modes),
        ("unchanged-is-untouched", unchanged_is_untouched),
        ("whole-directories-move", whole_directories_move),
        ("names-of-any-bytes", names_of_any_bytes),
        ("deeper-than-path-max", deeper_than_path_max),
        ("many-levels", many_levels),
        ("sparse-over-4-gib", sparse_over_4_gib),
        ("holes-are-copied-as-holes", holes_are_copied_as_holes),
        ("attributes-travel", attributes_travel),
        ("symlinks", symlinks),
        ("empty-directories", empty_directories),
        ("read-only-directories", read_only_directories),
        ("hard-linked-staged-file", hard_linked_staged_file),
        ("symlinked-output", symlinked_output),
        ("times-are-kept", times_are_kept),
        ("many-files", many_files),
        ("emptied-and-filled-again", emptied_and_filled_again),
    ];
    let can_show = |name: &str| match name {
        "sparse-over-4-gib" => ground.sparse,
        // tmpfs has them since Linux 6.6.
        "attributes-travel" => xattr::set(&ground.dir, "user.probe", b"1").is_ok(),
        _ => true,
    };
    let (shown, not_shown): (Vec<_>, Vec<_>) = behaviours.iter().partition(|(name, _)| can_show(name));
    not_shown.iter().for_each(|(name, _)| println!("  {name}: not in {}", ground.dir.display()));
    for (name, behaviour) in &shown {
        let started = std::time::Instant::now();
        behaviour(&ground.at(name));
        let took = started.elapsed();
        if took > Duration::from_secs(1) {
            println!("  {name}: {:.1} s", took.as_secs_f32());
        }
    }
    shown.len()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn additions_replacements_removals<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    let committed =
        publish(&store, &[("keep", "k"), ("change", "old"), ("gone", "g"), ("gone-dir/x", "x"), ("dir/y", "y")]);
    assert_eq!(committed.unwrap().generation, 1);
    let committed = publish(&store, &[("keep", "k"), ("change", "new"), ("dir/z", "z"), ("new/deep/n", "n")]).unwrap();
    assert_eq!(committed.generation, 2);
    assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
    assert_eq!(read(&out, "change"), "new");
    assert_eq!(read(&out, "new/deep/n"), "n");
    assert!(!out.join("gone").exists() && !out.join("gone-dir").exists() && !out.join("dir/y").exists());
    assert!(store.verify().unwrap().is_empty());
    assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing());
}

fn kinds<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    publish(&store, &[("file-to-link", "l"), ("keep", "k")]).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.symlink("file-to-link", "keep").unwrap();
    transaction.write("keep", "k").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!(fs::read_link(out.join("file-to-link")).unwrap(), Path::new("keep"));
    let before = [("file-to-dir", "f"), ("dir-to-file/x/y", "y"), ("dir-to-link/z", "z"), ("link-to-dir", "l")];
    publish(&store, &before).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("file-to-dir/inner", "i").unwrap();
    transaction.write("dir-to-file", "now a file").unwrap();
    transaction.symlink("dir-to-link", "nowhere").unwrap();
    transaction.write("link-to-dir/a/b", "b").unwrap();
    let result = transaction.commit(&lenient());
    if !ground.exchange {
        let error = result.unwrap_err();
        let Error::Refused { problems, .. } = &error else { panic!("{error}") };
        assert!(matches!(&problems[..], [Problem::NeedsExchange(paths)] if paths.total == 4), "{error}");
        assert_eq!(read(&out, "dir-to-file/x/y"), "y");
        return;
    }
    result.unwrap();
    assert_eq!(read(&out, "file-to-dir/inner"), "i");
    assert_eq!(read(&out, "dir-to-file"), "now a file");
    assert_eq!(read(&out, "link-to-dir/a/b"), "b");
    assert_eq!(fs::read_link(out.join("dir-to-link")).unwrap(), Path::new("nowhere"));
    publish(&store, &before).unwrap();
    assert_eq!(read(&out, "dir-to-file/x/y"), "y");
    assert_eq!(read(&out, "file-to-dir"), "f");
}

fn modes<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    let files = [("600", 0o600), ("755", 0o755), ("444", 0o444), ("4755", 0o4755)];
    for round in [0, 0o011] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for (name, bits) in files {
            transaction.write(name, "x").unwrap();
            set_mode(&transaction.stage().join(name), bits | round);
        }
        for (name, bits) in [("d700", 0o700), ("d775", 0o775), ("d1777", 0o1777)] {
            transaction.write(format!("{name}/f"), "x").unwrap();
            set_mode(&transaction.stage().join(name), bits | round);
        }
        transaction.commit(&lenient()).unwrap();
        for (name, bits) in files.into_iter().chain([("d700", 0o700), ("d775", 0o775), ("d1777", 0o1777)]) {
            assert_eq!(mode(&out.join(name)), bits | round, "{name}");
        }
    }
}

fn unchanged_is_untouched<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    let marks = || {
        ["", "a", "d", "d/b"].map(|path| {
            let m = fs::symlink_metadata(out.join(path)).unwrap();
            (m.ino(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())
        })
    };
    publish(&store, &[("a", "a"), ("d/b", "b")]).unwrap();
    let before = marks();
    let committed = publish(&store, &[("a", "a"), ("d/b", "b")]).unwrap();
    assert_eq!((committed.generation, committed.changed), (1, false));
    assert_eq!(marks(), before, "a commit without changes writes nothing");
    publish(&store, &[("a", "a"), ("d/b", "b"), ("e/c", "c")]).unwrap();
    assert_eq!(marks()[1..], before[1..], "only the root has a new entry");
}

fn whole_directories_move<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    publish(&store, &[("stay", "s"), ("old/1", "1"), ("old/sub/2", "2"), ("old/sub/deep/3", "3")]).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for path in ["stay", "new/1", "new/sub/2", "new/sub/deep/3"] {
        transaction.write(path, "s").unwrap();
    }
    let staged = fs::metadata(transaction.stage().join("new/sub")).unwrap().ino();
    let committed = transaction.commit(&lenient()).unwrap();
    assert_eq!(committed.plan.operations(), 2, "{:?}", committed.plan.changes);
    assert_eq!(fs::metadata(out.join("new/sub")).unwrap().ino(), staged);
    assert!(!out.join("old").exists());
}

fn names_of_any_bytes<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    let long = [b'x'; 255];
    let names: [&[u8]; 9] =
        [b"new\nline", b"\xff\xfe not utf-8", &long, b"-rf", b" ", b"a\\b", b"*", b"\x01\x7f", "Größe".as_bytes()];
    for content in ["one", "two"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for name in names {
            transaction.write(bytes(name), content).unwrap();
            transaction.write(bytes(&[b"dir-", &name[..name.len().min(200)], b"/", name].concat()), content).unwrap();
        }
        transaction.commit(&lenient()).unwrap();
        for name in names {
            assert_eq!(fs::read_to_string(out.join(bytes(name))).unwrap(), content);
        }
    }
    publish(&store, &[("plain", "p")]).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    publish(&store, &[("plain", "q")]).unwrap();
}

fn deeper_than_path_max<F: Fs>(ground: &Ground<F>) {
    deep(ground, &[b'd'; 200], 40);
}

fn many_levels<F: Fs>(ground: &Ground<F>) {
    deep(ground, b"d", ground.levels);
}

/// Publishes, changes and removes a file below `levels` directories, and lets it leave the state directory too.
fn deep<F: Fs>(ground: &Ground<F>, name: &[u8], levels: usize) {
    let store = ground.store();
    let mut directory = RelPath::root();
    for _ in 0..levels {
        directory = directory.join(name).unwrap();
    }
    let file = directory.join(b"file").unwrap();
    for content in ["one", "two!"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write(file.as_path(), content).unwrap();
        transaction.commit(&lenient()).unwrap();
        assert_eq!(read_deep(&ground.out(), &file), content.as_bytes());
    }
    for content in ["a", "b"] {
        let committed = publish(&store, &[("flat", content)]).unwrap();
        assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
    }
    assert_eq!(fs::read_dir(ground.out()).unwrap().count(), 1);
    assert!(store.sweep().unwrap().rescued.is_empty());
    crate::assert_only_the_last_is_kept(&ground.out());
}

fn read_deep(out: &Path, path: &RelPath) -> Vec<u8> {
    let kernel = txfs::fs::LinuxFs::new();
    let root = kernel.open_anchor(out).unwrap();
    let directory = kernel.open_dir(&root, &path.parent()).unwrap();
    let (mut file, _) = kernel.open_file(&directory, path.name()).unwrap();
    let mut buffer = [0; 100];
    let got = kernel.read(&mut file, &mut buffer).unwrap();
    buffer[..got].to_vec()
}

fn sparse_over_4_gib<F: Fs>(ground: &Ground<F>) {
    const SIZE: u64 = (4 << 30) + 4097;
    let (store, out) = (ground.store(), ground.out());
    let transaction = &mut store.begin(BeginOptions::default()).unwrap();
    let mut file = fs::File::create(transaction.stage().join("huge")).unwrap();
    file.set_len(SIZE - 4).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"tail").unwrap();
    drop(file);
    let committed = transaction.commit(&lenient()).unwrap();
    assert_eq!(committed.totals.bytes, SIZE);
    let metadata = fs::metadata(out.join("huge")).unwrap();
    assert_eq!(metadata.len(), SIZE);
    assert!(metadata.blocks() * 512 < 1 << 30, "its holes were filled");
}

fn holes_are_copied_as_holes<F: Fs>(ground: &Ground<F>) {
    const MIB: u64 = 1 << 20;
    let source = ground.dir.join("source");
    fs::create_dir(&source).unwrap();
    for (name, parts) in [("none", &[][..]), ("first", &[0, 7]), ("last", &[1, 8]), ("inner", &[3, 5])] {
        let file = fs::File::create(source.join(name)).unwrap();
        file.set_len(9 * MIB).unwrap();
        parts.iter().for_each(|at| file.write_all_at(name.as_bytes(), at * MIB + 1000).unwrap());
    }
    let (store, out) = (ground.store(), ground.out());
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_from(&source).unwrap();
    transaction.commit(&lenient()).unwrap();
    for name in ["none", "first", "last", "inner"] {
        assert!(fs::read(source.join(name)).unwrap() == fs::read(out.join(name)).unwrap(), "{name}");
        let allocated = fs::metadata(out.join(name)).unwrap().blocks() * 512;
        assert!(allocated < 2 * MIB, "{name}: {allocated}");
    }
    fs::remove_dir_all(source).unwrap();
}

fn attributes_travel<F: Fs>(ground: &Ground<F>) {
    let acl = crate::acl(1234);
    let (store, out) = (ground.store(), ground.out());
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for path in ["plain", "linked", "dir/inner"] {
        transaction.write(path, "x").unwrap();
        xattr::set(transaction.stage().join(path), "user.origin", path.as_bytes()).unwrap();
    }
    xattr::set(transaction.stage().join("dir"), "user.origin", b"dir").unwrap();
    fs::hard_link(transaction.stage().join("linked"), ground.dir.join("other-name")).unwrap();
    let has_acl = xattr::set(transaction.stage().join("plain"), "system.posix_acl_access", &acl).is_ok();
    transaction.commit(&lenient()).unwrap();
    for path in ["plain", "linked", "dir/inner", "dir"] {
        let value = xattr::get(out.join(path), "user.origin").unwrap();
        assert_eq!(value.as_deref(), Some(path.as_bytes()), "{path}");
    }
    if has_acl {
        assert_eq!(xattr::get(out.join("plain"), "system.posix_acl_access").unwrap(), Some(acl));
    }
}

fn symlinks<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    fs::write(ground.dir.join("victim"), "untouched").unwrap();
    let targets: [&[u8]; 4] = [b"nowhere", b"/etc/passwd", b"../victim", b"\xff\n"];
    for shift in 0..2 {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("real/file", "f").unwrap();
        for i in 0..targets.len() {
            transaction.symlink(format!("link{i}"), bytes(targets[(i + shift) % targets.len()])).unwrap();
        }
        transaction.symlink("to-dir", "real").unwrap();
        transaction.commit(&lenient()).unwrap();
        for i in 0..targets.len() {
            let target = fs::read_link(out.join(format!("link{i}"))).unwrap();
            assert_eq!(target, bytes(targets[(i + shift) % targets.len()]));
        }
        assert_eq!(read(&out, "to-dir/file"), "f");
    }
    publish(&store, &[("real/file", "f")]).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(read(&ground.dir, "victim"), "untouched");
}

fn empty_directories<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.make_dir("empty").unwrap();
    transaction.make_dir("a/b/c").unwrap();
    transaction.write("f", "f").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert!(out.join("empty").is_dir() && out.join("a/b/c").is_dir());
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.make_dir("a/b").unwrap();
    transaction.write("f", "f").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert!(!out.join("empty").exists() && out.join("a/b").is_dir() && !out.join("a/b/c").exists());
}

fn read_only_directories<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    for content in ["one", "two"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("ro/file", content).unwrap();
        transaction.write("ro/sub/file", content).unwrap();
        transaction.write(format!("ro/{content}/file"), content).unwrap();
        let modes = [("ro/file", 0o444), ("ro/sub/file", 0o400), ("ro/sub", 0o500), ("ro", 0o555)];
        set_mode(&transaction.stage().join("ro").join(content), 0o555);
        modes.into_iter().for_each(|(path, bits)| set_mode(&transaction.stage().join(path), bits));
        transaction.commit(&lenient()).unwrap();
        assert_eq!(read(&out, "ro/sub/file"), content);
        modes.into_iter().for_each(|(path, bits)| assert_eq!(mode(&out.join(path)), bits, "{path}"));
        assert_eq!(mode(&out.join("ro").join(content)), 0o555);
    }
    publish(&store, &[("a", "a")]).unwrap();
    assert!(!out.join("ro").exists());
    let committed = publish(&store, &[("a", "b")]).unwrap();
    assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
}

fn hard_linked_staged_file<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    let outside = ground.dir.join("outside");
    fs::write(&outside, "shared").unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fs::hard_link(&outside, transaction.stage().join("f")).unwrap();
    fs::hard_link(&outside, transaction.stage().join("g")).unwrap();
    transaction.commit(&lenient()).unwrap();
    fs::write(&outside, "changed").unwrap();
    assert_eq!((read(&out, "f"), read(&out, "g")), ("shared".into(), "shared".into()));
    assert_eq!(fs::metadata(out.join("f")).unwrap().nlink(), 1);
}

fn symlinked_output<F: Fs>(ground: &Ground<F>) {
    fs::create_dir(ground.dir.join("releases")).unwrap();
    symlink("releases/1", ground.out()).unwrap();
    for content in ["one", "two"] {
        let store = ground.store();
        assert_eq!(store.place(), Place::Beside);
        publish(&store, &[("x", content)]).unwrap();
        assert!(fs::symlink_metadata(ground.out()).unwrap().is_symlink());
        assert_eq!(read(&ground.dir, "releases/1/x"), content);
        assert!(ground.dir.join("releases/.1.txfs").is_dir());
    }
}

fn times_are_kept<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    let then = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 0);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("d/f", "x").unwrap();
    fs::File::options().write(true).open(transaction.stage().join("d/f")).unwrap().set_modified(then).unwrap();
    fs::hard_link(transaction.stage().join("d/f"), transaction.stage().join("d/g")).unwrap();
    transaction.commit(&lenient()).unwrap();
    for path in ["d/f", "d/g"] {
        assert_eq!(fs::metadata(out.join(path)).unwrap().modified().unwrap(), then, "{path}");
    }
}

fn many_files<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    for round in 0..3 {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for i in 0..300 {
            let path = transaction.stage().join(format!("d{}", i % 7));
            fs::create_dir_all(&path).unwrap();
            // Half of the files change in each round, and some of them move.
            fs::write(path.join(format!("f{}", i + round * (i % 5))), format!("{i} {}", i * round % 2)).unwrap();
        }
        transaction.commit(&lenient()).unwrap();
        for i in 0..300 {
            let path = format!("d{}/f{}", i % 7, i + round * (i % 5));
            if round == 0 {
                assert_eq!(read(&out, &path), format!("{i} 0"));
            }
        }
        assert!(store.verify().unwrap().is_empty());
    }
}

fn emptied_and_filled_again<F: Fs>(ground: &Ground<F>) {
    let (store, out) = (ground.store(), ground.out());
    for _ in 0..2 {
        publish(&store, &[("a/b", "x"), ("c", "y")]).unwrap();
        publish(&store, &[]).unwrap();
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    }
    fs::remove_dir_all(&out).unwrap();
    publish(&store, &[("a/b", "x")]).unwrap();
    assert_eq!(read(&out, "a/b"), "x");
}
