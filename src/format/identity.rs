//! The one answer to "is this the recorded object?": what a manifest or a journal records of an entry, held against what lies there.
//!
//! | question | asks | answer |
//! |---|---|---|
//! | Is it this very entry, unchanged? | kind, inode, size, time | [`Object::is`] |
//! | The same, its mode too? | and the mode | [`Object::is_untouched`] |
//! | Is it this entry, or one that has what the record says? | the same, and in doubt the content | [`Object::find`] |
//! | Do two records publish the same? | kind, mode, content | [`Object::publishes_same`] |
//! | Have they the same content? | kind, content | [`Object::same_content`] |
//! | Are two names of one entry? | device, inode | [`Stat::is_same_entry`] |
//!
//! Invariants (journal-spec.md, "Apply"):
//! 1. Identity first, the digest where identity disagrees: what is as it was recorded is not read (G5).
//! 2. What is of another kind or size is not read either: it cannot be the same.
//! 3. A directory has no content. Its identity is its inode; that another one may stand for it the caller has to say.
//! 4. No device is recorded, for none survives a reboot. Descent never crosses a mount, so the device is the store's.

use serde::{Deserialize, Serialize};

use crate::fs::{Kind, Stat, Timestamp};
use crate::mutant::{Mutant, left_out};

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What is at a path: what it is, and which inode it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// File, directory or symbolic link.
    pub kind: Kind,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Bytes of a file or of a link's target; 0 for a directory.
    pub size: u64,
    /// BLAKE3 of a file's content or of a link's target; zeros for a directory.
    pub digest: Digest,
    /// The inode number.
    pub ino: u64,
    /// Time of the last change; zero for a directory, whose time is not its own.
    pub mtime: Timestamp,
}

/// What an entry has to have that is another inode than the recorded one, to be taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Like {
    /// Mode and content: it publishes the same.
    Published,
    /// The content: all that would be lost with it.
    Content,
}

impl Object {
    /// The object that `stat` describes, of a given content.
    pub(crate) fn new(kind: Kind, stat: &Stat, digest: Digest) -> Self {
        match kind {
            Kind::Directory => Self::directory(stat),
            Kind::File | Kind::Symlink => {
                Self { kind, mode: stat.mode, size: stat.size, digest, ino: stat.ino, mtime: stat.mtime }
            }
        }
    }

    /// The directory that `stat` describes.
    pub(crate) fn directory(stat: &Stat) -> Self {
        let (kind, digest, mtime) = (Kind::Directory, Digest::default(), Timestamp::default());
        Self { kind, mode: stat.mode, size: 0, digest, ino: stat.ino, mtime }
    }

    /// Whether `stat` is this very entry, unchanged as far as its size and time tell. The mode is not asked.
    pub(crate) fn is(&self, stat: &Stat) -> bool {
        let same_inode = Some(self.kind) == stat.kind && (self.ino == stat.ino || left_out(Mutant::IdentityInode));
        let kind_is_all = self.kind == Kind::Directory || left_out(Mutant::IdentitySizeAndTime);
        same_inode && (kind_is_all || (self.size == stat.size && self.mtime == stat.mtime))
    }

    /// As [`Object::is`], and with the mode that was recorded.
    pub(crate) fn is_untouched(&self, stat: &Stat) -> bool {
        self.mode == stat.mode && self.is(stat)
    }

    /// What `stat` is, if it is this very entry, or another file or link that is like it: then it is what `read` finds.
    pub(crate) fn find<E>(
        &self,
        stat: &Stat,
        like: Like,
        read: impl FnOnce() -> Result<Object, E>,
    ) -> Result<Option<Object>, E> {
        if self.is(stat) {
            return Ok(Some(*self));
        }
        if self.kind == Kind::Directory || Some(self.kind) != stat.kind || self.size != stat.size {
            return Ok(None);
        }
        let found = read()?;
        let is_like = match like {
            Like::Published => found.publishes_same(self),
            Like::Content => found.same_content(self),
        };
        Ok(is_like.then_some(found))
    }

    /// Whether both publish the same: kind, mode and content, whichever inode holds it.
    pub(crate) fn publishes_same(&self, other: &Object) -> bool {
        self.mode == other.mode && self.same_content(other)
    }

    /// Whether both have the same content, whatever their modes.
    pub(crate) fn same_content(&self, other: &Object) -> bool {
        self.kind == other.kind && self.size == other.size && self.digest == other.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp { seconds: 7, nanos: 1 };

    fn stat(kind: Kind, ino: u64, size: u64) -> Stat {
        let (uid, gid, nlink, dev) = (0, 0, 1, 3);
        Stat { kind: Some(kind), mode: 0o644, uid, gid, nlink, dev, ino, size, mtime: AT, ctime: AT }
    }

    fn file(ino: u64, content: &[u8]) -> (Object, Stat) {
        let stat = stat(Kind::File, ino, content.len() as u64);
        (Object::new(Kind::File, &stat, Digest::of(content)), stat)
    }

    fn not_read() -> Result<Object, ()> {
        panic!("it was read")
    }

    #[test]
    fn what_is_as_it_was_recorded_is_not_read() {
        let (object, same) = file(5, b"abc");
        assert_eq!(object.find(&same, Like::Published, not_read), Ok(Some(object)));
        assert!(object.is_untouched(&same));
        let other_mode = Stat { mode: 0o600, ..same };
        assert_eq!(object.find(&other_mode, Like::Published, not_read), Ok(Some(object)));
        assert!(!object.is_untouched(&other_mode));
    }

    #[test]
    fn what_cannot_be_the_same_is_not_read() {
        let (object, same) = file(5, b"abc");
        for other in
            [Stat { size: 4, ino: 6, ..same }, Stat { kind: Some(Kind::Symlink), ..same }, Stat { kind: None, ..same }]
        {
            assert_eq!(object.find(&other, Like::Content, not_read), Ok(None));
        }
        let directory = Object::directory(&stat(Kind::Directory, 5, 4096));
        assert!(directory.is(&stat(Kind::Directory, 5, 1)));
        assert_eq!(directory.find(&stat(Kind::Directory, 6, 4096), Like::Content, not_read), Ok(None));
    }

    #[test]
    fn content_tells_where_the_inode_is_another() {
        let (object, _) = file(5, b"abc");
        let (copy, copied) = file(6, b"abc");
        let (other, changed) = file(6, b"abd");
        assert_eq!(object.find(&copied, Like::Published, || Ok::<_, ()>(copy)), Ok(Some(copy)));
        assert_eq!(object.find(&changed, Like::Content, || Ok::<_, ()>(other)), Ok(None));
        let closed = Object { mode: 0o600, ..copy };
        assert_eq!(object.find(&copied, Like::Published, || Ok::<_, ()>(closed)), Ok(None));
        assert_eq!(object.find(&copied, Like::Content, || Ok::<_, ()>(closed)), Ok(Some(closed)));
        assert_eq!(object.find(&copied, Like::Content, || Err("torn")), Err("torn"));
    }

    #[test]
    fn two_names_of_one_entry_are_told_by_device_and_inode() {
        let (_, one) = file(5, b"abc");
        assert!(one.is_same_entry(&Stat { nlink: 2, ..one }));
        assert!(!one.is_same_entry(&Stat { ino: 6, ..one }) && !one.is_same_entry(&Stat { dev: 4, ..one }));
    }
}
