//! `publish` of a source in which nothing changed since it was published.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use txfs::{BeginOptions, CommitOptions, Store};

use crate::Place;
use crate::calls::Calls;
use crate::child::TXFS;
use crate::measure::{Outcome, interleave, output, timed};
use crate::report::{Row, head};
use crate::tree;

pub(crate) fn run(place: &Place<'_>) -> Outcome<()> {
    let mut seen = Vec::new();
    head("unchanged", "walk");
    for files in place.options.sizes(&[10_000, 100_000]) {
        let scratch = place.scratch("unchanged")?;
        let scene = Scene::set(scratch.path(), files)?;
        measure(place, &scene, files)?;
        seen.push(scene.look(files)?);
    }
    println!();
    seen.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn measure(place: &Place<'_>, scene: &Scene, files: usize) -> Outcome<()> {
    let mut command = Row::new(format!("{files} files, `txfs publish`")).bound(2.0);
    let mut library = Row::new(format!("{files} files, `copy_differing_from` and commit")).bound(2.0);
    let mut rsync = Row::new(format!("{files} files, `rsync -a --delete`"));
    for round in place.options.rounds(files) {
        let [walked, by_command, by_library, by_rsync] = interleave(
            round,
            [
                &mut || timed(|| walk(&scene.source)),
                &mut || timed(|| scene.publish()),
                &mut || scene.publish_by_library(),
                &mut || scene.rsync(),
            ],
        )?;
        command.note(by_command, walked);
        library.note(by_library, walked);
        rsync.note(by_rsync, walked);
    }
    command.print();
    library.print();
    if scene.has_rsync {
        rsync.print();
    }
    Ok(())
}

/// A source, and what was published of it.
struct Scene {
    source: PathBuf,
    out: PathBuf,
    synced: PathBuf,
    has_rsync: bool,
}

impl Scene {
    fn set(dir: &Path, files: usize) -> Outcome<Self> {
        let [source, out, synced] = ["source", "dist", "rsync"].map(|name| dir.join(name));
        let quiet = Command::new("rsync").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let scene = Self { source, out, synced, has_rsync: quiet.is_ok_and(|status| status.success()) };
        tree::write_all(&scene.source, files, 0)?;
        scene.publish()?;
        scene.rsync()?;
        Ok(scene)
    }

    fn publish(&self) -> Outcome<()> {
        output(Command::new(TXFS).args(["publish", "-q"]).arg(&self.out).arg(&self.source)).map(drop)
    }

    /// The store is open already, as it is in a program that publishes again and again.
    fn publish_by_library(&self) -> Outcome<Duration> {
        let store = Store::open(&self.out)?;
        timed(|| {
            let mut transaction = store.begin(BeginOptions::default())?;
            transaction.copy_differing_from(&self.source)?;
            let committed = transaction.commit(&CommitOptions::default())?;
            if committed.changed { Err("nothing changed, and a generation was published".into()) } else { Ok(()) }
        })
    }

    fn rsync(&self) -> Outcome<Duration> {
        if !self.has_rsync {
            return Ok(Duration::ZERO);
        }
        let mut source = self.source.clone().into_os_string();
        source.push("/");
        timed(|| output(Command::new("rsync").args(["-a", "--delete"]).arg(source).arg(&self.synced)).map(drop))
    }

    /// That nothing in the output is touched, and which calls the command makes that change something or wait for the disk.
    fn look(&self, files: usize) -> Outcome<String> {
        let before = fingerprint(&self.out)?;
        self.publish()?;
        if fingerprint(&self.out)? != before {
            return Err("nothing changed, and something in the output was touched".into());
        }
        let untouched = format!("{files} files: every inode, size and time in the output is as it was");
        let arguments = [Path::new("publish"), Path::new("-q"), &self.out, &self.source];
        let Some(calls) = Calls::of(&arguments)? else {
            return Ok(format!("{untouched}; there is no strace to count the calls."));
        };
        match calls.barriers().first() {
            Some(barrier) => Err(format!("nothing changed, and the command waited for the disk: {barrier}").into()),
            None => Ok(format!("{untouched}; calls that change anything: {}; no barrier.", calls.all())),
        }
    }
}

/// Lists everything and reads its attributes, on one thread: one call each.
fn walk(dir: &Path) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            walk(&entry.path())?;
        }
    }
    Ok(())
}

/// What a write would change.
fn fingerprint(dir: &Path) -> Outcome<Vec<(PathBuf, [i64; 6])>> {
    let mut entries = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let stat = path.symlink_metadata()?;
        if stat.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
        let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()];
        let [a, b, c, d] = times;
        entries.push((path, [stat.ino().cast_signed(), stat.size().cast_signed(), a, b, c, d]));
    }
    entries.sort_unstable();
    Ok(entries)
}
