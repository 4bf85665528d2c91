//! Whether a checkpoint builds on the one before it, so that only what has changed since is stored.

use std::path::PathBuf;
use std::sync::Once;

use super::{Answer, Subject, staging};
use crate::error::Result;
use crate::frozen::Bytes;
use crate::image::delta::{self, Delta};
use crate::report::Cause;
use crate::store::chain::{Names, Used};
use crate::store::draft::Draft;
use crate::store::head::Head;
use crate::store::manifest::Level;

/// How many levels may be below a checkpoint's images. Each has a restore read in one more place, and takes room again when the
/// next is made of all of them (docs/performance.md).
const MOST_LEVELS: usize = 12;

/// How many files all levels may have together: each is one more name on the disk.
const MOST_FILES: usize = 2048;

/// Less than this is stored whole: more files would cost more than they save.
const WORTH_IT: Bytes = Bytes::mebibytes(4);

const NAMES: Names = Names { pages: delta::holds_pages, maps: delta::maps_pages };

/// What became of the images.
#[derive(Debug, Default)]
pub(super) struct Reduced {
    /// On which levels they build.
    pub(super) chain: Vec<Level>,
    /// How much of the memory has changed since the checkpoint before, where that was found out.
    pub(super) changed: Option<Bytes>,
}

/// Leaves those pages out of the images that are as they were at the checkpoint before. Where they can't build on it, or
/// nothing is gained by it, they stay whole.
pub(super) fn reduce(subject: &Subject, draft: &Draft, cause: &Cause, answer: &Answer) -> Result<Reduced> {
    let settings = &subject.settings;
    if !settings.incremental || settings.encrypts() || !answer.by_worker || staging::is_urgent(subject, cause)
    {
        return Ok(Reduced::default());
    }
    let images = draft.images();
    let (size, pagemaps) = delta::extent(&images)?;
    let most = MOST_LEVELS.min(MOST_FILES / (2 * pagemaps.max(1)));
    let before = draft.before().filter(|(_, before)| before.can_be_built_on(&answer.version.to_string()));
    let Some(before) = before.filter(|_| size >= WORTH_IT && most > 0 && !delta::builds_on_others(&images))
    else {
        return Ok(Reduced::default());
    };
    let mut changed = None;
    match compared(draft, &before, most) {
        Ok(Some((levels, delta))) => {
            delta.put_in_place(&images, &draft.home())?;
            let used =
                |it: &delta::Shared| Used { offset: it.offset, length: it.length, xxh3_64: it.xxh3_64 };
            draft.note_used(delta.shared.iter().map(|shared| (&*shared.file, used(shared))))?;
            return Ok(Reduced { chain: levels, changed: Some(delta::extent(&images)?.0) });
        }
        Ok(None) => {
            changed = Some(size);
            log::debug!("most of the memory has changed since {}", before.1.id);
        }
        Err(error) => tell(&before.0, &error.chain()),
    }
    draft.build_on_nothing()?;
    Ok(Reduced { chain: Vec::new(), changed })
}

/// Compares the images with those of the checkpoint before, which are linked into the draft for it, and writes what has
/// changed. Until that takes their place, they are whole: on a disk that is almost full there may be room for them alone.
fn compared(draft: &Draft, before: &(PathBuf, Head), most: usize) -> Result<Option<(Vec<Level>, Delta)>> {
    let levels = draft.build_on(before, most, NAMES)?;
    let Some(delta) = delta::compare(&draft.level(levels.len()), &draft.images())? else { return Ok(None) };
    delta.write_beside(&draft.home())?;
    Ok(Some((levels, delta)))
}

/// Once, since it may be so at every checkpoint: a file system without hard links.
fn tell(before: &std::path::Path, why: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!("checkpoints are stored whole, and don't build on {}: {why}", before.display());
    });
}
