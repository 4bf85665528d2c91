//! What is preloaded (`preload/`), and what it is told to do.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dice::Dice;
use crate::harness::{Lab, Launch, succeeds, write_script};

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Operations on files of the store, reading included.
    Disk,
    /// Those of them that change something.
    Changes,
    /// What CRIU is asked.
    Requests,
    /// What CRIU answers.
    Answers,
}

/// What happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing; it is only traced.
    None,
    /// An operation fails with this error number.
    Fails(i32),
    /// A write takes less than it was given.
    Short,
    /// The process is killed before it, or after it.
    KilledBefore,
    KilledAfter,
    /// The process is stopped before it, as one that hangs.
    Stopped,
    /// The message comes so many milliseconds later.
    Delayed(u64),
    /// Half of it comes.
    Cut,
    /// The connection is closed instead.
    Closed,
    /// Some bits of it are others, by this seed; of a request, all.
    Garbled(u64),
    /// This message comes instead.
    Says(Vec<u8>),
    /// This message comes before it.
    Extra(Vec<u8>),
    /// It comes twice.
    Twice,
    /// Nothing comes any more.
    Silence,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Fault::None => write!(f, "none 0"),
            Fault::Fails(errno) => write!(f, "fail {errno}"),
            Fault::Short => write!(f, "short 0"),
            Fault::KilledBefore => write!(f, "kill-before 0"),
            Fault::KilledAfter => write!(f, "kill-after 0"),
            Fault::Stopped => write!(f, "stop 0"),
            Fault::Delayed(milliseconds) => write!(f, "delay {milliseconds}"),
            Fault::Cut => write!(f, "cut 0"),
            Fault::Closed => write!(f, "close 0"),
            Fault::Garbled(seed) => write!(f, "garble {seed}"),
            Fault::Says(message) => write!(f, "say {}", hex(message)),
            Fault::Extra(message) => write!(f, "extra {}", hex(message)),
            Fault::Twice => write!(f, "twice 0"),
            Fault::Silence => write!(f, "silence 0"),
        }
    }
}

/// An operation that was traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `look`, `change`, or what happened to it.
    mark: String,
    /// `write`, `fsync`, `rename`, …
    pub operation: String,
    pub path: PathBuf,
    /// Of a rename, the new path.
    pub to: Option<PathBuf>,
}

impl Step {
    pub fn is_change(&self) -> bool {
        self.mark != "look"
    }

    /// Whether it is the one that the fault struck.
    pub fn is_struck(&self) -> bool {
        !["look", "change"].contains(&self.mark.as_str())
    }
}

/// Faults of one process, in a lab.
pub struct Faults {
    library: PathBuf,
    store: PathBuf,
    order: PathBuf,
    epoch: AtomicU64,
}

impl Faults {
    /// `name` tells those of several processes of a lab apart.
    pub fn new(lab: &Lab, name: &str) -> Faults {
        let library = lab.path(&format!("{name}.so"));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/preload");
        let sources = ["order.c", "disk.c", "talk.c"].map(|source| folder.join(source));
        let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"];
        succeeds(Command::new("gcc").args(flags).arg("-o").arg(&library).args(sources).arg("-ldl"));
        let order = lab.path(&format!("{name}.order"));
        Faults { library, store: lab.store(), order, epoch: AtomicU64::new(0) }
    }

    /// A program that meets them.
    pub fn in_program(&self, launch: Launch) -> Launch {
        self.environment().into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    }

    /// A program that is CRIU, and meets them.
    pub fn in_criu(&self, lab: &Lab) -> PathBuf {
        let path = self.library.with_extension("criu");
        let variables = self.environment().map(|(name, value)| format!("{name}='{}'", value.display()));
        let script = format!("#!/bin/sh\n{} exec '{}' \"$@\"\n", variables.join(" "), lab.criu.display());
        write_script(&path, script);
        path
    }

    fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAULTS_ORDER", self.order.clone()),
            ("FAULTS_STORE", self.store.clone()),
        ]
    }

    /// From here on, this happens at the `number`th operation.
    pub fn order(&self, at: At, number: u64, fault: &Fault) {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let kind = match at {
            At::Disk => "disk",
            At::Changes => "changes",
            At::Requests => "requests",
            At::Answers => "answers",
        };
        let (action, argument) = fault.to_string().split_once(' ').map(own).expect("two words");
        // Whole or not there, since it may be read at any time.
        let aside = self.order.with_extension("new");
        fs::write(&aside, format!("{epoch} {kind} {action} {number} {argument}\n")).expect("an order");
        fs::rename(&aside, &self.order).expect("an order");
    }

    /// Nothing fails any more.
    pub fn none(&self) {
        self.order(At::Disk, 0, &Fault::None);
    }

    /// What was done since the last order.
    pub fn trace(&self) -> Vec<Step> {
        let epoch = self.epoch.load(Ordering::Relaxed).to_string();
        let mut path = self.order.clone().into_os_string();
        path.push(".trace");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| step(line.strip_prefix(&epoch)?.strip_prefix(' ')?)).collect()
    }

    /// The operation that the last order struck.
    pub fn struck(&self) -> Option<Step> {
        self.trace().into_iter().find(Step::is_struck)
    }
}

fn own((action, argument): (&str, &str)) -> (String, String) {
    (action.to_owned(), argument.to_owned())
}

fn step(line: &str) -> Option<Step> {
    let (mark, rest) = line.split_once(' ')?;
    let (operation, paths) = rest.split_once(' ')?;
    let (path, to) = paths.split_once(" -> ").map_or((paths, None), |(path, to)| (path, Some(to)));
    Some(Step {
        mark: mark.to_owned(),
        operation: operation.to_owned(),
        path: path.into(),
        to: to.map(PathBuf::from),
    })
}

/// Whether a test is to take all of its cases, however long that is.
pub fn all_cases() -> bool {
    std::env::var_os("SELFDUMP_FAULTS").is_some_and(|which| which == "all")
}

/// The numbers of the operations that a test has fail: every so manyth, from one that chance tells, or all.
pub fn cases(stride: u64) -> impl Iterator<Item = u64> {
    let (first, step) = if all_cases() { (1, 1) } else { (1 + Dice::throw().below(stride), stride) };
    (first..).step_by(step as usize)
}
