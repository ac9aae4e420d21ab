//! What works here, found out by doing it.

use std::fs;
use std::io;
use std::path::Path;

use crate::capture::{Capture, Error, rehearse};
use crate::gate::{self, Gate, Refusal};
use crate::{calls, space, walk};

/// What works here.
#[derive(Debug)]
#[non_exhaustive]
pub struct Probe {
    /// Whether an overlay over the output does, or which gate is shut.
    pub overlay: Result<(), Refusal>,
    /// Whether another directory can be shown instead of the output.
    pub directory: Result<(), Refusal>,
    /// Whether a user namespace is needed.
    pub rootless: bool,
}

const PLACE: &str = "probe";
const FIRST: &str = "first";

/// Finds out what works for the output with the caller's directory `place`, in which it makes a directory `probe` and removes it again.
/// The output need not exist.
///
/// # Errors
/// The output cannot be looked at, or `place` not be written to.
pub fn probe(output: &Path, place: &Path) -> Result<Probe, Error> {
    let failed = |action: &'static str| {
        let path = place.to_path_buf();
        move |source: io::Error| Error::Io { action, path, source }
    };
    let rootless = space::is_rootless().unwrap_or(true);
    let dir = walk::open(place).map_err(failed("open"))?;
    // One that was killed may have left it.
    walk::remove(&dir, PLACE.as_ref()).map_err(failed("remove the probe in"))?;
    let own = place.join(PLACE);
    let result = probe_in(output, &own, rootless);
    walk::remove(&dir, PLACE.as_ref()).map_err(failed("remove the probe in"))?;
    result
}

fn probe_in(output: &Path, own: &Path, rootless: bool) -> Result<Probe, Error> {
    let failed = |source: io::Error| Error::Io { action: "make", path: own.to_path_buf(), source };
    if let Some(refusal) = refused_at_once(output) {
        let again = refused_at_once(output).unwrap_or(Refusal::of(Gate::Proc));
        return Ok(Probe { overlay: Err(refusal), directory: Err(again), rootless });
    }
    fs::create_dir(own).map_err(failed)?;
    fs::create_dir(own.join(FIRST)).map_err(failed)?;
    let substitute = own.join("output");
    fs::create_dir(&substitute).map_err(failed)?;
    // Nothing is made where the output is to be.
    let is_there = fs::symlink_metadata(output).is_ok();
    let output = if is_there { output } else { &substitute };
    let directory = rehearse(Capture::directory(output, own, FIRST)?.setup());
    let overlay = Capture::overlay(output, own, FIRST)?;
    let overlay = match overlay.check_owners() {
        Err(Error::Refused(refusal)) => Err(refusal),
        checked => checked.map(|()| rehearse(overlay.setup()))?,
    };
    Ok(Probe { overlay, directory, rootless })
}

fn refused_at_once(output: &Path) -> Option<Refusal> {
    if !calls::is_known_machine() {
        return Some(Refusal::of(Gate::Machine));
    }
    match fs::canonicalize(output).map(|output| gate::mount_below(&output)) {
        Ok(Ok(Some(at))) => Some(Refusal::of(Gate::MountsBelow(at))),
        Ok(Err(error)) => Some(Refusal { gate: Gate::Proc, error: Some(error) }),
        _ => None,
    }
}
