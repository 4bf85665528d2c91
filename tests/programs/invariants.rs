//! A program that sees a torn moment. `invariants MEMORY_MIB THREADS`
//!
//! Its threads write without pause, each page under a promise that holds at every moment:
//!
//! - Between accounts, of which each has a page, amounts are moved under the locks of both. The sum stays the same.
//! - Each thread writes the number of its round to a row of pages, one after the other, and finds there before the next
//!   round what it knows, in a register, that it has written.
//! - Each thread keeps a hash chain, and tells of it as `chain` does.
//!
//! A checker locks all accounts now and then, and so does each restore: `sum right N`, or `wrong …` for whatever isn't as
//! it has to be.

#[path = "link.rs"]
mod link;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What each account has at first.
const FIRST: u64 = 1_000_000;

/// How many pages are in a thread's row.
const ROW: usize = 24;

/// How many rounds there are to a step of the chain.
const ROUNDS: u64 = 500;

#[repr(align(4096))]
struct Account {
    is_locked: AtomicBool,
    amount: AtomicU64,
}

#[repr(align(4096))]
struct Page(AtomicU64);

fn main() -> Result<(), selfdump::Error> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>().expect("a number"));
    let (memory, threads) = (numbers.next().expect("MEMORY_MIB"), numbers.next().expect("THREADS"));
    let account = |_| Account { is_locked: AtomicBool::new(false), amount: AtomicU64::new(FIRST) };
    let accounts: Arc<[Account]> = (0..memory * 256).map(account).collect();
    let handle = selfdump::install()?;
    let checked = Arc::clone(&accounts);
    handle.on_restore(move |restored| {
        say(&format!("restored {} generation {}", restored.id, restored.generation));
        check(&checked);
    })?;
    for thread in 0..threads as u64 {
        let accounts = Arc::clone(&accounts);
        std::thread::spawn(move || run(thread, &accounts));
    }
    say(&format!("ready {}", std::process::id()));
    loop {
        std::thread::sleep(Duration::from_millis(200));
        check(&accounts);
    }
}

fn run(thread: u64, accounts: &[Account]) -> ! {
    let row: Vec<Page> = (0..ROW).map(|_| Page(AtomicU64::new(0))).collect();
    let (mut step, mut link) = (0, link::first(thread));
    let (mut chance, mut told) = (link, Instant::now());
    for round in 1.. {
        write_a_row(thread, &row, round);
        chance = link::next(chance, round);
        move_an_amount(accounts, chance);
        if round % ROUNDS == 0 {
            step += 1;
            link = link::next(link, step);
            if told.elapsed() > Duration::from_millis(100) {
                told = Instant::now();
                say(&format!("thread {thread} step {step} link {link:016x}"));
            }
        }
    }
    unreachable!("the rounds don't end")
}

/// Each page has the number of this round or of the one before, and none has this one's before those that stand before it.
fn write_a_row(thread: u64, row: &[Page], round: u64) {
    for (at, page) in row.iter().enumerate() {
        let found = page.0.load(Ordering::Relaxed);
        if found != round - 1 {
            say(&format!("wrong row of thread {thread}: page {at} has {found} in round {round}"));
        }
        page.0.store(round, Ordering::Relaxed);
    }
    if let Some(page) = row.iter().find(|page| page.0.load(Ordering::Relaxed) != round) {
        say(&format!("wrong row of thread {thread}: {} after round {round}", page.0.load(Ordering::Relaxed)));
    }
}

fn move_an_amount(accounts: &[Account], chance: u64) {
    let one = (chance % accounts.len() as u64) as usize;
    let other = ((chance >> 32) % accounts.len() as u64) as usize;
    if one == other {
        return;
    }
    // In the same order everywhere, so that nobody waits for one who waits.
    accounts[one.min(other)].lock();
    accounts[one.max(other)].lock();
    let amount = chance % 100;
    let (from, to) = (&accounts[one].amount, &accounts[other].amount);
    if from.load(Ordering::Relaxed) >= amount {
        from.store(from.load(Ordering::Relaxed) - amount, Ordering::Relaxed);
        to.store(to.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    }
    accounts[one].unlock();
    accounts[other].unlock();
}

impl Account {
    fn lock(&self) {
        while self.is_locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn unlock(&self) {
        self.is_locked.store(false, Ordering::Release);
    }
}

/// All accounts have together what they had at first.
fn check(accounts: &[Account]) {
    accounts.iter().for_each(Account::lock);
    let sum: u64 = accounts.iter().map(|account| account.amount.load(Ordering::Relaxed)).sum();
    accounts.iter().for_each(Account::unlock);
    match sum == FIRST * accounts.len() as u64 {
        true => say(&format!("sum right {sum}")),
        false => say(&format!("wrong sum: {sum} of {} accounts", accounts.len())),
    }
}

/// One write for each line, so that lines of threads don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
