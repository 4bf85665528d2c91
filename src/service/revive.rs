//! A restore for the one who asks, from images that bear the seal.
//!
//! The images are in a folder that its user can write to at any moment. So they are copied to where nobody else can, and
//! what was copied is compared with the seal; CRIU reads the copy, and nothing else. A program that comes back is the
//! child of the service, which waits for it and tells its restorer how it has ended, or ends it when that is gone.

use std::fs::{self, DirBuilder};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::dump::{Worker, ensure_ordinary};
use super::lock::{self, failed};
use super::seal::{self, Room, Sealed};
use super::talk::Client;
use super::{Service, audit, own_folder};
use crate::criu::request::{Refusal, Why};
use crate::criu::restoring::{self, Wanted};
use crate::error::{Error, Result as OurResult};
use crate::image;
use crate::restore::end_tree;
use crate::sys::folder::Held;
use crate::sys::listener::first_ready_or_hung_up;
use crate::sys::message::{self, Received};
use crate::sys::pidfd::Stranger;
use crate::sys::process::{self, Ended};
use crate::sys::{disk, procfs, signal, task};

/// The folder of the copies, in the service's state.
const COPIES: &str = "restores";

/// What CRIU writes beside the images.
const WRITTEN: [&str; 2] = [restoring::LOG, "stats-restore"];

/// No more of CRIU's log is told; a message has to have room for it.
const LONGEST_LOG: u64 = 64 * 1024;

/// The folder of the copies, without those that a service has left that was killed.
pub(super) fn folder(state: &Path) -> OurResult<PathBuf> {
    let copies = state.join(COPIES);
    match fs::remove_dir_all(&copies) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("empty", &copies, source));
        }
        _ => own_folder(&copies)?,
    }
    Ok(copies)
}

/// What came of a restore that was allowed.
pub(super) enum Came {
    /// It runs; where its restorer is to hear of its end, it is held on to.
    Back { pid: i32, kept: Option<Program>, sealed: Sealed },
    /// CRIU failed: what is to be answered.
    Not(Vec<u8>),
}

/// Brings a program back for the client. The first of the descriptors is the folder of the images.
pub(super) fn restore(
    service: &Service,
    client: &Client<'_>,
    wanted: &Wanted,
    mut descriptors: Vec<OwnedFd>,
) -> Result<Came, Refusal> {
    ensure_ordinary(service, client)?;
    let (count, expected) = (descriptors.len(), wanted.inherited() + 1);
    if count != expected {
        return Err(Refusal::forbidden(format!("{count} descriptors came along instead of {expected}")));
    }
    let folder = descriptors.remove(0);
    let folder =
        Held::behind(folder.as_fd()).map_err(|_| Refusal::forbidden("what came along is no folder"))?;
    let user = client.peer.user;
    lock::ensure_owned(&folder, user)?;
    let _under_way = client.connected.begin_dump()?;
    let deadline = Instant::now() + service.limits.deadline;
    let copy = Copy::make(&service.copies)?;
    let free = disk::free_space(&copy.path).map_err(|error| failed("look for space", &error))?;
    let limits = &service.limits;
    let room = Room { size: limits.size.0, free: free.0.saturating_sub(limits.reserve.0), deadline };
    let sealed = seal::copy_sealed(&service.key, &folder, user, &copy.path, &room)?;
    // What is in the folder from now on is nobody's business.
    drop(folder);
    let expected = copy.make_ready(wanted, user, client.peer.group)?;
    match work(service, client, wanted, &copy, &descriptors, (expected, deadline))? {
        Ok(pid) => {
            let kept = wanted.is_kept().then(|| Program::hold(pid)).transpose()?;
            Ok(Came::Back { pid, kept, sealed })
        }
        Err(answer) => Ok(Came::Not(answer)),
    }
}

/// Has CRIU restore the copy: the program's process id, or what CRIU has said instead.
fn work(
    service: &Service,
    client: &Client<'_>,
    wanted: &Wanted,
    copy: &Copy,
    inherited: &[OwnedFd],
    (expected, deadline): (i32, Instant),
) -> Result<Result<i32, Vec<u8>>, Refusal> {
    let (ours, theirs) = message::pair().map_err(|error| failed("make a socket pair", &error))?;
    let images = Held::at(&copy.path).map_err(|error| failed("open the copy", &error))?;
    let given: Vec<BorrowedFd<'_>> =
        [theirs.as_fd(), images.as_fd()].into_iter().chain(inherited.iter().map(AsFd::as_fd)).collect();
    let worker = Worker::start(service, client, None, &given)?;
    let born = worker.born();
    drop(theirs);
    let answer = message::send(&ours, &wanted.for_criu(), deadline)
        .map_err(|error| failed("ask CRIU", &error))
        .and_then(|()| worker.attend(service, client, deadline))
        .and_then(|_| message::receive_what_is_there(&ours).map_err(|error| failed("hear of CRIU", &error)));
    let came = answer.and_then(|answer| {
        let answer = if let Received::Message(answer) = answer { Some(answer) } else { None };
        match restoring::of_criu(answer, copy.log()) {
            // It is ended by this number later on, with the service's rights.
            Ok(pid) if pid != expected => {
                let what = format!("CRIU says that it has restored process {pid}, and not {expected}");
                Err(Refusal::new(Why::Failed, what))
            }
            came => Ok(came),
        }
    });
    match came {
        // A program of a shell's is in CRIU's own process group.
        Ok(Ok(_)) => worker.part(),
        _ => {
            worker.end();
            end_halfway(expected, client.peer.user, born);
        }
    }
    came
}

/// Ends what a CRIU that failed has left of a program that was to be our child: the others are that one's children. It has
/// begun since CRIU has, and is the user's own; anything else of that number is something else.
fn end_halfway(pid: i32, user: u32, born: u64) {
    let is_left = procfs::stat(pid)
        .is_ok_and(|stat| stat.parent == process::id() && stat.start_ticks >= born)
        && task::look(pid).is_ok_and(|task| task.user == user);
    if is_left {
        end_tree(pid);
        let _ = process::wait(pid);
    }
}

/// A copy of images that nobody else can write to or get to. It goes with this.
struct Copy {
    path: PathBuf,
}

impl Copy {
    fn make(copies: &Path) -> Result<Copy, Refusal> {
        let made = procfs::fresh_id().and_then(|id| {
            let path = copies.join(id);
            DirBuilder::new().mode(0o700).create(&path).map(|()| Copy { path })
        });
        made.map_err(|error| failed("make a folder", &error))
    }

    /// Has the sizes in it that are wanted, and lets CRIU read it as the user. The root's process id.
    fn make_ready(&self, wanted: &Wanted, user: u32, group: u32) -> Result<i32, Refusal> {
        let unfit =
            |error: Error| Refusal::new(Why::Failed, format!("the images aren't whole: {}", error.chain()));
        if !wanted.sizes.is_empty() {
            image::set_sizes(&self.path, &wanted.sizes).map_err(unfit)?;
        }
        let root = image::root(&self.path).map_err(unfit)?;
        let open = || {
            let folder = Held::at(&self.path)?;
            for name in folder.names()? {
                folder.file(&name)?.set_permissions(PermissionsExt::from_mode(0o444))?;
            }
            for name in WRITTEN {
                folder.create_for(name, b"", user, group)?;
            }
            // The folder above is closed to everybody; CRIU gets here by a descriptor.
            folder.set_mode(0o755)
        };
        open().map(|()| root).map_err(|error| failed("open the copy to CRIU", &error))
    }

    /// The end of CRIU's log.
    fn log(&self) -> Vec<u8> {
        let mut log = Vec::new();
        let read = Held::at(&self.path).and_then(|folder| {
            let mut file = folder.file(restoring::LOG.as_ref())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LOG)))?;
            file.take(LONGEST_LOG).read_to_end(&mut log)
        });
        if let Err(error) = read {
            audit::trouble(&format!("can't read CRIU's log: {error}"));
        }
        log
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            audit::trouble(&format!("can't remove {}: {error}", self.path.display()));
        }
    }
}

/// A program that was brought back, as our child. It ends when this is dropped.
pub(super) struct Program {
    pid: i32,
    process: Stranger,
}

impl Program {
    /// One that can't be held on to can't be watched, and ends.
    fn hold(pid: i32) -> Result<Program, Refusal> {
        Stranger::hold(pid).map(|process| Program { pid, process }).map_err(|error| {
            end_tree(pid);
            let _ = process::wait(pid);
            failed("hold on to the program", &error)
        })
    }

    /// Waits for its end, for as long as its restorer does: how it ended; none where it was ended for that.
    pub(super) fn wait(self, service: &Service, socket: &OwnedFd) -> Option<Ended> {
        let watched = [self.process.as_fd(), service.stop.as_fd()];
        match first_ready_or_hung_up(&watched, socket.as_fd(), None) {
            Ok(Some(0)) => process::see_the_end(self.pid).ok(),
            _ => None,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.process.has_ended() {
            end_tree(self.pid);
        }
        let _ = process::wait(self.pid);
    }
}

/// How a program has ended, for the log.
pub(super) fn how(ended: Option<Ended>) -> String {
    match ended {
        Some(Ended::Exited(status)) => format!("ended with status {status}"),
        Some(Ended::Signaled(number)) => format!("ended by {}", signal::name(number)),
        Some(Ended::Unknown) => "ended".to_owned(),
        None => "ended with its restorer".to_owned(),
    }
}
