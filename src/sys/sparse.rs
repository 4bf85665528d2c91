//! Files that take no room for what is all zero in them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is looked at for being all zero: a page.
const PAGE: usize = 4096;

/// Writes pages that aren't all zero, neighbours at once, and passes over those that are. How much was written. A file that
/// ends with a hole has to be given its length.
pub(crate) fn write_at(file: &File, block: &[u8], at: u64) -> io::Result<u64> {
    let (mut begin, mut written) = (0, 0);
    while begin < block.len() {
        let zeros = length(&block[begin..], true);
        let data = begin + zeros..begin + zeros + length(&block[begin + zeros..], false);
        file.write_all_at(&block[data.clone()], at + data.start as u64)?;
        written += data.len() as u64;
        begin = data.end;
    }
    Ok(written)
}

/// How much at the beginning consists of pages that are all zero, or of such as are not.
fn length(bytes: &[u8], are_zero: bool) -> usize {
    let is_zero = |page: &[u8]| page.iter().all(|&byte| byte == 0);
    bytes.chunks(PAGE).take_while(|page| is_zero(page) == are_zero).map(<[u8]>::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_zeros_are_left_out_and_all_else_is_where_it_was() {
        let file = tempfile::tempfile().unwrap();
        let mut block = vec![0; 6 * PAGE + 100];
        for at in [PAGE + 7, 2 * PAGE, 4 * PAGE + 4095, 6 * PAGE + 99] {
            block[at] = 1;
        }
        file.set_len((block.len() + PAGE) as u64).unwrap();
        let written = write_at(&file, &block, PAGE as u64).unwrap();
        assert_eq!(written, 3 * PAGE as u64 + 100);
        let mut found = vec![1; block.len()];
        file.read_exact_at(&mut found, PAGE as u64).unwrap();
        assert_eq!(found, block);
    }
}
