//! Trees to be published, and whether one is.

use std::collections::BTreeMap;
use std::path::Path;

/// The path that a transaction replaces which does not replace all.
pub(super) const AT: &str = "d";

/// A foreign entry of the output.
pub const FOREIGN: &str = "CNAME";

/// An entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A file with one of a few contents.
    File(u8, u32),
    /// A directory.
    Dir(u32),
    /// A symbolic link with one of a few targets.
    Link(u8),
}

pub const FILES: [Node; 3] = [Node::File(0, 0o644), Node::File(1, 0o644), Node::File(0, 0o600)];

impl Node {
    pub(super) fn content(self) -> &'static [u8] {
        match self {
            Node::File(0, _) => b"nought",
            Node::File(1, _) => b"eleven",
            Node::File(_, _) => b"two",
            Node::Link(0) => b"a",
            Node::Link(_) => b"d/x",
            Node::Dir(_) => b"",
        }
    }
}

/// What is to be published, by path; the directories above an entry are in it too.
pub type Spec = BTreeMap<&'static str, Node>;

/// What is published of this in a shared store: directories that every member may write to, and files that he may read.
pub fn for_group(spec: &Spec) -> Spec {
    let opened = |node: &Node| match *node {
        Node::Dir(mode) => Node::Dir(0o2775 | mode),
        Node::File(content, mode) => Node::File(content, mode | 0o040),
        link => link,
    };
    spec.iter().map(|(path, node)| (*path, opened(node))).collect()
}

pub(super) fn own(entry: (&&'static str, &Node)) -> (&'static str, Node) {
    (*entry.0, *entry.1)
}

/// Whether something is a directory in one of both and not in the other: without RENAME_EXCHANGE that cannot be published.
pub fn changes_kind(old: &Spec, new: &Spec) -> bool {
    let is_dir = |node: &Node| matches!(node, Node::Dir(_));
    new.iter().any(|(path, node)| old.get(path).is_some_and(|old| is_dir(old) != is_dir(node)))
}

pub fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(dir, _)| dir)
}

/// Whether the output's entries are the spec's.
pub fn is_published(tree: &crate::Tree, spec: &Spec, foreign: bool) -> bool {
    use txfs::Kind;
    let mut expected = spec.len() + 1;
    let same = spec.iter().all(|(path, node)| {
        let entry = txfs::RelPath::new(path).ok().and_then(|path| tree.get(&path));
        entry.is_some_and(|entry| match node {
            Node::Dir(mode) => entry.kind == Some(Kind::Directory) && entry.mode == *mode,
            Node::File(_, mode) => {
                entry.kind == Some(Kind::File) && entry.mode == *mode && entry.content() == node.content()
            }
            Node::Link(_) => entry.kind == Some(Kind::Symlink) && entry.content() == node.content(),
        })
    });
    expected += usize::from(foreign);
    same && tree.len() == expected
}

/// Two trees that differ only at one path, where both have a directory or nothing.
pub(super) fn alike_but_at_one_path(old: Option<Spec>, new: Spec) -> (Option<Spec>, Spec) {
    let is_at = |path: &str| Path::new(path).starts_with(AT);
    let is_fit = |spec: &Spec| matches!(spec.get(AT), None | Some(Node::Dir(_)));
    let old = old.map(|mut old| {
        let is_fit = is_fit(&old);
        old.retain(|path, _| is_fit || !is_at(path));
        old
    });
    let is_fit = is_fit(&new);
    let mut at: Spec = new.into_iter().filter(|(path, _)| is_fit && is_at(path)).collect();
    if at.is_empty() && !old.iter().flatten().any(|(path, _)| is_at(path)) {
        at.extend([(AT, Node::Dir(0o755)), ("d/x", FILES[0])]);
    }
    at.extend(old.iter().flatten().filter(|(path, _)| !is_at(path)).map(own));
    (old, at)
}
