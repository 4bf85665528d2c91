//! What the fuzz targets need of the inside: each function takes what somebody else may have written, and panics where
//! something follows from it that must not. It is only there in builds for fuzzing (docs/fuzzing.md).

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{Config, Settings};
use crate::criu::request::{self, Asked};
use crate::criu::restoring::Wanted;
use crate::criu::{Connection, DumpOptions, RestoreOptions};
use crate::frozen::Needs;
use crate::store::manifest::{self, Manifest};
use crate::sys::message;
use crate::trigger::Timetable;

/// As long as it takes what is sent within this process.
const SOON: Duration = Duration::from_secs(30);

thread_local! {
    static ENDS: OnceCell<(OwnedFd, OwnedFd)> = const { OnceCell::new() };
}

/// CRIU's answer to a question of ours: it is understood, or an error that can be shown.
pub fn answer(question: u8, answer: &[u8]) {
    ENDS.with(|ends| {
        let (ours, theirs) = ends.get_or_init(|| message::pair().expect("a pair of sockets"));
        let connection = || Connection::over(ours.try_clone().expect("a duplicate"));
        // It lies there before it is asked for, so that nobody waits.
        message::send(theirs, answer, Instant::now() + SOON).expect("room for an answer");
        let nowhere = Path::new("/proc/self/fdinfo");
        let dump = || DumpOptions::new(nowhere, Needs::default());
        let restore = || RestoreOptions::new(ours.as_fd(), ours.as_fd(), Needs::default());
        let error = match question % 6 {
            0 => connection().version().map(drop).err(),
            1 => connection().features().map(drop).err(),
            2 => connection().check(nowhere).err(),
            3 => connection().dump(&dump()).map(drop).err(),
            4 => connection().pre_dump(&dump()).err(),
            _ => connection()
                .restore(&restore(), &nowhere.join("restore.log"))
                .map(|pid| assert!(pid > 0, "no process has the id {pid}"))
                .err(),
        };
        if let Some(error) = error {
            assert!(!error.chain().is_empty() && error.hint().is_some(), "{error:?}");
        }
        message::receive(theirs, Instant::now() + SOON, || true).expect("the question");
    });
}

/// A request to the service for many users: it is refused with a reason, or says nothing that was not understood.
pub fn request(bytes: &[u8]) {
    let asked = match request::read(bytes) {
        Ok(asked) => asked,
        Err(reason) => return assert!(!reason.is_empty()),
    };
    let again = request::again(bytes);
    assert_eq!((again.as_slice(), request::read(&again)), (bytes, Ok(asked)));
    if asked == Asked::Restore {
        let wanted = Wanted::read(bytes).expect("a restore that is allowed");
        assert!(wanted.is_what_criu_is_told(), "{wanted:?}");
    }
}

/// A manifest, with or without a checksum that is right: it is refused, or read as it would be written again.
pub fn manifest(text: &str) {
    let folder = Path::new("/fuzzing");
    let read = |text: &str| manifest::parse::<Manifest>(folder, text);
    let sealed = manifest::enveloped(text.to_owned()).and_then(|text| Ok(read(&text).ok()));
    for manifest in [read(text).ok(), sealed.ok().flatten()].into_iter().flatten() {
        let _ = (manifest.size(), manifest.generation(), manifest.pid());
        let again = serde_json::to_string(&manifest).and_then(manifest::enveloped).expect("text again");
        assert_eq!(read(&again).expect("what we wrote"), manifest);
    }
}

/// The SELFDUMP_* variables, a line `NAME=VALUE` for each: they are refused, or make settings that can be used.
pub fn settings(text: &str) {
    let variables: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let by_variables = Config::new().program("fuzzing");
    let by_name = variables.iter().try_fold(by_variables.clone(), |config, (name, value)| {
        config.set(&name.trim_start_matches("SELFDUMP_").to_ascii_lowercase(), value)
    });
    let environment = |name: &str| variables.get(name).map(OsString::from);
    for config in [Ok(by_variables), by_name].into_iter().flatten() {
        if let Ok(settings) = config.resolve(&environment) {
            use_them(&settings, variables.values().map(PathBuf::from));
        }
    }
}

fn use_them(settings: &Settings, paths: impl Iterator<Item = PathBuf>) {
    assert!(settings.dir.is_absolute() && !settings.name.contains('/'), "{settings:?}");
    let now = Instant::now();
    let mut timetable = Timetable::new(settings.timing, now, 7);
    timetable.look(now);
    timetable.ended(now, Some(Duration::from_millis(3)));
    assert!(timetable.next_look(true) >= now);
    for path in paths {
        let _ = settings.files.iter().any(|rule| rule.matches(&path));
        let _ = settings.copy_files.iter().any(|pattern| pattern.matches(&path));
    }
}
