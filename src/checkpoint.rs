//! The sentence: look what CRIU has to be told, begin a draft, have it filled, commit it.
//!
//! ```text
//! needs ─▶ draft ─▶ ahead ─▶ copies ─▶ space ─▶ dump ─┬─ Original ─▶ reduce ─▶ encrypt or move ─▶ manifest ─▶ commit ─▶ prune
//!                                                     ├─ Restored ─▶ forget the draft, begin a new life, touch nothing
//!                                                     └─ failed   ─▶ discard the draft
//! ```
//!
//! [`Dumped`] is matched in one place, [`attempt`]: everything after the dump runs in both processes, and
//! only there is it decided which of them may change the store.

mod ahead;
pub(crate) mod copier;
mod copies;
mod dump;
mod incremental;
mod rounds;
mod script;
pub(crate) mod snapshot;
mod staging;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::compression::Compression;
use crate::config::Settings;
use crate::criu::{self, Dumped, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, MappedFile, Process};
use crate::image;
use crate::report::{Cause, Checkpoint, Outcome, Report, Restored, Technique};
use crate::store::compressed::Compressing;
use crate::store::draft::{self, Draft};
use crate::store::filling;
use crate::store::handover;
use crate::store::layout::Instance;
use crate::store::life::Life;
use crate::store::manifest::{Criu, FORMAT_VERSION, Manifest, Program};
use crate::store::retention::Keep;
use crate::store::runtime;
use crate::sys::snapshot::Places;
use crate::sys::{self, crash, procfs};
use ahead::Pauses;
use dump::{Answer, Order, catch_and_dump, order};
use incremental::Reduced;

/// Room on the store's disk for what comes beside the memory: CRIU's small images and log, the manifest.
const BESIDE_THE_MEMORY: Bytes = Bytes::mebibytes(1);

/// The program that is checkpointed: how, where to, and in which of its lives.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) settings: Settings,
    pub(crate) instance: Instance,
    pub(crate) life: Life,
    /// CRIUs that turned out to be too old for this kernel; they are not tried again.
    unfit: Vec<Way>,
    /// What its pauses have been made of.
    pauses: Pauses,
    /// How much of its memory it has changed between its last two checkpoints, where that is known.
    changes: Option<Bytes>,
    /// Where its threads were sent to be asked for the last copy, and before.
    places: Option<Places>,
    left_places: Vec<Places>,
}

impl Subject {
    pub(crate) fn new(settings: Settings) -> Result<Subject> {
        let (life, instance) =
            Life::of_this_process().map_err(|source| Error::os("read /proc about this process", source))?;
        let instance = Instance::new(&settings.dir, &settings.name, instance);
        Ok(Subject {
            settings,
            instance,
            life,
            unfit: Vec::new(),
            pauses: Pauses::default(),
            changes: None,
            places: None,
            left_places: Vec::new(),
        })
    }

    /// In the process that came back: it is a life of its own from here on. Returns the one before.
    fn begin_next_life(&mut self) -> Life {
        let next = self.life.next();
        self.pauses = Pauses::default();
        std::mem::replace(&mut self.life, next)
    }

    /// A process that came back as a part of another's checkpoint, as that one's child, isn't told. It would take
    /// its new life for the old one, which others see is over. Whether that was so.
    pub(crate) fn notice_a_restore(&mut self) -> bool {
        let came_back = self.life.goes_on().is_ok_and(|goes_on| !goes_on);
        if came_back {
            self.begin_next_life();
            log::info!("came back as a part of another program's checkpoint");
        }
        came_back
    }
}

/// Makes a checkpoint. Whatever comes of it is in the report. `thawed` is called, in both processes, when nothing
/// stands still any more.
pub(crate) fn run(subject: &mut Subject, cause: Cause, thawed: &dyn Fn()) -> Report {
    let started = SystemTime::now();
    let mut answered = None;
    let outcome = attempt(subject, &cause, &mut answered, thawed);
    Report { cause, started, answered, finished: SystemTime::now(), outcome }
}

fn attempt(
    subject: &mut Subject,
    cause: &Cause,
    answered: &mut Option<SystemTime>,
    thawed: &dyn Fn(),
) -> Result<Outcome> {
    subject.notice_a_restore();
    wait_until_filled(subject)?;
    let needs = criu::needs()?;
    let ways = criu::ways(subject.settings.service.as_deref(), subject.settings.criu.as_deref())?;
    let mut draft = Draft::begin(&subject.instance, &subject.life)?;
    let budget = match snapshot::is_wanted(subject, cause) {
        true => Ok(None),
        false => ahead::write(subject, &mut draft, cause, &needs, &ways),
    };
    let taken = SystemTime::now();
    let dumped = budget
        .and_then(|budget| order(subject, &mut draft, needs, cause, &ways, budget))
        .and_then(|order| catch_and_dump(subject, &mut draft, cause, order, ways, thawed));
    thawed();
    match dumped {
        // The process that came back has another start.
        Ok((Answer { dumped: Dumped::Restored, peer, .. }, _)) if subject.life.goes_on().unwrap_or(false) => {
            Err(never_gone(&peer).with_log(draft.discard()))
        }
        Ok((Answer { dumped: Dumped::Restored, .. }, _)) => {
            let (id, path) = (draft.id(), draft.destination());
            draft.forget();
            let before = subject.begin_next_life();
            Ok(Outcome::Restored(come_back(&before, &subject.life, (id, path), taken)))
        }
        // It would come back only to die. A copy was made before.
        Ok((_, order))
            if crash::is_under_way() && !cause.is_forensic() && order.technique != Technique::Cow =>
        {
            Err(crashed_meanwhile().with_log(draft.discard()))
        }
        Ok((answer, order)) => {
            *answered = Some(answer.answered);
            let is_at_leisure = staging::is_at_leisure(subject, &order.staged);
            let save = || save(subject, &draft, cause, order, taken, answer);
            let saved = if is_at_leisure { sys::leisure::at_leisure(save) } else { save() };
            saved.map(Outcome::Saved).inspect_err(|_| {
                draft.discard();
            })
        }
        Err(error) => Err(error.with_log(draft.discard())),
    }
}

/// CRIU would take what isn't there yet of a program that came back lazily for memory that was never touched.
fn wait_until_filled(subject: &Subject) -> Result<()> {
    let deadline = Instant::now() + subject.settings.timeout;
    while filling::is_going_on(&subject.life) {
        if Instant::now() >= deadline {
            return Err(Error::new(
                ErrorKind::Deadline,
                "the program came back lazily, and its memory is still being filled",
            )
            .with_hint("ask again when `criu lazy-pages` has ended, or restore without --lazy"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn crashed_meanwhile() -> Error {
    Error::new(
        ErrorKind::Dump,
        "a thread of the program has crashed while the checkpoint was made, so it isn't kept",
    )
    .with_hint("a forensic checkpoint follows; go on from an older one")
}

fn never_gone(peer: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("CRIU ({peer}) answered that the program was restored, which has run all the time"),
    )
    .with_hint("look whether it is a CRIU that answers, of version 4.1.1 or later")
}

/// What the life that begins knows of the one before it.
fn come_back(before: &Life, now: &Life, (id, path): (String, PathBuf), taken: SystemTime) -> Restored {
    Restored {
        taken,
        age: SystemTime::now().duration_since(taken).unwrap_or_default(),
        generation: now.generation,
        same_host: before.machine == now.machine,
        same_boot: before.boot_id == now.boot_id,
        same_pid_namespace: before.pid_namespace == now.pid_namespace,
        settings: handover::take(now, &id),
        id,
        path,
    }
}

/// Turns the images into a checkpoint. Only in the process that goes on.
fn save(
    subject: &mut Subject,
    draft: &Draft,
    cause: &Cause,
    order: Order,
    taken: SystemTime,
    answer: Answer,
) -> Result<Checkpoint> {
    let images = draft.images();
    let stats = image::dump_stats(&images).map_err(unreadable)?;
    let pause_budget = ahead::account(subject, draft, order.budget, &stats);
    let processes = identified(image::processes(&images).map_err(unreadable)?, taken);
    let copies = match &order.copies {
        Some(copies) if answer.copied => copies.made(draft, &processes)?,
        _ => Vec::new(),
    };
    let Reduced { chain, changed } = incremental::reduce(subject, draft, cause, &answer)?;
    subject.changes = changed;
    let recipients = &subject.settings.encrypt_to;
    let files = match subject.settings.encrypts() {
        true => draft.encrypt(recipients, cause).map(|()| Vec::new())?,
        false => draft.bring_home(compressing(subject, &answer).as_ref())?,
    };
    let executable = procfs::executable(subject.life.pid).unwrap_or_default();
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        id: draft.id(),
        cause: subject.settings.told(cause),
        forensic: cause.is_forensic(),
        taken,
        answered: answer.answered,
        life: subject.life.clone(),
        program: Program {
            name: subject.settings.name.clone(),
            executable: executable.to_string_lossy().into_owned(),
            selfdump: env!("CARGO_PKG_VERSION").to_owned(),
            file_rules: subject.settings.files.clone(),
            mapped: mapped(&processes),
            cpu_features: procfs::cpu_features(),
            runtime: runtime::folder(),
            copy_files: subject.settings.copy_files.clone(),
        },
        criu: Criu { version: answer.version.to_string(), peer: answer.peer, needs: order.needs },
        stats,
        processes,
        copies,
        files,
        parent: None,
        chain,
        staged: order.staged,
        technique: order.technique,
        pause_budget,
        encrypted_to: recipients.iter().map(ToString::to_string).collect(),
    };
    let (path, manifest) = draft.commit(manifest)?;
    let keep = Keep { ordinary: subject.settings.keep, forensic: subject.settings.keep_forensic };
    draft::prune(&subject.instance, &subject.life, keep);
    // A life that was restored after a crash makes no start of its own that would do it.
    draft::sweep(&subject.instance, &subject.settings.staging);
    let processes = manifest.processes.iter().map(|process| process.pid).collect();
    Ok(Checkpoint {
        size: manifest.size(),
        stats: manifest.stats,
        id: manifest.id,
        path,
        taken,
        staged: manifest.staged,
        technique: manifest.technique,
        budget: manifest.pause_budget,
        processes,
    })
}

/// How pages are compressed, where that is wanted. What a service has made stays as it is.
fn compressing(subject: &Subject, answer: &Answer) -> Option<Compressing> {
    match subject.settings.compress {
        Compression::Zstd { level } if answer.by_worker => {
            Some(Compressing { level, holds_pages: image::delta::holds_pages })
        }
        _ => None,
    }
}

/// Adds which files they were, which the images don't have. What lost its name since then stays without.
fn identified(mut processes: Vec<Process>, taken: SystemTime) -> Vec<Process> {
    for process in &mut processes {
        for open in &mut process.descriptors {
            // Only regular files have a position.
            if let (Some(path), Some(_)) = (&open.path, open.position_bytes) {
                open.identity = procfs::file_identity(process.pid, open.fd, path)
                    .or_else(|| procfs::identity_of_closed(process.pid, open.fd, path, taken));
            }
        }
    }
    processes
}

/// What has to be there as it is for the program to come back.
fn mapped(processes: &[Process]) -> Vec<MappedFile> {
    let paths: BTreeSet<PathBuf> =
        processes.iter().flat_map(|process| procfs::executable_mappings(process.pid)).collect();
    let with_build_id = |path: PathBuf| {
        let build_id = sys::elf::build_id(&path).ok()?;
        Some(MappedFile { path, build_id })
    };
    paths.into_iter().filter_map(with_build_id).collect()
}

/// CRIU has said that all went well.
fn unreadable(error: Error) -> Error {
    match error.hint() {
        None => error.with_hint("look whether it is a CRIU that answered, and checkpoint again; `selfdump setup` gets one that works"),
        Some(_) => error,
    }
}
