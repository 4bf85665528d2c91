//! Dumps: selfdump and every peer, of the same running program, in turn.
//!
//! All are timed by CLOCK_REALTIME as a user sees them: selfdump from `kill -USR2` until CRIU has answered, the others from
//! the request, or the start of the command, to the answer. The program tells of each how long it stood still. Until it
//! is kept, on the disk, is told by the end of selfdump's attempt, and for the others by a sync of all their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use selfdump::frozen::Needs;
use selfdump::{Entry, restore};

use crate::comparison::memory::Watch;
use crate::comparison::noise::{self, between, contention, waited_for_processor};
use crate::comparison::plan::Plan;
use crate::comparison::statistics::ms;
use crate::comparison::{Failure, scene};
use crate::peers::{self, Job, Peer, Service};
use crate::results::{Case, Series, case};
use crate::running::Program;
use crate::workload::Workload;

/// Who dumps, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// selfdump.
    Ours(How),
    /// Nobody: the program only forks, and the child ends at once.
    Fork,
    /// Somebody else, to the store's disk or to a tmpfs.
    Theirs(Peer, Place),
}

/// What selfdump is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Plain,
    /// `SELFDUMP_STAGING=auto`
    Staged,
    /// `SELFDUMP_SNAPSHOT=cow`
    Copied,
}

impl How {
    /// As the program knows it.
    fn word(self) -> &'static str {
        match self {
            How::Plain => "plain",
            How::Staged => "staged",
            How::Copied => "copied",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Disk,
    Tmpfs,
}

pub const OFF: Side = Side::Ours(How::Plain);
pub const AUTO: Side = Side::Ours(How::Staged);
pub const COW: Side = Side::Ours(How::Copied);
/// Whom all are compared with.
pub const CRIU: Side = Side::Theirs(Peer::CommandLine, Place::Disk);

pub const ALL: [Side; 7] = [
    OFF,
    CRIU,
    AUTO,
    Side::Theirs(Peer::CommandLine, Place::Tmpfs),
    Side::Theirs(Peer::Service, Place::Disk),
    Side::Theirs(Peer::RustCriu, Place::Disk),
    Side::Theirs(Peer::Pycriu, Place::Disk),
];

/// Those that the limits are about.
pub const FEW: [Side; 3] = [OFF, CRIU, AUTO];

/// Those that a copy of the program is compared with.
pub const COPIES: [Side; 4] = [OFF, CRIU, COW, Side::Fork];

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            OFF => "selfdump",
            AUTO => "selfdump, staging",
            COW => "selfdump, cow",
            Side::Fork => "a bare fork",
            Side::Theirs(Peer::CommandLine, Place::Disk) => "`criu dump`",
            Side::Theirs(Peer::CommandLine, Place::Tmpfs) => "`criu dump` to a tmpfs",
            Side::Theirs(Peer::Service, _) => "`criu service`",
            Side::Theirs(Peer::RustCriu, _) => "rust-criu 0.6.1",
            Side::Theirs(Peer::Pycriu, _) => "pycriu",
        }
    }
}

pub const PAUSE: &str = "pause, ms";
pub const TIME: &str = "request to answer, ms";
pub const KEPT: &str = "request to all on disk, ms";
/// Of what it does in as long undisturbed.
pub const WORK: &str = "work done until then, %";
/// Of the whole machine's, more than before.
pub const MEMORY: &str = "memory at its peak, MiB";

/// What one dump took.
struct Dump {
    /// The largest gap that the program's ticker saw.
    pause: Duration,
    time: Duration,
    /// None where it went to a tmpfs.
    kept: Option<Duration>,
    /// How much of the work that it does undisturbed it did meanwhile; none where it doesn't work.
    work: Option<f64>,
    /// What was taken of the machine's memory at most, in MiB; none where it isn't watched.
    memory: Option<f64>,
    contention: f64,
}

/// A dump by each side, by number of the side.
struct Round(Vec<Dump>);

impl noise::Pair for Round {
    fn contention(&self) -> f64 {
        self.0.iter().map(|dump| dump.contention).fold(0.0, f64::max)
    }
}

/// Has every side dump one program, as often as is planned.
pub fn compare(title: &str, plan: &Plan, workload: &Workload, sides: &[Side]) -> Result<Case, Failure> {
    Ok(Measured::by(title, plan, workload, sides)?.against(CRIU))
}

/// The same of a copy of the program, compared with `criu dump`, with a fork, and with what selfdump does otherwise.
pub fn compare_copies(title: &str, plan: &Plan, workload: &Workload) -> Result<(Case, Case, Case), Failure> {
    let measured = Measured::by(title, plan, workload, &COPIES)?;
    Ok((measured.against(CRIU), measured.against(Side::Fork), measured.against(OFF)))
}

/// What all sides took, in all rounds that count.
struct Measured<'a> {
    title: &'a str,
    terms: String,
    sides: &'a [Side],
    rounds: Vec<Round>,
}

impl<'a> Measured<'a> {
    fn by(
        title: &'a str,
        plan: &Plan,
        workload: &Workload,
        sides: &'a [Side],
    ) -> Result<Measured<'a>, Failure> {
        let mut lab = Lab::open(&plan.dir, workload)?;
        println!("\n{title}; {}", lab.terms());
        for side in sides {
            // The first dump by each reads its executables from the disk.
            lab.dump(*side)?;
        }
        let rounds = noise::calm(plan, |_: &[Round]| true, |number| lab.round(number, sides))?;
        let terms = format!("{}; {}", noise::told(&rounds), lab.terms());
        Ok(Measured { title, terms, sides, rounds })
    }

    fn against(&self, side: Side) -> Case {
        let of = |column: fn(&Dump) -> Option<f64>, number: usize| -> Vec<f64> {
            self.rounds.iter().filter_map(|round| column(&round.0[number])).collect()
        };
        let row = |(number, side): (usize, &Side)| Series {
            name: side.name(),
            columns: vec![
                of(|dump| Some(ms(dump.pause)), number),
                of(|dump| Some(ms(dump.time)), number),
                of(|dump| dump.kept.map(ms), number),
                of(|dump| dump.work, number),
                of(|dump| dump.memory, number),
            ],
        };
        let rows: Vec<_> = self.sides.iter().enumerate().map(row).collect();
        let works = self.rounds.iter().flat_map(|round| &round.0).any(|dump| dump.work.is_some());
        let columns: &[&str] = if works { &[PAUSE, TIME, KEPT, WORK, MEMORY] } else { &[PAUSE, TIME, KEPT] };
        let title = match side {
            CRIU => self.title.to_owned(),
            side => format!("{}, against {}", self.title, side.name()),
        };
        case(title, self.terms.clone(), columns, &rows, side.name())
    }
}

/// A running program and where it is dumped to. The folders and the program go when it is dropped.
struct Lab {
    program: Program,
    how: How,
    mebibytes: usize,
    /// Whether the program writes to its memory all the time.
    works: bool,
    criu: PathBuf,
    service: Service,
    folder: tempfile::TempDir,
    in_memory: tempfile::TempDir,
    /// What selfdump told CRIU about the program, so that the others can be told the same.
    needs: Needs,
    version: String,
}

impl Lab {
    fn open(dir: &Path, workload: &Workload) -> Result<Lab, Failure> {
        fs::create_dir_all(dir)?;
        let (folder, in_memory) = (tempfile::tempdir_in(dir)?, tempfile::tempdir_in("/dev/shm")?);
        let criu = scene::criu()?;
        let service = Service::start(&criu, folder.path())?;
        let settings = [("SELFDUMP_TIMEOUT", "2m"), ("SELFDUMP_STAGING", "off")];
        let program = Program::start(workload, &scene::store(&folder), &criu, &settings)?;
        let (mebibytes, works) = (workload.mebibytes, workload.works);
        let entry = scene::checkpoint(program.pid(), mebibytes, &scene::store(&folder))?;
        let told = entry.manifest?.criu;
        if told.peer.starts_with("service") {
            return Err(format!("{} answers; the comparison is with a worker of our own", told.peer).into());
        }
        let (needs, version) = (told.needs, told.version);
        let how = How::Plain;
        let lab = Lab { program, how, mebibytes, works, criu, service, folder, in_memory, needs, version };
        lab.clean()?;
        Ok(lab)
    }

    fn terms(&self) -> String {
        format!("CRIU {} with `{}`", self.version, peers::dump_options(&self.needs).join(" "))
    }

    /// One dump by each side, each first in its turn, and the others after it one way round and then the other: what
    /// one leaves behind, in the file system's journal say, is then met by all.
    fn round(&mut self, number: usize, sides: &[Side]) -> Result<Round, Failure> {
        let count = sides.len();
        let mut order: Vec<usize> = (0..count).map(|step| (number + step) % count).collect();
        if number / count % 2 == 1 {
            order.reverse();
        }
        let mut dumps: Vec<Option<Dump>> = sides.iter().map(|_| None).collect();
        for side in order {
            dumps[side] = Some(self.dump(sides[side])?);
        }
        Ok(Round(dumps.into_iter().flatten().collect()))
    }

    fn dump(&mut self, side: Side) -> Result<Dump, Failure> {
        let dump = match side {
            Side::Ours(how) => self.by_selfdump(how)?,
            Side::Fork => self.fork()?,
            Side::Theirs(peer, place) => self.by_peer(peer, place)?,
        };
        self.clean()?;
        Ok(dump)
    }

    fn by_selfdump(&mut self, how: How) -> Result<Dump, Failure> {
        if how != self.how {
            self.program.ask(&format!("install {}", how.word()))?;
            self.how = how;
        }
        self.settle()?;
        let memory = self.watch()?;
        let waited = waited_for_processor();
        let asked = SystemTime::now();
        let manifest = scene::checkpoint(self.program.pid(), self.mebibytes, &self.store())?.manifest?;
        let contention = contention(waited, between(asked, SystemTime::now())?);
        let attempt = scene::attempt_since(asked, &self.store()).ok_or("the attempt is gone")?;
        let time = between(asked, manifest.answered)?;
        let kept = Some(between(asked, attempt.finished)?);
        let memory = memory.map(Watch::end).transpose()?;
        let (pause, work) = (self.program.largest_gap()?, self.program.work()?);
        Ok(Dump { pause, time, kept, work, memory, contention })
    }

    fn fork(&mut self) -> Result<Dump, Failure> {
        self.settle()?;
        let (waited, asked) = (waited_for_processor(), SystemTime::now());
        self.program.ask("fork")?;
        let time = between(asked, SystemTime::now())?;
        Ok(Dump {
            pause: self.program.largest_gap()?,
            time,
            kept: None,
            work: self.program.work()?,
            memory: None,
            contention: contention(waited, time),
        })
    }

    fn by_peer(&mut self, peer: Peer, place: Place) -> Result<Dump, Failure> {
        self.settle()?;
        let images = match place {
            Place::Disk => self.folder.path().join("images"),
            Place::Tmpfs => self.in_memory.path().join("images"),
        };
        fs::create_dir(&images)?;
        let pid = self.program.pid().as_raw();
        let job = Job { criu: &self.criu, pid, images: &images, needs: &self.needs, service: &self.service };
        let memory = self.watch()?;
        let waited = waited_for_processor();
        let time = peer.dump(&job)?;
        let contention = contention(waited, time);
        let kept = if place == Place::Disk { Some(time + sync(&images)?) } else { None };
        let memory = memory.map(Watch::end).transpose()?;
        scene::is_whole(&images, self.mebibytes)?;
        fs::remove_dir_all(&images)?;
        let (pause, work) = (self.program.largest_gap()?, self.program.work()?);
        Ok(Dump { pause, time, kept, work, memory, contention })
    }

    fn store(&self) -> PathBuf {
        scene::store(&self.folder)
    }

    /// Looks how much memory a dump takes, where the program makes it take any.
    fn watch(&self) -> Result<Option<Watch>, Failure> {
        self.works.then(Watch::begin).transpose()
    }

    /// Brings about the same state before every dump; the program's ticker begins anew.
    fn settle(&mut self) -> Result<(), Failure> {
        scene::settle(self.mebibytes);
        self.program.work()?;
        self.program.largest_gap().map(drop)
    }

    /// Removes our checkpoints, after all has reached the disk: a file that is removed before that is never written,
    /// which would favour the side that doesn't wait for it.
    fn clean(&self) -> Result<(), Failure> {
        nix::unistd::sync();
        let remove = |entry: Entry| fs::remove_dir_all(entry.path);
        Ok(restore::find(&self.store(), None)?.into_iter().try_for_each(remove)?)
    }
}

/// Has all files of a folder on the disk; how long that took.
pub fn sync(folder: &Path) -> Result<Duration, Failure> {
    let started = Instant::now();
    for file in fs::read_dir(folder)? {
        fs::File::open(file?.path())?.sync_all()?;
    }
    fs::File::open(folder)?.sync_all()?;
    Ok(started.elapsed())
}
