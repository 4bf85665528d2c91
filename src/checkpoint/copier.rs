//! Copying the program's pages with more than one processor while it stands still, where a checkpoint goes by way of memory.
//!
//! CRIU takes the pages out of the program, gives them to the kernel to copy them into the file, and waits for that, all in
//! turn. Here the file that it writes to is a pipe of a helper's, which passes the pages themselves on, and the helper copies
//! them into memory that is at hand already, while CRIU takes the next.
//!
//! The program goes on as soon as CRIU has written the last of its images, `inventory.img`, and all pages have to be copied
//! by then: that one is a pipe as well, which is full until they are. Whenever the helper ends, nobody waits for it: its
//! pipes are found at `/proc/PID/fd`, which isn't there then, and who writes to one that nobody reads any more is told so
//! (EPIPE). CRIU fails as it does with a full disk; the program runs on, and the checkpoint has failed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::store::draft::Draft;
use crate::store::layout;
use crate::sys::copying::{Gate, Source, Target};
use crate::sys::disk;
use crate::sys::ourselves::{self, Helper};

/// What the helper is told that it is.
pub(crate) const ROLE: &str = "copier";

/// How long it may take to name its last file when CRIU has answered.
const NAMING: Duration = Duration::from_secs(10);

const ENDED: &str = "the process that copies the program's pages has ended before it was done";
const WITHOUT: &str = "ask again; SELFDUMP_STAGING=off does without that process, if it is killed each time";

/// A helper that copies pages. It is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Copier {
    images: PathBuf,
    helper: Helper,
}

impl Copier {
    /// Starts one for a draft that has its memory at hand. None where it can't be had: then CRIU copies the pages.
    pub(super) fn start(draft: &Draft) -> Option<Copier> {
        /// A program that takes long to be loaded takes long each time.
        static TAKES_TOO_LONG: AtomicBool = AtomicBool::new(false);
        if !draft.has_memory_at_hand() || TAKES_TOO_LONG.load(Ordering::Relaxed) {
            return None;
        }
        let images = draft.images();
        let started =
            File::open(draft.written_folder()).and_then(|folder| Helper::start(ROLE, folder.as_fd()));
        let ready =
            started.and_then(|(helper, _)| match pipes(&images).iter().all(|pipe| disk::is_writable(pipe)) {
                true => Ok(helper),
                false => Err(io::ErrorKind::PermissionDenied.into()),
            });
        match ready {
            Ok(helper) => Some(Copier { images, helper }),
            Err(error) => {
                log::debug!("CRIU copies the pages by itself: {error}");
                TAKES_TOO_LONG.fetch_or(error.kind() == io::ErrorKind::TimedOut, Ordering::Relaxed);
                pipes(&images).iter().for_each(|pipe| drop(fs::remove_file(pipe)));
                None
            }
        }
    }

    /// A failed dump's error, with what has become of the copier.
    pub(super) fn explain(&self, error: Error) -> Error {
        if !self.helper.has_ended() {
            return error;
        }
        Error::new(ErrorKind::ServiceDied, ENDED).with_source(error).with_hint(WITHOUT)
    }

    /// Waits until all files are where they belong. Only in the process that goes on.
    pub(super) fn finish(self) -> Result<()> {
        let since = Instant::now();
        // The links themselves: what they lead to may be another file of the helper's by now.
        let is_in_its_place =
            |image: &PathBuf| fs::symlink_metadata(image).is_ok_and(|about| about.is_file());
        while !pipes(&self.images).iter().all(is_in_its_place) {
            if since.elapsed() >= NAMING {
                return Err(Error::new(
                    ErrorKind::Io,
                    "the process that copies the program's pages doesn't end",
                )
                .with_hint("set SELFDUMP_STAGING=off if this comes again"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// The two images of which each is a pipe to the helper: the pages of the first process, and the last of all.
fn pipes(images: &Path) -> [PathBuf; 2] {
    image::first_pages_and_last().map(|name| images.join(name))
}

/// What the helper does, in the draft's folder: copies the pages, lets CRIU write its last image, gives both their names,
/// and is there until it is ended.
pub(crate) fn copy() -> io::Result<()> {
    let [pages, last] = pipes(Path::new(layout::IMAGES));
    let (source, gate) = (Source::at(&pages)?, Gate::at(&last)?);
    let target = Target::new(File::options().read(true).write(true).open(layout::ROOM)?);
    let size = source.copy_to(&target, ourselves::ready)?;
    let written = gate.open()?;
    target.cut(size)?;
    fs::rename(layout::ROOM, &pages)?;
    disk::replace(&last, &written, "copier")?;
    loop {
        std::thread::park();
    }
}
