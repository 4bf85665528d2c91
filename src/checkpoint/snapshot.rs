//! A checkpoint of a copy of the program: it stands still only while that is made.
//!
//! ```text
//! obstacles? ─▶ helper ─▶ all halted: copy ─▶ obstacles? ─▶ CRIU dumps the copy ─▶ its images become the program's
//! ```
//!
//! What is in the way is looked for twice: before anything stands still, so that it is said without a cost, and in what was
//! noted at the moment itself. The copy ends with CRIU's dump, or when the program lets go of it, however that comes.

mod obstacles;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;
use std::{io, mem};

use super::Subject;
use super::copies::Copies;
use super::script;
use crate::config::Snapshot;
use crate::criu::Way;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::image;
use crate::report::{Cause, Technique};
use crate::store::draft::Draft;
use crate::store::layout;
use crate::sys::ourselves::{Helper, Talk};
use crate::sys::snapshot::moment::Moment;
use crate::sys::snapshot::{self, Copy, Order, Places, Taken};
use crate::sys::{self, crash, pidfd, procfs};

/// What the helper is told that it is, before its order.
pub(crate) const ROLE: &str = "halter";
/// The same for one that copies files meanwhile.
pub(crate) const ROLE_WITH_COPIES: &str = "halter-and-copier-of-files";

/// How long all may stand still for what the helper notes; copies of files may take longer.
const HALTED: Duration = Duration::from_secs(10);

/// How many threads more than there are now may be there when all are halted.
const MORE_THREADS: usize = 64;

/// How much of the machine's memory is left alone while there is a copy.
const LEFT: Bytes = Bytes::mebibytes(128);

/// How often the helper looks how much there is.
const LOOK: Duration = Duration::from_millis(100);

/// The program is to be dumped like this.
pub(super) enum Caught {
    /// Itself: it stands still until CRIU is done.
    Itself(Technique),
    /// In its copy.
    Copy(Box<Stand>),
    /// This is the program that came back from a dump of its copy.
    Restored,
}

/// A copy that stands in for the program.
pub(super) struct Stand {
    copy: Copy,
    moment: Moment,
    images: PathBuf,
    /// Both are there for as long as the copy is.
    _helper: (Helper, Talk),
}

/// Whether a copy is to be made, as far as that doesn't depend on the program's state.
pub(super) fn is_wanted(subject: &Subject, cause: &Cause) -> bool {
    // A program that has gone wrong has a thread that waits for the checkpoint, and nothing to gain.
    subject.settings.snapshot != Snapshot::Freeze && !cause.is_forensic()
}

/// Makes a copy of the program, if that is wanted and can be. **Returns twice.**
///
/// # Errors
///
/// Where there is to be a copy or no checkpoint.
pub(super) fn catch(
    subject: &mut Subject,
    draft: &mut Draft,
    cause: &Cause,
    ways: &[Way],
    copies: Option<&Copies>,
) -> Result<Caught> {
    if !is_wanted(subject, cause) {
        return Ok(Caught::Itself(Technique::Freeze));
    }
    let caught = possible(subject, ways).and_then(|()| copy(subject, draft, copies));
    if caught.is_err() {
        // Whatever of the program stands in it is to be in no checkpoint.
        let _ = fs::remove_file(moment_of(draft));
        draft.clear()?;
    }
    match caught {
        Err(error) if subject.settings.snapshot == Snapshot::Auto => {
            let why = error.chain();
            log::info!("no copy of the program can be made, so it stands still for its checkpoint: {why}");
            Ok(Caught::Itself(Technique::FellBack { why }))
        }
        caught => caught,
    }
}

/// What can be known while the program runs.
fn possible(subject: &Subject, ways: &[Way]) -> Result<()> {
    let impossible = |what: &str, hint: &str| Err(Error::new(ErrorKind::Config, what).with_hint(hint));
    const FREEZE: &str = "set SELFDUMP_SNAPSHOT=freeze, or auto";
    if !snapshot::IS_POSSIBLE {
        return impossible("a program is copied for its checkpoint on x86-64 alone", FREEZE);
    }
    if !ways.iter().all(|way| matches!(way, Way::Worker(_))) {
        return impossible("a service dumps the program that asks, and not its copy", FREEZE);
    }
    if sys::process::adopts_orphans() {
        return impossible("the copy would be a child of the program, which adopts orphans", FREEZE);
    }
    // Each page that it writes to while there is a copy takes memory. Between two checkpoints it writes to more of them.
    let wanted = subject.changes.unwrap_or_default();
    if is_scarce_beside(wanted) {
        let text = match wanted {
            Bytes(0) => "there is too little memory for a copy of the program".to_owned(),
            _ => format!(
                "a copy of the program may come to take {wanted}, which it has changed of its memory between its last checkpoints, and so much isn't free"
            ),
        };
        return Err(Error::new(ErrorKind::NoSpace, text).with_hint(FREEZE));
    }
    let now = snapshot::look(sys::process::id())
        .map_err(|source| Error::os("look what the program has open", source))?;
    obstacles::first(&now).map_or(Ok(()), Err)
}

/// Halts, copies, and looks at what was copied.
fn copy(subject: &mut Subject, draft: &Draft, copies: Option<&Copies>) -> Result<Caught> {
    if let Some(places) = subject.places.take() {
        subject.left_places.push(places);
    }
    let failed = |source: io::Error| {
        let hint = if source.kind() == io::ErrorKind::PermissionDenied { TRACING } else { AGAIN };
        Error::os("make a copy of the program", source).with_hint(hint)
    };
    let threads = procfs::status_number(sys::process::id(), "Threads").map_err(failed)?;
    let places = Places::new(threads as usize + MORE_THREADS).map_err(failed)?;
    let order = Order::of_this_process(&places);
    let folder = File::open(draft.written_folder()).map_err(failed)?;
    let role = if copies.is_some() { ROLE_WITH_COPIES } else { ROLE };
    let (helper, talk) = Helper::start(&format!("{role} {order}"), folder.as_fd()).map_err(failed)?;
    drop(folder);
    let patience = if copies.is_some() { subject.settings.timeout } else { HALTED };
    let taken = snapshot::take(&helper, &talk, &places, order, patience);
    // A thread may need its place until it is seen elsewhere.
    subject.places = Some(places);
    let copy = match taken {
        Ok(Taken::Copy(copy)) => copy,
        Ok(Taken::Restored) => {
            // Nothing of it is open here.
            mem::forget((helper, talk));
            return Ok(Caught::Restored);
        }
        Err(error) => {
            let error = failed(error);
            return Err(match copies {
                Some(copies) => copies.explain(draft, error),
                None => error,
            });
        }
    };
    // Maybe before the copy was made, which would come back only to die.
    if crash::is_under_way() {
        return Err(super::crashed_meanwhile());
    }
    talk.wait_until_noted().map_err(failed)?;
    let mut moment = read(draft)?;
    copy.complete(&mut moment);
    match obstacles::first(&moment) {
        Some(obstacle) => return Err(obstacle),
        None if !copy.has_all(&moment).map_err(failed)? => return Err(obstacles::not_inherited()),
        None => {}
    }
    // Every thread was seen where it belongs, so nobody is in an old place.
    subject.left_places.drain(..).for_each(Places::give_back);
    Ok(Caught::Copy(Box::new(Stand { copy, moment, images: draft.images(), _helper: (helper, talk) })))
}

const TRACING: &str = "where ptrace is restricted (kernel.yama.ptrace_scope), run the program as root; SELFDUMP_SNAPSHOT=freeze does without a copy";
const AGAIN: &str = "checkpoint again; SELFDUMP_SNAPSHOT=auto has the program itself dumped then, and freeze does without a copy";

/// What the helper writes down.
fn moment_of(draft: &Draft) -> PathBuf {
    draft.written_folder().join(layout::MOMENT)
}

/// What it has written down, which isn't kept.
fn read(draft: &Draft) -> Result<Moment> {
    let path = moment_of(draft);
    let text = fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
    let _ = fs::remove_file(&path);
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(ErrorKind::Damaged, path.display().to_string()).with_source(error))
}

impl Stand {
    /// Whom CRIU is to dump.
    pub(super) fn pid(&self) -> i32 {
        self.copy.pid
    }

    /// Makes the program's images of those of its copy.
    pub(super) fn complete(self) -> Result<()> {
        let pause = image::Pause { freezing: self.copy.halting, frozen: self.copy.stood_still };
        image::complete(&self.images, self.copy.pid, self.copy.leash, &self.moment, pause)
    }

    /// A failed dump's error, with what has become of the copy.
    pub(super) fn explain(&self, error: Error) -> Error {
        match procfs::is_there(self.copy.pid) {
            true => error,
            false => Error::new(ErrorKind::NoSpace, "the copy of the program was ended before CRIU had dumped it: by the helper that watches over it, for want of memory, or by somebody else")
                .with_source(error)
                .with_hint("SELFDUMP_SNAPSHOT=auto has the program itself dumped then"),
        }
    }
}

/// What the helper does, in the draft's folder: halts the program for the copy, writes down what it was, and watches over
/// the machine's memory for as long as it is on its leash.
pub(crate) fn halt(order: &str, copies_files: bool) -> io::Result<()> {
    let meanwhile = || if copies_files { copy_files() } else { Ok(()) };
    let (moment, pid) = snapshot::halt(Order::from_str(order)?, meanwhile)?;
    let copy = pidfd::Stranger::hold(pid)?;
    snapshot::make_brief(pid)?;
    serde_json::to_writer(io::BufWriter::new(File::create_new(layout::MOMENT)?), &moment)?;
    snapshot::noted()?;
    while !copy.has_ended() {
        if is_scarce_beside(Bytes(0)) {
            copy.signal(sys::signal::KILL)?;
        }
        std::thread::sleep(LOOK);
    }
    loop {
        std::thread::park();
    }
}

/// Runs the script that CRIU runs otherwise, when all stands still. Where it fails it has written down why.
fn copy_files() -> io::Result<()> {
    let mut shell = Command::new("sh");
    shell.arg(layout::COPY_SCRIPT).env_clear().env("PATH", sys::spawn::SYSTEM_FOLDERS.join(":"));
    shell.env(script::STAGE.0, script::STAGE.1);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match shell.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("files can't be copied")),
    }
}

/// Whether there is little memory to be had, but for so much.
fn is_scarce_beside(wanted: Bytes) -> bool {
    procfs::memory_to_fill().is_some_and(|memory| memory.0 < LEFT.0.saturating_add(wanted.0))
}
