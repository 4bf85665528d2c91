//! A dump through `selfdump service`, which has the images of a user's programs made without that user being able to
//! forge them.
//!
//! ```text
//! program                                  service                         criu, as the program's user
//!    ├─ VERSION ───────────────────────────▶│
//!    │◀────────────── version, `service` ───┤
//!    ├─ FOLDER, with a descriptor of it ───▶│
//!    │◀───────────────────────────── done ──┤
//!    ├─ DUMP, which the service looks at ──▶├─ locks the folder, hands on the connection ─▶│
//!    │◀──────────────────────────────────────────────────────────────── dumped, restored ──┤
//!    │                                      ├─ seals the images, gives the folder back
//!    │◀───────────────────────────── done ──┤
//! ```
//!
//! The folder isn't named by a path, which may lead somewhere else a moment later: its descriptor goes along, is closed
//! before the dump, and CRIU finds the folder among its own descriptors.

use std::fs::File;
use std::os::fd::AsFd;

use prost::Message;

use super::connection::{Connection, Dumped, request};
use super::explain::{self, Operation};
use super::options::DumpOptions;
use super::rpc::{Options, Request, RequestKind};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::passing;

/// The version of what the service speaks beside CRIU's requests.
#[cfg(feature = "service")]
pub(super) const PROTOCOL: u32 = 1;

/// The path of the folder in CRIU's process. It is a symbolic link, as every CRIU takes it.
pub(super) const FOLDER: &str = "/proc/self/fd/4";

/// The name of CRIU's log.
#[cfg(feature = "service")]
pub(super) const LOG: &str = "dump.log";

/// What a check is told: all else is about files that the service keeps to itself.
pub(super) fn check_options() -> Options {
    Options { images_dir_fd: -1, unprivileged: Some(true), ..Options::default() }
}

impl Connection {
    /// As [`Connection::dump`].
    pub(super) fn dump_guarded(self, options: &DumpOptions) -> Result<Dumped> {
        self.hand_over(options)?;
        let in_criu = DumpOptions { images: FOLDER.into(), ..options.clone() };
        let log = explain::resolved(&options.images.join(&options.log_file));
        let dump = Request { opts: Some(in_criu.encode()?), ..request(RequestKind::Dump) };
        let (operation, timeout) = (Operation::Dump, self.timeout());
        self.send(operation, &dump.encode_to_vec(), timeout)?;
        let answer = match self.hear(operation, timeout, None) {
            // Whatever CRIU has said, the folder is the service's until that has said its part.
            Err(error) if error.kind() == ErrorKind::Protocol => {
                let _ = self.hear(operation, timeout, None);
                return Err(error);
            }
            answer => answer?,
        };
        if answer.dump.is_some_and(|dump| dump.restored == Some(true)) {
            return Ok(Dumped::Restored);
        }
        // CRIU has answered before the service has done its part. Until then nothing in the folder can be read.
        let verdict = match answer.service {
            None => Some(self.hear(operation, timeout, None)?),
            Some(_) => None,
        };
        self.judge(operation, &dump, answer, Some(&log))?;
        verdict.map_or(Ok(()), |verdict| self.judge(operation, &dump, verdict, Some(&log)).map(drop))?;
        Ok(Dumped::Original)
    }

    /// Gives the service the folder. It isn't open any more when this returns, or it would be in the image.
    fn hand_over(&self, options: &DumpOptions) -> Result<()> {
        let folder =
            File::open(&options.images).map_err(|source| Error::io("open", &options.images, source))?;
        let ask = request(RequestKind::Folder);
        let (operation, timeout) = (Operation::Dump, self.short());
        passing::send(self, &ask.encode_to_vec(), &[folder.as_fd()]).map_err(|source| {
            self.silence(ErrorKind::ServiceDied, operation, timeout, None).with_source(source)
        })?;
        let answer = self.hear(operation, timeout, None)?;
        self.judge(operation, &ask, answer, None).map(drop)
    }
}
