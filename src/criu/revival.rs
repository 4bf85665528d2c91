//! A restore through `selfdump service`: what it takes from its client, and what it tells CRIU.
//!
//! ```text
//! restorer                                 service                         criu, as the restorer's user
//!    ├─ RESTORE, with descriptors of ──────▶│
//!    │  the images and of what is inherited ├─ copies the images, and compares the seal
//!    │                                      ├─ RESTORE of the copy, as its own request ─▶│
//!    │◀─────────────── pid of the program ──┤◀──────────────────────────────── restored ─┤
//!    │                                      ├─ waits for the program, whose parent it is
//!    │◀─────── WAIT_PID: how it has ended ──┤
//! ```
//!
//! A restore reads no message twice, unlike a dump of oneself. So the service takes over a few things that can do no harm
//! ([`taken`]) into a request of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use prost::Message;

use super::connection::answer::decode;
use super::connection::{Connection, request};
use super::explain::Operation;
use super::options::RestoreOptions;
use super::rpc::{FileSize, Options, Request, RequestKind};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::sys::message::{self, Received};
use crate::sys::passing;
use crate::sys::process::Ended;

/// What of a restore's options the service takes from its client.
pub(super) fn taken(options: &Options) -> Options {
    Options {
        images_dir_fd: -1,
        shell_job: options.shell_job,
        file_locks: options.file_locks,
        ext_unix_sk: options.ext_unix_sk,
        tcp_established: options.tcp_established,
        tcp_close: options.tcp_close,
        leave_stopped: options.leave_stopped,
        rst_sibling: options.rst_sibling,
        cpu_cap: options.cpu_cap,
        // Their numbers are those of the descriptors that come along, in order.
        inherit_fd: options.inherit_fd.clone(),
        ..Options::default()
    }
}

/// A program that the service has brought back and is the parent of. It ends with this.
#[derive(Debug)]
pub(crate) struct Kept {
    connection: Connection,
}

impl Kept {
    /// How the program has ended, if it has.
    pub(crate) fn end(&self) -> Result<Option<Ended>> {
        let heard = message::receive_what_is_there(&self.connection)
            .map_err(|source| Error::os("hear of the program's end", source))?;
        let status = match heard {
            Received::TimedOut => return Ok(None),
            Received::Message(bytes) => decode(&bytes).ok().and_then(|answer| answer.status),
            Received::EndOfFile => None,
        };
        let status = status.map(ExitStatus::from_raw);
        let ended = status.and_then(|status| {
            status.code().map(Ended::Exited).or_else(|| status.signal().map(Ended::Signaled))
        });
        ended.map(Some).ok_or_else(|| {
            Error::new(
                ErrorKind::ServiceDied,
                format!("{} is gone, and the program with it", self.connection.peer()),
            )
            .with_hint("see its log (`journalctl -u selfdump`), and restore the program again")
        })
    }
}

impl Connection {
    /// As [`Connection::restore`], by a service that keeps the program. `inherited` are what takes the place of dumped
    /// descriptors, in the order of their keys; `sizes` are those that files have now.
    pub(crate) fn restore_guarded(
        self,
        options: &RestoreOptions<'_>,
        inherited: &[BorrowedFd<'_>],
        sizes: &BTreeMap<PathBuf, Bytes>,
        log: &Path,
    ) -> Result<(i32, Kept)> {
        let size = |(path, size): (&PathBuf, &Bytes)| FileSize {
            path: path.as_os_str().as_bytes().to_vec(),
            size: size.0,
        };
        let ask = Request {
            opts: Some(taken(&options.encode()?)),
            sizes: sizes.iter().map(size).collect(),
            ..request(RequestKind::Restore)
        };
        let (operation, timeout) = (Operation::Restore, self.timeout());
        let given: Vec<BorrowedFd<'_>> =
            std::iter::once(options.images).chain(inherited.iter().copied()).collect();
        passing::send(&self, &ask.encode_to_vec(), &given).map_err(|source| {
            self.silence(ErrorKind::ServiceDied, operation, timeout, None).with_source(source)
        })?;
        let answer = self.hear(operation, timeout, None)?;
        if let Some(text) = &answer.log {
            fs::write(log, text).map_err(|source| Error::io("write", log, source))?;
        }
        let answer = self.judge(operation, &ask, answer, Some(log))?;
        let pid = answer.restore.map_or(0, |restore| restore.pid);
        Ok((pid, Kept { connection: self }))
    }
}

/// The service's side.
#[cfg(feature = "service")]
pub(crate) mod served {
    use super::*;
    use crate::criu::guarded::{FOLDER, PROTOCOL};
    use crate::criu::rpc::{CgroupMode, Response, RestoreResponse};
    use crate::sys::spawn;

    /// The name of CRIU's log beside the images.
    pub(crate) const LOG: &str = "restore.log";

    /// More descriptors than these no message takes along (SCM_MAX_FD), and one is the folder.
    const MOST_INHERITED: usize = 252;

    /// The numbers of the options that are taken, and of `images_dir_fd`, which is always there.
    pub(in crate::criu) const ALLOWED: [u32; 10] = [1, 4, 5, 7, 8, 20, 26, 27, 52, 69];

    /// What a client asks for.
    #[derive(Debug)]
    pub(crate) struct Wanted {
        options: Options,
        pub(crate) sizes: BTreeMap<PathBuf, Bytes>,
    }

    impl Wanted {
        /// Reads a request that was found to be one.
        pub(crate) fn read(bytes: &[u8]) -> Result<Wanted, String> {
            let request = Request::decode(bytes).map_err(|_| "it can't be read".to_owned())?;
            let path =
                |bytes: Vec<u8>| PathBuf::from(std::ffi::OsString::from(std::ffi::OsStr::from_bytes(&bytes)));
            let sizes = request.sizes.into_iter().map(|file| (path(file.path), Bytes(file.size))).collect();
            Ok(Wanted { options: request.opts.unwrap_or_default(), sizes })
        }

        /// Whether it is the service's child, and ends with its restorer.
        pub(crate) fn is_kept(&self) -> bool {
            self.options.rst_sibling == Some(true)
        }

        /// Whether CRIU is told what was asked for, and nothing else but where the copy and its log are, and as whom it acts.
        #[cfg(any(test, fuzzing))]
        pub(crate) fn is_what_criu_is_told(&self) -> bool {
            let told = Request::decode(self.for_criu().as_slice()).expect("what we wrote").opts;
            let told = told.unwrap_or_default();
            let mut asked = self.options.clone();
            asked.inherit_fd.iter_mut().zip(&told.inherit_fd).for_each(|(one, told)| one.fd = told.fd);
            let (images_dir, log_file, log_level) = (None, None, None);
            let told = Options { images_dir, log_file, log_level, ..told };
            asked == Options { unprivileged: None, manage_cgroups_mode: None, ..told }
        }

        /// How many descriptors are to come along beside the folder.
        pub(crate) fn inherited(&self) -> usize {
            self.options.inherit_fd.len()
        }

        /// What CRIU is told: the folder of the images is its descriptor 4, what is inherited follows.
        pub(crate) fn for_criu(&self) -> Vec<u8> {
            let mut options = Options {
                images_dir: Some(FOLDER.as_bytes().to_vec()),
                log_file: Some(LOG.as_bytes().to_vec()),
                log_level: Some(2),
                unprivileged: Some(true),
                manage_cgroups_mode: Some(CgroupMode::Ignore as i32),
                ..taken(&self.options)
            };
            for (inherited, number) in options.inherit_fd.iter_mut().zip(spawn::FIRST_DESCRIPTOR + 2..) {
                inherited.fd = number;
            }
            Request { opts: Some(options), ..request(RequestKind::Restore) }.encode_to_vec()
        }
    }

    /// Judges the values of options that are taken.
    pub(in crate::criu) fn sensible(options: &Options) -> Result<(), String> {
        if options.images_dir_fd != -1 {
            return Err("images_dir_fd names a descriptor of another process".to_owned());
        }
        if options.inherit_fd.len() > MOST_INHERITED {
            return Err("inherit_fd names too much".to_owned());
        }
        match options.inherit_fd.iter().all(|inherited| leads_outside(&inherited.key)) {
            true => Ok(()),
            false => Err("inherit_fd names something else than a pipe, a socket or a terminal".to_owned()),
        }
    }

    /// `pipe:[INODE]`, `socket:[INODE]` or `tty[RDEV:DEV]`.
    fn leads_outside(key: &[u8]) -> bool {
        let Ok(key) = std::str::from_utf8(key) else { return false };
        let number = |kind: &str| key.strip_prefix(kind)?.strip_suffix(']')?.parse::<u32>().ok();
        number("pipe:[").or_else(|| number("socket:[")).is_some()
            || crate::criu::request::is_external(key.as_bytes())
    }

    /// The answer that the program runs.
    pub(crate) fn restored(pid: i32) -> Vec<u8> {
        let restore = Some(RestoreResponse { pid });
        let kind = RequestKind::Restore as i32;
        Response { kind, success: true, restore, service: Some(PROTOCOL), ..Response::default() }
            .encode_to_vec()
    }

    /// What the service says of how a program has ended.
    pub(crate) fn ended(ended: Ended) -> Vec<u8> {
        let status = match ended {
            Ended::Exited(status) => Some((status & 0xff) << 8),
            Ended::Signaled(signal) => Some(signal),
            Ended::Unknown => None,
        };
        let kind = RequestKind::WaitPid as i32;
        Response { kind, success: true, status, service: Some(PROTOCOL), ..Response::default() }
            .encode_to_vec()
    }

    /// The program of CRIU's answer; else the answer that it failed, with its log.
    pub(crate) fn of_criu(answer: Option<Vec<u8>>, log: Vec<u8>) -> Result<i32, Vec<u8>> {
        let answer = answer.and_then(|bytes| Response::decode(bytes.as_slice()).ok()).unwrap_or_default();
        let pid = answer.restore.map(|restore| restore.pid).filter(|&pid| answer.success && pid > 0);
        pid.ok_or_else(|| {
            let (cr_errno, cr_errmsg) = (answer.cr_errno, answer.cr_errmsg);
            let kind = RequestKind::Restore as i32;
            Response { kind, cr_errno, cr_errmsg, log: Some(log), ..Response::default() }.encode_to_vec()
        })
    }
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use std::os::fd::AsFd;

    use super::served::Wanted;
    use super::*;
    use crate::criu::request::{Asked, read};
    use crate::frozen::Needs;

    #[test]
    fn what_the_library_asks_for_is_allowed_and_is_what_criu_is_told() {
        let needs = Needs { file_locks: true, ..Needs::default() };
        let folder = fs::File::open("/").unwrap();
        let mut options = RestoreOptions::new(folder.as_fd(), folder.as_fd(), needs);
        (options.sibling, options.cpu_features, options.leave_stopped) = (true, Some(2), true);
        options.inherit = vec![("pipe:[4711]".to_owned(), 4), ("tty[8803:18]".to_owned(), 5)];
        let sizes = vec![FileSize { path: b"/a file".to_vec(), size: 17 }];
        let opts = Some(taken(&options.encode().unwrap()));
        let ask = Request { opts, sizes, ..request(RequestKind::Restore) }.encode_to_vec();
        assert_eq!(read(&ask), Ok(Asked::Restore));
        let wanted = Wanted::read(&ask).unwrap();
        assert!(wanted.is_what_criu_is_told() && wanted.is_kept());
        assert_eq!((wanted.inherited(), wanted.sizes[Path::new("/a file")]), (2, Bytes(17)));
    }
}
