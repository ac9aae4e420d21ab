//! `txfs.toml`: found, trusted, and read.
//!
//! ```toml
//! [output.dist]                # a path from the directory of this file
//! command = "npm run build"
//! exclude = ["*.map"]
//! ```
//!
//! Invariants:
//! 1. It is the first that lies in the current directory or one above it, as cargo finds its own; or the one that
//!    `--config` names.
//! 2. One that was found belongs to the user, or to root, and not everybody may write to it: it runs commands.
//!    Otherwise everything is refused until the user says that it is to be left alone, or names it.
//! 3. It is for outputs, which it tells apart by where they are, however the command line calls them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, lstat};
use nix::unistd::geteuid;
use toml::de::DeTable;
use txfs::Shown;

use crate::settings::keys::{Settings, Wrong, unknown};
use crate::talk::error::{Failure, cannot, usage};

pub(crate) const NAME: &str = "txfs.toml";

/// More than anybody writes.
const LIMIT: u64 = 1 << 20;

/// What a file says.
pub(crate) struct Config {
    pub(crate) file: PathBuf,
    outputs: Vec<(PathBuf, Settings)>,
}

impl Config {
    /// The one that is in force in the current directory.
    pub(crate) fn find() -> Result<Option<Self>, Failure> {
        // Whoever has none is told so where it matters.
        let Ok(current) = std::env::current_dir() else { return Ok(None) };
        for dir in current.ancestors() {
            let file = dir.join(NAME);
            match lstat(&file) {
                Ok(link) => return Self::read_trusted(file, &link).map(Some),
                Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {}
                Err(error) => return Err(cannot("read the attributes of", &file, error.into())),
            }
        }
        Ok(None)
    }

    fn read_trusted(file: PathBuf, link: &FileStat) -> Result<Self, Failure> {
        // Before it is opened: it may be anything.
        expect_trusted(&file, link)?;
        let (opened, stat) = open_file(&file)?;
        expect_trusted(&file, &stat)?;
        Self::read(file, opened)
    }

    /// The one that the user names, whosesoever it is.
    pub(crate) fn named(file: &Path) -> Result<Self, Failure> {
        let file = std::path::absolute(file).map_err(|error| cannot("find", file, error))?;
        let (opened, _) = open_file(&file)?;
        Self::read(file, opened)
    }

    fn read(file: PathBuf, opened: File) -> Result<Self, Failure> {
        let mut text = String::new();
        let read = opened.take(LIMIT).read_to_string(&mut text);
        read.map_err(|error| cannot("read", &file, error))?;
        let dir = file.parent().unwrap_or(&file).to_path_buf();
        let outputs = parse(&dir, &text).map_err(|(span, what)| {
            let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
            usage(format!("{}:{line}: {}", Shown(&file), Shown(Path::new(&what))))
        })?;
        Ok(Self { file, outputs })
    }

    /// What it says of an output.
    pub(crate) fn of(&self, output: &Path) -> Option<&Settings> {
        let output = whole(output);
        self.outputs.iter().find(|(path, _)| *path == output).map(|(_, settings)| settings)
    }

    /// The outputs that it is for.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().map(|(path, _)| path.as_path())
    }
}

fn parse(dir: &Path, text: &str) -> Result<Vec<(PathBuf, Settings)>, Wrong> {
    let first_line = |what: &str| what.lines().next().unwrap_or_default().to_owned();
    let file = DeTable::parse(text).map_err(|error| (error.span().unwrap_or(0..0), first_line(error.message())))?;
    let mut outputs: Vec<(PathBuf, Settings)> = Vec::new();
    for (key, value) in file.get_ref() {
        let tables = match (key.get_ref().as_ref(), value.get_ref().as_table()) {
            ("output", Some(tables)) => tables,
            ("output", None) => return Err((value.span(), "this is to be [output.PATH], a table of options".into())),
            (other, _) => return Err((key.span(), unknown(other, &["output"]))),
        };
        let mut tables: Vec<_> = tables.iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in tables {
            let Some(table) = value.get_ref().as_table() else {
                let name = name.get_ref();
                return Err((
                    value.span(),
                    format!("this is to be a table, as [output.{name}], of the options of `{name}`"),
                ));
            };
            let path = whole(&dir.join(name.get_ref().as_ref()));
            if outputs.iter().any(|(other, _)| *other == path) {
                return Err((name.span(), format!("this is the output of another table: {}", Shown(&path))));
            }
            outputs.push((path, Settings::read(dir, table)?));
        }
    }
    Ok(outputs)
}

/// A path by which an output is known that need not be there.
fn whole(path: &Path) -> PathBuf {
    let resolved = path.canonicalize().ok().or_else(|| {
        let path = std::path::absolute(path).ok()?;
        let (parent, name) = (path.parent()?, path.file_name()?);
        Some(parent.canonicalize().ok()?.join(name))
    });
    resolved.or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_path_buf())
}

fn open_file(file: &Path) -> Result<(File, FileStat), Failure> {
    let failed = |error: nix::Error| cannot("read", file, error.into());
    // A pipe would wait for somebody to write to it.
    let opened = open(file, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty()).map_err(failed)?;
    let stat = fstat(&opened).map_err(failed)?;
    match kind(&stat) {
        SFlag::S_IFREG => Ok((File::from(opened), stat)),
        SFlag::S_IFDIR => Err(cannot("read", file, io::ErrorKind::IsADirectory.into())),
        _ => Err(usage(format!("{} is no file", Shown(file)))),
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Its commands would run as this user.
fn expect_trusted(file: &Path, stat: &FileStat) -> Result<(), Failure> {
    let is_link = kind(stat) == SFlag::S_IFLNK;
    let what = match stat.st_uid {
        owner if !is_trusted(owner) => format!("belongs to user {owner}"),
        _ if !is_link && stat.st_mode & 0o002 != 0 => "may be written to by everybody".to_owned(),
        _ => return Ok(()),
    };
    let name = Shown(file);
    Err(usage(format!("{name} {what}, and is not trusted: it says which commands run"))
        .hint(format!("read it: `--config {name}` uses it all the same, `--no-config` leaves it alone")))
}

/// Whether a user may say which commands run: root may anyway, and so may whoever became root by `sudo`.
fn is_trusted(owner: u32) -> bool {
    let user = geteuid();
    let sudo = || std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    owner == user.as_raw() || owner == 0 || user.is_root() && sudo() == Some(owner)
}
