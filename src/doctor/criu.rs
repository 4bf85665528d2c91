//! Whether a CRIU is there that works on this kernel: it is asked, and then has to dump a small process: this one.
//!
//! `criu --version` answers even where nothing else works, so only a dump proves anything. It is made as a program's own
//! checkpoints are, with an internet socket open, which CRIU up to 4.1.1 can't dump on kernels from 6.16 on.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Finding, PATIENCE, Setup, Verdict};
use crate::criu::{self, DumpOptions, Features, Version, Way};
use crate::error::{Error, Result};
use crate::image;
use crate::store::work::WorkFolder;
use crate::sys;

/// What one way to a CRIU is good for.
#[derive(Debug)]
struct Tried {
    way: String,
    version: Option<Version>,
    /// What the kernel lets it do.
    features: Option<Features>,
    /// What it says of the kernel.
    check: Result<()>,
    /// Whether it has dumped us.
    dump: Dump,
}

/// What came of a dump of this process.
#[derive(Debug)]
enum Dump {
    /// It was dumped, with an internet socket, and stood still for so long.
    Whole { milliseconds: f64 },
    /// Only without an internet socket.
    WithoutInternet(Error),
    /// Not at all.
    Failed(Error),
    /// It can't be dumped for a reason of its own, so that nothing is proved.
    NotTried(Error),
}

pub(super) fn look(setup: &Setup) -> Vec<Finding> {
    match criu::ways(setup.service.as_deref(), setup.criu.as_deref()) {
        Err(error) => vec![Finding::of("criu", Verdict::Failed, &error)],
        Ok(ways) => judge(&ways.iter().map(attempt).collect::<Vec<_>>()),
    }
}

fn attempt(way: &Way) -> Tried {
    let failed = |error: Error| Tried {
        way: way.to_string(),
        version: None,
        features: None,
        check: Ok(()),
        dump: Dump::Failed(error),
    };
    match WorkFolder::make("doctor") {
        Err(error) => failed(error),
        Ok(folder) => {
            let tried = attempt_in(&folder.path, way).unwrap_or_else(failed);
            folder.remove();
            tried
        }
    }
}

fn attempt_in(folder: &Path, way: &Way) -> Result<Tried> {
    let (connection, version) = way.connect(&folder.join("version.log"), PATIENCE)?;
    let features = connection.features().ok();
    let check = images(folder, "check").and_then(|images| connection.check(&images));
    Ok(Tried { way: way.to_string(), version: Some(version), features, check, dump: prove(folder, way) })
}

/// Has this process dumped: with an internet socket, and where that fails without.
fn prove(folder: &Path, way: &Way) -> Dump {
    // Where there is no loopback there is nothing to prove about it either.
    let socket = TcpListener::bind(("127.0.0.1", 0)).ok();
    if let Err(error) = criu::needs() {
        return Dump::NotTried(error);
    }
    let error = match dump(folder, "whole", way) {
        Ok(milliseconds) => return Dump::Whole { milliseconds },
        Err(error) => error,
    };
    drop(socket);
    match dump(folder, "plain", way) {
        Ok(_) => Dump::WithoutInternet(error),
        Err(error) => Dump::Failed(error),
    }
}

/// Nobody restores it, so that it returns once.
fn dump(folder: &Path, name: &str, way: &Way) -> Result<f64> {
    let (connection, _) = way.connect(&folder.join(format!("{name}.log")), PATIENCE)?;
    let images = images(folder, name)?;
    connection.dump(&DumpOptions::new(&images, criu::needs()?))?;
    Ok(image::dump_stats(&images)?.frozen.as_secs_f64() * 1e3)
}

/// A folder through a link, which is the only path that CRIU takes up to 4.1.1.
fn images(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let (images, link) = (folder.join(name), folder.join(format!("{name}-link")));
    sys::disk::make_private(&images).map_err(|source| Error::io("make", &images, source))?;
    symlink(&images, &link).map_err(|source| Error::io("make the link", &link, source))?;
    Ok(link)
}

/// One that fails is of no matter where another one works: it is passed over.
fn judge(tried: &[Tried]) -> Vec<Finding> {
    let works = |tried: &Tried| !matches!(tried.dump, Dump::Failed(_));
    let severity = if tried.iter().any(works) { Verdict::Warning } else { Verdict::Failed };
    let mut found: Vec<Finding> = tried.iter().map(|tried| judge_dump(tried, severity)).collect();
    let checks = tried.iter().filter_map(|tried| Some((tried, tried.check.as_ref().err()?)));
    found.extend(checks.map(|(tried, error)| {
        let finding = Finding::of("criu check", Verdict::Warning, error);
        Finding { message: format!("{}: {}", tried.way, finding.message), ..finding }
    }));
    found.extend(
        tried
            .iter()
            .find(|tried| works(tried))
            .and_then(|tried| tried.features)
            .iter()
            .flat_map(judge_features),
    );
    found
}

fn judge_dump(tried: &Tried, severity: Verdict) -> Finding {
    const CHECK: &str = "criu";
    let version = tried.version.as_ref().map(|version| format!("CRIU {version}, ")).unwrap_or_default();
    let who = format!("{version}{}", tried.way);
    let saying = |verdict, what: &str, error: &Error| {
        let finding = Finding::of(CHECK, verdict, error);
        Finding { message: format!("{who}: {what}{}", finding.message), ..finding }
    };
    match &tried.dump {
        Dump::Whole { milliseconds } => Finding::ok(
            CHECK,
            format!("{who}: has dumped this process, which stood still for {milliseconds:.1} ms"),
        ),
        Dump::WithoutInternet(error) => {
            saying(Verdict::Warning, "dumps no program that has an internet socket: ", error)
        }
        Dump::NotTried(error) => saying(Verdict::Warning, "a dump was not tried: ", error),
        Dump::Failed(error) => saying(severity, "", error),
    }
}

/// Nothing needs them yet, so that none is missed.
fn judge_features(features: &Features) -> [Finding; 2] {
    let there = |there: bool, yes: &str, no: &str| if there { yes.to_owned() } else { no.to_owned() };
    [
        Finding::ok(
            "soft-dirty",
            there(
                features.memory_tracking,
                "the kernel tracks which pages change, by which pauses can be kept short (SELFDUMP_MAX_PAUSE)",
                "the kernel doesn't track which pages change: no memory can be written ahead (SELFDUMP_MAX_PAUSE)",
            ),
        ),
        Finding::ok(
            "userfaultfd",
            there(
                features.lazy_pages,
                "memory can be brought when it is first touched",
                "not there, and not needed",
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn tried(dump: Dump) -> Tried {
        Tried { way: "/usr/sbin/criu".to_owned(), version: None, features: None, check: Ok(()), dump }
    }

    fn old() -> Error {
        Error::new(ErrorKind::CriuTooOld, "too old").with_hint("selfdump setup")
    }

    #[test]
    fn one_that_fails_matters_only_where_none_works() {
        let verdicts = |tried: &[Tried]| judge(tried).iter().map(|found| found.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&[tried(Dump::Failed(old()))]), [Verdict::Failed]);
        let works = || tried(Dump::Whole { milliseconds: 1.0 });
        assert_eq!(verdicts(&[tried(Dump::Failed(old())), works()]), [Verdict::Warning, Verdict::Ok]);
        assert_eq!(verdicts(&[tried(Dump::WithoutInternet(old()))]), [Verdict::Warning]);
        let unfit = Tried { check: Err(old()), ..works() };
        assert_eq!(verdicts(&[unfit]), [Verdict::Ok, Verdict::Warning]);
    }

    #[test]
    fn a_failure_brings_its_remedy() {
        let found = judge(&[tried(Dump::WithoutInternet(old()))]);
        assert!(found[0].message.contains("no program that has an internet socket: too old"), "{found:?}");
        assert_eq!(found[0].remedy.as_deref(), Some("selfdump setup"));
    }
}
