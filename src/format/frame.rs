//! The container of journals, HEAD, `store` and `meta`: a header and checksummed frames. Manifests have the same header, and nodes
//! in a format of their own.
//!
//! ```text
//! file   = header frame*
//! header = magic[8] version:u32le crc32(magic version):u32le
//! frame  = length:u32le crc32(length payload):u32le payload[length]        length > 0
//! ```
//!
//! Invariants (journal-spec.md, "Frames"):
//! 1. Zeros are never a valid frame, so a tail that the file system allocated and did not write is seen as torn.
//! 2. A torn tail (the file ends early, or in zeros) is told from corruption (bytes that were written and have changed).
//! 3. Reading allocates no more than [`PAYLOAD_MAX`] for a frame, whatever its length field says.
//!
//! The checksum finds accidents. It is no proof of origin: trust comes from ownership of the state directory (G9).

use std::io::{self, Read, Write};

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 16;
/// Bytes before each payload.
pub(crate) const FRAME_HEAD: usize = 8;
/// The largest payload, in bytes. A record holds a path of any depth; this bounds what a damaged length can ask for.
pub(crate) const PAYLOAD_MAX: usize = 16 << 20;

/// Read at once: most files are smaller, and the room for it is cleared each time.
const READ_AHEAD: usize = 4096;

/// What kind of file it is, and in which version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
}

impl Format {
    /// The sixteen bytes that such a file starts with.
    pub(crate) fn header(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&self.magic);
        header[8..12].copy_from_slice(&self.version.to_le_bytes());
        let crc = crc32fast::hash(&header[..12]);
        header[12..].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// Why reading stopped before the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// The file ends in the middle of something, or in zeros.
    #[error("it ends early, at byte {offset}")]
    Torn { offset: u64 },
    /// Bytes are there and are wrong.
    #[error("{what} at byte {offset}")]
    Corrupt { offset: u64, what: String },
    /// A version that this txfs does not know.
    #[error("its format version is {version}, but this txfs knows only version {known}: use the txfs that wrote it")]
    Version { version: u32, known: u32 },
    /// The operating system could not read it.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

impl Damage {
    pub(crate) fn corrupt(offset: u64, what: impl ToString) -> Self {
        Damage::Corrupt { offset, what: what.to_string() }
    }
}

/// Writes a header and frames, and digests every byte.
pub(crate) struct FrameWriter<W: Write> {
    out: io::BufWriter<W>,
    hasher: blake3::Hasher,
}

impl<W: Write> FrameWriter<W> {
    pub(crate) fn new(out: W, format: Format) -> io::Result<Self> {
        let mut writer = Self { out: io::BufWriter::with_capacity(64 << 10, out), hasher: blake3::Hasher::new() };
        writer.put(&format.header())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    pub(crate) fn frame(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.is_empty() || payload.len() > PAYLOAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record is larger than the format allows"));
        }
        let length = (payload.len() as u32).to_le_bytes();
        self.put(&length)?;
        self.put(&checksum(length, payload).to_le_bytes())?;
        self.put(payload)
    }

    /// The BLAKE3 digest of every byte so far.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.hasher.finalize().into()
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        self.out.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// Reads what [`FrameWriter`] wrote, from any bytes.
pub(crate) struct FrameReader<R: Read> {
    input: io::BufReader<R>,
    version: u32,
    offset: u64,
    hasher: blake3::Hasher,
}

impl<R: Read> FrameReader<R> {
    /// Reads and checks the header.
    pub(crate) fn new(input: R, format: Format) -> Result<Self, Damage> {
        Self::since(input, format, format.version)
    }

    /// As [`FrameReader::new`], of a file that may be of an older version, from `oldest` on.
    pub(crate) fn since(input: R, format: Format, oldest: u32) -> Result<Self, Damage> {
        let mut input = io::BufReader::with_capacity(READ_AHEAD, input);
        let mut header = [0; HEADER_LEN];
        let got = fill(&mut input, &mut header)?;
        let version = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
        let older = Format { version, ..format };
        let is_older = (oldest..format.version).contains(&version) && check_header(&header, got, older).is_ok();
        if !is_older {
            check_header(&header, got, format)?;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        Ok(Self { input, version, offset: HEADER_LEN as u64, hasher })
    }

    /// The version that the header names.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// Where the next frame starts, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The BLAKE3 digest of every byte before [`FrameReader::offset`].
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.hasher.finalize().into()
    }

    /// The next payload; `None` at a clean end of the file.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Damage> {
        let mut head = [0; FRAME_HEAD];
        let got = fill(&mut self.input, &mut head)?;
        if got == 0 {
            return Ok(None);
        }
        if got < FRAME_HEAD {
            return Err(Damage::Torn { offset: self.offset });
        }
        let (length, crc) = head.split_at(4);
        let length: [u8; 4] = length.try_into().expect("split at four");
        let payload_len = u32::from_le_bytes(length) as usize;
        if payload_len == 0 || payload_len > PAYLOAD_MAX {
            return Err(self.damaged(&head, &[], "a frame with an impossible length"));
        }
        // Room for what is usual: a length that lies costs no more than this.
        let mut payload = Vec::with_capacity(payload_len.min(64 << 10));
        let got = (&mut self.input).take(payload_len as u64).read_to_end(&mut payload)?;
        if got < payload_len {
            return Err(Damage::Torn { offset: self.offset });
        }
        if checksum(length, &payload).to_le_bytes() != crc {
            return Err(self.damaged(&head, &payload, "a frame with a wrong checksum"));
        }
        self.hasher.update(&head).update(&payload);
        self.offset += (FRAME_HEAD + payload_len) as u64;
        Ok(Some(payload))
    }

    /// A bad frame is torn when everything from somewhere inside it to the end of the file is zero.
    fn damaged(&mut self, head: &[u8], payload: &[u8], what: &str) -> Damage {
        let offset = self.offset;
        let last = payload.last().or(head.last()).copied().unwrap_or(0);
        let mut rest = [0; 4096];
        let mut zero = last == 0;
        while zero {
            match self.input.read(&mut rest) {
                Ok(0) => return Damage::Torn { offset },
                Ok(n) => zero = rest[..n].iter().all(|&b| b == 0),
                Err(error) => return error.into(),
            }
        }
        Damage::corrupt(offset, what)
    }
}

/// Checks the first bytes of a file, of which `got` could be read.
pub(crate) fn check_header(header: &[u8; HEADER_LEN], got: usize, format: Format) -> Result<(), Damage> {
    match header[..got] == format.header()[..got] {
        false => Err(wrong_header(header, got, format)),
        true if got < HEADER_LEN => Err(Damage::Torn { offset: got as u64 }),
        true => Ok(()),
    }
}

fn wrong_header(header: &[u8; HEADER_LEN], got: usize, format: Format) -> Damage {
    if got < HEADER_LEN {
        return Damage::corrupt(0, "the header of another kind of file");
    }
    let version = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
    if header.iter().all(|&b| b == 0) {
        Damage::Torn { offset: 0 }
    } else if header[..8] != format.magic {
        Damage::corrupt(0, "the header of another kind of file")
    } else if crc32fast::hash(&header[..12]).to_le_bytes() != header[12..] {
        Damage::corrupt(0, "a header with a wrong checksum")
    } else {
        Damage::Version { version, known: format.version }
    }
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Reads until `buffer` is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { magic: *b"txfstest", version: 1 };

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut writer = FrameWriter::new(Vec::new(), FORMAT).unwrap();
        payloads.iter().for_each(|payload| writer.frame(payload).unwrap());
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Damage> {
        let mut reader = FrameReader::new(bytes, FORMAT)?;
        let mut payloads = Vec::new();
        while let Some(payload) = reader.next_frame()? {
            payloads.push(payload);
        }
        Ok(payloads)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&file(&[b"one", b"two"])).unwrap(), [b"one".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn a_file_cut_anywhere_is_torn_or_a_shorter_file() {
        let whole = file(&[b"one", b"two"]);
        for cut in 0..whole.len() {
            let ends = [HEADER_LEN, HEADER_LEN + FRAME_HEAD + 3];
            match read(&whole[..cut]) {
                Ok(payloads) => assert!(ends.contains(&cut), "cut at {cut} read as {payloads:?}"),
                Err(Damage::Torn { .. }) => {}
                Err(other) => panic!("cut at {cut}: {other}"),
            }
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn() {
        let whole = file(&[b"one", b"two"]);
        for cut in 0..whole.len() {
            let mut zeroed = whole.clone();
            zeroed[cut..].fill(0);
            zeroed.extend([0; 5000]);
            if cut > HEADER_LEN || cut == 0 {
                assert!(matches!(read(&zeroed), Err(Damage::Torn { .. })), "zeros from {cut}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_none_is_taken_for_a_torn_tail() {
        let whole = file(&[b"one", b"two"]);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A longer length runs into the end of the file and cannot be told from a torn tail; anything else can.
            match read(&flipped) {
                Ok(payloads) => panic!("bit {bit} went unnoticed: {payloads:?}"),
                Err(Damage::Torn { .. }) => {
                    let at = bit / 8;
                    let in_length =
                        [HEADER_LEN, HEADER_LEN + FRAME_HEAD + 3].iter().any(|&start| (start..start + 4).contains(&at));
                    assert!(in_length, "bit {bit} was taken for a torn tail");
                }
                Err(_) => {}
            }
        }
    }

    #[test]
    fn an_impossible_length_allocates_nothing() {
        let mut bytes = FORMAT.header().to_vec();
        bytes.extend(u32::MAX.to_le_bytes());
        bytes.extend([1; 100]);
        assert!(matches!(read(&bytes), Err(Damage::Corrupt { .. })));
    }

    #[test]
    fn a_newer_version_is_named() {
        let newer = Format { version: 2, ..FORMAT };
        assert!(matches!(FrameReader::new(&newer.header()[..], FORMAT), Err(Damage::Version { version: 2, known: 1 })));
    }
}
