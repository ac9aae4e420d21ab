//! Watchers that believe what the kernel tells them, and look at nothing else.

#![allow(unreachable_pub, reason = "a module of one test program")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags as FanotifyFlags, MarkFlags, MaskFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// What a watcher was told of a tree.
#[derive(Default)]
pub struct Told {
    /// Whether each path is there, by what was told last.
    last: BTreeMap<PathBuf, bool>,
    /// Everything that was told since the last look, for whoever wonders.
    log: Vec<String>,
}

impl Told {
    /// Of a tree that is there when the watcher begins.
    pub fn of(root: &Path) -> Self {
        let there = everything(root, Path::new("")).into_iter().map(|path| (path, true));
        Self { last: there.collect(), log: Vec::new() }
    }

    pub fn note(&mut self, path: PathBuf, there: bool) {
        self.log.push(format!("{} {}", if there { "there" } else { "gone" }, path.display()));
        if !there {
            self.last.iter_mut().filter(|(told, _)| told.starts_with(&path)).for_each(|(_, there)| *there = false);
        }
        self.last.insert(path, there);
    }

    /// That what was told last is what is.
    pub fn assert_right(&mut self, root: &Path, when: &str) {
        let mut wrong = Vec::new();
        for (path, there) in &self.last {
            if root.join(path).symlink_metadata().is_ok() != *there {
                wrong.push(format!("{}: told {}", path.display(), if *there { "there" } else { "gone" }));
            }
        }
        for path in everything(root, Path::new("")) {
            if !self.last.contains_key(&path) {
                wrong.push(format!("{}: told nothing", path.display()));
            }
        }
        assert!(wrong.is_empty(), "{when}: {wrong:#?}\n{:#?}", self.log);
        self.log.clear();
    }
}

/// One that watches a tree by inotify. As many do it keeps watching a directory that left the tree, under the name that it had.
pub struct Watcher {
    root: PathBuf,
    inotify: Inotify,
    watched: HashMap<WatchDescriptor, PathBuf>,
    told: Told,
}

impl Watcher {
    pub fn of(root: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        let mut watcher = Self { root: root.into(), inotify, watched: HashMap::new(), told: Told::default() };
        watcher.watch(PathBuf::new());
        watcher
    }

    /// Watches a directory that is there, and finds what is in it.
    fn watch(&mut self, path: PathBuf) {
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CLOSE_WRITE;
        let Ok(watch) = self.inotify.add_watch(&self.root.join(&path), events | AddWatchFlags::IN_ONLYDIR) else {
            return;
        };
        self.watched.insert(watch, path.clone());
        for entry in fs::read_dir(self.root.join(&path)).into_iter().flatten() {
            let entry = entry.unwrap();
            self.told.note(path.join(entry.file_name()), true);
            if entry.file_type().unwrap().is_dir() {
                self.watch(path.join(entry.file_name()));
            }
        }
    }

    fn read(&mut self) {
        loop {
            match self.inotify.read_events() {
                Ok(events) => events.into_iter().for_each(|event| self.take(event)),
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn take(&mut self, InotifyEvent { wd, mask, name, .. }: InotifyEvent) {
        assert!(!mask.contains(AddWatchFlags::IN_Q_OVERFLOW));
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            self.watched.remove(&wd);
        }
        let (Some(directory), Some(name)) = (self.watched.get(&wd), name) else { return };
        let path = directory.join(name);
        let there = !mask.intersects(AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE);
        self.told.note(path.clone(), there);
        if there && mask.contains(AddWatchFlags::IN_ISDIR) && !mask.contains(AddWatchFlags::IN_ATTRIB) {
            self.watch(path);
        }
    }

    /// That what it was told last is what is.
    pub fn assert_knows(&mut self, when: &str) {
        self.read();
        self.told.assert_right(&self.root, when);
    }
}

fn everything(root: &Path, path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(path)).unwrap() {
        let entry = entry.unwrap();
        let path = path.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            found.extend(everything(root, &path));
        }
        found.push(path);
    }
    found
}

/// One that watches one directory by fanotify, which tells the names of its entries.
pub struct Named(Fanotify);

/// FAN_REPORT_DIR_FID and FAN_REPORT_NAME.
const NAMES: u32 = 0x400 | 0x800;
/// FAN_CREATE and FAN_DELETE.
const COMES_AND_GOES: u64 = 0x100 | 0x200;
const FAN_DELETE: u64 = 0x200;
/// One event for both ends of a rename, which is merged with no other.
const FAN_RENAME: u64 = 0x1000_0000;
/// What the records of such an event are of: the end where the entry was, and the one where it is.
const OLD_END: u8 = 10;
const NEW_END: u8 = 12;

impl Named {
    /// `None` where that cannot be had.
    pub fn of(dir: &Path) -> Option<Self> {
        let flags = FanotifyFlags::FAN_CLASS_NOTIF | FanotifyFlags::FAN_NONBLOCK | FanotifyFlags::FAN_CLOEXEC;
        let flags = flags | FanotifyFlags::from_bits_retain(NAMES);
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY).ok()?;
        let events = MaskFlags::from_bits_retain(COMES_AND_GOES | FAN_RENAME) | MaskFlags::FAN_ONDIR;
        let opened = fs::File::open(dir).unwrap();
        fanotify.mark::<_, Path>(MarkFlags::FAN_MARK_ADD, events, opened.as_fd(), None).ok()?;
        Some(Self(fanotify))
    }

    /// Each name that was told of, in order, and whether it came.
    pub fn told(&self) -> Vec<(String, bool)> {
        let mut told = Vec::new();
        let mut buffer = [0; 8192];
        while let Ok(read) = nix::unistd::read(&self.0, &mut buffer) {
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let (event, after) = rest.split_at(number(&rest[..4]) as usize);
                rest = after;
                let mask = number(&event[8..16]);
                let mut records = &event[number(&event[6..8]) as usize..];
                while !records.is_empty() {
                    let (record, after) = records.split_at(number(&records[2..4]) as usize);
                    records = after;
                    let there = match record[0] {
                        OLD_END => false,
                        NEW_END => true,
                        _ => mask & FAN_DELETE == 0,
                    };
                    // A header of 4 bytes, 8 that name the file system, a handle with its length and its type, and the name.
                    let name = &record[20 + number(&record[12..16]) as usize..];
                    let name = name.split(|byte| *byte == 0).next().unwrap();
                    told.push((String::from_utf8(name.to_vec()).unwrap(), there));
                }
            }
        }
        told
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
