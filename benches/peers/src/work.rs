//! The work that all peers are given, and the table of what it took them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::measure::{Outcome, Scratch, median, ms, sync, timed};
use crate::options::Options;
use crate::peer::{Ground, Job, PEERS, Peer};
use crate::tree::{self, Change, Content};

/// Something to publish again and again.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Of how many files, when the large tree has so many.
    files: fn(usize) -> usize,
    /// How many of them change each time.
    changed: fn(usize) -> usize,
    /// Whether nothing was published before.
    fresh: bool,
}

pub(crate) const CASES: [Case; 4] = [
    Case { name: "fresh", files: |files| files, changed: |files| files, fresh: true },
    Case { name: "change", files: |files| files, changed: |_| 10, fresh: false },
    Case { name: "replaced", files: |files| files / 10, changed: |files| files, fresh: false },
    Case { name: "nothing", files: |files| files, changed: |_| 0, fresh: false },
];

impl Case {
    fn title(self, files: usize) -> String {
        let of = (self.files)(files);
        match self.name {
            "fresh" => format!("{of} new"),
            "change" => format!("{} of {of}", (self.changed)(of)),
            "replaced" => format!("all of {of}"),
            _ => format!("none of {of}"),
        }
    }

    fn change(self, files: usize) -> Change {
        let files = (self.files)(files);
        Change { files, changed: (self.changed)(files), removed: 0 }
    }

    /// The files that change, ascending.
    fn changed(self, files: usize) -> Vec<usize> {
        let change = self.change(files);
        if change.changed == change.files { (0..change.files).collect() } else { change.changed().collect() }
    }
}

/// Runs every case with every peer, and prints the table.
pub(crate) fn compare(dir: &Path, options: &Options) -> Outcome<()> {
    let peers: Vec<&Peer> = PEERS.iter().filter(|peer| options.wants_peer(peer.name)).collect();
    let (peers, missing): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| peer.is_here(&options.tools));
    let cases: Vec<Case> = CASES.into_iter().filter(|case| options.wants_case(case.name)).collect();
    let mut columns = Vec::new();
    for case in &cases {
        columns.push(measure(dir, options, *case, &peers)?);
    }
    let titles: Vec<String> = cases.iter().map(|case| case.title(options.files)).collect();
    println!(
        "| ms, medians of {} rounds | durable on return | all or nothing after a crash | no path missing | {} |",
        options.rounds,
        titles.join(" | ")
    );
    println!("|---|---|---|---|{}", "---:|".repeat(titles.len()));
    for (row, peer) in peers.iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| format!("{:.1}", column[row])).collect();
        println!("| {} | {} | {} | {} | {} |", peer.name, peer.durable, peer.whole, peer.gapless, cells.join(" | "));
    }
    println!();
    missing.iter().for_each(|peer| println!("Not measured, for it is not installed: {}.\n", peer.name));
    Ok(())
}

/// One case, peer by peer: medians in milliseconds.
fn measure(dir: &Path, options: &Options, case: Case, peers: &[&Peer]) -> Outcome<Vec<f64>> {
    let scratch = Scratch::make(dir.join(case.name))?;
    let scene = Scene::set(&scratch, options, case)?;
    if !case.fresh {
        for peer in peers {
            scene.make_ground(peer)?;
            scene.publish(peer, 0)?;
        }
    }
    let mut times = vec![Vec::new(); peers.len()];
    for round in 0..options.rounds {
        let version = round + 1;
        scene.build(version)?;
        for step in 0..peers.len() {
            let which = (round + step) % peers.len();
            let took = scene.round(peers[which], version).map_err(|error| format!("{}: {error}", peers[which].name))?;
            times[which].push(ms(took));
        }
    }
    Ok(times.iter().map(|times| median(times)).collect())
}

/// A source, and the places where the peers publish it.
struct Scene<'a> {
    dir: &'a Path,
    source: PathBuf,
    options: &'a Options,
    case: Case,
}

impl<'a> Scene<'a> {
    fn set(scratch: &'a Scratch, options: &'a Options, case: Case) -> Outcome<Self> {
        let source = scratch.join("source");
        tree::write_all(&source, (case.files)(options.files), 0)?;
        Ok(Self { dir: scratch.path(), source, options, case })
    }

    /// The build: it writes what changed.
    fn build(&self, version: usize) -> Outcome<()> {
        let files = (self.case.files)(self.options.files);
        let mut content = Content::new();
        for i in self.case.changed(self.options.files) {
            fs::write(self.source.join(tree::name(i)), content.of(files, i, version))?;
        }
        Ok(())
    }

    fn round(&self, peer: &Peer, version: usize) -> Outcome<Duration> {
        if self.case.fresh {
            self.make_ground(peer)?;
        }
        let took = self.publish(peer, version)?;
        if self.case.fresh {
            fs::remove_dir_all(self.at(peer))?;
        }
        Ok(took)
    }

    /// The directory that is a peer's alone.
    fn at(&self, peer: &Peer) -> PathBuf {
        let name = peer.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        self.dir.join(name)
    }

    fn ground(&self, peer: &Peer) -> Ground<'a> {
        let at = self.at(peer);
        Ground { out: at.join("dist"), work: at.join("work"), tools: &self.options.tools }
    }

    fn make_ground(&self, peer: &Peer) -> Outcome<()> {
        let ground = self.ground(peer);
        fs::create_dir_all(&ground.work)?;
        (peer.prepare)(&ground)
    }

    /// Version 0 is the whole tree, as the first of all.
    fn publish(&self, peer: &Peer, version: usize) -> Outcome<Duration> {
        let ground = self.ground(peer);
        let files = (self.case.files)(self.options.files);
        let changed = if version == 0 { (0..files).collect() } else { self.case.changed(self.options.files) };
        let job = Job { source: &self.source, files, changed, version };
        sync(self.dir)?;
        let staged = (peer.stage)(&ground, &job)?;
        let took = timed(|| (peer.publish)(&ground, &job, &staged))?;
        check(&ground, &job)?;
        Ok(took)
    }
}

/// That what changed is published, and the rest is there.
fn check(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<()> {
    let mut content = Content::new();
    let last = job.changed.last().copied();
    for i in job.changed.first().copied().into_iter().chain(last).chain([0, job.files - 1]) {
        let found = fs::read(ground.out.join(tree::name(i)))?;
        if found != content.of(job.files, i, job.version_of(i)) {
            return Err(format!("{} is not what was to be published", tree::name(i)).into());
        }
    }
    Ok(())
}
