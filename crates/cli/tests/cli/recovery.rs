//! What is left of an interrupted commit, or was changed behind txfs: every command recovers, and says what it cannot.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;
use txfs::{OpenOptions, Outcome, Store};
use txfs_testing::faulty::{Call, Faulty};

use super::{Scratch, end, signal, wait_for};

#[test]
fn what_the_last_commit_displaced_can_be_freed() {
    let dir = Scratch::new();
    dir.txfs(["prune", "dist"]).expect(0).says("nothing has been published to dist by txfs");
    assert_eq!(fs::read_dir(dir.at("")).unwrap().count(), 0);
    dir.publish(&[("a", "12345"), ("b", "b")]);
    dir.txfs(["prune", "dist"]).expect(0).says("there is nothing to free");
    dir.publish(&[("a", "2"), ("b", "b")]);
    let dry = dir.txfs(["rollback", "dist", "--dry-run"]).expect(0);
    assert_eq!(dry.out, "M a\n");
    dir.txfs(["prune", "dist"]).expect(0).says("freed 5 bytes in 1 file that commits to dist displaced");
    assert_eq!((dir.read("dist/a"), dir.transactions()), ("2".to_owned(), 0));
    dir.txfs(["rollback", "dist"]).expect(2).says("generation 1 was pruned: what generation 2 displaced was freed");
    let again = dir.txfs(["prune", "dist", "--json"]).expect(0).json();
    assert_eq!((&again[0]["generation"], &again[0]["freed_bytes"]), (&2.into(), &0.into()));
    dir.publish(&[("a", "3"), ("b", "b")]);
    dir.txfs(["rollback", "dist"]).expect(0);
    assert_eq!(dir.read("dist/a"), "2");
}

#[test]
fn status_tells_of_the_generation_and_of_open_transactions() {
    let dir = Scratch::new();
    let nothing = dir.txfs(["status", "dist"]).expect(0);
    assert_eq!(nothing.out, "nothing has been published to dist by txfs\n");
    assert_eq!(dir.txfs(["status", "dist", "--json"]).json()[0]["generation"], Value::Null);
    dir.write("src/a", "12345");
    dir.txfs(["publish", "dist", "src", "-m", "two\nlines"]).expect(0);
    let stage = dir.begin(&["--from", "current"]);
    let status = dir.txfs(["status", "dist"]).expect(0);
    for text in ["1 file, 5 bytes", "two\\nlines", "in-place", "(beside the output)", "a change, on generation 1"] {
        assert!(status.out.contains(text), "{text} in {}", status.out);
    }
    let status = &dir.txfs(["status", "dist", "--json"]).expect(0).json()[0];
    assert_eq!(
        (&status["generation"], &status["bytes"], &status["message"]),
        (&1.into(), &5.into(), &"two\nlines".into())
    );
    assert_eq!(status["transactions"][0]["stage"], stage.to_str().unwrap());
    assert!(status["capabilities"]["exchange"].is_boolean());
}

#[test]
fn recover_is_silent_when_there_is_nothing_to_do() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let recovered = dir.txfs(["recover", "dist"]).expect(0);
    assert_eq!((recovered.out.as_str(), recovered.err.as_str()), ("", ""));
    assert_eq!(dir.txfs(["recover", "dist", "--json"]).expect(0).json()[0]["commit"], Value::Null);
}

#[test]
fn recover_says_where_txfs_has_nothing_and_does_not_fail() {
    let dir = Scratch::new();
    let recovered = dir.txfs(["recover", "typo"]).expect(0);
    let said = "there is nothing to recover: txfs has nothing for typo\n";
    assert_eq!((recovered.out.as_str(), recovered.err.as_str()), ("", said));
    assert_eq!(dir.txfs(["recover", "-q", "typo"]).expect(0).err, "");
    assert_eq!(dir.txfs(["recover", "typo", "--json"]).expect(0).json()[0]["commit"], Value::Null);
    assert!(!dir.at(".typo.txfs").exists());
}

#[test]
fn a_commit_that_was_not_settled_is_settled_in_silence() {
    for command in [&["recover", "dist"][..], &["recover", "dist", "--undo"], &["status", "-q", "dist"]] {
        let dir = Scratch::new();
        txfs_testing::publish(&Store::open(dir.at("dist")).unwrap(), &[("a", "a")]).unwrap();
        assert!(dir.at(".dist.txfs/journal").exists());
        assert_eq!(dir.txfs(command).expect(0).err, "", "{command:?}");
        assert!(!dir.at(".dist.txfs/journal").exists() && dir.at(".dist.txfs/previous/1/journal").exists());
        assert_eq!(dir.read("dist/a"), "a");
    }
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let left = |name: &str| dir.at(".dist.txfs").join(name).exists();
    assert!(!left("journal") && left("previous/1/journal"), "a command settles what it committed before it ends");
}

#[test]
fn a_commit_that_cannot_be_carried_out_says_so_until_it_is_undone_on_request() {
    let dir = Scratch::new();
    dir.publish(&[("a", "old"), ("stale/x", "old")]);
    // A directory that cannot be moved is taken apart; the process dies when it is to be removed.
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        dead.fetch_or(matches!(call, Call::RemoveDir { name } if name == b"stale"), Ordering::SeqCst);
        match call {
            _ if dead.load(Ordering::SeqCst) => Some(Errno::EIO),
            Call::Rename { name, directory: true, .. } if name == b"stale" => Some(Errno::EXDEV),
            _ => None,
        }
    });
    let store = Store::open_with(&OpenOptions::with(kernel), dir.at("dist")).unwrap();
    assert_eq!(txfs_testing::publish(&store, &[("a", "new")]).unwrap_err().outcome(), Outcome::Unknown);
    drop(store);
    dir.write("dist/stale/mine", "mine");
    for command in [&["recover", "dist"][..], &["status", "dist"], &["begin", "dist"], &["publish", "dist", "src"]] {
        let refused = dir.txfs(command).expect(7).says("dist/stale").says("the commit of generation 2 has passed");
        assert!(refused.err.contains("hint: ") && refused.err.contains("txfs recover --undo "), "{}", refused.err);
        assert_eq!((dir.read("dist/a").as_str(), dir.at("dist/stale/x").exists()), ("new", false));
    }
    let object = &dir.txfs(["recover", "dist", "--json"]).expect(7).json()[0];
    assert_eq!((&object["error"], &object["code"]), (&"unknown".into(), &7.into()));
    let undone = dir.txfs(["recover", "dist", "--undo", "--json"]).expect(0);
    let undone = undone.says("txfs: recovered dist: rolled back the interrupted commit of generation 2");
    assert_eq!(
        (&undone.json()[0]["commit"], &undone.json()[0]["commit_generation"]),
        (&"rolled-back".into(), &2.into())
    );
    let now = ["a", "stale/x", "stale/mine"].map(|path| dir.read(&format!("dist/{path}")));
    assert_eq!(now, ["old", "old", "mine"]);
    assert_eq!(dir.txfs(["recover", "dist", "--undo"]).expect(0).err, "");
    dir.txfs(["verify", "dist"]).expect(0);
    dir.publish(&[("a", "newer"), ("stale/x", "old")]);
    assert_eq!(dir.read("dist/a"), "newer");
}

#[test]
fn a_killed_run_is_recovered_by_the_next_command_in_one_line() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let script = "touch {stage}/x ready; until test -e go || ! test -e ready; do sleep 0.01; done";
    let child = dir.start(["run", "dist", "--", "sh", "-c", script]);
    wait_for("the command", || dir.at("ready").exists());
    signal(&child, "-KILL");
    dir.write("go", "");
    end(child);
    let status = dir.txfs(["status", "dist"]).expect(0);
    assert_eq!(status.err, "txfs: recovered dist: discarded 1 unfinished transaction\n");
    assert_eq!((dir.txfs(["status", "dist"]).err.as_str(), dir.read("dist/a").as_str()), ("", "a"));
}

#[test]
fn a_commit_killed_at_any_moment_is_recovered_by_the_next_command() {
    let dir = Scratch::new();
    let fill = |content: &str| (0..400).for_each(|i| dir.write(&format!("src/{i}"), content));
    let mut seen = Vec::new();
    for (i, content) in ["one", "two", "three", "four", "five", "six"].into_iter().enumerate() {
        fill(content);
        let mut child = dir.start(["publish", "dist", "src"]);
        // Before the commit point, and after it.
        let journal = dir.at([".dist.txfs/journal.new", ".dist.txfs/journal"][i % 2]);
        wait_for("the journal", || journal.exists() || child.try_wait().unwrap().is_some());
        std::thread::sleep(Duration::from_micros(350 * i as u64));
        let _ = child.kill();
        child.wait().unwrap();
        let status = dir.txfs(["status", "dist"]).expect(0);
        assert!(status.err.lines().count() <= 1, "{}", status.err);
        assert!(status.err.is_empty() || status.err.starts_with("txfs: recovered dist: "), "{}", status.err);
        seen.push(status.err);
        if dir.at("dist").exists() {
            let first = dir.read("dist/0");
            assert!((0..400).all(|i| dir.read(&format!("dist/{i}")) == first), "G1");
        }
        dir.txfs(["verify", "dist"]).expect(0);
    }
    println!("{seen:#?}");
}

#[test]
fn journal_shows_a_settled_journal_and_damaged_ones() {
    let dir = Scratch::new();
    assert_eq!(dir.txfs(["journal", "dist"]).expect(0).err, "dist has no journal\n");
    dir.publish(&[("a", "old"), ("gone", "g")]);
    dir.publish(&[("a", "new"), ("b", "b")]);
    let all = dir.txfs(["journal", "dist"]).expect(0).out;
    let dump = all.split("\n\n").find(|dump| dump.contains("/previous/2/journal")).unwrap();
    let position = |text: &str| dump.find(text).unwrap_or_else(|| panic!("{text} in {dump}"));
    assert!(position("begin   generation 2 from 1") < position("#0     add"));
    assert!(position("#1     replace           a  file 0644 3 B blake3") < position("#2     remove            gone"));
    assert!(position("commit  3 operations") < position("valid commit of generation 2"));
    let objects = dir.txfs(["journal", "--file", ".dist.txfs/previous/2/journal", "--json"]).expect(0).json();
    assert_eq!((&objects[2]["operation"], &objects[2]["path"]), (&"replace".into(), &"a".into()));
    assert_eq!((&objects[2]["old"]["size"], &objects[0]["offset"]), (&3.into(), &16.into()));
    assert!(dir.txfs(["journal", "dist", "--json"]).json().len() >= objects.len());

    let journal = fs::read(dir.at(".dist.txfs/previous/2/journal")).unwrap();
    fs::write(dir.at("cut"), &journal[..journal.len() - 3]).unwrap();
    let cut = dir.txfs(["journal", "--file", "cut"]).expect(0);
    assert!(cut.out.contains("#1     replace") && cut.out.contains("torn: it ends early, at byte"), "{}", cut.out);
    let mut flipped = journal;
    flipped[40] ^= 1;
    fs::write(dir.at("flipped"), &flipped).unwrap();
    assert!(dir.txfs(["journal", "--file", "flipped"]).expect(6).out.contains("corrupt: "));
    assert_eq!(dir.txfs(["journal", "--file", "flipped", "--json"]).json()[0]["verdict"], "corrupt");
    dir.txfs(["journal", "--file", "none"]).expect(1).says("cannot read none");
    dir.txfs(["journal", "--file", "dist"]).expect(1).says("cannot read dist: Is a directory");
    dir.txfs(["journal"]).expect(2);
}

#[test]
fn verify_finds_what_was_changed_behind_txfs() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a"), ("b", "b"), ("c", "c")]);
    assert_eq!(dir.txfs(["verify", "dist"]).expect(0).out, "");
    dir.write("dist/a", "x");
    fs::remove_file(dir.at("dist/b")).unwrap();
    assert_eq!(dir.txfs(["verify", "dist"]).expect(4).out, "content a\nmissing b\n");
    let objects = dir.txfs(["verify", "dist", "--json"]).expect(4).json();
    assert_eq!((&objects[1]["finding"], &objects[2]["findings"]), (&"missing".into(), &2.into()));
    // As a disk does that loses bits.
    let time = fs::metadata(dir.at("dist/c")).unwrap().modified().unwrap();
    dir.write("dist/c", "z");
    fs::File::options().write(true).open(dir.at("dist/c")).unwrap().set_modified(time).unwrap();
    let found = dir.txfs(["verify", "dist"]).expect(4).says("hint: what is missing comes back");
    assert_eq!(found.out, "content a\nmissing b\ncontent c\n");
    ["dist/a", "dist/c"].into_iter().for_each(|path| fs::remove_file(dir.at(path)).unwrap());
    dir.txfs(["publish", "dist", "src"]).expect(0).says("put back");
    dir.txfs(["verify", "dist"]).expect(0);
    assert_eq!(dir.txfs(["-q", "verify", "dist"]).expect(0).err, "");
}

#[test]
fn verify_says_where_nothing_has_been_published() {
    let dir = Scratch::new();
    let [verified, compared] = ["verify", "diff"].map(|command| dir.txfs([command, "typo"]).expect(2).err);
    assert!(verified.starts_with("error: nothing has been published to typo by txfs\n"), "{verified}");
    assert_eq!(verified, compared);
    dir.begin(&[]);
    let verified = dir.txfs(["verify", "dist"]).expect(0);
    assert_eq!((verified.out.as_str(), verified.err.as_str()), ("", "nothing has been published to dist by txfs\n"));
    let object = &dir.txfs(["verify", "dist", "--json"]).expect(0).json()[0];
    assert_eq!((&object["generation"], &object["findings"]), (&Value::Null, &0.into()));
}

#[test]
fn a_damaged_journal_is_refused_and_status_shows_what_it_can() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    fs::write(dir.at(".dist.txfs/journal"), "this is no journal at all").unwrap();
    let status = dir.txfs(["status", "dist"]).expect(6).says("cannot be used").says("hint: ");
    assert!(status.out.contains("generation:   1"), "{}", status.out);
    dir.txfs(["begin", "dist"]).expect(6);
    assert!(dir.txfs(["journal", "dist"]).expect(6).out.contains("corrupt: "));
    assert_eq!(dir.read("dist/a"), "a");
}

/// Three generations of three files, copied to another place: each inode is another.
fn copied_elsewhere(dir: &Scratch) {
    ["one", "two", "three"].iter().for_each(|content| dir.publish(&[("a", content), ("b", content), ("c", content)]));
    fs::create_dir(dir.at("elsewhere")).unwrap();
    let mut copy = Command::new("cp");
    copy.args(["-a", "dist", ".dist.txfs", "elsewhere"]).current_dir(dir.at(""));
    assert!(copy.status().unwrap().success());
    dir.write("src/a", "four");
}

#[test]
fn a_copied_store_knows_what_it_displaced_by_its_content() {
    let dir = Scratch::new();
    copied_elsewhere(&dir);
    let ended = dir.txfs(["publish", "elsewhere/dist", "src"]).expect(0);
    assert_eq!(ended.err.matches("warning: ").count(), 0, "{}", ended.err);
    assert!(!dir.at("elsewhere/.dist.txfs/rescued").exists());
    assert!(!dir.txfs(["status", "elsewhere/dist"]).expect(0).out.contains("rescued"));
}

#[test]
fn what_is_not_what_was_displaced_is_told_in_one_line_and_by_status_until_it_is_deleted() {
    let dir = Scratch::new();
    copied_elsewhere(&dir);
    let stage = dir.at("elsewhere/.dist.txfs/previous/3/stage");
    ["a", "b", "c"].iter().for_each(|name| fs::write(stage.join(name), "mine").unwrap());
    let ended = dir.txfs(["publish", "elsewhere/dist", "src"]).expect(0);
    let moved = "warning: moved 3 entries to elsewhere/.dist.txfs/rescued, not being what txfs recorded";
    assert_eq!(ended.err.matches("warning: ").count(), 1, "{}", ended.err);
    ended.says(moved).says("delete there what is not wanted");
    assert_eq!(fs::read_dir(dir.at("elsewhere/.dist.txfs/rescued")).unwrap().count(), 3);
    let status = dir.txfs(["status", "elsewhere/dist"]).expect(0).out;
    let rescued = status.lines().find(|line| line.starts_with("rescued: ")).unwrap();
    assert!(
        rescued.contains(" 3 files, 12 bytes in ") && rescued.contains("delete there what is not wanted"),
        "{rescued}"
    );
    let json = dir.txfs(["status", "elsewhere/dist", "--json"]).expect(0).json();
    assert_eq!((&json[0]["rescued_files"], &json[0]["rescued_bytes"]), (&3.into(), &12.into()));
    fs::remove_dir_all(dir.at("elsewhere/.dist.txfs/rescued")).unwrap();
    assert!(!dir.txfs(["status", "elsewhere/dist"]).expect(0).out.contains("rescued"));
}

#[test]
fn an_output_that_is_gone_is_shown_and_put_back() {
    let dir = Scratch::new();
    dir.publish(&[("a", "old"), ("b", "b")]);
    dir.publish(&[("a", "new"), ("b", "b")]);
    assert_eq!(dir.txfs(["status", "dist", "--json"]).expect(0).json()[0]["gone"], false);
    fs::remove_dir_all(dir.at("dist")).unwrap();
    assert!(dir.txfs(["status", "dist"]).expect(0).out.contains("the output is gone"));
    assert_eq!(dir.txfs(["status", "dist", "--json"]).expect(0).json()[0]["gone"], true);
    for args in [
        &["rollback", "dist"][..],
        &["run", "dist", "--from", "current", "--dry-run", "--", "sh", "-c", "echo > {stage}/c"],
    ] {
        dir.txfs(args).expect(4).says("dist: it is gone").says("`txfs publish`");
    }
    let dry = dir.txfs(["publish", "dist", "src", "--dry-run"]).expect(0);
    dry.says("dry run: would put back dist, which somebody else had removed\n");
    assert!(!dir.at("dist").exists());
    dir.txfs(["publish", "dist", "src"]).expect(0).says("put back dist, which somebody else had removed\n");
    assert_eq!((dir.read("dist/a"), dir.read("dist/b")), ("new".to_owned(), "b".to_owned()));
    dir.txfs(["rollback", "dist"]).expect(0);
}

#[test]
fn what_is_skipped_on_request_is_named() {
    let dir = Scratch::new();
    dir.publish(&[("a", "old"), ("b", "old"), ("c", "old")]);
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        let is_dead = dead.load(Ordering::SeqCst);
        dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"a"), Ordering::SeqCst);
        is_dead.then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), dir.at("dist")).unwrap();
    assert_eq!(
        txfs_testing::publish(&store, &[("a", "new"), ("b", "new"), ("c", "new")]).unwrap_err().outcome(),
        Outcome::Unknown
    );
    drop(store);
    dir.write("dist/b", "somebody else's");
    let hint = format!("run `txfs recover --skip-unknown {}` to leave them", dir.at("dist").display());
    dir.txfs(["recover", "dist"]).expect(6).says("hint: nothing was touched").says(&hint);
    let recovered = dir.txfs(["recover", "--skip-unknown", "dist", "--json"]).expect(0);
    let recovered = recovered.says("warning: 1 path of dist left as found, and no longer as published: b\n").json();
    assert_eq!((&recovered[0]["skipped"][0], &recovered[0]["skipped_total"]), (&"b".into(), &1.into()));
    let now = ["a", "b", "c"].map(|path| dir.read(&format!("dist/{path}")));
    assert_eq!(now, ["new", "somebody else's", "new"]);
}

#[test]
fn what_is_no_file_where_the_state_has_one_is_not_trusted() {
    for (name, way_out) in [("lock", "move it away"), ("HEAD", "move the whole state directory away")] {
        let dir = Scratch::new();
        dir.publish(&[("a", "a")]);
        let file = dir.at(".dist.txfs").join(name);
        for make in ["mkdir", "ln -s a"] {
            fs::rename(&file, dir.at("aside")).unwrap();
            let mut shell = Command::new("sh");
            assert!(shell.args(["-c", &format!("{make} \"$0\"")]).arg(&file).status().unwrap().success());
            let refused = dir.txfs(["publish", "dist", "src"]).expect(6);
            refused.says(&format!("{name} is not trusted: it is not a regular file")).says(way_out);
            assert!(Command::new("rm").arg("-r").arg(&file).status().unwrap().success());
            fs::rename(dir.at("aside"), &file).unwrap();
        }
        dir.txfs(["publish", "dist", "src"]).expect(0);
    }
}

#[test]
fn a_head_that_is_missing_is_not_said_to_be_none() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    assert!(dir.txfs(["status", "dist"]).expect(0).out.contains("generation:   1\n"));
    fs::remove_file(dir.at(".dist.txfs/HEAD")).unwrap();
    let refused = dir.txfs(["status", "dist"]).expect(6).says("HEAD");
    assert!(refused.out.contains("generation:   unknown\n"), "{}", refused.out);
}
