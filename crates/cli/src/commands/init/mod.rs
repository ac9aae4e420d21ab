//! `txfs init`.
//!
//! Invariant: nothing that is there is changed; ignore files only get longer.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::Shown;

use crate::settings::config::NAME;
use crate::store::context::Context;
use crate::talk::error::{DONE, Failure, cannot, usage};
use crate::talk::json::Object;

mod projects;

use projects::Found;

/// Write a txfs.toml for the project in the current directory
///
/// It looks for what the project is built with (vite, eleventy, hugo, mkdocs, mdbook, sphinx, cargo doc, make) and
/// writes what `txfs run OUT` needs then, with the other options as comments. The state directories are added to the
/// ignore files that the project has (.gitignore, .dockerignore, .prettierignore and so on). Nothing else is changed,
/// and a txfs.toml that is there is left alone.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// The directory that is to be published; what the project's tool makes unless given
    out: Option<PathBuf>,
}

/// Files that say what tools are to leave alone, as .gitignore does.
const IGNORE_FILES: &[&str] = &[
    ".gitignore",
    ".ignore",
    ".rgignore",
    ".fdignore",
    ".dockerignore",
    ".containerignore",
    ".npmignore",
    ".eslintignore",
    ".prettierignore",
    ".stylelintignore",
    ".markdownlintignore",
    ".eleventyignore",
    ".gcloudignore",
    ".vercelignore",
];

pub(crate) fn run(context: &Context, args: &InitArgs) -> Result<u8, Failure> {
    let dir = std::env::current_dir().map_err(|error| cannot("find", Path::new("."), error))?;
    let found = find(&dir, args.out.as_deref())?;
    let file = dir.join(NAME);
    write_new(&file, &text(&found))?;
    let ui = &context.ui;
    for Found { tool, output, command, .. } in &found {
        let output = Shown(Path::new(output));
        if command.is_empty() {
            ui.say(format_args!("wrote {NAME}: say there by `command` what makes {output}, for `txfs run {output}`"));
        } else {
            ui.say(format_args!("wrote {NAME}: `txfs run {output}` runs `{command}`, which makes it with {tool}"));
        }
    }
    let mut ignored = Vec::new();
    for name in IGNORE_FILES {
        let path = dir.join(name);
        match ignore(&path, &found) {
            Ok(added) if added.is_empty() => {}
            Ok(added) => {
                ui.say(format_args!("added {} to {name}", added.join(", ")));
                ignored.push(path);
            }
            // The project works without.
            Err(error) => ui.warn_of(&error),
        }
    }
    if !ui.json {
        return Ok(DONE);
    }
    let outputs: Vec<_> = found.iter().map(|found| dir.join(&found.output)).collect();
    fn bytes(paths: &[PathBuf]) -> impl Iterator<Item = &[u8]> {
        paths.iter().map(|path| path.as_os_str().as_bytes())
    }
    let object = Object::new().path("file", file.as_os_str().as_bytes());
    let object = object.paths("outputs", bytes(&outputs)).paths("ignored_by", bytes(&ignored));
    ui.result(ui.data(), object).map(|()| DONE)
}

fn find(dir: &Path, out: Option<&Path>) -> Result<Vec<Found>, Failure> {
    let mut found = projects::look(dir);
    let Some(out) = out else {
        if found.is_empty() {
            return Err(usage(
                "there is nothing here that txfs knows to be built: name the directory that is to be published",
            )
            .hint("`txfs init dist` writes what is known of it; what builds it you add"));
        }
        return Ok(found);
    };
    let name = out.to_str().map(|name| name.trim_end_matches('/')).filter(|name| !name.is_empty());
    let Some(name) = name else {
        return Err(usage(format!("{}: only a name in UTF-8 can be written down", Shown(out))));
    };
    found.retain(|found| found.output == name);
    if found.is_empty() {
        found.push(Found { tool: "", output: name.to_owned(), command: String::new(), exclude: None });
    }
    Ok(found)
}

fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let written = File::create_new(file).and_then(|mut made| made.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            usage(format!("{NAME} is there already: nothing was changed")).hint("add to it, or move it away")
        }
        _ => cannot("write", file, error),
    })
}

/// The file for what was found.
fn text(found: &[Found]) -> String {
    let mut text = "\
# What txfs does for the outputs of this project. `txfs run OUT` runs the command, and publishes what it makes of OUT
# all at once, or nothing. What the command line says takes the place of what stands here. Each option is one of
# `txfs run --help`, or of another command that has it.
"
    .to_owned();
    for found in found {
        text.push_str(&section(found));
    }
    text
}

fn section(found: &Found) -> String {
    let Found { output, command, exclude, .. } = found;
    let excluded = match exclude {
        Some(glob) => format!("exclude = [{}]", quoted(glob)),
        None => "# exclude = [\"*.map\"]".to_owned(),
    };
    let command = match command.is_empty() {
        true => "# command = \"make\"".to_owned(),
        false => format!("command = {}", quoted(command)),
    };
    format!(
        r#"
[output.{name}]
# Run by a shell in the directory of this file; or a list of arguments, as ["npm", "run", "build"].
{command}
# What it makes and nobody wants published, as in a .gitignore.
{excluded}
# What has to succeed before anything is published; it runs in what is to be published.
# check = ["test -s index.html"]
# What has to succeed once it is; otherwise the generation before is published again.
# verify-live = ["curl -fsSo /dev/null http://localhost/"]
# verify-live-timeout = 10
# What runs when the commit is durable; TXFS_CHANGES names a file with the changed paths.
# after = ["./purge-cdn"]
# after-timeout = 60
# Of the published files, how many percent may go at once.
# max-removed = 50
# What the command begins with: "current", "copy" or "empty".
# from = "current"
# Other builds first, so that the newest wins.
# wait = true
"#,
        name = quoted(output)
    )
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Adds the state directories to an ignore file that is there, and says which were not in it.
fn ignore(file: &Path, found: &[Found]) -> Result<Vec<String>, txfs::Error> {
    let failed = |error| txfs::Error::Io {
        action: "add the state directory to",
        path: file.to_path_buf(),
        source: error,
        whose: None,
    };
    let bytes = match std::fs::symlink_metadata(file) {
        Ok(stat) if stat.is_file() => std::fs::read(file).map_err(failed)?,
        // A link may lead to what is not of this project.
        _ => return Ok(Vec::new()),
    };
    let known = String::from_utf8_lossy(&bytes);
    let is_known = |pattern: &String| {
        let names = |line: &str| line.trim().trim_start_matches('/').trim_end_matches('/') == pattern.trim_matches('/');
        known.lines().any(names)
    };
    let states: Vec<_> = found.iter().map(|found| state(&found.output)).filter(|state| !is_known(state)).collect();
    if states.is_empty() {
        return Ok(states);
    }
    let end = if known.contains("\r\n") { "\r\n" } else { "\n" };
    let mut text = if bytes.is_empty() || bytes.ends_with(b"\n") { String::new() } else { end.to_owned() };
    states.iter().for_each(|state| text.extend([state, end]));
    let opened = OpenOptions::new().append(true).open(file);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    Ok(states)
}

/// The state directory of an output, as an ignore file names it.
fn state(output: &str) -> String {
    let (dir, name) = output.rsplit_once('/').map_or(("", output), |(dir, name)| (dir, name));
    let (dir, slash) = if dir.is_empty() { ("", "") } else { (dir, "/") };
    let escape = |text: &str| -> String {
        text.chars().flat_map(|c| "*?[]\\".contains(c).then_some('\\').into_iter().chain([c])).collect()
    };
    format!("{}{slash}.{}.txfs/", escape(dir), escape(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_so_can_what_is_commented() {
        let found = [
            Found { tool: "vite", output: "dist".into(), command: "npm run build".into(), exclude: None },
            Found { tool: "", output: "a\"b/c d".into(), command: String::new(), exclude: Some("/.lock") },
        ];
        let text = text(&found);
        let uncommented: Vec<_> =
            text.lines().map(|line| if line.contains(" = ") { line.trim_start_matches("# ") } else { line }).collect();
        for text in [&text, &uncommented.join("\n")] {
            let file = toml::de::DeTable::parse(text).unwrap();
            let outputs = file.get_ref()["output"].get_ref().as_table().unwrap().clone();
            assert_eq!(outputs.len(), 2);
            for table in outputs.values() {
                crate::settings::keys::Settings::read(Path::new("/"), table.get_ref().as_table().unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn the_state_lies_beside_its_output() {
        assert_eq!(
            (state("dist"), state("a/b"), state("x*")),
            (".dist.txfs/".into(), "a/.b.txfs/".into(), ".x\\*.txfs/".into())
        );
    }
}
