//! Medians and extremes, as a table.

use std::fmt::Write;
use std::time::Duration;

use crate::measure::Pair;

/// The median, minimum and maximum of every time and ratio.
pub fn times(pairs: &[Pair]) -> String {
    let mut table = format!("{:<44}{:>10}{:>10}{:>10}\n", "", "median", "min", "max");
    let mut row = |name: &str, values: &dyn Fn(&Pair) -> f64, digits: usize| {
        let (low, high) = extremes(pairs.iter().map(values));
        let middle = median(pairs.iter().map(values));
        // Writing into a string can't fail.
        let _ = writeln!(table, "{name:<44}{middle:>10.digits$}{low:>10.digits$}{high:>10.digits$}");
    };
    row("selfdump: signal to answer, ms", &|pair| ms(pair.ours.time), 1);
    row("criu dump: start to end, ms", &|pair| ms(pair.criu.time), 1);
    row("  ratio of each pair", &Pair::time_ratio, 3);
    row("selfdump: pause, ms", &|pair| ms(pair.ours.pause), 1);
    row("criu dump: pause, ms", &|pair| ms(pair.criu.pause), 1);
    row("  ratio of each pair", &Pair::pause_ratio, 3);
    row("within selfdump: signal to attempt, ms", &|pair| ms(pair.course.woken), 2);
    row("  /proc, draft, ms", &|pair| ms(pair.course.prepared), 2);
    row("  CRIU, from its start to its answer, ms", &|pair| ms(pair.course.dumped), 1);
    row("after the answer: checksums, fsync, ms", &|pair| ms(pair.course.committed), 1);
    row("time that somebody waited for a CPU, %", &|pair| 100.0 * pair.contention(), 1);
    table
}

/// Between what the median of all pairs that could be made lies, with 95 %: the values at two ranks of these,
/// whatever their distribution is.
pub fn confidence(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (count, spread) = (values.len() as f64, 1.96 * (values.len() as f64).sqrt());
    let low = ((count - spread) / 2.0).floor().max(1.0) as usize - 1;
    let high = (((count + spread) / 2.0).ceil() as usize).min(values.len().saturating_sub(1));
    let at = |rank: usize| values.get(rank).copied().unwrap_or(f64::NAN);
    (at(low), at(high))
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => f64::NAN,
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
