//! A dump of the one who asks, from the request that was looked at to the folder that is given back.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::lock::{self, Keep, Locked, failed};
use super::seal::{self, Sealed};
use super::talk::Client;
use super::{Service, crius};
use crate::criu::request::{Refusal, Why};
use crate::frozen::Bytes;
use crate::restore::end_tree;
use crate::sys::credentials::Identity;
use crate::sys::folder::Held;
use crate::sys::listener::first_ready_or_hung_up;
use crate::sys::pidfd::Stranger;
use crate::sys::process::{self, Ended};
use crate::sys::spawn::Leash;
use crate::sys::{disk, procfs, signal, spawn, task};

/// How long a dump that is under way may still take when the service is to end.
const LAST: Duration = Duration::from_secs(5);

/// Has the client dumped into its folder, by a CRIU that reads the request from the client's own connection. The images
/// are sealed when this returns, or there are none.
pub(super) fn dump(service: &Service, client: &Client<'_>, folder: Held) -> Result<Sealed, Refusal> {
    ensure_ordinary(service, client)?;
    // Here already, since what follows may have to wait.
    lock::ensure_usable(&folder, client.peer.user)?;
    let _under_way = client.connected.begin_dump()?;
    ensure_room(service, client, &folder)?;
    let locked = Locked::take(service, folder, client.peer.user)?;
    match work(service, client, &locked) {
        Ok(()) => match seal::seal(&service.key, &locked) {
            Ok(sealed) => {
                locked.give_back(&Keep::All);
                Ok(sealed)
            }
            Err(refusal) => {
                locked.give_back(&Keep::Nothing);
                Err(refusal)
            }
        },
        Err((refusal, keep)) => {
            locked.give_back(&keep);
            Err(refusal)
        }
    }
}

/// Looks whether it is an ordinary user's process, in the place that we are in as well.
pub(super) fn ensure_ordinary(service: &Service, client: &Client<'_>) -> Result<(), Refusal> {
    let peer = &client.peer;
    if peer.user == 0 {
        return Err(Refusal::forbidden("root needs no service: leave SELFDUMP_SERVICE unset"));
    }
    if peer.group == service.group || peer.groups.contains(&service.group) {
        return Err(Refusal::forbidden(format!("it is in the group {} of locked folders", service.group)));
    }
    let rights = task::look(peer.pid).map_err(|error| failed("look at the program", &error))?;
    if rights.user != peer.user || rights.capabilities != 0 {
        return Err(Refusal::forbidden("it has more rights than its user"));
    }
    match peer.is_where_we_are() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::forbidden("it is in a container, or has another root than the service")),
        Err(error) => Err(failed("look at the program", &error)),
    }
}

/// Looks whether its memory is within what one program may take, and what is left of the disk.
fn ensure_room(service: &Service, client: &Client<'_>, folder: &Held) -> Result<(), Refusal> {
    let resident = |pid| Bytes(procfs::status_number(pid, "VmRSS").unwrap_or(0).saturating_mul(1024));
    let size: Bytes = procfs::tree(client.peer.pid).into_iter().map(resident).sum();
    if size > service.limits.size {
        let most = service.limits.size;
        return Err(Refusal::forbidden(format!("it has {size} in memory, and {most} is the limit")));
    }
    let free = disk::free_space(&folder.link()).map_err(|error| failed("look for space", &error))?;
    match free.0.saturating_sub(size.0) >= service.limits.reserve.0 {
        true => Ok(()),
        false => Err(Refusal::new(
            Why::NoSpace,
            format!(
                "it has {size} in memory, {free} are free, and {} are to stay so",
                service.limits.reserve
            ),
        )),
    }
}

/// Starts CRIU on the client's connection, and waits for its end.
fn work(service: &Service, client: &Client<'_>, locked: &Locked) -> Result<(), (Refusal, Keep)> {
    let nothing = |refusal| (refusal, Keep::Nothing);
    let given = [client.socket.as_fd(), locked.folder.as_fd()];
    let worker = Worker::start(service, client, Some(service.group), &given).map_err(nothing)?;
    let ended = worker.attend(service, client, Instant::now() + service.limits.deadline);
    match ended.map_err(nothing)? {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(_) => Err((Refusal::new(Why::Failed, "CRIU failed; its log says why"), Keep::Log)),
        Ended::Signaled(number) => {
            Err(nothing(Refusal::new(Why::Failed, format!("CRIU was ended by {}", signal::name(number)))))
        }
        Ended::Unknown => Err(nothing(Refusal::new(Why::Failed, "CRIU is gone"))),
    }
}

/// A CRIU that acts as the client. It ends when this is dropped.
pub(super) struct Worker {
    pid: i32,
    /// What it has started goes on without it.
    has_parted: bool,
    _leash: Leash,
}

impl Worker {
    /// Starts one. `given` are its descriptors from 3 on, the first of them the connection that it serves.
    pub(super) fn start(
        service: &Service,
        client: &Client<'_>,
        group: Option<u32>,
        given: &[BorrowedFd<'_>],
    ) -> Result<Worker, Refusal> {
        let peer = &client.peer;
        let groups = peer.groups.iter().copied().chain(group).collect();
        let identity = Identity { user: peer.user, group: peer.group, groups, capabilities: crius() };
        let connection = spawn::FIRST_DESCRIPTOR.to_string();
        let arguments = ["--no-default-config", "--unprivileged", "swrk", &connection];
        spawn::child_as(identity, &service.criu, &arguments, given)
            .map(|(pid, leash)| Worker { pid, has_parted: false, _leash: leash })
            .map_err(|error| failed("start CRIU as this user", &error))
    }

    /// Waits for its end. It is ended where it takes too long, where the client is gone or waits no longer, and where the
    /// service is to end.
    pub(super) fn attend(
        &self,
        service: &Service,
        client: &Client<'_>,
        deadline: Instant,
    ) -> Result<Ended, Refusal> {
        let process = Stranger::hold(self.pid).map_err(|error| failed("hold on to CRIU", &error))?;
        let (program, connection) = (client.peer.process.as_fd(), client.socket.as_fd());
        let first = |stop: &[BorrowedFd<'_>], deadline| {
            let watched: Vec<BorrowedFd<'_>> =
                [process.as_fd(), program].iter().chain(stop).copied().collect();
            first_ready_or_hung_up(&watched, connection, Some(deadline))
        };
        let ready = match first(&[service.stop.as_fd()], deadline) {
            // The service is to end.
            Ok(Some(2)) => first(&[], deadline.min(Instant::now() + LAST)),
            ready => ready,
        };
        match ready.map_err(|error| failed("wait for CRIU", &error))? {
            Some(0) => process::see_the_end(self.pid).map_err(|error| failed("wait for CRIU", &error)),
            Some(1) => Err(Refusal::new(Why::Failed, "the program ended before CRIU did")),
            Some(_) => Err(Refusal::new(Why::Failed, "the program has hung up")),
            None => Err(Refusal::new(Why::Late, "CRIU did not end in time, and was ended")),
        }
    }

    /// When it was started, as `/proc` tells it.
    pub(super) fn born(&self) -> u64 {
        procfs::stat(self.pid).map_or(u64::MAX, |stat| stat.start_ticks)
    }

    /// Ends it with all that it has started, wherever that is by now: a program that isn't to be our child is its own.
    pub(super) fn end(self) {
        end_tree(self.pid);
    }

    /// It has ended, and what is in its process group is no helper of its own.
    pub(super) fn part(mut self) {
        self.has_parted = true;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its helpers as well: it leads their group, whose number is nobody else's until it was waited for.
        if !self.has_parted {
            let _ = signal::kill(-self.pid);
        }
        let _ = process::wait(self.pid);
    }
}
