//! CRIU's account of a dump.

use std::path::Path;
use std::time::Duration;

use super::images;
use super::kind::Image;
use crate::error::Result;
use crate::frozen::DumpStats;

/// Reads how long a dump took and how much it wrote. CRIU writes this last of all, so it is there only after a
/// dump that went well.
pub(crate) fn dump_stats(images: &Path) -> Result<DumpStats> {
    let image = Image::DUMP_STATS;
    let stats: images::Stats = image.read_one(images)?;
    let dump = stats.dump.ok_or_else(|| image.damaged(images, "it isn't about a dump"))?;
    Ok(DumpStats {
        freezing: micros(dump.freezing_time),
        frozen: micros(dump.frozen_time),
        memdump: micros(dump.memdump_time),
        memwrite: micros(dump.memwrite_time),
        pages_scanned: dump.pages_scanned,
        pages_written: dump.pages_written,
    })
}

fn micros(count: u32) -> Duration {
    Duration::from_micros(count.into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn times_are_microseconds() {
        let folder = Folder::new();
        let dump = images::DumpStats { frozen_time: 1_500, pages_written: 7, ..Default::default() };
        folder.write(Image::DUMP_STATS, &[images::Stats { dump: Some(dump), ..Default::default() }]);
        let stats = dump_stats(folder.path()).unwrap();
        assert_eq!((stats.frozen, stats.pages_written), (Duration::from_micros(1_500), 7));
    }

    #[test]
    fn the_account_of_a_restore_is_not_that_of_a_dump() {
        let folder = Folder::new();
        folder.write(Image::DUMP_STATS, &[images::Stats::default()]);
        assert_eq!(dump_stats(folder.path()).unwrap_err().kind(), ErrorKind::Damaged);
    }
}
