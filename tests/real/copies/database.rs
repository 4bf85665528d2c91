//! Databases, which other processes look into afterwards: what they hold is what the program remembers.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{action_on, is_saved, restore};
use crate::failures::criu::Service;
use crate::harness::{Lab, Launch, Subject, USR2, built, eventually, manifest, oldest_criu};

/// Inserts a row again and again, and says how many it has inserted and how many the database has.
const INSERTER: &str = "
import ctypes, sqlite3, sys, time
ctypes.CDLL(sys.argv[1]).plugged()
db = sqlite3.connect(sys.argv[2])
db.execute('PRAGMA journal_mode=' + sys.argv[3])
db.execute('PRAGMA wal_autocheckpoint=40')
db.execute('CREATE TABLE numbers (number INTEGER, text TEXT)')
number = 0
while True:
    db.execute('INSERT INTO numbers VALUES (?, ?)', (number, 'x' * 500))
    db.commit()
    number += 1
    print('rows', number, db.execute('SELECT count(*) FROM numbers').fetchone()[0], flush=True)
    time.sleep(0.003)
";

/// What another process finds in the database: what its check says, and how many rows there are.
fn look_into(database: &Path) -> (String, u64) {
    const LOOK: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute('PRAGMA integrity_check').fetchone()[0])
print(db.execute('SELECT count(*), count(DISTINCT number), max(number) + 1 FROM numbers').fetchone())
";
    let said = Command::new("python3").args(["-c", LOOK]).arg(database).output().expect("python3");
    let text = String::from_utf8(said.stdout).expect("text");
    let (check, rows) = text.trim().split_once('\n').unwrap_or_else(|| panic!("{:?}", said.stderr));
    let rows: Vec<u64> =
        rows.trim_matches(['(', ')']).split(", ").map(|number| number.parse().unwrap()).collect();
    assert!(rows.iter().all(|count| *count == rows[0]), "none is there twice, none is missing: {rows:?}");
    (check.to_owned(), rows[0])
}

/// The last pair of counts: the program's own, and what its database said.
fn counts(output: &str) -> (u64, u64) {
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    let counts = whole.lines().rev().find_map(|line| {
        let (own, found) = line.strip_prefix("rows ")?.split_once(' ')?;
        Some((own.parse().ok()?, found.parse().ok()?))
    });
    counts.unwrap_or((0, 0))
}

fn inserter(lab: &Lab, database: &Path, journal: &str) -> Launch {
    let mut python = Command::new("python3");
    python.args(["-c", INSERTER]).arg(built("examples/libplugin.so".as_ref())).arg(database).arg(journal);
    lab.launch(python, "inserter").env("SELFDUMP_NAME", "inserter")
}

/// Checkpointed, gone on for a while, and killed.
fn kill_after_checkpoint(lab: &Lab, program: Subject) {
    eventually("some rows", || (counts(&program.output()).0 > 60).then_some(()));
    program.signal(USR2);
    is_saved(lab);
    let then = counts(&program.output()).0;
    eventually("more rows", || (counts(&program.output()).0 > then + 90).then_some(()));
    program.crash();
}

fn a_database_comes_back(lab: &Lab, journal: &str) {
    comes_back_by(lab, journal, "freeze");
}

fn comes_back_by(lab: &Lab, journal: &str, snapshot: &str) {
    let database = lab.path("app.db");
    let pattern = format!("{}*", database.display());
    let launch = inserter(lab, &database, journal).env("SELFDUMP_COPY_FILES", &pattern);
    kill_after_checkpoint(lab, launch.env("SELFDUMP_SNAPSHOT", snapshot).start());
    let technique = manifest(&lab.checkpoints()[0])["technique"]["how"].clone();
    assert_eq!(technique.as_str().unwrap_or("freeze"), snapshot);
    let output = || fs::read_to_string(lab.path("inserter.out")).unwrap();
    let before = output();
    let (back, report) = restore(lab, "inserter");
    assert_eq!(action_on(&report, &database), "recreate");
    let after = eventually("it goes on", || {
        let counts = counts(output().strip_prefix(&before)?);
        (counts.0 > 0).then_some(counts)
    });
    assert!(after.0 < counts(&before).0, "it goes on from its checkpoint");
    assert_eq!(after.0, after.1, "the database is what the program remembers");
    eventually("many more rows", || (counts(&output()).0 > after.0 + 100).then_some(()));
    back.signal(USR2);
    let again = lab.wait_for_checkpoint(2);
    assert!(!manifest(&again)["copies"].as_array().unwrap().is_empty(), "it goes on being copied");
    eventually("more rows still", || (counts(&output()).0 > after.0 + 200).then_some(()));
    back.crash();
    let (back, report) = restore(lab, "inserter");
    assert_eq!((&report["generation"], action_on(&report, &database).as_str()), (&2.into(), "recreate"));
    let then = output().len();
    eventually("it goes on once more", || (output().len() > then + 1000).then_some(()));
    back.crash();
    // It may have been killed between a row and the word about it.
    let (own, (check, rows)) = (counts(&output()).0, look_into(&database));
    assert!(check == "ok" && (own..=own + 1).contains(&rows), "{check}: {rows} rows, {own} by the program");
}

#[test]
fn an_sqlite_database_with_a_log_comes_back_with_the_memory_that_matches_it() {
    a_database_comes_back(&Lab::new(), "wal");
}

#[test]
fn so_does_one_whose_journal_comes_and_goes() {
    a_database_comes_back(&Lab::new(), "delete");
}

/// An index in shared memory, as with a log, would be in the way.
#[test]
fn so_does_one_of_a_program_that_runs_on_while_a_copy_of_it_is_dumped() {
    comes_back_by(&Lab::new(), "delete", "cow");
}

#[test]
fn the_oldest_criu_copies_as_well() {
    let mut lab = Lab::new();
    lab.criu = oldest_criu();
    a_database_comes_back(&lab, "wal");
}

#[test]
fn a_service_of_the_same_user_copies_as_well() {
    let lab = Lab::new();
    let socket = lab.path("criu.socket");
    let _service = Service::start(&lab, &socket);
    let database = lab.path("app.db");
    let program = inserter(&lab, &database, "wal")
        .env("SELFDUMP_SERVICE", &socket)
        .env("SELFDUMP_COPY_FILES", format!("{}*", database.display()))
        .start();
    kill_after_checkpoint(&lab, program);
    let copies = manifest(&lab.checkpoints()[0])["copies"].as_array().unwrap().len();
    assert_eq!(copies, 3, "the database, its log and its index");
}

#[test]
fn without_copies_a_database_that_went_on_is_refused_or_said() {
    let lab = Lab::new();
    let database = lab.path("app.db");
    kill_after_checkpoint(&lab, inserter(&lab, &database, "wal").start());
    let plan = lab.run(["restore", "inserter", "--dry-run"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("SELFDUMP_COPY_FILES"), "{plan}");
}
