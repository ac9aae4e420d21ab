//! `captured OUT PLACE -- CMD…`: runs a command whose writes below OUT go to the directory PLACE, and shows what it wrote.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use txfs_capture::{Capture, Change, Root, changes, probe, remove};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [out, place, dashes, program, arguments @ ..] = &words[..] else {
        eprintln!("usage: captured OUT PLACE -- CMD...");
        return ExitCode::from(2);
    };
    if dashes != "--" {
        eprintln!("usage: captured OUT PLACE -- CMD...");
        return ExitCode::from(2);
    }
    match run(Path::new(out), Path::new(place), Command::new(program).args(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("captured: {error}");
            ExitCode::from(125)
        }
    }
}

fn run(out: &Path, place: &Path, command: &mut Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(place.join("upper"))?;
    let found = probe(out, place)?;
    let capture = match (&found.overlay, &found.directory) {
        (Ok(()), _) => Capture::overlay(out, place, "upper")?,
        (Err(why), Ok(())) => {
            eprintln!("captured: {out} is shown empty: {why}", out = out.display());
            Capture::directory(out, place, "upper")?
        }
        (Err(why), Err(_)) => return Err(format!("{why}: {}", why.way_out()).into()),
    };
    let (mut child, running) = capture.spawn(command)?;
    let status = child.wait()?;
    let captured = running.end()?;
    eprintln!("captured: {status}, {} calls answered, outlived: {:?}", captured.answered, captured.outlived);
    match &captured.root {
        Root::Upper(upper) => {
            for change in changes(upper)? {
                match change? {
                    Change::Written(path) => println!("written  {}", path.display()),
                    Change::Removed(path) => println!("removed  {}", path.display()),
                    Change::Replaced(path) => println!("replaced {}", path.display()),
                    _ => {}
                }
            }
        }
        Root::Whole(root) => println!("whole    {}", root.display()),
        _ => println!("nothing"),
    }
    let keep = match &captured.root {
        Root::Whole(root) => root.file_name(),
        _ => None,
    };
    remove(place, keep)?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}
