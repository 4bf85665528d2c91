//! What others do on this machine meanwhile, and which pairs count.

use std::time::{Duration, SystemTime};

use super::Failure;
use super::plan::Plan;

/// The share of its time that a calm pair may spend with somebody waiting for a processor. On an idle machine
/// of two processors it is about a tenth, since CRIU, its helpers and the ticker meet.
const CALM: f64 = 0.25;

/// Runs that follow each other directly.
pub trait Pair {
    /// How much of the time of the most disturbed of them somebody waited for a processor, from 0 to 1.
    fn contention(&self) -> f64;
}

/// The calm pairs, as many as are planned and as it takes to be sure; or the calmest, where patience runs out
/// before there are enough. Which ones count is decided by what others did meanwhile, never by the times.
pub fn calm<P: Pair>(
    plan: &Plan,
    is_sure: impl Fn(&[P]) -> bool,
    mut make: impl FnMut(usize) -> Result<P, Failure>,
) -> Result<Vec<P>, Failure> {
    let (mut calm, mut disturbed) = (Vec::new(), Vec::new());
    let most = plan.pairs * plan.patience;
    let is_enough = |calm: &[P]| calm.len() >= plan.pairs && (!plan.judged || is_sure(calm));
    while calm.len() + disturbed.len() < most && !is_enough(&calm) {
        let pair = make(calm.len() + disturbed.len())?;
        let quiet = pair.contention() <= CALM;
        if quiet { &mut calm } else { &mut disturbed }.push(pair);
    }
    let (made, quiet) = (calm.len() + disturbed.len(), calm.len());
    disturbed.sort_by(|one: &P, other| one.contention().total_cmp(&other.contention()));
    disturbed.truncate(plan.pairs.saturating_sub(calm.len()));
    calm.append(&mut disturbed);
    println!("{made} pairs were made, {quiet} of them calm; the {} calmest count", calm.len());
    Ok(calm)
}

/// How long, since the machine's start, some task has waited for a processor (`/proc/pressure/cpu`); none
/// on a kernel that doesn't tell.
pub fn waited_for_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().find(|line| line.starts_with("some"))?.rsplit_once("total=")?.1;
    Some(Duration::from_micros(total.trim().parse().ok()?))
}

/// The share of `time` that somebody waited in since `before`; 0 where that isn't told.
pub fn contention(before: Option<Duration>, time: Duration) -> f64 {
    let waited = waited_for_processor().zip(before).map(|(now, before)| now.saturating_sub(before));
    (waited.unwrap_or_default().as_secs_f64() / time.as_secs_f64()).min(1.0)
}

/// The time between two readings of CLOCK_REALTIME, of which the earlier may come from a file that holds
/// whole microseconds.
pub fn between(earlier: SystemTime, later: SystemTime) -> Result<Duration, Failure> {
    let error = |_| format!("the clock was set back meanwhile: {earlier:?}, then {later:?}");
    later.duration_since(earlier).map_err(|source| error(source).into())
}

/// How many rounds count, and how many of them were calm, for people.
pub fn told<P: Pair>(rounds: &[P]) -> String {
    let calm = rounds.iter().filter(|round| round.contention() <= CALM).count();
    format!("{} rounds, {calm} of them calm", rounds.len())
}
