//! Who writes into the store: a *life*, a run of a program from its start or restore to its end.
//!
//! A program and a copy of it that was restored beside it (in another pid namespace, say) share an
//! instance's folder and even their process id. They must neither overwrite nor prune each other's
//! checkpoints, so each checkpoint and each draft says which life wrote it, and a life touches only its own
//! and those of lives that are over for certain.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::sys::procfs;

/// One life of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Life {
    /// A number that no other life has.
    pub(crate) id: String,
    /// How many lives there were before it.
    pub(crate) generation: u64,
    pub(crate) pid: i32,
    /// When its process started, in clock ticks since the boot.
    pub(crate) start_ticks: u64,
    /// The inode of its pid namespace.
    pub(crate) pid_namespace: u64,
    pub(crate) boot_id: String,
    /// The machine-id, or else the host's name.
    pub(crate) machine: String,
}

/// The surroundings from which somebody judges whether a life is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) pid_namespace: u64,
    pub(crate) boot_id: String,
    pub(crate) machine: String,
}

impl Here {
    pub(crate) fn look() -> std::io::Result<Here> {
        Ok(Here {
            pid_namespace: procfs::pid_namespace(crate::sys::process::id())?,
            boot_id: procfs::boot_id()?,
            machine: procfs::machine(),
        })
    }

    /// Whether a life is over for certain. On the same boot in the same pid namespace `/proc` knows; a
    /// life of an earlier boot of this machine can't have survived it. Of another namespace or machine
    /// nothing is known from here.
    pub(crate) fn knows_the_end_of(&self, life: &Life, start_ticks_of: impl Fn(i32) -> Option<u64>) -> bool {
        if life.boot_id != self.boot_id {
            return life.machine == self.machine;
        }
        let runs = start_ticks_of(life.pid).is_some_and(|ticks| procfs::same_start(ticks, life.start_ticks));
        life.pid_namespace == self.pid_namespace && !runs
    }

    /// The same, asking `/proc`.
    pub(crate) fn is_over(&self, life: &Life) -> bool {
        self.knows_the_end_of(life, |pid| {
            let stat = procfs::stat(pid).ok()?;
            (!stat.is_ending).then_some(stat.start_ticks)
        })
    }
}

/// The life that this process is in, and the instance that it belongs to. One process has one, however often selfdump
/// is installed in it.
static CURRENT: Mutex<Option<(Life, String)>> = Mutex::new(None);

impl Life {
    /// The life of this process, and the name of its instance: the process id and the start of its first life. What
    /// was forked since, or came back as a part of another's checkpoint, begins a life of its own.
    pub(crate) fn of_this_process() -> std::io::Result<(Life, String)> {
        let mut current = current();
        if let Some((life, instance)) = &*current {
            if life.pid == crate::sys::process::id() {
                return Ok((life.clone(), instance.clone()));
            }
        }
        let life = Life::begin(0)?;
        let instance = format!("{}-{}", life.pid, life.start_ticks);
        *current = Some((life.clone(), instance.clone()));
        Ok((life, instance))
    }

    /// The life that follows this one in the process that came back.
    pub(crate) fn next(&self) -> Life {
        let generation = self.generation + 1;
        let next = Life::begin(generation).unwrap_or_else(|error| {
            log::warn!("can't read /proc about this process: {error}");
            Life { id: format!("{}+", self.id), generation, ..self.clone() }
        });
        if let Some((life, _)) = &mut *current() {
            *life = next.clone();
        }
        next
    }

    /// The life of this process, after `generation` others.
    fn begin(generation: u64) -> std::io::Result<Life> {
        let here = Here::look()?;
        let pid = crate::sys::process::id();
        Ok(Life {
            id: procfs::fresh_id()?,
            generation,
            pid,
            start_ticks: procfs::stat(pid)?.start_ticks,
            pid_namespace: here.pid_namespace,
            boot_id: here.boot_id,
            machine: here.machine,
        })
    }

    /// Whether this process is still the one that began this life. One that came back from a checkpoint isn't: it
    /// was started anew, if under the same number.
    pub(crate) fn goes_on(&self) -> std::io::Result<bool> {
        let here = Here::look()?;
        let start_ticks = procfs::stat(crate::sys::process::id())?.start_ticks;
        Ok(here.boot_id == self.boot_id
            && here.pid_namespace == self.pid_namespace
            && procfs::same_start(start_ticks, self.start_ticks))
    }
}

fn current() -> MutexGuard<'static, Option<(Life, String)>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here { pid_namespace: 1, boot_id: "today".into(), machine: "m".into() }
    }

    fn life() -> Life {
        Life {
            id: "x".into(),
            generation: 0,
            pid: 40,
            start_ticks: 500,
            pid_namespace: 1,
            boot_id: "today".into(),
            machine: "m".into(),
        }
    }

    #[test]
    fn a_life_is_over_only_when_that_is_certain() {
        let elsewhere = Life { pid_namespace: 2, ..life() };
        let yesterday = Life { boot_id: "yesterday".into(), ..life() };
        let other_machine = Life { machine: "n".into(), ..yesterday.clone() };
        for (what, life, process, over) in [
            ("it runs", life(), Some(500), false),
            ("nobody has its number", life(), None, true),
            ("its number went to a later process", life(), Some(900), true),
            ("it is in a namespace that can't be seen", elsewhere, None, false),
            ("the machine was started again since", yesterday, Some(500), true),
            ("it ran on another machine", other_machine, None, false),
        ] {
            assert_eq!(here().knows_the_end_of(&life, |_| process), over, "{what}");
        }
    }

    #[test]
    fn our_own_life_is_not_over() {
        assert!(!Here::look().unwrap().is_over(&Life::begin(0).unwrap()));
    }

    #[test]
    fn a_life_goes_on_only_in_the_process_that_began_it() {
        let (ours, instance) = Life::of_this_process().unwrap();
        assert_eq!(Life::of_this_process().unwrap(), (ours.clone(), instance), "there is one");
        assert!(ours.goes_on().unwrap());
        let earlier = Life { start_ticks: ours.start_ticks - 100, ..ours.clone() };
        let elsewhere = Life { boot_id: "another".into(), ..ours };
        assert!(!earlier.goes_on().unwrap() && !elsewhere.goes_on().unwrap());
    }
}
