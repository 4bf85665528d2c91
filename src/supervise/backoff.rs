//! How long to wait before a program is brought back: longer each time, and never in step with others.

use std::time::Duration;

/// Where nothing else is said, the first wait.
pub const DEFAULT_BACKOFF: Duration = Duration::from_secs(1);

/// The longest wait, unless the first one is longer.
const LONGEST: Duration = Duration::from_secs(60);

/// A year: nobody waits for longer, and the clock could not hold it.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The wait after the `row`th crash in a row: twice the one before, of which a random part between the half and the
/// whole is waited. `random` is at least 0 and less than 1.
pub(super) fn after(row: usize, first: Duration, random: f64) -> Duration {
    let doublings = u32::try_from(row.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
    let first = first.min(FOR_EVER);
    let whole = first.saturating_mul(1 << doublings).min(LONGEST.max(first));
    whole.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_minute_and_the_half_of_it_is_left_to_chance() {
        let second = Duration::from_secs(1);
        let longest = 0.999_999;
        for (row, first, least, most) in [
            (1, second, 500, 1000),
            (2, second, 1000, 2000),
            (6, second, 16_000, 32_000),
            (7, second, 30_000, 60_000),
            (1000, second, 30_000, 60_000),
            (3, second * 300, 150_000, 300_000),
            (9, Duration::ZERO, 0, 0),
            (9, Duration::MAX, FOR_EVER.as_millis() as u64 / 2, FOR_EVER.as_millis() as u64),
        ] {
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
            assert_eq!(after(row, first, 0.0), least, "{row}");
            let wait = after(row, first, longest);
            assert!(wait <= most && most - wait <= most / 1000, "{row}: {wait:?}");
        }
    }
}
