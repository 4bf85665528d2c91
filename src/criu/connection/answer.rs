//! Waiting for an answer, and judging it.

use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;

use super::{Connection, Peer};
use crate::criu::explain::{self, Operation};
use crate::criu::rpc;
use crate::error::{CriuFailure, Error, ErrorKind, Result};
use crate::sys;
use crate::sys::message::{self, Received};
use crate::sys::procfs;

/// How long CRIU may take for its last words when whom it dumps has ended. It ends them itself, just before it answers.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Waiting for CRIU's word about a process that may have been ended by somebody else. CRIU calls exit(3) then in the handler
/// of a signal (compel/src/lib/infect.c), and hangs if that has interrupted what holds a lock of the C library.
#[derive(Debug, Default)]
struct Vigil {
    /// Since when the process is known to have ended.
    began: Option<Instant>,
}

impl Vigil {
    fn is_over(&mut self, dumped: Option<i32>) -> bool {
        if dumped.is_some_and(|pid| !procfs::is_there(pid)) {
            return self.began.get_or_insert_with(Instant::now).elapsed() >= LAST_WORDS;
        }
        false
    }
}

impl Connection {
    /// The next answer, whatever it says.
    pub(in crate::criu) fn hear(
        &self,
        operation: Operation,
        timeout: Duration,
        log: Option<&Path>,
    ) -> Result<rpc::Response> {
        let failed = |kind| self.silence(kind, operation, timeout, log);
        let deadline = Instant::now() + timeout;
        let mut vigil = Vigil::default();
        let will_answer = || self.is_there() && !vigil.is_over(self.another);
        match message::receive(&self.socket, deadline, will_answer) {
            Ok(Received::Message(bytes)) => {
                decode(&bytes).map_err(|what| explain::senseless(&self.peer(), &what))
            }
            // It was ended for the time that it took, while we stood still.
            Ok(Received::EndOfFile) if Instant::now() >= deadline => Err(failed(ErrorKind::Deadline)),
            // It waits for one who has ended.
            Ok(Received::EndOfFile) if self.is_there() && vigil.is_over(self.another) => {
                Err(failed(ErrorKind::Dump))
            }
            Ok(Received::EndOfFile) => Err(failed(ErrorKind::ServiceDied)),
            Ok(Received::TimedOut) => {
                self.abandon();
                Err(failed(ErrorKind::Deadline))
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(explain::senseless(&self.peer(), "far too long").with_source(error))
            }
            Err(error) => Err(failed(ErrorKind::ServiceDied).with_source(error)),
        }
    }

    /// Whether who has to answer is still there. Helpers that CRIU has forked have its end of the socket as well, such as
    /// those in which it tries what the kernel can do; and when CRIU is killed, one may stay and wait for it.
    fn is_there(&self) -> bool {
        match &self.peer {
            Peer::Service { .. } => true,
            Peer::Worker { leash, .. } => leash.is_taut(),
            Peer::Child { pid, .. } => !sys::process::has_ended(*pid),
        }
    }

    /// What to make of no answer.
    pub(in crate::criu) fn silence(
        &self,
        kind: ErrorKind,
        operation: Operation,
        timeout: Duration,
        log: Option<&Path>,
    ) -> Error {
        explain::silence(kind, operation, &self.peer(), timeout, log, self.output())
    }

    /// Makes an error of an answer that isn't a success, or not one to this request.
    pub(in crate::criu) fn judge(
        &self,
        operation: Operation,
        request: &rpc::Request,
        answer: rpc::Response,
        log: Option<&Path>,
    ) -> Result<rpc::Response> {
        let said = answer.cr_errmsg.as_deref().map(|text| String::from_utf8_lossy(text).trim().to_owned());
        if !answer.success && answer.service.is_some() {
            return Err(explain::refusal(
                &self.peer(),
                request.kind(),
                answer.cr_errno,
                &said.unwrap_or_default(),
            ));
        }
        if !answer.success {
            let failure = CriuFailure {
                errno: answer.cr_errno.filter(|&errno| errno != 0),
                message: said,
                log: log.map(Path::to_owned),
                lines: Vec::new(),
            };
            return Err(explain::failure(operation, failure, self.output()));
        }
        match answer.kind == request.kind {
            true => Ok(answer),
            false => Err(explain::senseless(
                &self.peer(),
                &format!("an answer to another question ({})", answer.kind),
            )),
        }
    }
}

/// Reads an answer; the reason where it is none. A message without bytes would decode as one that says no.
pub(in crate::criu) fn decode(bytes: &[u8]) -> Result<rpc::Response, String> {
    if bytes.is_empty() {
        return Err("an empty message".to_owned());
    }
    rpc::Response::decode(bytes).map_err(|error| format!("{} bytes that are no answer: {error}", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_message_is_no_answer() {
        assert_eq!(decode(&[]).unwrap_err(), "an empty message");
    }

    #[test]
    fn garbage_is_no_answer() {
        assert!(decode(&[0xff; 40]).unwrap_err().starts_with("40 bytes that are no answer"));
    }
}
