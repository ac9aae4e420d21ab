//! What the keeper tells its caller at the end, and what a failed beginning tells, over one stream of bytes.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::gate::Step;
use crate::roots::Left;

/// What the keeper tells at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) left: Left,
    /// The processes that outlived the command.
    pub(crate) names: Vec<String>,
    /// Whether they could not be ended.
    pub(crate) survived: bool,
    pub(crate) answered: u64,
}

/// What was told.
#[derive(Debug)]
pub(crate) enum Told {
    /// Nothing: the keeper was killed.
    Nothing,
    Failed(Step, io::Error),
    Ended(Report),
}

const FAILED: u8 = b'f';
const ENDED: u8 = b'e';

pub(crate) fn encode_failure(step: Step, error: &io::Error) -> Vec<u8> {
    let mut bytes = vec![FAILED, step as u8];
    bytes.extend(error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes());
    bytes
}

impl Report {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, name) = match &self.left {
            Left::Upper(name) => (b'u', name.clone()),
            Left::Whole(name) => (b'w', name.clone()),
            Left::Nothing => (b'n', OsString::new()),
        };
        let mut bytes = vec![ENDED, kind, u8::from(self.survived)];
        bytes.extend(self.answered.to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        for name in &self.names {
            bytes.push(0);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Told {
    decode_known(bytes).unwrap_or(Told::Nothing)
}

fn decode_known(bytes: &[u8]) -> Option<Told> {
    let (kind, rest) = bytes.split_first()?;
    match *kind {
        FAILED => {
            let (step, errno) = rest.split_first()?;
            let errno = i32::from_le_bytes(errno.get(..4)?.try_into().ok()?);
            Some(Told::Failed(Step::from_number(*step)?, io::Error::from_raw_os_error(errno)))
        }
        ENDED => {
            let (left, rest) = rest.split_first()?;
            let (survived, rest) = rest.split_first()?;
            let answered = u64::from_le_bytes(rest.get(..8)?.try_into().ok()?);
            let mut texts = rest.get(8..)?.split(|byte| *byte == 0);
            let name = OsString::from_vec(texts.next()?.to_vec());
            let left = match *left {
                b'u' => Left::Upper(name),
                b'w' => Left::Whole(name),
                b'n' => Left::Nothing,
                _ => return None,
            };
            let names = texts.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            Some(Told::Ended(Report { left, names, survived: *survived != 0, answered }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        for left in [Left::Upper("stage".into()), Left::Whole("root-1".into()), Left::Nothing] {
            for names in [vec![], vec!["sleep".to_owned(), "a b".to_owned()]] {
                let report = Report { left: left.clone(), names, survived: true, answered: 7 };
                let Told::Ended(told) = decode(&report.encode()) else { panic!() };
                assert_eq!(told, report);
            }
        }
        let failed = encode_failure(Step::Overlay, &io::Error::from_raw_os_error(libc::EINVAL));
        assert!(
            matches!(decode(&failed), Told::Failed(Step::Overlay, error) if error.raw_os_error() == Some(libc::EINVAL))
        );
        for cut in 0..failed.len() {
            assert!(matches!(decode(&failed[..cut]), Told::Nothing));
        }
    }
}
