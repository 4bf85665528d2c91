//! A real program under `selfdump run`, what it has done so far, and what is whole for it.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::lab::{self, Clock, Disk, Service};
use super::reading::{below, last_lines, number_in, number_of, port_in, tail, whole_lines};
use super::{bide, required, wait};
use crate::cargo;

#[path = "../../../tests/real/server/clients.rs"]
mod clients;
#[path = "../../../tests/programs/follow.rs"]
mod follow;

use clients::Client;

const THREADS: usize = 4;
const CLIENTS: usize = 4;

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(20);

/// A server that says nothing for so long has forgotten a connection.
const SILENCE: Duration = Duration::from_secs(20);

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Four threads, each with a chain of hashes.
    Chain,
    /// A writer of an sqlite database with a log.
    Database,
    /// A server with clients.
    Server,
    /// A plain Python program, whose checkpoints a `criu service` makes.
    Job,
}

pub const KINDS: [Kind; 4] = [Kind::Chain, Kind::Database, Kind::Server, Kind::Job];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Chain => "chain",
            Kind::Database => "database",
            Kind::Server => "server",
            Kind::Job => "job",
        }
    }
}

/// What was built beforehand.
pub struct Tools {
    /// target/debug.
    pub built: PathBuf,
    pub criu: PathBuf,
    /// The library that has a program's clock jump.
    pub clock: PathBuf,
}

pub struct Subject<'a> {
    pub kind: Kind,
    pub folder: PathBuf,
    pub disk: Disk,
    pub clock: Clock,
    /// A CRIU of its own, so that its workers are known by it.
    pub criu: PathBuf,
    pub service: Option<Service>,
    pub pid: i32,
    tools: &'a Tools,
    runner: Option<Child>,
    clients: Vec<Client>,
    /// Up to where its events have been looked at.
    seen: u64,
}

/// How it was at some moment.
pub struct Moment {
    /// How far each of its threads or clients was.
    progress: Vec<u64>,
    /// How many connections each client had had.
    connections: Vec<usize>,
}

impl<'a> Subject<'a> {
    /// Starts it, and waits until it has something to show and a checkpoint.
    pub fn start(kind: Kind, tools: &'a Tools, home: &Path) -> Result<Subject<'a>> {
        let folder = home.join(kind.name());
        fs::create_dir(&folder)?;
        let criu = folder.join("criu");
        // Not by ourselves: a program that is open for writing somewhere, as in a fork for another subject, can't run.
        cargo::read(Command::new("cp").arg(&tools.criu).arg(&criu))?;
        for (name, script) in [
            ("database.py", include_str!("programs/database.py")),
            ("job.py", include_str!("programs/job.py")),
        ] {
            fs::write(folder.join(name), script)?;
        }
        let disk = Disk::mount(folder.join("store"), 160)?;
        let clock = Clock::new(&folder.join("clock"))?;
        let mut subject = Subject {
            kind,
            folder,
            disk,
            clock,
            criu,
            service: None,
            pid: 0,
            tools,
            runner: None,
            clients: Vec::new(),
            seen: 0,
        };
        if kind == Kind::Job {
            subject.start_service()?;
        }
        subject.start_runner()?;
        let started = wait("its start", || Ok(subject.told("started")?.pop()))?;
        subject.pid = pid_of(&started)?;
        if kind == Kind::Server {
            let port = wait("the server's port", || Ok(port_in(&subject.output())))?;
            let client = |number| Client::start(number, port, PAUSE, SILENCE);
            subject.clients = (0..CLIENTS).map(client).collect();
        }
        wait("its first steps", || {
            Ok(subject.progress().filter(|steps| steps.iter().all(|step| *step > 0)))
        })?;
        Ok(subject)
    }

    /// The runner, which goes on from what there is. It has a group of its own, so that Ctrl-C is for us alone.
    pub fn start_runner(&mut self) -> Result<()> {
        let mut events = std::ffi::OsString::from("--json=");
        events.push(self.path("events"));
        let mut command = self.selfdump();
        command.arg("run").arg(events).args(["--name", self.kind.name(), "--every", "1s", "--resume"]);
        command.args(["--restarts", "unlimited", "--backoff", "100ms", "--"]);
        command.args(self.program());
        // What is only appended to is cut back by nobody: it goes back with the program by a copy, as the database does.
        let copied = ["app.db*", "lines"].map(|name| self.path(name).display().to_string()).join(" ");
        command.env("SELFDUMP_COPY_FILES", copied);
        if self.kind == Kind::Job {
            command.env("SELFDUMP_SERVICE", self.socket());
        }
        let output = OpenOptions::new().create(true).append(true).open(self.path("output"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        self.runner = Some(command.spawn().context("can't start selfdump run")?);
        Ok(())
    }

    fn program(&self) -> Vec<PathBuf> {
        let example = |name: &str| self.tools.built.join("examples").join(name);
        match self.kind {
            Kind::Chain => vec![example("chain"), THREADS.to_string().into(), self.path("steps")],
            Kind::Database => vec!["python3".into(), self.path("database.py"), self.path("app.db")],
            Kind::Server => vec![example("server"), "0".into(), self.path("journal")],
            Kind::Job => vec!["python3".into(), self.path("job.py"), self.path("lines")],
        }
    }

    pub fn start_service(&mut self) -> Result<()> {
        self.service = Some(Service::start(&self.criu, &self.folder, &self.socket())?);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.path("criu.socket")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn selfdump(&self) -> Command {
        let mut command = Command::new(self.tools.built.join("selfdump"));
        command.env("SELFDUMP_DIR", self.path("store")).env("SELFDUMP_CRIU", &self.criu);
        command.env("TMPDIR", &self.folder);
        // For all of it the time is the same.
        command.env("LD_PRELOAD", &self.tools.clock).env("CHAOS_CLOCK", self.path("clock"));
        command
    }

    fn output(&self) -> String {
        fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    /// What happens is told from here on.
    pub fn mark(&mut self) {
        self.seen = fs::metadata(self.path("events")).map_or(0, |events| events.len());
    }

    /// The events of a kind since the mark.
    pub fn told(&self, kind: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.path("events")).unwrap_or_default();
        let new = text.get(self.seen as usize..).unwrap_or_default();
        let whole = new.rfind('\n').map_or("", |end| &new[..end]);
        let events: Result<Vec<Value>, _> = whole.lines().map(serde_json::from_str).collect();
        Ok(events?.into_iter().filter(|event| event["event"] == kind).collect())
    }

    /// Waits for something to be there, for as long as there is a runner.
    pub fn wait<T>(&mut self, what: &str, look: impl Fn(&Self) -> Result<Option<T>>) -> Result<T> {
        let since = Instant::now();
        loop {
            self.has_runner()?;
            self.clients_are_content()?;
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            bide(what, since, self.waits()?)?;
        }
    }

    /// How long the runner has said that it waits before it brings the program back: up to a minute after each of many
    /// crashes in a row.
    fn waits(&self) -> Result<Duration> {
        let waits = self.told("waiting")?.into_iter().filter_map(|event| event["seconds"].as_f64());
        Ok(Duration::from_secs_f64(waits.sum()))
    }

    /// Asks for a checkpoint until one is made that began after this call; its number.
    pub fn checkpoint(&self) -> Result<u64> {
        let since = Instant::now();
        loop {
            let mut command = self.selfdump();
            let asked = command
                .args(["trigger", self.kind.name(), "--wait", "--timeout", "30s", "--json"])
                .output()?;
            let told: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
            if let Some(made) = told["attempt"]["checkpoint"].as_str().and_then(number_of) {
                return Ok(made);
            }
            bide("a checkpoint", since, self.waits()?)?;
        }
    }

    /// All committed checkpoints, the oldest first.
    pub fn checkpoints(&self) -> Vec<(u64, PathBuf)> {
        let numbered = |path: PathBuf| Some((number_of(path.to_str()?)?, path));
        let mut found: Vec<(u64, PathBuf)> = self.in_instances().filter_map(numbered).collect();
        found.sort();
        found
    }

    /// What is being written, or was left.
    pub fn drafts(&self) -> Vec<PathBuf> {
        self.in_instances()
            .filter(|path| path.extension().is_some_and(|partial| partial == "partial"))
            .collect()
    }

    fn in_instances(&self) -> impl Iterator<Item = PathBuf> {
        below(&self.path("store").join(self.kind.name())).flat_map(|instance| below(&instance))
    }

    /// CRIU's processes that work for it.
    pub fn workers(&self) -> Vec<i32> {
        let service = self.service.as_ref().map(Service::pid);
        let mut workers = lab::running(&self.criu);
        workers.retain(|pid| Some(*pid) != service);
        workers
    }

    /// Whether the program is there, and ours: the process id is free for anybody between two lives.
    pub fn is_there(&self) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        let named = format!("SELFDUMP_DIR={}", self.path("store").display());
        environment.split(|byte| *byte == 0).any(|variable| variable == named.as_bytes())
    }

    pub fn kill_program(&self) {
        if self.is_there() {
            send(self.pid, Signal::SIGKILL);
        }
    }

    pub fn ask(&self) {
        if self.is_there() {
            send(self.pid, Signal::SIGUSR2);
        }
    }

    pub fn kill_runner(&mut self) {
        if let Some(mut runner) = self.runner.take() {
            let _ = runner.kill();
            let _ = runner.wait();
        }
    }

    /// The runner goes on for as long as the program is to.
    fn has_runner(&mut self) -> Result<()> {
        let ended = self.runner.as_mut().map(Child::try_wait).transpose()?.flatten();
        match ended {
            None => Ok(()),
            Some(status) => bail!("the runner has ended, with {status}: {}", last_lines(&self.output(), 8)),
        }
    }

    fn clients_are_content(&self) -> Result<()> {
        let are_all = self.clients.iter().all(Client::is_at_work);
        ensure!(are_all, "an answer to a client was not what has to follow on the one before");
        Ok(())
    }

    pub fn moment(&self) -> Result<Moment> {
        let progress = required(self.progress(), "what it has done")?;
        Ok(Moment {
            progress,
            connections: self.clients.iter().map(|client| client.firsts().len()).collect(),
        })
    }

    /// Whether each of its threads or clients has gone on beyond where it was.
    pub fn is_beyond(&self, then: &Moment) -> bool {
        let now = self.progress().unwrap_or_default();
        now.len() == then.progress.len() && now.iter().zip(&then.progress).all(|(now, then)| now > then)
    }

    /// How far each of its threads or clients is.
    fn progress(&self) -> Option<Vec<u64>> {
        match self.kind {
            Kind::Chain => {
                let tail = tail(&self.path("steps"));
                let last = |thread| {
                    let lines = tail.lines().rev().filter_map(follow::parse);
                    lines.filter(|line| line.0 == thread).map(|line| line.1).next()
                };
                (0..THREADS as u64).map(last).collect()
            }
            Kind::Database => tail(&self.path("output"))
                .lines()
                .rev()
                .find_map(|line| number_in(line.strip_prefix("rows ")?)),
            Kind::Server => Some(self.clients.iter().map(Client::acknowledged).collect()),
            Kind::Job => {
                tail(&self.path("lines")).lines().rev().find_map(|line| number_in(line.split(' ').next()?))
            }
        }
    }

    /// Whether all that it has ever done is there, once. `safe` is from before a checkpoint that was committed, and
    /// `last` from before what was done to it.
    pub fn is_whole(&self, safe: &Moment, last: &Moment) -> Result<()> {
        match self.kind {
            Kind::Chain => self.chains_are_whole(),
            Kind::Database => self.database_is_whole(last),
            Kind::Server => self.server_is_whole(safe, last),
            Kind::Job => self.script("job.py", &self.path("lines")).map(drop),
        }
    }

    fn chains_are_whole(&self) -> Result<()> {
        let text = fs::read_to_string(self.path("steps"))?;
        let told = follow::follow(whole_lines(&text)).map_err(|broken| anyhow!(broken))?;
        for (thread, steps) in told {
            let expected = (1..).map(|line| line * 50);
            let wrong = steps.iter().zip(expected).find(|(step, expected)| *step != expected);
            ensure!(wrong.is_none(), "thread {thread}: a step lost or doubled: {wrong:?}");
        }
        Ok(())
    }

    /// The program itself holds each row against what it remembers; all of them are looked at in the newest checkpoint's
    /// copies. The files themselves are left alone: a database with a log is one that others may only open while its
    /// program holds the lock on `app.db-shm`, and CRIU brings no lock back on a file that is mapped as well.
    fn database_is_whole(&self, last: &Moment) -> Result<()> {
        ensure!(!self.output().contains("BROKEN"), "{}", last_lines(&self.output(), 8));
        let copy = self.path("copy");
        wait("copies in a checkpoint", || {
            let _ = fs::remove_dir_all(&copy);
            fs::create_dir(&copy)?;
            // One that is old enough by now is deleted.
            Ok(self.checkpoints().pop().and_then(|(_, newest)| take_copies(&newest, &copy).ok()))
        })?;
        let rows: u64 = self.script("database.py", &copy.join("app.db"))?.trim().parse()?;
        ensure!(rows > last.progress[0], "{} rows were there, and now {rows} are", last.progress[0]);
        Ok(())
    }

    /// Has a script look whether what it has made is whole.
    fn script(&self, script: &str, data: &Path) -> Result<String> {
        cargo::read(Command::new("python3").arg(self.path(script)).arg(data).arg("check"))
    }

    fn server_is_whole(&self, safe: &Moment, last: &Moment) -> Result<()> {
        self.clients_are_content()?;
        for (number, client) in self.clients.iter().enumerate() {
            for first in client.firsts().split_off(last.connections[number]) {
                // One request more than were answered may have been served. Where it was not interrupted for long the
                // later connections begin beyond what was known then.
                ensure!(
                    first > safe.progress[number],
                    "client {number} had {} before a checkpoint, and {first} was the first after it",
                    safe.progress[number]
                );
            }
        }
        let port = required(port_in(&self.output()), "the server's port")?;
        let rules = lab::firewall_rules(port)?;
        ensure!(rules.is_empty(), "CRIU has left its connections locked in the firewall: {rules:#?}");
        let counted = clients::follow_journal(whole_lines(&fs::read_to_string(self.path("journal"))?));
        let counted = counted.map_err(|broken| anyhow!(broken))?;
        for (number, known) in last.progress.iter().enumerate() {
            let value = counted.get(&format!("client{number}")).copied().unwrap_or_default();
            ensure!(value >= *known, "client {number} had {known}, and the journal has {value}");
        }
        Ok(())
    }
}

impl Drop for Subject<'_> {
    fn drop(&mut self) {
        self.kill_runner();
        self.kill_program();
        self.workers().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
    }
}

pub fn send(pid: i32, signal: Signal) {
    // Who has ended meanwhile is none to be told.
    let _ = kill(Pid::from_raw(pid), signal);
}

pub fn pid_of(event: &Value) -> Result<i32> {
    required(event["pid"].as_i64(), "a process id in the event").map(|pid| pid as i32)
}

/// Takes the copies of the database's files out of a checkpoint.
fn take_copies(checkpoint: &Path, to: &Path) -> Result<()> {
    let manifest: Value = serde_json::from_slice(&fs::read(checkpoint.join("manifest.json"))?)?;
    let copies = required(manifest["manifest"]["copies"].as_array(), "copy")?;
    for copied in copies {
        let text = |key: &str| required(copied[key].as_str(), "path of a copy");
        let (path, copy) = (Path::new(text("path")?), checkpoint.join(text("copy")?));
        fs::copy(copy, to.join(required(path.file_name(), "name")?))?;
    }
    Ok(())
}
