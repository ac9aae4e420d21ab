//! The commands that are swept, each with the state in which it finds a world, and what it may leave.

use std::ffi::OsString;
use std::time::Duration;

use super::common::change_a_byte;
use super::worlds::{Death, NEW, OLD, World};

/// What the output may be after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

/// What becomes of the transaction that a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// The command makes one, and success says where.
    Begins,
    /// It was open before; success ends it, failure says whether it still is.
    Ends,
    /// It was open before, and is after.
    Leaves,
    /// None was open before; a failure may keep the one that the command made, and says where.
    Failed,
    /// Nothing is open before or after.
    Nothing,
}

/// A command on a prepared store.
pub struct Scenario {
    pub name: &'static str,
    pub prepare: fn(&mut World),
    command: fn(&World) -> Vec<OsString>,
    /// What success means.
    pub success: &'static [Side],
    /// What recovery may come to besides after a command that had no success.
    pub otherwise: &'static [Side],
    pub transaction: Keeps,
    /// Whether a commit was interrupted before the command: then the output may be between old and new until it is recovered.
    pub interrupted: bool,
    /// Whether nothing was published before.
    pub first: bool,
    /// What success prints, where it is always the same.
    pub prints: Option<&'static str>,
}

impl Scenario {
    pub fn command(&self, world: &World) -> Vec<OsString> {
        (self.command)(world)
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn on_output(command: &[&str], world: &World) -> Vec<OsString> {
    let mut all = words(command);
    all.push(world.out().into());
    all
}

fn on_stage(command: &str, world: &World) -> Vec<OsString> {
    vec![command.into(), world.stage.clone().expect("a transaction is open").into()]
}

/// `run`: a build that writes the tree `name`.
pub fn run_of(world: &World, name: &str) -> Vec<OsString> {
    let mut all = on_output(&["run", "--max-removed", "100"], world);
    all.extend(words(&["--", "cp", "-a"]));
    all.extend([world.dir.join(name).join(".").into(), "{stage}".into()]);
    all
}

const BASE: Scenario = Scenario {
    name: "",
    prepare: |world| world.published(),
    command: |world| on_output(&["status"], world),
    success: &[Side::Old],
    otherwise: &[],
    transaction: Keeps::Nothing,
    interrupted: false,
    first: false,
    prints: None,
};

/// Every command, in every state that makes it do something else.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "begin, no store yet",
        prepare: |_| {},
        command: |world| on_output(&["begin"], world),
        transaction: Keeps::Begins,
        first: true,
        ..BASE
    },
    Scenario { name: "begin", command: |world| on_output(&["begin"], world), transaction: Keeps::Begins, ..BASE },
    Scenario {
        name: "begin --from copy",
        command: |world| on_output(&["begin", "--from", "copy"], world),
        transaction: Keeps::Begins,
        ..BASE
    },
    Scenario {
        name: "commit",
        prepare: |world| {
            world.published();
            world.staged(NEW);
        },
        command: |world| on_stage("commit", world),
        success: &[Side::New],
        transaction: Keeps::Ends,
        prints: Some("3\n"),
        ..BASE
    },
    Scenario {
        name: "commit, the first",
        prepare: |world| world.staged(NEW),
        command: |world| on_stage("commit", world),
        success: &[Side::New],
        transaction: Keeps::Ends,
        first: true,
        prints: Some("1\n"),
        ..BASE
    },
    Scenario {
        name: "commit, nothing new",
        prepare: |world| {
            world.published();
            world.staged(OLD);
        },
        command: |world| on_stage("commit", world),
        transaction: Keeps::Ends,
        prints: Some("2\n"),
        ..BASE
    },
    Scenario {
        name: "abort",
        prepare: |world| {
            world.published();
            world.staged(NEW);
        },
        command: |world| on_stage("abort", world),
        transaction: Keeps::Ends,
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "run",
        command: |world| run_of(world, "src"),
        success: &[Side::New],
        transaction: Keeps::Failed,
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "publish",
        prepare: |world| {
            world.published();
            // A source that changed within the clock's tick is not noted as known: whether one did must not depend on the machine.
            std::thread::sleep(Duration::from_millis(50));
        },
        command: |world| {
            let mut all = on_output(&["publish"], world);
            all.push(world.dir.join("src").into());
            all
        },
        success: &[Side::New],
        prints: Some("3\n"),
        ..BASE
    },
    Scenario {
        name: "recover, roll forward",
        prepare: |world| {
            world.published();
            world.died(true, Death::AfterMoves(4));
        },
        command: |world| on_output(&["recover"], world),
        success: &[Side::New],
        interrupted: true,
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "recover, no name yet",
        prepare: |world| {
            world.published();
            world.died(true, Death::BeforeName);
        },
        command: |world| on_output(&["recover"], world),
        success: &[Side::New],
        interrupted: true,
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "recover, not on the medium",
        prepare: |world| {
            world.published();
            change_a_byte(&world.died(false, Death::BeforeName).join("sub/page"));
        },
        command: |world| on_output(&["recover"], world),
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "recover --undo",
        prepare: |world| {
            world.published();
            world.died(true, Death::AfterMoves(4));
        },
        command: |world| on_output(&["recover", "--undo"], world),
        // The next recovery is one that carries out.
        otherwise: &[Side::New],
        interrupted: true,
        prints: Some(""),
        ..BASE
    },
    Scenario { name: "recover, settle", command: |world| on_output(&["recover"], world), prints: Some(""), ..BASE },
    Scenario {
        name: "recover, finish",
        prepare: |world| {
            world.published();
            world.died(false, Death::AfterHead);
        },
        command: |world| on_output(&["recover"], world),
        success: &[Side::New],
        interrupted: true,
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "recover, undo",
        prepare: |world| {
            world.published();
            world.died(true, Death::Undoing(6, 2));
        },
        command: |world| on_output(&["recover"], world),
        interrupted: true,
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "recover, discard",
        prepare: |world| {
            world.published();
            world.died(true, Death::BeforeJournal);
        },
        command: |world| on_output(&["recover"], world),
        prints: Some(""),
        ..BASE
    },
    Scenario {
        name: "status",
        prepare: |world| {
            world.published();
            world.staged(NEW);
        },
        transaction: Keeps::Leaves,
        ..BASE
    },
    Scenario {
        name: "status, roll forward",
        prepare: |world| {
            world.published();
            world.died(true, Death::AfterMoves(2));
        },
        success: &[Side::New],
        interrupted: true,
        ..BASE
    },
];
