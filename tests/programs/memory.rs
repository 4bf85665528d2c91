//! `memory MEBIBYTES THREADS CHILDREN`: a program that knows what every word of its memory has to be.
//!
//! Each thread goes over pages of its own in no order, looks whether each word is what it was left as, and leaves it as
//! another. A word that is wrong is said (`WRONG`), and ends the program. So does a child: where CHILDREN is not 0, so
//! many at a time are forked, look at some pages of the first thread's as they were at the fork, and end.

#[path = "link.rs"]
mod link;

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

const WORDS: usize = 512;
const SEEN_BY_A_CHILD: usize = 300;

/// The pages of a thread, and how often each was written.
struct Share {
    thread: usize,
    pages: Vec<[u64; WORDS]>,
    written: Vec<u64>,
    state: u64,
}

fn main() -> Result<(), selfdump::Error> {
    let argument = |at: usize| std::env::args().nth(at).and_then(|text| text.parse::<usize>().ok());
    let number = |at| argument(at).expect("usage: memory MEBIBYTES THREADS CHILDREN");
    let (pages, threads, children) = (number(1) * 256, number(2), number(3));
    let mut shares: Vec<Share> = (0..threads).map(|thread| Share::new(thread, pages / threads)).collect();
    selfdump::install()?;
    say(&format!("ready {}", std::process::id()));
    let first = shares.remove(0);
    shares.into_iter().for_each(|share| drop(std::thread::spawn(move || share.run(0))));
    first.run(children)
}

impl Share {
    fn new(thread: usize, pages: usize) -> Share {
        let mut share = Share {
            thread,
            pages: vec![[0; WORDS]; pages],
            written: vec![1; pages],
            state: link::first(thread as u64),
        };
        (0..pages).for_each(|page| share.write(page));
        share
    }

    fn run(mut self, children: usize) -> ! {
        let mut running = VecDeque::new();
        for round in 1_u64.. {
            for _ in 0..self.pages.len() {
                let page = self.any();
                self.look_at(page);
                self.written[page] += 1;
                self.write(page);
                if children > 0 && page % 256 == 0 {
                    running.push_back(self.child());
                }
                if running.len() > children {
                    reap(running.pop_front().expect("a child"));
                }
            }
            say(&format!("thread {} has seen {round} times as many pages as it has", self.thread));
            std::thread::sleep(Duration::from_millis(1));
        }
        unreachable!()
    }

    fn any(&mut self) -> usize {
        self.state = link::next(self.state, 1);
        (self.state % self.pages.len() as u64) as usize
    }

    fn word(&self, page: usize, word: usize) -> u64 {
        link::next((page * WORDS + word) as u64, self.written[page])
    }

    fn write(&mut self, page: usize) {
        for word in 0..WORDS {
            self.pages[page][word] = self.word(page, word);
        }
    }

    fn look_at(&self, page: usize) {
        for (word, &found) in self.pages[page].iter().enumerate() {
            if found != self.word(page, word) {
                let (thread, expected) = (self.thread, self.word(page, word));
                say(&format!(
                    "WRONG: {found:x} for {expected:x} in word {word} of page {page}, thread {thread}"
                ));
                std::process::exit(3);
            }
        }
    }

    fn child(&mut self) -> i32 {
        // SAFETY: nothing is done in the child but to look at memory and to write a line.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            (0..SEEN_BY_A_CHILD).for_each(|_| {
                let page = self.any();
                self.look_at(page);
            });
            // SAFETY: it doesn't return.
            unsafe { libc::_exit(0) }
        }
        pid
    }
}

fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: the status is written to this stack.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if status != 0 {
        say(&format!("WRONG: a child has ended with {status}"));
        std::process::exit(3);
    }
}

/// One write for each line, so that lines don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
