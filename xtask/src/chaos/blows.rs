//! What is done to a subject, and what has to follow.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;

use super::reading::number_of;
use super::subject::{Kind, Subject, pid_of, send};
use super::{nap, required, wait};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// The program is killed.
    Kill,
    /// It is killed while a checkpoint may be being made.
    KillInDump,
    /// CRIU is.
    KillCriu,
    /// The runner is killed as well.
    KillBoth,
    /// Only the runner is.
    KillRunner,
    /// There is no room for the checkpoint that is asked for before the kill.
    FullDisk,
    /// The wall clock jumps by up to a day; a checkpoint; a kill.
    ClockJump,
    /// The newest checkpoint has a wrong byte when it is needed.
    Damage,
    /// What is being brought back is killed once more, or CRIU that does it.
    KillInRestore,
    /// The `criu service` ends while a checkpoint may be being made, and comes again.
    Service,
}

use Blow::{
    ClockJump, Damage, FullDisk, Kill, KillBoth, KillCriu, KillInDump, KillInRestore, KillRunner, Service,
};

/// For every subject; those with a service have that as well.
const BLOWS: [Blow; 10] =
    [Kill, KillInDump, KillCriu, KillBoth, KillRunner, FullDisk, ClockJump, Damage, KillInRestore, Service];

/// What has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It comes back from a checkpoint that is no older than the newest good one; not from this one, which is damaged.
    Restored { damaged: Option<u64> },
    /// It goes on, and the next runner takes it over.
    TakenOver,
    /// It goes on.
    GoesOn,
    /// It goes on; or it comes back, as from a kill. A CRIU that is killed at the wrong moment leaves code of its own
    /// half-way run in the program, which dies of that (by SIGTRAP, say), and nobody but CRIU could take it out.
    GoesOnOrBack,
}

/// Back from the newest, which is good.
const BACK: Then = Then::Restored { damaged: None };

impl Blow {
    pub fn name(self) -> &'static str {
        match self {
            Kill => "kill",
            KillInDump => "kill-in-dump",
            KillCriu => "kill-criu",
            KillBoth => "kill-both",
            KillRunner => "kill-runner",
            FullDisk => "full-disk",
            ClockJump => "clock-jump",
            Damage => "damage",
            KillInRestore => "kill-in-restore",
            Service => "service",
        }
    }

    pub fn choose(kind: Kind, random: &mut Rng) -> Blow {
        let count = if kind == Kind::Job { BLOWS.len() } else { BLOWS.len() - 1 };
        BLOWS[random.usize(..count)]
    }

    pub fn strike(self, subject: &mut Subject, random: &mut Rng) -> Result<Then> {
        match self {
            Kill => {
                nap(random, 500);
                subject.kill_program();
                Ok(BACK)
            }
            KillInDump => {
                subject.ask();
                nap(random, 300);
                subject.kill_program();
                Ok(BACK)
            }
            KillCriu => {
                subject.ask();
                nap(random, 200);
                kill_workers(subject);
                Ok(Then::GoesOnOrBack)
            }
            KillBoth => {
                nap(random, 300);
                kill_both(subject, random)
            }
            KillRunner => {
                nap(random, 300);
                subject.kill_runner();
                nap(random, 300);
                subject.start_runner()?;
                Ok(Then::TakenOver)
            }
            FullDisk => full_disk(subject, random),
            ClockJump => clock_jump(subject, random),
            Damage => damage(subject, random),
            KillInRestore => {
                subject.kill_program();
                nap(random, 200);
                if random.bool() {
                    kill_workers(subject);
                } else {
                    subject.kill_program();
                }
                Ok(BACK)
            }
            Service => service(subject, random),
        }
    }
}

fn kill_workers(subject: &Subject) {
    subject.workers().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
}

/// In either order, and then there is a new runner.
fn kill_both(subject: &mut Subject, random: &mut Rng) -> Result<Then> {
    if random.bool() {
        subject.kill_runner();
        subject.kill_program();
    } else {
        subject.kill_program();
        subject.kill_runner();
        // A runner that was quick has begun to bring it back.
        subject.kill_program();
    }
    wait("the end of the program", || {
        subject.kill_program();
        Ok((!subject.is_there()).then_some(()))
    })?;
    subject.start_runner()?;
    Ok(BACK)
}

fn full_disk(subject: &Subject, random: &mut Rng) -> Result<Then> {
    subject.disk.fill(random.u64(..6 << 20))?;
    subject.ask();
    nap(random, 500);
    subject.kill_program();
    nap(random, 300);
    subject.disk.free()?;
    Ok(BACK)
}

fn clock_jump(subject: &mut Subject, random: &mut Rng) -> Result<Then> {
    const DAY: i64 = 24 * 60 * 60;
    subject.clock.set(random.i64(-DAY..=DAY))?;
    nap(random, 1000);
    if random.bool() {
        return kill_both(subject, random);
    }
    subject.kill_program();
    Ok(BACK)
}

/// One byte of the newest checkpoint's memory is another.
fn damage(subject: &Subject, random: &mut Rng) -> Result<Then> {
    subject.checkpoint()?;
    let (number, newest) = required(subject.checkpoints().pop(), "a checkpoint")?;
    let pages = required(largest(&newest.join("images")), "the checkpoint's memory")?;
    let file = OpenOptions::new().read(true).write(true).open(&pages)?;
    let at = random.u64(..file.metadata()?.len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1 << random.u8(..8)], at)?;
    subject.kill_program();
    Ok(Then::Restored { damaged: Some(number) })
}

fn largest(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.max_by_key(|path| fs::metadata(path).map_or(0, |file| file.len()))
}

fn service(subject: &mut Subject, random: &mut Rng) -> Result<Then> {
    let service = required(subject.service.take(), "a service")?;
    subject.ask();
    nap(random, 200);
    let signal = if random.bool() { Signal::SIGTERM } else { Signal::SIGKILL };
    send(service.pid(), signal);
    drop(service);
    nap(random, 300);
    let kills = random.bool();
    if kills {
        subject.kill_program();
    }
    nap(random, 300);
    subject.start_service()?;
    Ok(if kills { BACK } else { Then::GoesOn })
}

impl Then {
    /// Waits until that is so; the checkpoint that it came from, if it did. `safe` is one that was good before.
    pub fn follows(self, subject: &mut Subject, safe: u64) -> Result<Option<u64>> {
        let event = match self {
            Then::GoesOn => {
                ensure!(subject.told("ended")?.is_empty(), "it has ended, though nobody had killed it");
                return Ok(None);
            }
            Then::GoesOnOrBack if subject.told("ended")?.is_empty() => return Ok(None),
            Then::TakenOver => "taken-over",
            Then::GoesOnOrBack | Then::Restored { .. } => "restored",
        };
        subject.wait(&format!("it is {event}"), |subject| {
            let anew = subject.told("started")?.pop();
            ensure!(anew.is_none(), "it began anew, though there were checkpoints");
            Ok((!subject.told(event)?.is_empty()).then_some(()))
        })?;
        match self {
            Then::Restored { damaged } => came_back(subject, safe, damaged).map(Some),
            Then::GoesOnOrBack => came_back(subject, safe, None).map(Some),
            Then::TakenOver | Then::GoesOn => Ok(None),
        }
    }
}

/// From where it came back, each time that it did.
fn came_back(subject: &Subject, safe: u64, damaged: Option<u64>) -> Result<u64> {
    let mut from = 0;
    for event in subject.told("restored")? {
        let number = event["checkpoint"].as_str().and_then(number_of);
        from = required(number, "the checkpoint that it came from")?;
        ensure!(from >= safe, "it came from checkpoint {from}, though {safe} was good");
        ensure!(Some(from) != damaged, "it came from checkpoint {from}, which is damaged");
        ensure!(pid_of(&event)? == subject.pid, "it came back as another process: {event}");
    }
    Ok(from)
}
