//! Having the program dumped: what CRIU is asked for, whom it dumps, and which CRIU that is.

use std::time::{Duration, SystemTime};

use super::copier::Copier;
use super::copies::{self, Copies};
use super::snapshot::{self, Caught, Stand};
use super::staging::{self, Tree};
use super::{BESIDE_THE_MEMORY, Subject};
use crate::config::Snapshot;
use crate::criu::{self, DumpOptions, Dumped, Version, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, Needs, NetworkLock};
use crate::report::{Cause, PauseBudget, Staged, Technique};
use crate::store::draft::Draft;
use crate::sys;

/// What a dump is asked for.
pub(super) struct Order {
    pub(super) needs: Needs,
    pub(super) keep_tcp: bool,
    pub(super) copies: Option<Copies>,
    pub(super) staged: Staged,
    pub(super) budget: Option<PauseBudget>,
    pub(super) technique: Technique,
}

/// What is known when CRIU has answered.
pub(super) struct Answer {
    pub(super) dumped: Dumped,
    pub(super) copied: bool,
    pub(super) version: Version,
    pub(super) peer: String,
    /// Whether it was a worker of our own.
    pub(super) by_worker: bool,
    pub(super) answered: SystemTime,
}

impl Answer {
    /// Of nobody: the program came back from a copy of it that was made before anybody was asked.
    fn of_a_restored_copy() -> Answer {
        Answer {
            dumped: Dumped::Restored,
            copied: false,
            version: criu::OLDEST,
            peer: "nobody, since a copy of the program seems to have come back".to_owned(),
            by_worker: true,
            answered: SystemTime::now(),
        }
    }
}

/// Works out what the dump is asked for, and looks whether there is room for all of it.
pub(super) fn order(
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
    // Nor does it of the moment in which a copy is made.
    let file_locks = needs.file_locks || copies.is_some() || snapshot::is_wanted(subject, cause);
    // Nothing is locked for connections that come back closed. CRIU would leave its rules behind if it were killed, and
    // by nft it makes some even where there is no connection.
    let keep_tcp = subject.settings.keep_tcp && needs.tcp_established;
    let network_lock = if keep_tcp { needs.network_lock } else { NetworkLock::Skip };
    Ok(Order {
        needs: Needs { file_locks, network_lock, ..needs },
        keep_tcp,
        copies,
        staged,
        budget,
        technique: Technique::Freeze,
    })
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
pub(super) fn beside_the_memory(draft: &Draft, memory: Bytes) -> Result<Bytes> {
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

/// Has the program dumped, or a copy of it that is made for that, as is wanted and can be. Returns twice.
pub(super) fn catch_and_dump(
    subject: &mut Subject,
    draft: &mut Draft,
    cause: &Cause,
    order: Order,
    ways: Vec<Way>,
    thawed: &dyn Fn(),
) -> Result<(Answer, Order)> {
    match snapshot::catch(subject, draft, cause, &ways, order.copies.as_ref())? {
        Caught::Itself(technique) => dump_as_ordered(subject, draft, Order { technique, ..order }, ways),
        Caught::Restored => Ok((Answer::of_a_restored_copy(), order)),
        Caught::Copy(stand) => {
            thawed();
            match dump_copy(subject, draft, &order, *stand, ways.clone()) {
                Err(error) if subject.settings.snapshot == Snapshot::Auto => {
                    let why = error.chain();
                    log::warn!(
                        "the copy of the program wasn't dumped, so it stands still for its checkpoint: {why}"
                    );
                    draft.clear()?;
                    dump_as_ordered(
                        subject,
                        draft,
                        Order { technique: Technique::FellBack { why }, ..order },
                        ways,
                    )
                }
                answer => Ok((answer?, Order { technique: Technique::Cow, ..order })),
            }
        }
    }
}

/// Has the program's copy dumped, and makes the program's images of what comes of it.
fn dump_copy(
    subject: &mut Subject,
    draft: &mut Draft,
    order: &Order,
    stand: Stand,
    ways: Vec<Way>,
) -> Result<Answer> {
    let answer =
        dump(subject, draft, order, Some(stand.pid()), ways).map_err(|error| stand.explain(error))?;
    stand.complete()?;
    Ok(answer)
}

/// Has the program dumped, and once more to the disk where the memory didn't have the room that it seemed to have.
/// Returns twice.
fn dump_as_ordered(
    subject: &mut Subject,
    draft: &mut Draft,
    order: Order,
    ways: Vec<Way>,
) -> Result<(Answer, Order)> {
    match dump(subject, draft, &order, None, ways.clone()) {
        Err(error) if draft.has_outgrown_memory() => {
            let order = order_for_the_disk(subject, draft, order, &error)?;
            Ok((dump(subject, draft, &order, None, ways)?, order))
        }
        dumped => Ok((dumped?, order)),
    }
}

/// Has the program, or the process `instead` of it, dumped by the first CRIU that is right for this machine. Returns twice.
fn dump(
    subject: &mut Subject,
    draft: &mut Draft,
    order: &Order,
    instead: Option<i32>,
    ways: Vec<Way>,
) -> Result<Answer> {
    let (unfit, fit): (Vec<Way>, Vec<Way>) = ways.into_iter().partition(|way| subject.unfit.contains(way));
    // Where none is left, one may have been put right since.
    let mut untried = if fit.is_empty() { unfit } else { fit }.into_iter().peekable();
    while let Some(way) = untried.next() {
        let error = match dump_by(&way, draft, order, instead, subject.settings.timeout) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // Another one may do better only where this one is not right for the machine at all.
        let Some(next) = untried.peek().filter(|_| error.is_unfit_criu()) else { return Err(error) };
        log::warn!("{}; trying {next}", error.chain());
        match instead {
            // The copies of files are those of the moment in which this one was made.
            Some(_) => draft.clear_images()?,
            None => draft.clear()?,
        }
        subject.unfit.push(way);
    }
    Err(Error::new(ErrorKind::NoCriu, "no criu was found"))
}

fn dump_by(
    way: &Way,
    draft: &Draft,
    order: &Order,
    instead: Option<i32>,
    timeout: Duration,
) -> Result<Answer> {
    let by_worker = matches!(way, Way::Worker(_));
    let copier = if by_worker { Copier::start(draft) } else { None };
    if copier.is_none() {
        draft.give_memory_back()?;
    }
    let (connection, version) = way.connect(&draft.worker_log(), timeout)?;
    let peer = connection.peer();
    let mut options = DumpOptions::new(draft.link(), order.needs.clone());
    options.instead = instead;
    if instead.is_some() {
        connection.have_later();
    }
    options.tcp_close &= !order.keep_tcp;
    options.parent = draft.last_level();
    // CRIU asks the kernel which pages have changed only where it is to track them.
    options.track_memory = options.parent.is_some();
    let copied = match &order.copies {
        Some(copies) if instead.is_none() => copies.ask(&connection, draft, &mut options)?,
        copies => copies.is_some(),
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
