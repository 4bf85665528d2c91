//! Medians and extremes, as a table, and how they stand to the limits.

use std::fmt::Write;
use std::time::Duration;

/// A ratio of each pair, and what its median may be at most.
pub struct Limit<P> {
    /// What the ratio is, such as `time over CRIU's own`.
    pub what: &'static str,
    pub ratio: fn(&P) -> f64,
    pub most: f64,
}

impl<P> Limit<P> {
    /// Whether the limit lies outside of what the median may be.
    pub fn is_sure(&self, pairs: &[P]) -> bool {
        let (low, high) = confidence(pairs.iter().map(self.ratio));
        high <= self.most || low > self.most
    }

    /// Whether the median is within the limit; says so where it is `judged`.
    pub fn judge(&self, pairs: &[P], judged: bool) -> bool {
        let median = median(pairs.iter().map(self.ratio));
        let (low, high) = confidence(pairs.iter().map(self.ratio));
        let within = median <= self.most;
        let verdict = match (judged, within) {
            (false, _) => "too few pairs for a verdict",
            (true, true) => "pass",
            (true, false) => "FAIL",
        };
        println!(
            "{}: {median:.3} (95 %: {low:.3} to {high:.3}), at most {}: {verdict}",
            self.what, self.most
        );
        within
    }
}

/// The median, minimum and maximum of what is known of pairs, a line each.
pub struct Table<'a, P> {
    pairs: &'a [P],
    text: String,
}

impl<'a, P> Table<'a, P> {
    pub fn of(pairs: &'a [P]) -> Table<'a, P> {
        Table { pairs, text: format!("{:<44}{:>10}{:>10}{:>10}\n", "", "median", "min", "max") }
    }

    pub fn row(&mut self, name: &str, digits: usize, value: impl Fn(&P) -> f64) -> &mut Self {
        let (low, high) = extremes(self.pairs.iter().map(&value));
        let middle = median(self.pairs.iter().map(&value));
        // Writing into a string can't fail.
        let _ = writeln!(self.text, "{name:<44}{middle:>10.digits$}{low:>10.digits$}{high:>10.digits$}");
        self
    }

    pub fn print(&self) {
        println!("{}", self.text);
    }
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

pub fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

pub fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
