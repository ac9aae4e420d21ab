//! Files of an [`Fs`] as `std::io` streams.

use std::io::{self, Read, Write};

use super::Fs;

/// An open file to read from or write to.
pub(crate) struct Stream<F: Fs> {
    pub(crate) fs: F,
    pub(crate) file: F::File,
}

impl<F: Fs> Read for Stream<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fs.read(&mut self.file, buffer)
    }
}

impl<F: Fs> Write for Stream<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.fs.write(&mut self.file, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
