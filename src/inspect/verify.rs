//! Whether a checkpoint can be trusted: everything that can be checked without a restore.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::frozen::Bytes;
use crate::image::consistency;
use crate::restore::{self, FileAction, Options};
use crate::store::catalogue::Entry;

/// What came of the checks of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// One result for each check, in the order of [`Check`].
    pub results: Vec<Checked>,
}

impl Verification {
    /// Whether every check was made and went well, so that a restore can be expected. That the process ids are free is
    /// seen only then.
    pub fn is_good(&self) -> bool {
        self.results.iter().all(|checked| matches!(checked.result, CheckResult::Good { .. }))
    }

    /// Whether every check went well that can be made without the identity that wasn't named.
    pub fn is_good_as_far_as_seen(&self) -> bool {
        let is_good =
            |result: &CheckResult| matches!(result, CheckResult::Good { .. } | CheckResult::Encrypted { .. });
        self.results.iter().all(|checked| is_good(&checked.result))
    }
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// What was checked.
    pub check: Check,
    /// What came of it.
    #[serde(flatten)]
    pub result: CheckResult,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Check {
    /// The manifest, by its own checksum.
    Manifest,
    /// Every file, by size and checksum; none is missing, and none has come.
    Files,
    /// Every image, message by message.
    Images,
    /// What the images refer to in others.
    References,
    /// The memory: as many pages as the images say, where they say.
    Pages,
    /// The files that the program had open: a restore finds each as it has to be, or can put it back.
    OpenFiles,
    /// The program and its libraries, the processor and the memory of this machine.
    Fit,
    /// Who can have written it: nobody but root and who asks.
    Trust,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
#[non_exhaustive]
pub enum CheckResult {
    /// It went well.
    Good {
        /// What was looked at.
        seen: String,
    },
    /// It didn't.
    Failed {
        /// What was found.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It couldn't be made: the checkpoint is encrypted, and none of the identities that were named opens it.
    Encrypted {
        /// Who can read it.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It couldn't be made, for what another check has found.
    NotMade,
}

/// Checks a checkpoint. Nothing is changed.
pub fn verify(entry: &Entry, options: &Options) -> Verification {
    let manifest = entry.manifest.as_ref();
    let opened = entry.open(&options.identities);
    let images = opened.as_ref().map_err(Clone::clone).and_then(Entry::images);
    let images = images.as_deref().map_err(Clone::clone);
    let inside = images.clone().and_then(consistency::references);
    let with_manifest = |check: Check, make: &dyn Fn() -> Result<String>| match manifest {
        Ok(_) => checked(check, make()),
        Err(_) => Checked { check, result: CheckResult::NotMade },
    };
    let pages = match (&inside, &images) {
        (Ok(inside), Ok(images)) => with_manifest(Check::Pages, &|| {
            consistency::pages(images, inside).map(|size| format!("{size} of memory"))
        }),
        (_, Err(error)) => checked(Check::Pages, Err(error.clone())),
        (Err(_), Ok(_)) => Checked { check: Check::Pages, result: CheckResult::NotMade },
    };
    let results = vec![
        checked(Check::Manifest, manifest.map(|manifest| manifest.id.clone()).map_err(Clone::clone)),
        with_manifest(Check::Files, &|| files(entry)),
        checked(
            Check::Images,
            images.clone().and_then(consistency::structure).map(|structure| told(&structure)),
        ),
        checked(Check::References, inside.as_ref().map(described).map_err(Clone::clone)),
        pages,
        with_manifest(Check::OpenFiles, &|| open_files(entry, options)),
        with_manifest(Check::Fit, &|| {
            restore::check_fit(entry).map(|()| "program, processor, free memory".to_owned())
        }),
        with_manifest(Check::Trust, &|| {
            restore::check_trust(entry).map(|()| "nobody else can have written it".to_owned())
        }),
    ];
    Verification { results }
}

fn checked(check: Check, result: Result<String>) -> Checked {
    let result = match result {
        Ok(seen) => CheckResult::Good { seen },
        Err(error) => {
            let (problem, hint) = (error.chain(), error.hint().map(str::to_owned));
            match error.kind() {
                ErrorKind::Encrypted => CheckResult::Encrypted { problem, hint },
                _ => CheckResult::Failed { problem, hint },
            }
        }
    };
    Checked { check, result }
}

fn files(entry: &Entry) -> Result<String> {
    let manifest = entry.verify()?;
    let shared = match manifest.shared() {
        Bytes(0) => String::new(),
        size => format!(", and what is used of {size} that others have as well"),
    };
    Ok(format!("{} files, {}{shared}", manifest.files.len(), manifest.size()))
}

fn told(structure: &consistency::Structure) -> String {
    let mut text = format!("{} images, {} messages", structure.images, structure.messages);
    if !structure.unread.is_empty() {
        text += &format!("; not read: {}", structure.unread.join(" "));
    }
    if !structure.unknown_fields.is_empty() {
        let fields: Vec<&str> = structure.unknown_fields.iter().map(String::as_str).collect();
        text += &format!("; fields of a newer CRIU: {}", fields.join(", "));
    }
    text
}

fn described(inside: &super::Inside) -> String {
    let threads: usize = inside.processes.iter().map(|process| process.threads.len()).sum();
    let descriptors: usize = inside.processes.iter().map(|process| process.descriptors.len()).sum();
    format!("{} processes, {threads} threads, {descriptors} descriptors", inside.processes.len())
}

fn open_files(entry: &Entry, options: &Options) -> Result<String> {
    let plans = restore::plan(entry, options)?;
    let refused = plans.iter().find_map(|plan| match &plan.action {
        FileAction::Refuse { remedy } => Some((plan, remedy)),
        _ => None,
    });
    match refused {
        Some((plan, remedy)) => {
            let problem = format!("{}: {}", plan.path.display(), plan.why);
            Err(Error::new(ErrorKind::FileChanged, problem).with_hint(remedy.clone()))
        }
        None => Ok(format!("{} that a restore has to look after", plans.len())),
    }
}
