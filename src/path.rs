//! Validated relative paths: the only paths that the engine ever follows below an output or a stage.
//!
//! A path is a sequence of names, held as bytes: Linux knows no encoding for names, and neither does txfs.
//!
//! Invariants, held by construction and again whenever a path is decoded from disk (G9):
//! 1. no empty component, no `.`, no `..`, no leading or trailing `/`: a path cannot leave the directory it is resolved in;
//! 2. no NUL, and no component longer than 255 bytes: every component can be handed to the kernel;
//! 3. order is the order of the tree: a directory sorts directly before everything below it.
//!
//! The length of a whole path is not limited: [`crate::fs::Fs::open_dir`] resolves in pieces below `PATH_MAX`.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name that Linux file systems accept, in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// The name that no published entry may have at the top: txfs' own state directory inside an output.
pub(crate) const RESERVED: &[u8] = b".txfs";

/// A confined relative path; empty for the root of the tree itself.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(Arc<[u8]>);

/// Why a path is not a [`RelPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nothing was given where an entry has to be named.
    #[error("the path is empty")]
    Empty,
    /// The path starts at the root of the file system.
    #[error("the path is absolute")]
    Absolute,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("the path has a `.` or `..` component")]
    Dots,
    /// A NUL byte.
    #[error("the path has a NUL byte")]
    Nul,
    /// A component of more than 255 bytes.
    #[error("the path has a component longer than 255 bytes")]
    TooLong,
}

impl RelPath {
    /// The root of the tree that paths are relative to.
    pub fn root() -> Self {
        Self::default()
    }

    /// Validates `bytes` as the path of an entry.
    ///
    /// # Errors
    /// [`PathError`] when `bytes` is empty, absolute, or has a component that no directory entry can have.
    ///
    /// ```
    /// use txfs::RelPath;
    /// assert!(RelPath::new("assets/app.js").is_ok());
    /// assert!(RelPath::new("../etc/passwd").is_err());
    /// ```
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let bytes = bytes.as_ref();
        match bytes.first() {
            None => return Err(PathError::Empty),
            Some(b'/') => return Err(PathError::Absolute),
            Some(_) => {}
        }
        for name in bytes.split(|&b| b == b'/') {
            check_name(name)?;
        }
        Ok(Self(bytes.into()))
    }

    /// Validates a [`Path`].
    ///
    /// # Errors
    /// As [`RelPath::new`].
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, PathError> {
        Self::new(path.as_ref().as_os_str().as_bytes())
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path's bytes, components separated by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as a [`Path`], relative.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Appends one directory entry's name.
    ///
    /// # Errors
    /// [`PathError`] when `name` is not a single valid component.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        if name.contains(&b'/') {
            return Err(PathError::EmptyComponent);
        }
        check_name(name)?;
        Ok(self.join_unchecked(name))
    }

    fn join_unchecked(&self, name: &[u8]) -> Self {
        if self.is_root() {
            return Self(name.into());
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self(bytes.into())
    }

    /// The directory that holds this entry; the root's parent is the root.
    pub fn parent(&self) -> RelPath {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => Self(self.0[..slash].into()),
            None => Self::root(),
        }
    }

    /// The bytes of [`RelPath::parent`].
    pub(crate) fn parent_bytes(&self) -> &[u8] {
        self.0.iter().rposition(|&b| b == b'/').map_or(&[], |slash| &self.0[..slash])
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    /// The components, from the top.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// Whether this path lies strictly below `ancestor`.
    pub fn is_below(&self, ancestor: &RelPath) -> bool {
        if ancestor.is_root() {
            return !self.is_root();
        }
        self.0.len() > ancestor.0.len() && self.0.starts_with(&ancestor.0) && self.0[ancestor.0.len()] == b'/'
    }

    /// This path of the directory at `dir`, seen from where `dir` is.
    pub(crate) fn within(&self, dir: &RelPath) -> Self {
        match (dir.is_root(), self.is_root()) {
            (true, _) => self.clone(),
            (false, true) => dir.clone(),
            (false, false) => dir.join_unchecked(&self.0),
        }
    }

    /// Whether this is where a state directory inside the output is, or below it: never published, never changed by a commit.
    pub(crate) fn is_reserved(&self) -> bool {
        self.components().next() == Some(RESERVED)
    }

    /// Every proper ancestor, from the top, the root left out.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> {
        self.0.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(slash, _)| Self(self.0[..slash].into()))
    }

    /// Whether it is one of `paths`, or below one of them.
    pub(crate) fn is_at_or_below(&self, paths: &BTreeSet<&RelPath>) -> bool {
        paths.contains(self) || paths.contains(&Self::root()) || self.ancestors().any(|above| paths.contains(&above))
    }

    /// This path below `root`, for messages and for callers outside the engine.
    pub fn under(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(self.as_path()) }
    }
}

/// How many bytes two paths begin with alike: most neighbours share their directories, so eight bytes are compared at a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD)).take_while(|(a, b)| a == b).count() * WORD;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::Dots),
        _ if name.len() > NAME_MAX => Err(PathError::TooLong),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ => Ok(()),
    }
}

impl Ord for RelPath {
    /// Tree order: `/` sorts before every other byte, so that a directory is followed by what is below it.
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |b: u8| if b == b'/' { 0 } else { b };
        let at = common_prefix(&self.0, &other.0);
        match (self.0.get(at), other.0.get(at)) {
            (Some(&a), Some(&b)) => rank(a).cmp(&rank(b)),
            _ => self.0.len().cmp(&other.0.len()),
        }
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    /// Readable on one line whatever the bytes are: control characters and non-UTF-8 are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        escape(&self.0, f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Writes bytes so that any name stays on one line and can be told from any other.
pub(crate) fn escape(bytes: &[u8], f: &mut dyn fmt::Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        for b in chunk.invalid() {
            write!(f, "\\x{b:02x}")?;
        }
    }
    Ok(())
}

/// A path outside the engine, escaped like a [`RelPath`] for a message of one line.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0.as_os_str().as_bytes(), f)
    }
}

/// A path as a word of a command line that can be pasted into a shell.
#[derive(Debug)]
pub struct Word<'a>(pub &'a Path);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_os_str().as_bytes();
        // No option of any command begins with a dot.
        if bytes.starts_with(b"-") {
            f.write_str("./")?;
        }
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./,:=@%+".contains(b) || !b.is_ascii();
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control));
        match text {
            Some(text) if !text.is_empty() && bytes.iter().all(is_plain) => f.write_str(text),
            Some(text) => write!(f, "'{}'", text.replace('\'', r"'\''")),
            None => {
                f.write_str("$'")?;
                for &b in bytes {
                    match b {
                        b' '..=b'~' if b != b'\'' && b != b'\\' => write!(f, "{}", char::from(b))?,
                        _ => write!(f, "\\x{b:02x}")?,
                    }
                }
                f.write_str("'")
            }
        }
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        Self::new(bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn a_shell_reads_a_word_as_the_path_that_it_was() {
        for path in [&b"a/b-c.d"[..], b"a b", b"-none", b"it's", b"~", b"$x`y`", b"", "\u{e9}t\u{e9}".as_bytes(), b"*"]
        {
            let word = Word(Path::new(OsStr::from_bytes(path))).to_string();
            let script = format!("printf %s {word}");
            let printed = std::process::Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
            assert_eq!(printed.strip_prefix(b"./").unwrap_or(&printed), path, "{word}");
        }
        assert_eq!(Word(Path::new("plain/path")).to_string(), "plain/path");
        assert_eq!(Word(Path::new(OsStr::from_bytes(b"\xff\n'"))).to_string(), r"$'\xff\x0a\x27'");
    }

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        for (path, error) in [
            ("", PathError::Empty),
            ("/etc", PathError::Absolute),
            ("a//b", PathError::EmptyComponent),
            ("a/", PathError::EmptyComponent),
            (".", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("a\0b", PathError::Nul),
        ] {
            assert_eq!(RelPath::new(path), Err(error), "{path:?}");
        }
        assert_eq!(RelPath::new(vec![b'x'; 256]), Err(PathError::TooLong));
        assert!(RelPath::new(vec![b'x'; 255]).is_ok());
        assert!(p("a").join(b"b/c").is_err());
        assert!(p("a").join(b"..").is_err());
    }

    #[test]
    fn a_directory_sorts_directly_before_what_is_below_it() {
        let mut paths = vec![p("a.b"), p("a/b"), p("a"), p("a-b"), p("b"), p("a/b/c"), p("a/bc")];
        paths.sort();
        assert_eq!(paths, vec![p("a"), p("a/b"), p("a/b/c"), p("a/bc"), p("a-b"), p("a.b"), p("b")]);
    }

    #[test]
    fn names_of_any_bytes_are_shown_on_one_line() {
        let path = RelPath::new(b"a\nb/\xff\\c").unwrap();
        assert_eq!(path.to_string(), "a\\nb/\\xff\\\\c");
    }

    proptest! {
        #[test]
        fn decoding_never_yields_a_path_that_new_refuses(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let encoded = postcard::to_stdvec(&serde_bytes(&bytes)).unwrap();
            let decoded: Result<RelPath, _> = postcard::from_bytes(&encoded);
            prop_assert_eq!(decoded.is_ok(), bytes.is_empty() || RelPath::new(&bytes).is_ok());
        }

        #[test]
        fn order_is_the_order_of_component_lists(a in "[a-c./-]{1,8}", b in "[a-c./-]{1,8}") {
            if let (Ok(a), Ok(b)) = (RelPath::new(&a), RelPath::new(&b)) {
                let by_components = a.components().collect::<Vec<_>>().cmp(&b.components().collect::<Vec<_>>());
                prop_assert_eq!(a.cmp(&b), by_components);
                if a.is_below(&b) { prop_assert!(a > b); }
            }
        }

        #[test]
        fn parent_and_name_join_to_the_path(path in "[a-c]{1,3}(/[a-c]{1,3}){0,4}") {
            let path = RelPath::new(&path).unwrap();
            prop_assert_eq!(path.parent().join(path.name()).unwrap(), path);
        }
    }

    fn serde_bytes(bytes: &[u8]) -> impl Serialize + '_ {
        struct Raw<'a>(&'a [u8]);
        impl Serialize for Raw<'_> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_bytes(self.0)
            }
        }
        Raw(bytes)
    }
}
