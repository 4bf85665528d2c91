//! Asking a CRIU of our own, which makes the program our child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lazy::Filler;
use super::stdio::Reconnected;
use super::{Options, Restored, Revival, guard, lazy, open};
use crate::criu::{self, Connection, RestoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::image;
use crate::store::filling::Mark;
use crate::store::manifest::Manifest;
use crate::sys::{self, procfs};

/// How long what is left of a restore that failed may take to end.
const ENDING: Duration = Duration::from_secs(10);

impl Revival<'_> {
    /// Asks the first CRIU that is right for this machine.
    pub(super) fn by_the_first_fit(
        &mut self,
        images: &Path,
        work: &Path,
        reconnected: &Reconnected,
    ) -> Result<Restored> {
        let programs = criu::programs(self.options.criu.as_deref())?;
        let mut restored = Err(Error::new(ErrorKind::NoCriu, "no criu was found"));
        for program in programs {
            restored = self.ask(&program, images, work, reconnected);
            match &restored {
                Err(error) if error.is_unfit_criu() => log::warn!("{}", error.chain()),
                _ => return restored,
            }
        }
        restored
    }

    fn ask(
        &mut self,
        program: &Path,
        images: &Path,
        work: &Path,
        Reconnected { descriptors, terminal, .. }: &Reconnected,
    ) -> Result<Restored> {
        let (options, manifest) = (self.options, self.manifest);
        let folder = open(work)?;
        let opened = open(images)?;
        let mut request = RestoreOptions::new(opened.as_fd(), folder.as_fd(), manifest.criu.needs.clone());
        tell(&mut request, images, options, descriptors);
        if options.force {
            request.config_file = Some(without_build_ids(work)?);
        }
        let given: Vec<BorrowedFd<'_>> =
            descriptors.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
        let terminal = terminal.as_ref().map(AsFd::as_fd);
        // It starts while CRIU does.
        let filler = if self.is_lazy { Some(self.filler(program, images, work)?) } else { None };
        let connection = Connection::child(program, &given, terminal, options.timeout)?;
        criu::supported_version(&connection, program, None)?;
        let filler = filler.map(|filler| filler.before(&connection)).transpose()?;
        request.lazy_pages = filler.is_some();
        let log = work.join(&request.log_file);
        let restored = connection.restore_if(&request, &log, &mut || self.verification.result());
        let restored = restored.and_then(|pid| the_same(pid, manifest.pid()));
        let restored = restored.or_else(|error| match has_come_and_gone(manifest, &error) {
            true => Ok(manifest.pid()),
            false => {
                end_halfway(manifest);
                Err(error)
            }
        });
        restored.map(|pid| Restored { pid, keeper: None, filling: filler.map(|filler| filler.runs(pid)) })
    }

    fn filler(&self, criu: &Path, images: &Path, work: &Path) -> Result<Filler> {
        let pids: Vec<i32> = self.manifest.processes.iter().map(|process| process.pid).collect();
        let images = images.canonicalize().map_err(|source| Error::io("find", images, source))?;
        Filler::start(lazy::Order {
            criu: criu.to_owned(),
            images,
            work: work.to_owned(),
            timeout: self.options.timeout,
            mark: Mark::lay(&self.manifest.program.runtime, &pids)?,
            pids,
        })
    }
}

/// What any CRIU is told.
pub(super) fn tell(
    request: &mut RestoreOptions<'_>,
    images: &Path,
    options: &Options,
    descriptors: &[(String, OwnedFd)],
) {
    request.sibling = true;
    request.leave_stopped = options.stopped;
    if !options.force && image::has_processor(images) {
        request.cpu_features = Some(criu::CPU_INSTRUCTIONS);
    }
    // The worker's socket is its descriptor 3; what is given to it follows.
    request.inherit = descriptors.iter().map(|(key, _)| key.clone()).zip(4..).collect();
    request.tcp_close &= !options.keep_tcp;
}

/// It is signalled and waited for by this number from here on.
pub(super) fn the_same(restored: i32, expected: i32) -> Result<i32> {
    if restored == expected {
        return Ok(restored);
    }
    let what = format!("CRIU says that it has restored process {restored}, and not {expected}");
    Err(Error::new(ErrorKind::Protocol, what).with_hint("look whether it is a CRIU that SELFDUMP_CRIU names"))
}

/// Whether the program did come back, and ended at once. CRIU lets go of its threads one after the other, and takes it
/// for a failure if the first one has ended the process before it comes to the last. How the program ended is left for
/// who waits for it.
fn has_come_and_gone(manifest: &Manifest, error: &Error) -> bool {
    let is_at_the_end =
        error.criu().is_some_and(|criu| criu.lines.iter().any(|line| line.contains("Unable to detach")));
    if !is_at_the_end || !is_our_child(manifest.pid()) {
        return false;
    }
    // As CRIU does after a failure. It changes nothing for a process that is about to end, and so tells it from others.
    let _ = sys::signal::kill(manifest.pid());
    sys::process::see_the_end(manifest.pid())
        .is_ok_and(|ended| ended != sys::process::Ended::Signaled(sys::signal::KILL))
}

/// CRIU compares build ids itself, and can be told to look at sizes alone only by a file.
fn without_build_ids(work: &Path) -> Result<PathBuf> {
    let path = work.join("criu.conf");
    sys::disk::write_new(&path, b"file-validation filesize\n")
        .map_err(|source| Error::io("write", &path, source))?;
    Ok(path)
}

/// Ends what a CRIU that failed or was killed in the middle has left of the program: as siblings of the
/// worker, its first processes are our children from the beginning, and the others are theirs. None is left when this
/// returns, so that nothing writes to the program's files any more.
fn end_halfway(manifest: &Manifest) {
    let expected: Vec<i32> = manifest.processes.iter().map(|process| process.pid).collect();
    let roots: Vec<i32> = expected.into_iter().filter(|&pid| is_our_child(pid)).collect();
    let all: Vec<i32> = roots.iter().flat_map(|&root| guard::end_tree(root)).collect();
    roots.into_iter().for_each(|pid| drop(sys::process::wait(pid)));
    let started = Instant::now();
    while all.iter().any(|&pid| procfs::is_there(pid)) {
        if started.elapsed() > ENDING {
            log::warn!("processes of the program that didn't come back are still there");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_our_child(pid: i32) -> bool {
    procfs::stat(pid).is_ok_and(|stat| stat.parent == sys::process::id())
}
