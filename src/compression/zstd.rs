//! The seekable format, by the crate `zeekstd`.

use std::fs::File;
use std::io::{self, Read, Write};

use zeekstd::{DecodeOptions, Decoder, EncodeOptions, Encoder, FrameSizePolicy, SeekTable};

use crate::error::Result;

/// How much is compressed by itself: what is read at once where pages are compared.
const PART: u32 = 256 << 10;

/// The largest part that is read: nothing that was written here has larger ones.
const LARGEST_PART: u64 = 16 << 20;

pub(super) fn check() -> Result<()> {
    Ok(())
}

pub(crate) struct Writer(Encoder<'static, File>);

impl Writer {
    pub(super) fn new(file: File, level: u8) -> io::Result<Writer> {
        let options = EncodeOptions::new()
            .frame_size_policy(FrameSizePolicy::Uncompressed(PART))
            .checksum_flag(false)
            .compression_level(level.into());
        options.into_encoder(file).map(Writer).map_err(io::Error::other)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.0.finish().map(drop).map_err(io::Error::other)
    }
}

pub(crate) struct Reader {
    decoder: Decoder<'static, File>,
    /// The part that was read last, and where it begins.
    part: Vec<u8>,
    start: u64,
}

impl Reader {
    pub(super) fn new(mut file: File) -> io::Result<Reader> {
        let table = SeekTable::from_seekable(&mut file).map_err(damaged)?;
        let parts_are_small = table.max_frame_size_decomp() <= LARGEST_PART;
        let decoder = DecodeOptions::new(file).seek_table(table).into_decoder().map_err(damaged)?;
        match parts_are_small {
            true => Ok(Reader { decoder, part: Vec::new(), start: 0 }),
            false => Err(damaged("a part of it is larger than any that is written")),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.decoder.seek_table().size_decomp()
    }

    pub(super) fn read_exact_at(&mut self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let is_at_hand = (self.start..self.start + self.part.len() as u64).contains(&offset);
            if !is_at_hand {
                self.read_part(offset)?;
            }
            let from = &self.part[(offset - self.start) as usize..];
            let count = from.len().min(bytes.len());
            let (now, rest) = bytes.split_at_mut(count);
            now.copy_from_slice(&from[..count]);
            (bytes, offset) = (rest, offset + count as u64);
        }
        Ok(())
    }

    /// Reads the part in which an offset is.
    fn read_part(&mut self, offset: u64) -> io::Result<()> {
        if offset >= self.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let table = self.decoder.seek_table();
        let index = table.frame_index_decomp(offset);
        let place =
            table.frame_start_decomp(index).and_then(|start| Ok((start, table.frame_end_decomp(index)?)));
        let (start, end) = place.map_err(damaged)?;
        // Where this fails, nothing is at hand.
        self.part.clear();
        self.decoder.set_offset(start).map_err(damaged)?;
        self.decoder.set_offset_limit(end).map_err(damaged)?;
        let mut part = vec![0; (end - start) as usize];
        self.decoder.read_exact(&mut part)?;
        (self.part, self.start) = (part, start);
        Ok(())
    }
}

fn damaged(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, source)
}

#[cfg(test)]
mod tests {
    use super::super::{Compressor, Pages, compressed};
    use super::*;

    fn stored(contents: &[u8]) -> (tempfile::TempDir, Pages) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pages-1.img");
        let mut compressor = Compressor::new(File::create(compressed(&file)).unwrap(), 1).unwrap();
        contents.chunks(100_000).for_each(|bytes| compressor.write(bytes).unwrap());
        compressor.finish().unwrap();
        let pages = Pages::open(&file).unwrap();
        (folder, pages)
    }

    #[test]
    fn what_is_anywhere_is_read_without_what_is_before_it() {
        let contents: Vec<u8> = (0..1_000_003_u32).map(|at| (at / 1000) as u8).collect();
        let (folder, mut pages) = stored(&contents);
        assert_eq!(pages.size().unwrap(), contents.len() as u64);
        for (from, length) in [(999_000, 1003), (0, 10), (262_000, 300_000), (524_287, 2), (4096, 4096)] {
            let mut found = vec![0; length];
            pages.read_exact_at(&mut found, from as u64).unwrap();
            assert!(found == contents[from..from + length], "{length} bytes from {from} on");
        }
        assert!(pages.read_exact_at(&mut [0; 2], contents.len() as u64 - 1).is_err(), "there is no more");
        let stored = std::fs::read(folder.path().join("pages-1.img.zst")).unwrap();
        assert!(stored.len() < contents.len() / 10);
    }

    #[test]
    fn what_is_empty_or_no_such_file_is_no_surprise() {
        let (_folder, mut pages) = stored(b"");
        assert_eq!(pages.size().unwrap(), 0);
        assert!(pages.read_exact_at(&mut [0], 0).is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pages-1.img");
        assert_eq!(Pages::open(&file).err().unwrap().kind(), io::ErrorKind::NotFound);
        std::fs::write(compressed(&file), [7; 1000]).unwrap();
        assert!(Pages::open(&file).is_err(), "it has no table");
    }
}
