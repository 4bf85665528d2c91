//! The vocabulary: an [`Asker`] asks for a checkpoint, and either [saves](Asker::saves) it or
//! [fails](Asker::fails) as expected.

use std::cell::Cell;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Lab, Launch, Restored, Subject, eventually};

const USR1: i32 = 10;

/// What a failure has to say, everywhere that it is told.
pub struct Failure<'a> {
    /// The name of its kind.
    pub kind: &'a str,
    /// A part of what names the cause.
    pub cause: &'a str,
    /// A part of what says what to do about it.
    pub remedy: &'a str,
}

/// Where a failure is told to those who look from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    InTheStore,
    OnlyByProcess,
}

/// The running program `asker`.
pub struct Asker<'a> {
    lab: &'a Lab,
    subject: Subject,
    asked: Cell<u32>,
    /// The last request of which a checkpoint came.
    saved: Cell<u32>,
    failures_in_a_row: Cell<u64>,
}

impl<'a> Asker<'a> {
    pub fn start(lab: &'a Lab, launch: Launch) -> Asker<'a> {
        let subject = launch.start();
        subject.wait_for("ready");
        Asker { lab, subject, asked: Cell::new(0), saved: Cell::new(0), failures_in_a_row: Cell::new(0) }
    }

    /// One of a MiB, with nothing special about it but these settings.
    pub fn plain(lab: &'a Lab, settings: &[(&str, PathBuf)]) -> Asker<'a> {
        let launch = lab.program("asker").arg("1");
        Asker::start(lab, settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value)))
    }

    pub fn pid(&self) -> i32 {
        self.subject.pid()
    }

    pub fn signal(&self, signal: i32) {
        self.subject.signal(signal);
    }

    pub fn wait_for(&self, text: &str) -> String {
        self.subject.wait_for(text)
    }

    /// Has it ask for a checkpoint; the number of the request.
    pub fn asks(&self) -> u32 {
        self.asked.set(self.asked.get() + 1);
        self.signal(USR1);
        self.asked.get()
    }

    /// What came of a request.
    pub fn outcome(&self, request: u32) -> String {
        let start = format!("outcome {request} ");
        eventually(&start, || self.lines().into_iter().find(|line| line.starts_with(&start)))
    }

    /// Whether it knows what came of a request.
    pub fn has_answer(&self, request: u32) -> bool {
        let start = format!("outcome {request} ");
        self.lines().iter().any(|line| line.starts_with(&start))
    }

    /// It asks, and the checkpoint is made.
    pub fn saves(&self) -> PathBuf {
        let request = self.asks();
        self.has_saved(request)
    }

    /// A checkpoint came of this request.
    pub fn has_saved(&self, request: u32) -> PathBuf {
        let outcome = self.outcome(request);
        let id =
            outcome.strip_prefix(&format!("outcome {request} saved ")).unwrap_or_else(|| panic!("{outcome}"));
        let status = self.status();
        assert_eq!((&status["last"]["saved"], &status["last"]["error"]), (&Value::Bool(true), &Value::Null));
        assert_eq!(
            (status["last"]["checkpoint"].as_str(), &status["failures_in_a_row"]),
            (Some(id), &0.into())
        );
        self.failures_in_a_row.set(0);
        self.saved.set(request);
        self.runs_on();
        assert!(self.whole_checkpoints().contains(&id.to_owned()), "{id} is in the store");
        self.lab.store().join(id)
    }

    /// It asks, and fails as expected.
    pub fn fails(&self, failure: &Failure<'_>) {
        let before = self.whole_checkpoints();
        self.has_failed(self.asks(), failure, Told::InTheStore, &before);
    }

    /// The same where the store can't be written to: only who asks for the process can be told.
    pub fn fails_without_a_store(&self, failure: &Failure<'_>) {
        let before = self.whole_checkpoints();
        self.has_failed(self.asks(), failure, Told::OnlyByProcess, &before);
    }

    /// This request failed as expected, and `before` are the checkpoints as they were.
    pub fn failed(&self, request: u32, failure: &Failure<'_>, before: &[String]) {
        self.has_failed(request, failure, Told::InTheStore, before);
    }

    fn has_failed(&self, request: u32, failure: &Failure<'_>, told: Told, before: &[String]) {
        let Failure { kind, cause, remedy } = failure;
        let outcome = self.outcome(request);
        let parts: Vec<&str> = outcome.split(" | ").collect();
        let [head, message, hint] = parts[..] else { panic!("no failure: {outcome}") };
        assert_eq!(head, format!("outcome {request} error {kind}"), "{outcome}");
        assert!(message.contains(cause) && hint.contains(remedy), "the caller is told: {outcome}");

        let logged =
            self.lines().into_iter().rfind(|line| line.starts_with("log ERROR no checkpoint (call)"));
        let logged = logged.expect("the failure is in the log");
        assert!(logged.contains(kind) && logged.contains(message), "the log tells the cause: {logged}");
        assert!(logged.contains(&format!("help: {hint}")), "the log tells the remedy: {logged}");

        self.failures_in_a_row.set(self.failures_in_a_row.get() + 1);
        self.is_told_by(&self.status(), failure, message, hint);
        if told == Told::InTheStore {
            self.is_told_by(&self.lab.status().expect("status.json in the store"), failure, message, hint);
        }
        self.runs_on();
        assert_eq!(self.whole_checkpoints(), before, "the checkpoints that were there, and no others");
    }

    fn is_told_by(&self, status: &Value, failure: &Failure<'_>, message: &str, hint: &str) {
        let last = &status["last"];
        let error = &last["error"];
        assert_eq!(error["kind"], failure.kind, "{status:#}");
        assert_eq!(
            (error["message"].as_str(), error["hint"].as_str()),
            (Some(message), Some(hint)),
            "{status:#}"
        );
        assert_eq!((&last["saved"], &last["checkpoint"]), (&Value::Bool(false), &Value::Null), "{status:#}");
        assert_eq!(status["failures_in_a_row"], self.failures_in_a_row.get(), "{status:#}");
    }

    /// Its output goes on, and it met no child of ours.
    fn runs_on(&self) {
        let tick = self.last_tick();
        eventually("the program's output goes on", || (self.last_tick() > tick + 5).then_some(()));
        let met = self.lines().into_iter().find(|line| line.starts_with("met "));
        assert_eq!(met, None, "what selfdump starts is no child of the program");
    }

    fn last_tick(&self) -> u64 {
        let ticks = self.lines();
        ticks.iter().rev().find_map(|line| line.strip_prefix("tick ")?.parse().ok()).expect("a tick")
    }

    /// The whole lines of the output so far.
    fn lines(&self) -> Vec<String> {
        let output = self.subject.output();
        output.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    /// `selfdump status PID --json`.
    fn status(&self) -> Value {
        let said = self.lab.run(["status", "--json", &self.pid().to_string()]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let mut listing: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        listing["programs"][0].take()
    }

    /// The ids of all checkpoints, every one with every byte as it was committed. Nothing else is there.
    pub fn whole_checkpoints(&self) -> Vec<String> {
        let entries = selfdump::restore::find(&self.lab.store(), None).unwrap_or_default();
        let ids: Vec<String> =
            entries.iter().map(|entry| entry.verify().expect("a whole checkpoint").id.clone()).collect();
        let said = self.lab.run(["list", "--json"]);
        let listing: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let listed = listing["checkpoints"].as_array().cloned().unwrap_or_default();
        let good = |row: &&Value| row["state"] == "good";
        assert_eq!(listed.iter().filter(good).count(), ids.len(), "{listing:#}");
        let drafts = entries.first().and_then(|entry| entry.path.parent()).map(|instance| {
            let names =
                std::fs::read_dir(instance).expect("a folder").flatten().map(|entry| entry.file_name());
            names.filter(|name| name.to_string_lossy().ends_with(".partial")).count()
        });
        assert_eq!(drafts.unwrap_or(0), 0, "no draft is left");
        ids
    }

    /// Ends it as a crash would; it comes back from its newest checkpoint, and goes on.
    pub fn comes_back(self) {
        let Asker { lab, subject, saved, .. } = self;
        let pid = subject.pid();
        subject.crash();
        let restored = Restored { restorer: lab.restore("asker"), pid };
        let answer = format!("outcome {} restored asker/", saved.get());
        let output = || std::fs::read_to_string(lab.path("asker.out")).unwrap_or_default();
        eventually(&answer, || {
            let output = output();
            let (_, after) = output.split_once(&answer)?;
            (after.matches("\ntick ").count() > 5).then_some(())
        });
        drop(restored);
    }
}
