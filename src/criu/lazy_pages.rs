//! `criu lazy-pages`, which fills a program's memory when that runs already: what is touched first, and then the rest.
//!
//! A program whose pages come this way has holes in its memory, which a userfaultfd guards: who touches one waits until
//! it is filled. When the last descriptor of that is closed, the kernel takes what is missing for zeros, and lets them
//! wait no more. So a daemon that is killed leaves a program with wrong memory, unless the program is ended before the
//! daemon's descriptors are closed: that is what it is traced for ([`Tracee`]). It has them alone: CRIU closes its own,
//! and for a child that the program forks the daemon is given one more.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::explain;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::message::{self, Received};
use crate::sys::process::{self, Ended};
use crate::sys::signal;
use crate::sys::spawn::{self, FIRST_DESCRIPTOR};
use crate::sys::tracee::Tracee;

/// The name of its log beside CRIU's own.
const LOG: &str = "lazy-pages.log";

/// Where it listens for the CRIU that restores.
const SOCKET: &str = "lazy-pages.socket";

/// One that fills what comes back from one checkpoint. It goes on when we are gone.
pub(crate) struct LazyPages {
    tracee: Tracee,
    pid: i32,
    log: PathBuf,
}

impl LazyPages {
    /// Starts one for these images, which listens in the work folder of the CRIU that restores them when this returns. It
    /// keeps `held` open for as long as it runs.
    pub(crate) fn start(
        program: &Path,
        images: &Path,
        work: &Path,
        held: BorrowedFd<'_>,
        timeout: Duration,
    ) -> Result<LazyPages> {
        let failed = |source| Error::os("start `criu lazy-pages`", source);
        let (ready, theirs) = message::pair().map_err(failed)?;
        let (output, number) = (work.join("lazy-pages.out"), FIRST_DESCRIPTOR.to_string());
        let folders = [images, work].map(|folder| folder.to_string_lossy());
        let arguments =
            ["lazy-pages", "-D", &folders[0], "-W", &folders[1], "-o", LOG, "--status-fd", &number];
        let pid = spawn::apart(program, &arguments, &[theirs.as_fd(), held], &output)
            .map_err(|source| explain::unstartable(program, source))?;
        drop(theirs);
        // It says that it listens by a byte.
        let heard = message::receive(&ready, Instant::now() + timeout, || !process::has_ended(pid));
        let traced = match heard {
            Ok(Received::Message(_)) => Tracee::seize(pid).map_err(|source| {
                Error::os("trace `criu lazy-pages`", source).with_hint("that takes root's rights")
            }),
            Err(source) => Err(failed(source)),
            Ok(_) => Err(no_daemon(&output, &work.join(LOG))),
        };
        let tracee = traced.inspect_err(|_| {
            // With the helpers that it has forked, in its group: one that it has stopped would stay.
            let _ = signal::kill(-pid);
            let _ = process::wait(pid);
        })?;
        Ok(LazyPages { tracee, pid, log: work.join(LOG) })
    }

    /// Has one end that waits in a work folder for a CRIU that doesn't come: it is met by somebody who says nothing. The
    /// calling process is in that folder afterwards, since its path may be too long for a socket's.
    pub(crate) fn dismiss(work: &Path) -> std::io::Result<()> {
        std::env::set_current_dir(work)?;
        UnixStream::connect(SOCKET).map(drop)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until it is about to end: an error where that is before all memory was filled. Whoever touches a hole waits
    /// until [`let_go`](LazyPages::let_go).
    pub(crate) fn end(&mut self) -> Result<()> {
        let ended = self.tracee.end().map_err(|source| Error::os("wait for `criu lazy-pages`", source))?;
        let how = match ended {
            Ended::Exited(0) => return Ok(()),
            Ended::Exited(status) => format!("exited with status {status}"),
            Ended::Signaled(signal) => format!("was ended by {}", signal::name(signal)),
            Ended::Unknown => "is gone".to_owned(),
        };
        let said = last_line(&self.log).map(|line| format!(": {line}")).unwrap_or_default();
        let what = format!("`criu lazy-pages` {how} before all of the program's memory was filled{said}");
        Err(Error::new(ErrorKind::Restore, what)
            .with_hint("its log is beside CRIU's; look for the out-of-memory killer in the kernel's log"))
    }

    /// Has it end for good.
    pub(crate) fn let_go(self) {
        if let Err(error) = self.tracee.let_go() {
            log::warn!("can't wait for the end of `criu lazy-pages`: {error}");
        }
    }
}

/// The error for one that ends before it listens.
fn no_daemon(output: &Path, log: &Path) -> Error {
    let said = last_line(log).or_else(|| last_line(output));
    let said = said.map(|line| format!(": {line}")).unwrap_or_default();
    Error::new(ErrorKind::Restore, format!("`criu lazy-pages` doesn't start{said}"))
        .with_hint("`criu check --feature uffd-noncoop` tells whether the kernel has what it needs")
}

fn last_line(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
