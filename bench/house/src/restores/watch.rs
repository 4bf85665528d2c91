//! When CRIU is started by a restore, as it is seen from outside.
//!
//! inotify tells when its executable is opened by the kernel that starts it, so nothing has to be switched on or off in
//! what is measured.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::comparison::Failure;

/// Waits for CRIU's start. It has to be held until the restore is over: CRIU lets go of an inotify of its own while it
/// looks what the kernel can do, and the kernel has it wait for one that is just being closed, some 15 ms.
pub struct Watch(JoinHandle<Result<(SystemTime, Inotify), Errno>>);

impl Watch {
    /// Begins to watch. It ends when this CRIU is started, which has to happen.
    pub fn begin(criu: &Path) -> Result<Watch, Failure> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(criu, AddWatchFlags::IN_OPEN)?;
        let wait = move || {
            inotify.read_events()?;
            Ok((SystemTime::now(), inotify))
        };
        Ok(Watch(thread::spawn(wait)))
    }

    /// When it was started.
    pub fn end(self) -> Result<SystemTime, Failure> {
        let (started, _inotify) = self.0.join().map_err(|_| "the watch has panicked")??;
        Ok(started)
    }
}
