//! The request for a restore, at whose stages the program can be held back.

use std::path::Path;

use prost::Message;

use super::{Connection, Peer, request};
use crate::criu::explain::{self, Operation};
use crate::criu::options::RestoreOptions;
use crate::criu::rpc;
use crate::error::{CriuFailure, Error, Result};
use crate::sys;

/// The last stage of a restore that CRIU tells of while nothing of the program has run, and at which it takes no for
/// an answer.
const LAST_STAGE_BEFORE_IT_RUNS: &str = "post-restore";

impl Connection {
    /// Brings a program back; its process id. `log` is where the log that the options name will be.
    pub fn restore(self, options: &RestoreOptions<'_>, log: &Path) -> Result<i32> {
        self.restore_once(options, log, None)
    }

    /// The same for a program that is let go only if `it_may_run`: that is called when all of it is in place and nothing
    /// of it has run. Its error, after which CRIU ends what it has made, is this one's.
    pub fn restore_if(
        self,
        options: &RestoreOptions<'_>,
        log: &Path,
        it_may_run: &mut dyn FnMut() -> Result<()>,
    ) -> Result<i32> {
        self.restore_once(options, log, Some(it_may_run))
    }

    fn restore_once(
        self,
        options: &RestoreOptions<'_>,
        log: &Path,
        it_may_run: Option<&mut dyn FnMut() -> Result<()>>,
    ) -> Result<i32> {
        let mut opts = options.encode()?;
        opts.notify_scripts = it_may_run.is_some().then_some(true);
        let request = rpc::Request { opts: Some(opts), ..request(rpc::RequestKind::Restore) };
        let answer = match it_may_run {
            None => self.ask(Operation::Restore, &request, self.timeout, Some(log)),
            Some(it_may_run) => self.ask_by_stages(&request, log, it_may_run),
        };
        if let Peer::Child { pid, .. } = self.peer {
            drop(self.socket);
            sys::process::wait(pid).map_err(|source| Error::os("wait for criu", source))?;
        }
        let restored = answer?.restore.map(|restore| restore.pid).filter(|&pid| pid > 0);
        restored.ok_or_else(|| {
            explain::failure(
                Operation::Restore,
                CriuFailure { log: Some(log.to_owned()), ..CriuFailure::default() },
                None,
            )
        })
    }

    /// Asks for a restore, and says of each stage that it was seen.
    fn ask_by_stages(
        &self,
        request: &rpc::Request,
        log: &Path,
        it_may_run: &mut dyn FnMut() -> Result<()>,
    ) -> Result<rpc::Response> {
        let (operation, log) = (Operation::Restore, explain::resolved(log));
        let mut seen = Ok(());
        self.send(operation, &request.encode_to_vec(), self.timeout)?;
        loop {
            let answer = self.hear(operation, self.timeout, Some(&log))?;
            if answer.kind() != rpc::RequestKind::Notify {
                // What CRIU says of a stage that was refused is no more than that.
                return seen.and_then(|()| self.judge(operation, request, answer, Some(&log)));
            }
            if answer.notify.is_some_and(|stage| stage.script() == LAST_STAGE_BEFORE_IT_RUNS) {
                seen = it_may_run();
            }
            let told = rpc::Request {
                notify_success: Some(seen.is_ok()),
                ..self::request(rpc::RequestKind::Notify)
            };
            self.send(operation, &told.encode_to_vec(), self.timeout)?;
        }
    }
}
