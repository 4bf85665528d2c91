//! A restore by `selfdump service`: of checkpoints that bear its seal, for users who aren't root.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::ask::{tell, the_same};
use super::stdio::Reconnected;
use super::{Options, Restored, Revival, guard, open};
use crate::criu::{self, Connection, Kept, RestoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::store::layout;
use crate::store::manifest::Manifest;
use crate::sys::pidfd::Stranger;
use crate::sys::process::Ended;
use crate::sys::{process, procfs};

/// The service's hold on a program that it has brought back, being its parent. The program ends when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    kept: Kept,
    pid: i32,
    /// None where it had ended by then.
    process: Option<Stranger>,
}

impl Keeper {
    /// How the program has ended, if it has. Where the service is gone, the program ends as well.
    pub(crate) fn end(&self) -> Result<Option<Ended>> {
        self.kept.end().inspect_err(|_| {
            if self.process.as_ref().is_some_and(|process| !process.has_ended()) {
                guard::end_tree(self.pid);
            }
        })
    }
}

/// The service that may have sealed these images. Where there is none, a CRIU of our own is left.
pub(super) fn service(images: &Path, options: &Options) -> Option<Connection> {
    let is_sealed = images.join(layout::SEAL).exists();
    is_sealed.then(|| criu::guard(options.service.as_deref(), options.timeout)).flatten()
}

impl Revival<'_> {
    /// Has it bring the program back. What can't be had this way is said beforehand.
    pub(super) fn by_the_service(
        &mut self,
        service: Connection,
        images: &Path,
        work: &Path,
        reconnected: &Reconnected,
        sizes: &BTreeMap<PathBuf, Bytes>,
    ) -> Result<Restored> {
        let (options, manifest) = (self.options, self.manifest);
        possible(options, reconnected)?;
        self.verification.result()?;
        let (folder, opened) = (open(work)?, open(images)?);
        let mut request = RestoreOptions::new(opened.as_fd(), folder.as_fd(), manifest.criu.needs.clone());
        tell(&mut request, images, options, &reconnected.descriptors);
        request.sibling = !options.detached;
        let inherited: Vec<BorrowedFd<'_>> =
            reconnected.descriptors.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
        let restored = service.restore_guarded(&request, &inherited, sizes, &work.join(&request.log_file));
        let restored = restored.and_then(|(pid, kept)| the_same(pid, manifest.pid()).map(|pid| (pid, kept)));
        let (pid, kept) = restored.inspect_err(|error| end_halfway(manifest, error))?;
        let keeper = || Keeper { kept, pid, process: Stranger::hold(pid).ok() };
        Ok(Restored { pid, keeper: (!options.detached).then(keeper), filling: None })
    }
}

/// Whether a service can do what is wanted.
fn possible(options: &Options, reconnected: &Reconnected) -> Result<()> {
    if reconnected.terminal.is_some() {
        return Err(lacking(
            "a program that a shell had started at a terminal doesn't come back by the service",
        ));
    }
    if options.force {
        return Err(lacking("--force: the service compares the builds of programs in any case"));
    }
    if options.lazy {
        log::warn!("the program is restored at once: the service can't do it lazily");
    }
    Ok(())
}

/// A service that is killed takes its CRIU with it, but not what that has made by then: this ends as well. Its number was
/// free before, so whoever has it now is that.
fn end_halfway(manifest: &Manifest, error: &Error) {
    if error.kind() == ErrorKind::ServiceDied {
        match procfs::stat(process::id()) {
            Ok(stat) => guard::end(manifest.pid(), stat.start_ticks),
            Err(error) => log::warn!("what the service has left of the program may still be there: {error}"),
        }
    }
}

fn lacking(what: &str) -> Error {
    Error::new(ErrorKind::Config, what)
        .with_hint("have it restored by root; docs/service.md tells what the service can't do")
}
