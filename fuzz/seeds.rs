//! Makes the seed corpora anew from the files of a real store: `cargo run --example seeds` in this directory.

use std::fs;
use std::path::Path;

use fuzz_support::{NEW, OLD, Scene};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join(name), bytes)
    };
    let scene = Scene::published();
    let file = |name: &str| fs::read(scene.state.join(name));
    let (journal, manifest, head) = (file("previous/2/journal")?, file("manifests/2")?, file("HEAD")?);

    put("journal_reader", "journal", &journal)?;
    put("journal_reader", "torn", &journal[..journal.len() - 5])?;
    put("journal_reader", "payloads", &payloads(&journal))?;
    put("manifest", "leaf", &manifest[16..])?;
    put("manifest", "head", &head)?;
    put("manifest", "head-payloads", &payloads(&head))?;
    for (name, which, bytes) in [
        ("journal", 0u8, &journal),
        ("head", 1, &head),
        ("undo", 2, &journal),
        ("manifest", 3, &manifest),
        ("manifest-3", 5, &manifest),
        ("new", 6, &journal),
        ("meta", 7, &head),
    ] {
        put("recover", name, &[&[which], &bytes[..]].concat())?;
    }
    put("recover", "settled-journal", &[8])?;
    put("recover", "settled-journal-changed", &[8, 60, 0, 1])?;
    put("recover", "settled-undo", &[10])?;
    put("recover", "settled-new", &[14])?;
    for (name, path) in [("file", "index.html"), ("deep", "a/b/c"), ("dots", "a/../b"), ("absolute", "/etc")] {
        put("path", name, path.as_bytes())?;
    }
    for (name, bytes) in [
        ("kinds", &[0, 2, 1, 1, 2, 2, 0, 0, 0, 65, 2, 3][..]),
        ("nested", &[64, 2, 1, 128, 2, 2, 65, 8, 0, 129, 2, 3, 128, 1, 0]),
        ("read-only", &[0, 8, 0, 64, 2, 1, 68, 8, 0, 132, 2, 2]),
    ] {
        put("planner", name, bytes)?;
    }
    // The kind of world, then steps of eight bytes as `crates/sim/src/explore/model.rs` reads them.
    for (name, kind, steps) in [
        ("ends-well", 0u8, &[[0u8, 1, 0, 0, 0, 0, 0, 1], [64, 2, 0, 0, 3, 0, 0, 1], [0, 3, 0, 0, 0, 0, 0, 0]][..]),
        ("stopped", 4, &[[0, 1, 0, 0, 0, 0, 0, 1], [80, 2, 0, 200, 0, 0, 0, 1], [112, 4, 0, 180, 7, 128, 3, 1]]),
        ("errors", 9, &[[0, 5, 0, 0, 0, 0, 0, 1], [192, 6, 0, 150, 1, 0, 0, 1], [208, 7, 0, 210, 2, 90, 1, 1]]),
        (
            "strangers",
            33,
            &[
                [0, 8, 0, 0, 0, 0, 0, 1],
                [12, 0, 0, 0, 1, 0, 0, 0],
                [14, 0, 0, 0, 1, 0, 0, 0],
                [11, 9, 0, 0, 5, 0, 0, 1],
            ],
        ),
    ] {
        put("sequence", name, &[&[kind], &steps.concat()[..]].concat())?;
    }
    println!("seeds of {} and {} files in {}", OLD.len(), NEW.len(), corpus.display());
    Ok(())
}

/// The payloads of a file's frames, each after a byte that is its length: what the targets frame anew.
fn payloads(file: &[u8]) -> Vec<u8> {
    let mut payloads = Vec::new();
    let mut rest = &file[16..];
    while rest.len() > 8 {
        let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let payload = &rest[8..8 + length];
        if let Ok(short) = u8::try_from(length) {
            payloads.push(short);
            payloads.extend(payload);
        }
        rest = &rest[8 + length..];
    }
    payloads
}
