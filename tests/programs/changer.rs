//! A program whose memory is known by a rule, and changes a little at each step. `changer MEMORY_MIB PER_MILLE [SITUATION…]`
//!
//! SIGUSR1 has it go a step on, in which so many of a thousand pages are written anew, and print `step N`. SIGHUP has it
//! look at every byte, and print `right N`; a page that isn't as the rule says ends it with `wrong …`. Every eighth page is
//! all zero until it is written to.
//!
//! The situations: `shared` (the upper half is shared memory), `child` (a child, forked once the memory was filled, which
//! does the same with its own copy, by another rule).

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PAGE: usize = 4096;

/// Memory, and what is known of it.
struct Memory {
    pages: &'static mut [[u64; PAGE / 8]],
    changing: usize,
    seed: u64,
    step: u64,
}

impl Memory {
    fn new(pages: &'static mut [[u64; PAGE / 8]], per_mille: usize) -> Memory {
        (0..).zip(pages.iter_mut()).for_each(|(page, words)| fill(words, page, 0));
        Memory { changing: pages.len() * per_mille / 1000, pages, seed: 0, step: 0 }
    }

    /// The pages that are written to in a step.
    fn changed_in(&self, step: u64) -> Vec<usize> {
        let place = |at: usize| mixed(self.seed ^ step << 32 ^ at as u64) as usize % self.pages.len();
        (0..self.changing).map(place).collect()
    }

    fn go_on(&mut self) {
        self.step += 1;
        for page in self.changed_in(self.step) {
            fill(&mut self.pages[page], page as u64, self.seed ^ self.step);
        }
    }

    /// Looks at every byte.
    fn check(&self) {
        let mut versions = vec![0; self.pages.len()];
        for step in 1..=self.step {
            self.changed_in(step).into_iter().for_each(|page| versions[page] = self.seed ^ step);
        }
        let mut expected = [0; PAGE / 8];
        for (page, version) in versions.into_iter().enumerate() {
            fill(&mut expected, page as u64, version);
            if self.pages[page] != expected {
                say(&format!("wrong: page {page} at step {}", self.step));
                std::process::abort();
            }
        }
    }
}

fn fill(words: &mut [u64; PAGE / 8], page: u64, version: u64) {
    if version == 0 && page % 8 == 0 {
        return words.fill(0);
    }
    let mut word = mixed(page ^ version << 40);
    for place in words {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *place = word;
    }
}

/// Another number for each number, all over the place (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn main() -> Result<(), selfdump::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments[at].parse::<usize>().expect("a number");
    let has = |situation: &str| arguments[2..].iter().any(|argument| argument == situation);
    let pages = map((number(0) << 20) / PAGE, has("shared"));
    let mut memory = Memory::new(pages, number(1));
    let (stepped, asked) = (flag(libc::SIGUSR1), flag(libc::SIGHUP));
    let mut child = has("child").then(|| with_a_child(&mut memory));
    selfdump::install()?;
    say("ready");
    loop {
        let took = |flag: &AtomicBool| flag.swap(false, Ordering::Relaxed);
        if took(&stepped) {
            memory.go_on();
            child.iter_mut().for_each(|child| child.has(b's'));
            say(&format!("step {}", memory.step));
        }
        if took(&asked) {
            memory.check();
            child.iter_mut().for_each(|child| child.has(b'?'));
            say(&format!("right {}", memory.step));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// New memory, the upper half of it shared or not.
fn map(pages: usize, is_half_shared: bool) -> &'static mut [[u64; PAGE / 8]] {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = |sharing| sharing | libc::MAP_ANONYMOUS;
    let length = pages * PAGE;
    // SAFETY: a new mapping, the upper half of which another new one takes the place of; both stay as long as the program.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), length, access, kind(libc::MAP_PRIVATE), -1, 0);
        assert_ne!(at, libc::MAP_FAILED, "memory");
        if is_half_shared {
            let half = at.byte_add(pages / 2 * PAGE);
            let length = (pages - pages / 2) * PAGE;
            let mapped = libc::mmap(half, length, access, kind(libc::MAP_SHARED) | libc::MAP_FIXED, -1, 0);
            assert_eq!(mapped, half, "shared memory");
        }
        std::slice::from_raw_parts_mut(at.cast(), pages)
    }
}

/// A child that does what it is told by a byte, and sends it back.
struct Child {
    orders: std::fs::File,
    answers: std::fs::File,
}

impl Child {
    fn has(&mut self, order: u8) {
        self.orders.write_all(&[order]).expect("a child that listens");
        let mut answer = [0];
        self.answers.read_exact(&mut answer).expect("a child that answers");
        assert_eq!(answer, [order]);
    }
}

fn with_a_child(memory: &mut Memory) -> Child {
    let ([order_out, order_in], [answer_out, answer_in]) = (pipe(), pipe());
    // SAFETY: there is one thread yet.
    if unsafe { libc::fork() } > 0 {
        return Child { orders: order_in.into(), answers: answer_out.into() };
    }
    drop((order_in, answer_out));
    let (mut orders, mut answers) = (std::fs::File::from(order_out), std::fs::File::from(answer_in));
    memory.seed = 1 << 20;
    let mut order = [0];
    while orders.read_exact(&mut order).is_ok() {
        if order == *b"s" {
            memory.go_on()
        } else {
            memory.check()
        }
        answers.write_all(&order).expect("a parent that listens");
    }
    std::process::exit(0)
}

fn pipe() -> [OwnedFd; 2] {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are ours afterwards.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0, "a pipe");
        ends.map(|end| OwnedFd::from_raw_fd(end))
    }
}

/// A flag that the signal sets.
fn flag(signal: i32) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal, Arc::clone(&flag)).expect("a handler");
    flag
}

/// One write for each line, so that lines of processes don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
