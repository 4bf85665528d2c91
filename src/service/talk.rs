//! A conversation with one program, over one connection.
//!
//! A message is looked at while it still is in the socket. All but a dump are taken out, and answered here; that of a dump
//! stays there for CRIU, which reads what was looked at: a message that has been sent can't be changed, and comes before
//! those that are sent later. CRIU reads one request and ends, so that nothing reaches it which wasn't looked at.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::audit::{self, Who};
use super::dump::{self, Worker};
use super::limits::Connected;
use super::lock::failed;
use super::revive::{self, Came, Program};
use super::seal::Sealed;
use super::{PATIENCE, Service};
use crate::criu::request::{self, Asked, Refusal, Why};
use crate::criu::restoring::{self, Wanted};
use crate::sys::folder::Held;
use crate::sys::listener::first_ready;
use crate::sys::message::{self, Received};
use crate::sys::passing;
use crate::sys::peer::Peer;
use crate::sys::procfs;

/// How long an answer may take to be sent. There is room for it, unless somebody fills the socket on purpose.
const TO_SEND: Duration = Duration::from_secs(1);

/// Who is talked with.
pub(super) struct Client<'a> {
    pub(super) socket: OwnedFd,
    pub(super) peer: Peer,
    pub(super) connected: Connected<'a>,
    who: Who,
}

/// Takes a connection in, where that user may have one more.
pub(super) fn admit(service: &Service, socket: OwnedFd) -> Option<Client<'_>> {
    // One that has ended already wants nothing any more.
    let peer = Peer::of(&socket).ok()?;
    let program = procfs::stat(peer.pid).map(|stat| stat.name).unwrap_or_default();
    let who = Who { user: peer.user, pid: peer.pid, program };
    match service.ledger.connect(peer.user) {
        Ok(connected) => Some(Client { socket, peer, connected, who }),
        Err(refusal) => {
            let _ = send(&socket, &request::refused(None, &refusal));
            message::finish(socket);
            audit::request(&who, "connection", &format!("refused: {}", refusal.reason), Duration::ZERO);
            None
        }
    }
}

fn send(socket: &OwnedFd, answer: &[u8]) -> io::Result<()> {
    message::send(socket, answer, Instant::now() + TO_SEND)
}

/// What follows an answer.
enum Next {
    Request,
    /// The end of a program that was brought back.
    Program(Program),
    End,
}

impl Client<'_> {
    /// Answers its requests until it has none any more.
    pub(super) fn converse(mut self, service: &Service) {
        let mut folder = None;
        while let Some(message) = self.next_message(service) {
            let begun = Instant::now();
            let asked = message.and_then(|bytes| {
                self.connected.request()?;
                let asked = request::read(&bytes).map_err(Refusal::forbidden)?;
                Ok((asked, bytes))
            });
            let name = asked.as_ref().map_or("request", |(asked, _)| asked.name());
            let kind = asked.as_ref().ok().map(|(asked, _)| *asked);
            let answered = asked.and_then(|(asked, bytes)| self.answer(service, asked, &bytes, &mut folder));
            let (answer, result, next) = match answered {
                Ok((answer, result, next)) => (answer, result, next),
                Err(refusal) => {
                    (request::refused(kind, &refusal), format!("refused: {}", refusal.reason), Next::End)
                }
            };
            let sent = send(&self.socket, &answer);
            audit::request(&self.who, name, &result, begun.elapsed());
            match next {
                Next::Request if sent.is_ok() => {}
                Next::Program(program) if sent.is_ok() => {
                    self.keep(service, program, begun);
                    break;
                }
                _ => break,
            }
        }
        message::finish(self.socket);
    }

    /// Waits for the end of a program, and tells it.
    fn keep(&self, service: &Service, program: Program, begun: Instant) {
        let ended = program.wait(service, &self.socket);
        audit::request(&self.who, "restore", &revive::how(ended), begun.elapsed());
        if let Some(ended) = ended {
            // Where nobody hears it any more, nobody needs it.
            let _ = send(&self.socket, &restoring::ended(ended));
        }
    }

    /// The next message, which stays where it is; none where nothing comes any more.
    fn next_message(&self, service: &Service) -> Option<Result<Vec<u8>, Refusal>> {
        let deadline = Instant::now() + service.limits.silence;
        let waited = first_ready(&[service.stop.as_fd(), self.socket.as_fd()], Some(deadline));
        let Ok(Some(1)) = waited else { return None };
        match message::peek(&self.socket, request::LARGEST, deadline) {
            Ok(Received::Message(bytes)) => Some(Ok(bytes)),
            Ok(Received::EndOfFile | Received::TimedOut) => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Some(Err(Refusal::forbidden("the request is too long")))
            }
            Err(_) => None,
        }
    }

    /// Does what is asked: the answer, what came of it, and what follows.
    fn answer(
        &mut self,
        service: &Service,
        asked: Asked,
        bytes: &[u8],
        folder: &mut Option<Held>,
    ) -> Result<(Vec<u8>, String, Next), Refusal> {
        let next = |keep_open| if keep_open { Next::Request } else { Next::End };
        let done = |version| request::done(asked, version);
        match asked {
            Asked::Version { keep_open } => {
                self.take(bytes)?;
                Ok((done(Some(&service.version)), "done".to_owned(), next(keep_open)))
            }
            Asked::Features { keep_open } => {
                self.take(bytes)?;
                Ok((self.relay(service, bytes)?, "passed on".to_owned(), next(keep_open)))
            }
            Asked::Check => {
                self.take(bytes)?;
                Ok((self.relay(service, bytes)?, "passed on".to_owned(), Next::End))
            }
            Asked::Folder => {
                *folder = Some(self.take_folder(bytes)?);
                Ok((done(None), "done".to_owned(), Next::Request))
            }
            Asked::Dump => {
                let folder = folder.take().ok_or_else(|| Refusal::forbidden("no folder has come before"))?;
                let sealed = dump::dump(service, self, folder)?;
                let result = format!("sealed {} files of {} bytes", sealed.files, sealed.bytes);
                Ok((done(None), result, Next::End))
            }
            Asked::Restore => {
                let descriptors = self.take(bytes)?;
                let wanted = Wanted::read(bytes).map_err(Refusal::forbidden)?;
                match revive::restore(service, self, &wanted, descriptors)? {
                    Came::Back { pid, kept, sealed: Sealed { files, bytes } } => {
                        let result = format!("restored process {pid} from {files} files of {bytes} bytes");
                        Ok((restoring::restored(pid), result, kept.map_or(Next::End, Next::Program)))
                    }
                    Came::Not(answer) => Ok((answer, "CRIU failed".to_owned(), Next::End)),
                }
            }
        }
    }

    /// Takes the message that was looked at out of the socket. Nobody else reads there, so it is the same.
    fn take(&self, looked_at: &[u8]) -> Result<Vec<OwnedFd>, Refusal> {
        let taken = passing::receive(&self.socket, request::LARGEST);
        let (bytes, descriptors) = taken.map_err(|error| failed("take the request", &error))?;
        match bytes == looked_at {
            true => Ok(descriptors),
            false => Err(Refusal::new(Why::Failed, "the request isn't the one that was looked at")),
        }
    }

    fn take_folder(&self, looked_at: &[u8]) -> Result<Held, Refusal> {
        let descriptors = self.take(looked_at)?;
        let [descriptor] = descriptors.as_slice() else {
            return Err(Refusal::forbidden(format!(
                "{} descriptors came along instead of one",
                descriptors.len()
            )));
        };
        Held::behind(descriptor.as_fd()).map_err(|_| Refusal::forbidden("what came along is no folder"))
    }

    /// Has a CRIU answer that can do no more than this user's own, but for what a dump needs.
    fn relay(&self, service: &Service, asked: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (ours, theirs) = message::pair().map_err(|error| failed("make a socket pair", &error))?;
        let _worker = Worker::start(service, self, None, &[theirs.as_fd()])?;
        drop(theirs);
        let deadline = Instant::now() + PATIENCE.min(service.limits.deadline);
        let answered =
            message::send(&ours, asked, deadline).and_then(|()| message::receive(&ours, deadline, || true));
        match answered.map_err(|error| failed("ask CRIU", &error))? {
            Received::Message(answer) => Ok(answer),
            Received::EndOfFile => Err(Refusal::new(Why::Failed, "CRIU ended without an answer")),
            Received::TimedOut => Err(Refusal::new(Why::Late, "CRIU did not answer in time")),
        }
    }
}
