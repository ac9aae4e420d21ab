//! What reader and writer of a journal share.

use crate::frame::Format;

/// The header of a journal. The version is raised by every change of the meaning of any byte.
pub(crate) const JOURNAL: Format = Format { magic: *b"txfsjrnl", version: 1 };
