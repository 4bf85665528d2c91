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
mod incremental;
mod rounds;
mod script;
mod staging;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::compression::Compression;
use crate::config::Settings;
use crate::criu::{self, DumpOptions, Dumped, Version, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, MappedFile, Needs, NetworkLock, Process};
use crate::image;
use crate::report::{Cause, Checkpoint, Outcome, PauseBudget, Report, Restored, Staged, Technique};
use crate::store::compressed::Compressing;
use crate::store::draft::{self, Draft};
use crate::store::filling;
use crate::store::handover;
use crate::store::layout::Instance;
use crate::store::life::Life;
use crate::store::manifest::{Criu, FORMAT_VERSION, Manifest, Program};
use crate::store::retention::Keep;
use crate::store::runtime;
use crate::sys::{self, crash, procfs};
use ahead::Pauses;
use copier::Copier;
use copies::Copies;
use staging::Tree;

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
}

impl Subject {
    pub(crate) fn new(settings: Settings) -> Result<Subject> {
        let (life, instance) =
            Life::of_this_process().map_err(|source| Error::os("read /proc about this process", source))?;
        let instance = Instance::new(&settings.dir, &settings.name, instance);
        Ok(Subject { settings, instance, life, unfit: Vec::new(), pauses: Pauses::default() })
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

/// What a dump is asked for.
struct Order {
    needs: Needs,
    keep_tcp: bool,
    copies: Option<Copies>,
    staged: Staged,
    budget: Option<PauseBudget>,
}

/// What is known when CRIU has answered.
struct Answer {
    dumped: Dumped,
    copied: bool,
    version: Version,
    peer: String,
    /// Whether it was a worker of our own.
    by_worker: bool,
    answered: SystemTime,
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
    let budget = ahead::write(subject, &mut draft, cause, &needs, &ways);
    let taken = SystemTime::now();
    let dumped = budget
        .and_then(|budget| order(subject, &mut draft, needs, cause, &ways, budget))
        .and_then(|order| dump_as_ordered(subject, &mut draft, order, ways));
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
        // It would come back only to die.
        Ok(_) if crash::is_under_way() && !cause.is_forensic() => {
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

/// Works out what the dump is asked for, and looks whether there is room for all of it.
fn order(
    subject: &Subject,
    draft: &mut Draft,
    needs: Needs,
    cause: &Cause,
    ways: &[Way],
    budget: Option<PauseBudget>,
) -> Result<Order> {
    // The program has run on meanwhile.
    let needs = if draft.levels() > 0 { criu::needs()? } else { needs };
    let tree = Tree::look();
    let staged = staging::prepare(subject, draft, cause, ways, tree)?;
    let room = beside_the_memory(draft, tree.memory)?;
    let copies = copies::prepare(&subject.settings, draft, room)?;
    // What has to be copied is mostly a database, which takes and gives back its locks all the time: that none is held
    // now says nothing about the moment in which all stands still.
    let file_locks = needs.file_locks || copies.is_some();
    // Nothing is locked for connections that come back closed. CRIU would leave its rules behind if it were killed, and
    // by nft it makes some even where there is no connection.
    let keep_tcp = subject.settings.keep_tcp && needs.tcp_established;
    let network_lock = if keep_tcp { needs.network_lock } else { NetworkLock::Skip };
    Ok(Order { needs: Needs { file_locks, network_lock, ..needs }, keep_tcp, copies, staged, budget })
}

/// The same for what didn't fit into memory after all: it goes to the disk.
fn order_for_the_disk(subject: &Subject, draft: &mut Draft, order: Order, why: &Error) -> Result<Order> {
    draft.clear()?;
    draft.unstage()?;
    if subject.settings.encrypts() {
        draft.write_apart_on_the_disk()?;
    }
    let room = beside_the_memory(draft, Tree::look().memory)?;
    let copies = copies::prepare(&subject.settings, draft, room)?;
    let why = format!("it didn't fit into memory: {}", why.chain());
    staging::tell(&why, &subject.settings.dir);
    Ok(Order { copies, staged: Staged::FellBack { why }, ..order })
}

/// Looks whether the memory of the tree fits onto the disk, before anything stands still for it, and how much room
/// there is for more.
fn beside_the_memory(draft: &Draft, memory: Bytes) -> Result<Bytes> {
    let folder = draft.folder();
    let free =
        sys::disk::free_space(&folder).map_err(|source| Error::io("look for space at", &folder, source))?;
    let times = if draft.is_twice_on_the_disk() { 2 } else { 1 };
    let wanted = Bytes(memory.0.saturating_add(BESIDE_THE_MEMORY.0).saturating_mul(times));
    free.0.checked_sub(wanted.0).map(|room| Bytes(room / times)).ok_or_else(|| {
        Error::new(
            ErrorKind::NoSpace,
            format!("a checkpoint takes about {wanted}, and {free} are free where {} is", folder.display()),
        )
        .with_hint(
            "free space, keep fewer checkpoints (SELFDUMP_KEEP), or name another folder with SELFDUMP_DIR",
        )
    })
}

/// Has the program dumped, and once more to the disk where the memory didn't have the room that it seemed to have.
/// Returns twice.
fn dump_as_ordered(
    subject: &mut Subject,
    draft: &mut Draft,
    order: Order,
    ways: Vec<Way>,
) -> Result<(Answer, Order)> {
    match dump(subject, draft, &order, ways.clone()) {
        Err(error) if draft.has_outgrown_memory() => {
            let order = order_for_the_disk(subject, draft, order, &error)?;
            Ok((dump(subject, draft, &order, ways)?, order))
        }
        dumped => Ok((dumped?, order)),
    }
}

/// Has the program dumped by the first CRIU that is right for this machine. Returns twice.
fn dump(subject: &mut Subject, draft: &mut Draft, order: &Order, ways: Vec<Way>) -> Result<Answer> {
    let (unfit, fit): (Vec<Way>, Vec<Way>) = ways.into_iter().partition(|way| subject.unfit.contains(way));
    // Where none is left, one may have been put right since.
    let mut untried = if fit.is_empty() { unfit } else { fit }.into_iter().peekable();
    while let Some(way) = untried.next() {
        let error = match dump_by(&way, draft, order, subject.settings.timeout) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // Another one may do better only where this one is not right for the machine at all.
        let Some(next) = untried.peek().filter(|_| error.is_unfit_criu()) else { return Err(error) };
        log::warn!("{}; trying {next}", error.chain());
        draft.clear()?;
        subject.unfit.push(way);
    }
    Err(Error::new(ErrorKind::NoCriu, "no criu was found"))
}

fn dump_by(way: &Way, draft: &Draft, order: &Order, timeout: Duration) -> Result<Answer> {
    let by_worker = matches!(way, Way::Worker(_));
    let copier = if by_worker { Copier::start(draft) } else { None };
    if copier.is_none() {
        draft.give_memory_back()?;
    }
    let (connection, version) = way.connect(&draft.worker_log(), timeout)?;
    let peer = connection.peer();
    let mut options = DumpOptions::new(draft.link(), order.needs.clone());
    options.tcp_close &= !order.keep_tcp;
    options.parent = draft.last_level();
    // CRIU asks the kernel which pages have changed only where it is to track them.
    options.track_memory = options.parent.is_some();
    let copied = match &order.copies {
        Some(copies) => copies.ask(&connection, draft, &mut options)?,
        None => false,
    };
    let dumped = connection.dump(&options).map_err(|error| match &order.copies {
        Some(copies) => copies.explain(draft, error),
        None => error,
    });
    let dumped = dumped.map_err(|error| copier.iter().fold(error, |error, copier| copier.explain(error)))?;
    if let (Dumped::Original, Some(copier)) = (&dumped, copier) {
        copier.finish()?;
    }
    Ok(Answer { dumped, copied, version, peer, by_worker, answered: SystemTime::now() })
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
    let chain = incremental::reduce(subject, draft, cause, &answer)?;
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
        technique: Technique::Freeze,
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
