//! Copying a part of a file, as the kernel does it best.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek};

/// How much is copied at once where the kernel can't do it by itself.
const BLOCK: u64 = 256 << 10;

/// Copies a part of a file, hole by hole. Where the file system can, both have the same blocks afterwards, and the kernel
/// does it in any case. A file that ends with a hole has to be given its length.
pub(crate) fn copy(from: &File, offset: u64, length: u64, to: &File, at: u64) -> io::Result<()> {
    let end = offset + length;
    let mut done = offset;
    while let Some(data) = find(from, done, Whence::SeekData)?.filter(|&data| data < end) {
        let hole = find(from, data, Whence::SeekHole)?.map_or(end, |hole| hole.min(end));
        copy_data(from, data, hole - data, to, at + (data - offset))?;
        done = hole;
    }
    Ok(())
}

/// Where the next data or hole of a file is; none where none follows.
fn find(file: &File, from: u64, what: Whence) -> io::Result<Option<u64>> {
    match lseek(file, from as i64, what) {
        Ok(found) => Ok(Some(found as u64)),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn copy_data(from: &File, offset: u64, length: u64, to: &File, at: u64) -> io::Result<()> {
    let (mut source, mut target, end) = (offset as i64, at as i64, offset + length);
    while (source as u64) < end {
        let left = end - source as u64;
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), left as usize) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::EINTR) => {}
            // Not between these two file systems, or not by this kernel.
            Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                let mut block = vec![0; left.min(BLOCK) as usize];
                from.read_exact_at(&mut block, source as u64)?;
                to.write_all_at(&block, target as u64)?;
                (source, target) = (source + block.len() as i64, target + block.len() as i64);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn a_copy_of_a_part_has_the_holes_of_the_part() {
        let here = tempfile::tempfile().unwrap();
        let pages = 64 * PAGE;
        here.set_len(4 * pages as u64).unwrap();
        here.write_all_at(&vec![7; pages], pages as u64).unwrap();
        here.write_all_at(&[8], 3 * pages as u64).unwrap();
        let elsewhere = tempfile::tempfile_in("/dev/shm").unwrap();
        for copied in [tempfile::tempfile().unwrap(), elsewhere] {
            let part = (PAGE as u64, 3 * pages as u64);
            copied.set_len(part.1).unwrap();
            copy(&here, part.0, part.1, &copied, 0).unwrap();
            let [mut expected, mut found] = [(); 2].map(|()| vec![1; part.1 as usize]);
            here.read_exact_at(&mut expected, part.0).unwrap();
            copied.read_exact_at(&mut found, 0).unwrap();
            assert!(found == expected);
            assert!(copied.metadata().unwrap().blocks() * 512 < 2 * pages as u64);
        }
    }
}
