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

    /// This path as it is called in the directory `dir`; `None` where it is not below that.
    pub(crate) fn seen_from(&self, dir: &RelPath) -> Option<Self> {
        let start = if dir.is_root() { 0 } else { dir.0.len() + 1 };
        self.is_below(dir).then(|| Self(self.0[start..].into()))
    }

    /// Whether this is where a state directory inside the output is, or below it: never published, never changed by a commit.
    pub(crate) fn is_reserved(&self) -> bool {
        self.components().next() == Some(RESERVED)
    }

    /// Every proper ancestor, from the top, the root left out.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> {
        self.0.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(slash, _)| Self(self.0[..slash].into()))
    }

    /// Every proper ancestor, and then this path itself; the root left out.
    pub(crate) fn way(&self) -> impl Iterator<Item = RelPath> {
        self.ancestors().chain((!self.is_root()).then(|| self.clone()))
    }

    /// Those of [`RelPath::ancestors`] that are neither `before` nor above it: what is new on the way to a path that comes after
    /// `before` in order of the tree. Over all paths of a tree that is each directory once, however deep it is.
    pub(crate) fn ancestors_not_of(&self, before: &RelPath) -> impl Iterator<Item = RelPath> {
        let common = common_prefix(&self.0, &before.0);
        let is_new = move |slash: usize| slash > common || slash == common && slash != before.0.len();
        let slashes = self.0.iter().enumerate().skip(common).filter(|&(_, &b)| b == b'/').map(|(slash, _)| slash);
        slashes.filter(move |&slash| is_new(slash)).map(|slash| Self(self.0[..slash].into()))
    }

    /// The directories above it, from the bottom, the root left out.
    pub(crate) fn parents(&self) -> impl Iterator<Item = RelPath> {
        std::iter::successors(Some(self.parent()), |path| Some(path.parent())).take_while(|path| !path.is_root())
    }

    /// Whether it is one of `paths`, or below one of them.
    pub(crate) fn is_at_or_below(&self, paths: &BTreeSet<&RelPath>) -> bool {
        self.nearest(|path| paths.range::<RelPath, _>(..=path).next_back().map(|found| (*found, ()))).is_some()
    }

    /// Of some paths this one, or else the nearest that is above it; `last_until` finds the last of them up to a path, in order of
    /// the tree. Each question leads above the answer before, and mostly the first is the last.
    pub(crate) fn nearest<'p, T>(
        &self,
        last_until: impl Fn(&RelPath) -> Option<(&'p RelPath, T)>,
    ) -> Option<(&'p RelPath, T)> {
        let mut bound = self.clone();
        loop {
            let (found, value) = last_until(&bound)?;
            if found == self || self.is_below(found) {
                return Some((found, value));
            }
            bound = self.above_both(found);
        }
    }

    /// The lowest directory that this path and `other`, which is not above it, are in.
    fn above_both(&self, other: &RelPath) -> Self {
        let common = common_prefix(&self.0, &other.0);
        match self.0[..common].iter().rposition(|&b| b == b'/') {
            Some(slash) => Self(self.0[..slash].into()),
            None => Self::root(),
        }
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
    /// Readable on one line whatever the bytes are: what [`is_hidden`], and what is not UTF-8, is escaped.
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

/// Whether a terminal does something else with a character than to show it, or shows nothing, or a space: controls, line ends,
/// overrides of direction, other format characters, what Unicode calls default-ignorable, and every space but the usual one. A
/// name with one of these can show as another.
pub fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    ) || c.is_control()
        || (c.is_whitespace() && c != ' ')
}

/// Writes bytes so that any name stays on one line, shows all that it has, and can be told from any other.
pub(crate) fn escape(bytes: &[u8], f: &mut dyn fmt::Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_hidden(c) || c == '\\' { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
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
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(is_hidden));
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

    #[test]
    fn a_name_does_not_show_as_another() {
        let hidden = "\u{1b}\u{9b}\u{85}\u{a0}\u{ad}\u{34f}\u{61c}\u{180e}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{202f}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{3000}\u{3164}\u{fe0f}\u{feff}\u{fff9}\u{e0041}\u{e0100}";
        for c in hidden.chars() {
            let name = format!("a{c}b");
            let expected = format!("a{}b", c.escape_default());
            assert_eq!(Shown(Path::new(&name)).to_string(), expected);
            assert_eq!(p(&name).to_string(), expected);
            let word = Word(Path::new(&name)).to_string();
            assert!(word.is_ascii() && word.starts_with("$'"), "{word}");
        }
        for shown in ["a b", "\u{e9}t\u{e9}", "\u{e9}".repeat(2).as_str(), "\u{4e2d}\u{6587}", "e\u{301}", "\u{1f980}"]
        {
            assert_eq!(Shown(Path::new(shown)).to_string(), shown);
        }
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
        fn what_is_new_on_the_way_is_what_was_not_on_the_way_before(a in "[ab](/[ab]){0,5}", b in "[ab](/[ab]){0,5}") {
            let (a, b) = (p(&a), p(&b));
            let expected: Vec<_> = a.ancestors().filter(|above| *above != b && !b.is_below(above)).collect();
            prop_assert_eq!(a.ancestors_not_of(&b).collect::<Vec<_>>(), expected);
            let mut upwards: Vec<_> = a.parents().collect();
            upwards.reverse();
            prop_assert_eq!(upwards, a.ancestors().collect::<Vec<_>>());
        }

        #[test]
        fn the_nearest_above_is_found_among_any_paths(
            path in "[ab](/[ab]){0,5}",
            others in proptest::collection::btree_set("|[ab](/[ab]){0,5}", 0..8),
        ) {
            let path = p(&path);
            let others: Vec<_> = others.iter().map(|o| if o.is_empty() { RelPath::root() } else { p(o) }).collect();
            let set: BTreeSet<&RelPath> = others.iter().collect();
            let is_above = |other: &&&RelPath| path == ***other || path.is_below(other);
            let expected = set.iter().filter(is_above).max_by_key(|other| other.as_bytes().len()).copied();
            let found = path.nearest(|until| set.range::<RelPath, _>(..=until).next_back().map(|found| (*found, ())));
            prop_assert_eq!(found.map(|found| found.0), expected);
            prop_assert_eq!(path.is_at_or_below(&set), expected.is_some());
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
