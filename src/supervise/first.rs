//! What a runner begins with: the command, a checkpoint, or a program that runs already.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::event::Event;
use super::lineage::Lineage;
use super::policy::Start;
use super::watch::Running;
use super::{Runner, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::store::catalogue::{self, Entry};
use crate::store::status::{self, Status};
use crate::sys::pidfd::Stranger;
use crate::sys::procfs;

impl Runner<'_> {
    pub(super) fn first(&mut self) -> Result<Step> {
        let folder = self.order.folder();
        let running = programs_in(&folder);
        match (running.as_slice(), self.order.resume) {
            ([], false) => Ok(Step::Start),
            ([], true) => Ok(self.resumable()?.map_or(Step::Start, Step::Restore)),
            ([one], true) => Ok(Step::TakeOver(one.clone())),
            (several, _) => Err(runs_already(self.order.name(), several, self.order.resume)),
        }
    }

    /// The newest checkpoint of a run that wasn't done.
    fn resumable(&mut self) -> Result<Option<Entry>> {
        let entries = catalogue::find(self.order.dir(), Some(&self.order.folder()))?;
        let of_the_run =
            |entry: &Entry| entry.manifest.is_ok() && !entry.is_forensic() && !self.place.is_behind(entry);
        let newest = entries.into_iter().find(of_the_run);
        if let Some(entry) = &newest {
            self.pid = entry.manifest.as_ref().ok().map(|manifest| manifest.pid());
            self.folders.extend(entry.path.parent().map(PathBuf::from));
        }
        Ok(newest)
    }

    pub(super) fn take_over(&mut self, status: Status) -> Result<Running> {
        let pid = status.pid();
        let failed = |source| Error::os(&format!("watch process {pid}"), source);
        let stranger = Stranger::hold(pid).map_err(failed)?;
        self.pid = Some(pid);
        self.folders = vec![status.folder.clone()];
        (self.tell)(&Event::TakenOver { pid });
        // What it has done before is not told of.
        let beginning = Lineage::start(SystemTime::now());
        let mut running = Running::new(pid, Start::TakenOver, beginning, 0);
        running.stranger = Some(stranger);
        running.status = Some(status);
        Ok(running)
    }
}

/// The programs that have their checkpoints in a folder and run, without those that are children of others.
fn programs_in(folder: &Path) -> Vec<Status> {
    let mut found = status::running();
    found.retain(|status| status.folder.starts_with(folder));
    let pids: Vec<i32> = found.iter().map(Status::pid).collect();
    found.retain(|status| procfs::stat(status.pid()).is_ok_and(|stat| !pids.contains(&stat.parent)));
    found
}

fn runs_already(name: &str, running: &[Status], resume: bool) -> Error {
    let pids: Vec<String> = running.iter().map(|status| status.pid().to_string()).collect();
    let pids = pids.join(" and ");
    let hint = match resume {
        false => {
            format!("take it over with --resume, end it (kill {pids}), or run this one under another --name")
        }
        true => "only one can be taken over: end the others, or run this one under another --name".to_owned(),
    };
    Error::new(ErrorKind::Held, format!("{name} runs already, as process {pids}")).with_hint(hint)
}
