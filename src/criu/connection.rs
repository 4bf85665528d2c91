//! Speaking to CRIU: one request, one answer, over one connection, whichever way it was reached.

pub(super) mod answer;
mod restore;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost::Message;

use super::explain::{self, Operation};
use super::guarded;
use super::options::DumpOptions;
use super::rpc;
use super::version::Version;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Needs;
use crate::sys;
use crate::sys::message;
use crate::sys::spawn::{self, Leash, Orphan};
use crate::sys::trust::{self, Refusal};

/// How long anything but a dump or a restore may take.
const SMALL_REQUEST: Duration = Duration::from_secs(30);

/// A conversation with one CRIU.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    peer: Peer,
    timeout: Duration,
    /// Whom it dumps, where that isn't this process.
    another: Option<i32>,
}

/// Who is at the other end.
#[derive(Debug)]
enum Peer {
    /// A running `criu service`; or a `selfdump service`, which tells so when it is asked for its version.
    Service { socket: PathBuf, is_selfdump: AtomicBool },
    /// A `criu swrk` of our own, started detached. It ends when the connection is dropped, at the latest.
    Worker { program: PathBuf, output: PathBuf, leash: Leash },
    /// A `criu swrk` that is our child.
    Child { program: PathBuf, pid: i32 },
}

/// What this CRIU can do on this kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// Changed pages can be tracked (soft-dirty), so dumps can build on each other.
    pub memory_tracking: bool,
    /// Memory can be fetched when it is first touched (userfaultfd).
    pub lazy_pages: bool,
    /// Processes can be told apart from later ones with the same id.
    pub pidfd_store: bool,
}

/// Which of its two returns a dump of oneself made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dumped {
    /// This is the process that goes on.
    Original,
    /// This is the process that came back from the images.
    Restored,
}

impl Connection {
    /// Connects to a running service: one of root's or of our own, at a socket that nobody else can have put there. It
    /// gets to see all that the program has in its memory.
    pub fn service(socket: &Path, timeout: Duration) -> Result<Connection> {
        if let Err(Refusal::Distrust(distrust)) = trust::file(socket) {
            return Err(explain::untrusted(socket, &distrust.to_string()));
        }
        let connected = message::connect(socket, Instant::now() + timeout.min(SMALL_REQUEST));
        let peer = Peer::Service { socket: socket.to_owned(), is_selfdump: AtomicBool::new(false) };
        let connection = match connected {
            Ok(socket) => Connection::new(socket, peer, timeout),
            Err(source) => return Err(explain::unreachable(socket, source)),
        };
        match connection.service_user()? {
            Some(user) if user != 0 && user != sys::process::user().1 => {
                Err(explain::untrusted(socket, &format!("user {user} listens there")))
            }
            _ => Ok(connection),
        }
    }

    /// Starts a `criu swrk` outside of our own tree, for one dump of this process. It ends by itself when
    /// the connection is closed. What it says before it opens a log of its own goes to `output`.
    pub fn worker(program: &Path, output: &Path, timeout: Duration) -> Result<Connection> {
        if sys::process::adopts_orphans() {
            return Err(explain::inside_tree());
        }
        let (socket, theirs) = pair()?;
        let argument = spawn::FIRST_DESCRIPTOR.to_string();
        let arguments = ["swrk", &argument];
        let descriptors = [theirs.as_fd()];
        let worker = Orphan { descriptors: &descriptors, output, ..Orphan::new(program, &arguments) };
        let leash = worker.start().map_err(|source| explain::unstartable(program, source))?;
        let peer = Peer::Worker { program: program.to_owned(), output: output.to_owned(), leash };
        Ok(Connection::new(socket, peer, timeout))
    }

    /// Starts a `criu swrk` as our child, for a restore. `inherit` are its descriptors from 4 on; `terminal` takes the
    /// place of its standard input, from which a program of a shell's gets its terminal.
    pub fn child(
        program: &Path,
        inherit: &[BorrowedFd<'_>],
        terminal: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> Result<Connection> {
        let (socket, theirs) = pair()?;
        let argument = spawn::FIRST_DESCRIPTOR.to_string();
        let given: Vec<BorrowedFd<'_>> =
            std::iter::once(theirs.as_fd()).chain(inherit.iter().copied()).collect();
        let pid = spawn::child(program, &["swrk", &argument], &given, terminal)
            .map_err(|source| explain::unstartable(program, source))?;
        Ok(Connection::new(socket, Peer::Child { program: program.to_owned(), pid }, timeout))
    }

    fn new(socket: OwnedFd, peer: Peer, timeout: Duration) -> Connection {
        Connection { socket, peer, timeout, another: None }
    }

    /// One with whoever has the other end of a socket.
    #[cfg(fuzzing)]
    pub(crate) fn over(socket: OwnedFd) -> Connection {
        let peer = Peer::Service { socket: PathBuf::from("/fuzzing"), is_selfdump: AtomicBool::new(false) };
        Connection::new(socket, peer, SMALL_REQUEST)
    }

    /// Who answers, for people: a program's path or a service's socket.
    pub fn peer(&self) -> String {
        match &self.peer {
            Peer::Service { socket, .. } => format!("service {}", socket.display()),
            Peer::Worker { program, .. } | Peer::Child { program, .. } => program.display().to_string(),
        }
    }

    /// The user that a service runs as; none where it is a worker of our own, and so ours.
    pub(crate) fn service_user(&self) -> Result<Option<u32>> {
        match &self.peer {
            Peer::Service { socket, .. } => message::peer_user(&self.socket)
                .map(Some)
                .map_err(|source| Error::io("look who serves", socket, source)),
            _ => Ok(None),
        }
    }

    /// CRIU's version. The connection stays open for the next request.
    pub fn version(&self) -> Result<Version> {
        let request = rpc::Request { keep_open: Some(true), ..request(rpc::RequestKind::Version) };
        let answer = self.ask(Operation::Version, &request, self.short(), None)?;
        if let Peer::Service { is_selfdump, .. } = &self.peer {
            is_selfdump.store(answer.service.is_some(), Ordering::Relaxed);
        }
        let version = answer.version.ok_or_else(|| explain::senseless(&self.peer(), "no version in it"))?;
        Ok(Version {
            major: version.major_number,
            minor: version.minor_number,
            patch: version.sublevel.unwrap_or(0),
        })
    }

    /// Has CRIU look whether the kernel has what it needs (`criu check`). Up to 4.1.1 it wants a folder for
    /// that, and writes its log there: `folder` is a symbolic link to one.
    pub fn check(self, folder: &Path) -> Result<()> {
        let options = DumpOptions::new(folder, Needs::default());
        let opts = if self.is_guarded() { guarded::check_options() } else { options.encode()? };
        let request = rpc::Request { opts: Some(opts), ..request(rpc::RequestKind::Check) };
        let log = folder.join(&options.log_file);
        self.ask(Operation::Check, &request, self.short(), Some(&log)).map(drop)
    }

    /// Asks for optional features. The connection stays open for the next request.
    pub fn features(&self) -> Result<Features> {
        let asked = rpc::Features { mem_track: Some(true), lazy_pages: Some(true), pidfd_store: Some(true) };
        let request = rpc::Request {
            keep_open: Some(true),
            features: Some(asked),
            ..request(rpc::RequestKind::FeatureCheck)
        };
        let features =
            self.ask(Operation::Features, &request, self.short(), None)?.features.unwrap_or_default();
        Ok(Features {
            memory_tracking: features.mem_track.unwrap_or(false),
            lazy_pages: features.lazy_pages.unwrap_or(false),
            pidfd_store: features.pidfd_store.unwrap_or(false),
        })
    }

    /// Has this process and its children dumped. **Returns twice**: here and now with
    /// [`Dumped::Original`], and with [`Dumped::Restored`] in each process that is restored from the images.
    pub fn dump(mut self, options: &DumpOptions) -> Result<Dumped> {
        if self.is_guarded() {
            return self.dump_guarded(options);
        }
        self.limit_its_time();
        self.another = options.instead;
        let request = rpc::Request { opts: Some(options.encode()?), ..request(rpc::RequestKind::Dump) };
        let log = options.images.join(&options.log_file);
        let answer = self.ask(Operation::Dump, &request, self.timeout, Some(&log))?;
        match answer.dump.and_then(|dump| dump.restored) {
            Some(true) => Ok(Dumped::Restored),
            _ => Ok(Dumped::Original),
        }
    }

    /// Dumps the memory ahead of the dump that the same connection is then asked for.
    pub fn pre_dump(&self, options: &DumpOptions) -> Result<()> {
        self.pre_dump_as(rpc::RequestKind::PreDump, options)
    }

    /// Dumps the memory once, for a dump over another connection that names this one as its parent.
    pub fn single_pre_dump(mut self, options: &DumpOptions) -> Result<()> {
        self.limit_its_time();
        self.pre_dump_as(rpc::RequestKind::SinglePreDump, options)
    }

    fn pre_dump_as(&self, kind: rpc::RequestKind, options: &DumpOptions) -> Result<()> {
        let request = rpc::Request { opts: Some(options.encode()?), ..request(kind) };
        let log = options.images.join(&options.log_file);
        self.ask(Operation::PreDump, &request, self.timeout, Some(&log)).map(drop)
    }

    /// Whether a `selfdump service` is at the other end, as far as it was asked for its version.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(&self.peer, Peer::Service { is_selfdump, .. } if is_selfdump.load(Ordering::Relaxed))
    }

    /// Has a worker end that goes on beyond its last request's deadline: while we stand still, we can't.
    fn limit_its_time(&mut self) {
        if let Peer::Worker { leash, .. } = &mut self.peer {
            if let Err(error) = leash.end_after(self.timeout + message::SECOND_LOOK) {
                log::debug!("nobody watches how long CRIU takes: {error}");
            }
        }
    }

    /// Has a worker work later than others: nobody stands still for it.
    pub(crate) fn have_later(&self) {
        if let Peer::Worker { leash, .. } = &self.peer {
            if let Err(error) = leash.have_later() {
                log::debug!("CRIU works as others do: {error}");
            }
        }
    }

    /// Where a worker's first words are.
    fn output(&self) -> Option<&Path> {
        match &self.peer {
            Peer::Worker { output, .. } => Some(output),
            _ => None,
        }
    }

    pub(super) fn short(&self) -> Duration {
        self.timeout.min(SMALL_REQUEST)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request and reads its answer, which has to be a success.
    fn ask(
        &self,
        operation: Operation,
        request: &rpc::Request,
        timeout: Duration,
        log: Option<&Path>,
    ) -> Result<rpc::Response> {
        // The path through a link, which is gone when the error is read, says less than where it leads.
        let log = log.map(explain::resolved);
        self.send(operation, &request.encode_to_vec(), timeout)?;
        let answer = self.hear(operation, timeout, log.as_deref())?;
        self.judge(operation, request, answer, log.as_deref())
    }

    pub(super) fn send(&self, operation: Operation, message: &[u8], timeout: Duration) -> Result<()> {
        message::send(&self.socket, message, Instant::now() + timeout).map_err(|error| match error.kind() {
            std::io::ErrorKind::TimedOut => self.silence(ErrorKind::Deadline, operation, timeout, None),
            _ => self.silence(ErrorKind::ServiceDied, operation, timeout, None).with_source(error),
        })
    }

    /// The process id of a child.
    pub(crate) fn child_id(&self) -> Option<i32> {
        match self.peer {
            Peer::Child { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// Ends the conversation, and a child with it.
    #[cfg(feature = "service")]
    pub(crate) fn end(self) {
        self.abandon();
        if let Peer::Child { pid, .. } = self.peer {
            let _ = sys::process::wait(pid);
        }
    }

    /// Ends a child that has run out of time; a worker ends with the connection, and a service isn't ours to
    /// end.
    fn abandon(&self) {
        if let Peer::Child { pid, .. } = self.peer {
            let _ = sys::signal::kill(pid);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    message::pair().map_err(|source| Error::os("make a socket pair for CRIU", source))
}

pub(super) fn request(kind: rpc::RequestKind) -> rpc::Request {
    rpc::Request { kind: kind as i32, ..rpc::Request::default() }
}
