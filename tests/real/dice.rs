//! Chance that can be had once more.

use std::time::SystemTime;

/// Numbers that follow from a seed, which it prints; SELFDUMP_TEST_SEED gives one.
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn throw() -> Dice {
        let given = std::env::var("SELFDUMP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        let seed: u64 = given.unwrap_or(now.as_nanos() as u64);
        println!("SELFDUMP_TEST_SEED={seed}");
        Dice { state: seed | 1 }
    }

    /// A number below this one.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64 (Marsaglia, 2003): any seed but zero will do.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % bound
    }
}
