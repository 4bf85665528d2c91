//! Memory that is written ahead of the dump while the program runs, so that it stands still for less time.
//!
//! Each round is a dump of the memory alone (SINGLE_PRE_DUMP) that builds on the round before; the program stands still for
//! as long as it takes to find the changed pages, and they are written when it runs again. No round fails a checkpoint:
//! where one goes wrong, all of them are dropped and the dump holds everything.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Subject;
use super::dump::beside_the_memory;
use super::rounds::{self, Costs, Next, Round};
use super::staging::{Tree, is_urgent};
use crate::criu::{DumpOptions, PreDumpMode, Way};
use crate::error::{Error, Result};
use crate::frozen::{Bytes, DumpStats, Needs};
use crate::image;
use crate::report::{Cause, PauseBudget};
use crate::store::draft::Draft;
use crate::sys::{self, crash, procfs};

const PAGE: u64 = 4096;

/// What is known of a life's pauses.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    costs: Costs,
    /// Whether this CRIU can tell on this kernel which pages have changed.
    tracking: Option<(Way, bool)>,
    /// What was last told of the limit.
    told: Option<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Kept,
    Exceeded(Option<String>),
}

/// Why memory isn't written ahead.
struct WhyNot(String);

impl From<Error> for WhyNot {
    fn from(error: Error) -> WhyNot {
        WhyNot(error.chain())
    }
}

/// Writes memory ahead, where there is a limit for the pause that asks for it; what is known of that then.
pub(super) fn write(
    subject: &mut Subject,
    draft: &mut Draft,
    cause: &Cause,
    needs: &Needs,
    ways: &[Way],
) -> Result<Option<PauseBudget>> {
    let Some(limit) = subject.settings.max_pause else { return Ok(None) };
    let mut budget = PauseBudget::of(limit);
    let way = match possible_way(subject, cause, ways) {
        Ok(way) => way,
        Err(WhyNot(why)) => {
            budget.why_not = Some(why);
            return Ok(Some(budget));
        }
    };
    match write_by(&way, subject, draft, needs, &mut budget) {
        Ok(()) => draft.end_levels()?,
        Err(WhyNot(why)) => {
            draft.drop_levels()?;
            budget.why_not = Some(why);
        }
    }
    Ok(Some(budget))
}

/// By which CRIU, if at all.
fn possible_way(subject: &mut Subject, cause: &Cause, ways: &[Way]) -> Result<Way, WhyNot> {
    let never = |why: &str| Err(WhyNot(why.to_owned()));
    let way = ways.iter().find(|way| !subject.unfit.contains(way)).or(ways.first());
    match way {
        _ if is_urgent(subject, cause) => never("the program is about to end, or has gone wrong"),
        _ if subject.settings.encrypts() => never("checkpoints are encrypted"),
        Some(way @ Way::Worker(_)) => match tracks(subject, way)? {
            true => Ok(way.clone()),
            false => never("this kernel doesn't tell which pages have changed (CONFIG_MEM_SOFT_DIRTY)"),
        },
        _ => never("CRIU is reached through a service"),
    }
}

/// Asked once in a life.
fn tracks(subject: &mut Subject, way: &Way) -> Result<bool> {
    if let Some((_, tracks)) = subject.pauses.tracking.as_ref().filter(|(asked, _)| asked == way) {
        return Ok(*tracks);
    }
    let (connection, _) = way.connect(Path::new("/dev/null"), subject.settings.timeout)?;
    let tracks = connection.features()?.memory_tracking;
    subject.pauses.tracking = Some((way.clone(), tracks));
    Ok(tracks)
}

/// Makes rounds until the rest is expected to be short, or not to get any shorter.
fn write_by(
    way: &Way,
    subject: &mut Subject,
    draft: &mut Draft,
    needs: &Needs,
    budget: &mut PauseBudget,
) -> Result<(), WhyNot> {
    let (started, memory) = (Instant::now(), Tree::look().memory);
    let mut rounds: Vec<Round> = Vec::new();
    loop {
        let next = rounds::next(budget.limit, subject.pauses.costs, memory.0 / PAGE, &rounds);
        let last = rounds.last().map_or(memory, |last| Bytes(last.stats.pages_written * PAGE));
        // The dump may still have to write everything, if the next round should fail.
        let has_room = || beside_the_memory(draft, Bytes(memory.0.saturating_add(last.0)));
        match (next, rounds.is_empty()) {
            (Next::Dump(expected), _) => {
                budget.predicted = Some(expected);
                return Ok(());
            }
            (Next::Round, true) => drop(has_room()?),
            // A thread that has crashed waits for us, and what it needs is another checkpoint than this.
            (Next::Round, false) if crash::is_under_way() || has_room().is_err() => return Ok(()),
            (Next::Round, false) => {}
        }
        let round = round(way, draft, needs, subject.settings.timeout, started)?;
        log::debug!("written ahead: {} pages, {:?}", round.stats.pages_written, round.stats.pause());
        subject.pauses.costs.learn_from_round(&round.stats);
        budget.longest = budget.longest.max(round.stats.pause());
        rounds.push(round);
    }
}

fn round(way: &Way, draft: &mut Draft, needs: &Needs, timeout: Duration, started: Instant) -> Result<Round> {
    let level = draft.begin_level()?;
    let (connection, _) = way.connect(&draft.worker_log(), timeout)?;
    let mut options = DumpOptions::new(draft.link(), needs.clone());
    options.track_memory = true;
    // The pages are read when the program runs again. Through pipes the first round takes twice the pause.
    options.pre_dump_mode = PreDumpMode::VmRead;
    options.parent = level.parent;
    let began = started.elapsed();
    connection.single_pre_dump(&options)?;
    Ok(Round { stats: image::dump_stats(&level.folder)?, began, ended: started.elapsed() })
}

/// What came of it, when the dump is done. It is learned from, and said where it is news.
pub(super) fn account(
    subject: &mut Subject,
    draft: &Draft,
    budget: Option<PauseBudget>,
    stats: &DumpStats,
) -> Option<PauseBudget> {
    subject.pauses.costs.learn(stats);
    let mut budget = budget?;
    budget.rounds = draft.levels();
    budget.longest = budget.longest.max(stats.pause());
    let told = match budget.is_kept() {
        true => Told::Kept,
        false => Told::Exceeded(budget.why_not.clone()),
    };
    if subject.pauses.told.as_ref() != Some(&told) {
        tell(&budget);
        subject.pauses.told = Some(told);
    }
    Some(budget)
}

fn tell(budget: &PauseBudget) {
    match budget.is_kept() {
        true => log::info!("pauses are kept under the limit: {budget}"),
        false => log::warn!(
            "the program stood still for longer than SELFDUMP_MAX_PAUSE allows, and will again: {budget}{}",
            of_huge_pages(budget).unwrap_or_default()
        ),
    }
}

/// One changed byte makes a whole huge page a changed one.
fn of_huge_pages(budget: &PauseBudget) -> Option<String> {
    let tree = procfs::tree(sys::process::id()).into_iter();
    let huge: Bytes = tree.filter_map(|pid| procfs::huge_memory(pid).ok()).sum();
    let matters = budget.why_not.is_none() && huge.0 > Tree::look().memory.0 / 4;
    matters.then(|| {
        format!(
            "; {huge} of its memory are in transparent huge pages, each of which counts as changed for one byte: SELFDUMP_HUGE_PAGES=off has the kernel give it none"
        )
    })
}
