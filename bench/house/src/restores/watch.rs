//! What a restore does before CRIU is started, as it is seen from outside.
//!
//! inotify tells when files are opened and closed: the images by the verification, since nobody else looks into them
//! before CRIU does, and CRIU's executable by the kernel that starts it. So nothing has to be switched on or off in
//! what is measured.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::comparison::Failure;

/// Waits for CRIU's start. It has to be held until the restore is over: CRIU lets go of an inotify of its own while it
/// looks what the kernel can do, and the kernel has it wait for one that is just being closed, some 15 ms.
pub struct Watch(JoinHandle<Result<(Seen, Inotify), Errno>>);

/// What was seen of a restore.
pub struct Seen {
    /// From the first image's opening to the last one's closing; none where CRIU was started without.
    pub verified: Option<(SystemTime, SystemTime)>,
    /// When CRIU's executable was opened.
    pub criu_started: SystemTime,
}

impl Watch {
    /// Begins to watch. It ends when this CRIU is started, which has to happen.
    pub fn begin(criu: &Path, images: &Path) -> Result<Watch, Failure> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(images, AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE_NOWRITE)?;
        inotify.add_watch(criu, AddWatchFlags::IN_OPEN)?;
        Ok(Watch(thread::spawn(move || Ok((wait(&inotify)?, inotify)))))
    }

    pub fn end(self) -> Result<Seen, Failure> {
        let (seen, _inotify) = self.0.join().map_err(|_| "the watch has panicked")??;
        Ok(seen)
    }
}

fn wait(inotify: &Inotify) -> Result<Seen, Errno> {
    let mut verified = None;
    loop {
        let events = inotify.read_events()?;
        let now = SystemTime::now();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_ISDIR) {
                continue;
            }
            // Only what lies in a folder that is watched comes with a name.
            match event.name {
                Some(_) => verified = Some((verified.map_or(now, |(first, _)| first), now)),
                None => return Ok(Seen { verified, criu_started: now }),
            }
        }
    }
}
