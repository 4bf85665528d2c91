//! The sentence: choose the newest good checkpoint, see that its process ids are free, have its files as they have to
//! be, reconnect what was connected to the outside, ask CRIU, be the parent.
//!
//! - [`find`] and [`newest_good`] choose; [`bring_back`] goes on to the next older one where that doesn't come back.
//! - [`plan`] tells what becomes of the files that the program had open, and touches nothing.
//! - [`restore`] brings a program back as our child.
//! - [`attend`] passes signals on to it and waits for its end; a [`Guard`] ends it where this process can't any more.

mod ask;
mod attend;
mod change;
mod choose;
mod copies;
mod files;
mod fit;
pub mod guard;
mod guarded;
mod lazy;
mod pids;
mod relay;
mod rewind;
mod stdio;
mod verification;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use attend::{Ended, at_a_terminal, attend, end_alike, hold_signals, in_a_pid_namespace};
pub use choose::{check_trust, find, newest_good};
pub use files::{FileAction, FilePlan};
pub use guard::Guard;
#[cfg(feature = "service")]
pub(crate) use guard::end_tree;
pub use guarded::Keeper;
pub use lazy::Filling;
pub(crate) use relay::PassingOn;
pub use relay::Relay;
#[cfg(feature = "inspect")]
pub(crate) use stdio::{Place, places};

use crate::config::{self, FileRule};
use crate::encryption::Identities;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Bytes, OutsideKind};
use crate::image;
use crate::store::catalogue::Entry;
use crate::store::handover;
use crate::store::life::Here;
use crate::store::manifest::{Manifest, Program};
use crate::store::work::WorkFolder;
use crate::sys::{self, procfs};
use choose::{candidates, none_is_whole};
use files::{Now, World};
use stdio::Reconnected;
use verification::Verification;

/// How often a restore is tried again that met somebody else's process id.
const TRIES: u32 = 3;

/// How a program is brought back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The CRIU program; where none is named, the one that `install` would use.
    pub criu: Option<PathBuf>,
    /// The service that checkpoints which it has sealed are restored by; where none is named, that of this machine.
    pub service: Option<PathBuf>,
    /// How long CRIU may take.
    pub timeout: Duration,
    /// The program is left stopped (SIGSTOP), for a debugger; SIGCONT lets it go on.
    pub stopped: bool,
    /// What the program finds in [`Restored::settings`](crate::Restored::settings).
    pub settings: BTreeMap<String, String>,
    /// What becomes of files that have changed. They come before the rules that the program has named itself.
    pub files: Vec<FileRule>,
    /// Files that take the place of what led outside of the tree, by descriptor of its root.
    pub inherit: BTreeMap<i32, PathBuf>,
    /// Nobody will attend to the program, so it can't have a terminal that somebody has to pass on.
    pub detached: bool,
    /// TCP connections are restored as they were, instead of closed, from a checkpoint that was made for it
    /// ([`Config::keep_tcp`](crate::Config::keep_tcp)). After a crash the other ends have given them up.
    pub keep_tcp: bool,
    /// Whether it is known that the program has ended, though that can't be seen from here: it was in another pid
    /// namespace, say, which is gone.
    pub has_ended: bool,
    /// The program runs as soon as it can, and its memory is filled meanwhile ([`Revived::filling`]). Where that can't be
    /// had, it is restored at once.
    pub lazy: bool,
    /// It is not looked whether the program fits here: its build and its libraries', the processor, the memory.
    pub force: bool,
    /// It is not looked whether others than root and we can have written the checkpoint: whoever can has whatever
    /// they like run with our rights.
    pub trust: bool,
    /// Who ends the program when this process is gone before it.
    pub guard: Option<Arc<Guard>>,
    /// What opens checkpoints that are encrypted.
    pub identities: Identities,
}

/// A program that was brought back.
#[derive(Debug)]
#[non_exhaustive]
pub struct Revived {
    /// Its process id.
    pub pid: i32,
    /// What was done with the files that it had open.
    pub files: Vec<FilePlan>,
    /// Where what was taken from files is kept; none where nothing was.
    pub cut: Option<PathBuf>,
    /// The pseudoterminal that was made for it: to be attended to, or its terminal hangs up.
    pub relay: Option<Relay>,
    /// Who has brought it back, where it isn't our child: to be attended to, or it ends.
    pub keeper: Option<Keeper>,
    /// Who fills the memory of one that came back lazily. That has to be waited for, or looked at when it has ended:
    /// where it couldn't be filled, the program was ended, and is to be restored once more, without [`Options::lazy`].
    pub filling: Option<Filling>,
}

/// A restore that is under way.
struct Revival<'a> {
    entry: &'a Entry,
    manifest: &'a Manifest,
    options: &'a Options,
    verification: Verification,
    is_lazy: bool,
}

/// Where checkpoints are looked for and how they are restored, as the SELFDUMP_* variables say.
///
/// # Errors
///
/// [`ErrorKind::Config`] for a variable with a value that it can't have.
pub fn from_environment(dir: Option<&Path>) -> Result<(PathBuf, Options)> {
    let settings = config::for_commands(dir)?;
    let options = Options {
        criu: settings.criu,
        service: settings.service,
        timeout: settings.timeout,
        stopped: false,
        settings: BTreeMap::new(),
        files: settings.files,
        inherit: BTreeMap::new(),
        detached: false,
        keep_tcp: false,
        has_ended: false,
        lazy: false,
        force: false,
        trust: false,
        guard: None,
        identities: Identities::default(),
    };
    Ok((settings.dir, options))
}

/// Brings a program back from its newest checkpoint that is whole and lets it: where a restore fails for a reason of
/// the checkpoint's own, the next older one is tried. `skipped` is told of each that is passed over, and why.
///
/// # Errors
///
/// Those of [`newest_good`] and of [`restore`].
pub fn bring_back(
    store: &Path,
    target: Option<&Path>,
    options: &Options,
    skipped: &mut dyn FnMut(&Entry, &Error),
) -> Result<(Entry, Revived)> {
    let entries = candidates(store, target)?;
    let count = entries.len();
    let mut failed = None;
    for entry in entries {
        match restore(&entry, options) {
            Ok(revived) => return Ok((entry, revived)),
            Err(error) if error.kind() == ErrorKind::Damaged => skipped(&entry, &error),
            Err(error) if count > 1 && an_older_one_may_do_better(&error) => {
                skipped(&entry, &error);
                failed.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(failed.unwrap_or_else(|| none_is_whole(count, target.unwrap_or(store))))
}

/// A file that has changed is not among the reasons: whoever restores has to say what becomes of it.
fn an_older_one_may_do_better(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::FileGone | ErrorKind::Restore)
}

/// What becomes of the files that the program had open, were it brought back now. Nothing is touched.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] where the checkpoint's manifest can't be read, [`ErrorKind::Encrypted`] where it takes another
/// identity to compare files with their copies.
pub fn plan(entry: &Entry, options: &Options) -> Result<Vec<FilePlan>> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    // Files are compared with their copies, byte for byte.
    let opened = if manifest.copies.is_empty() { None } else { Some(entry.open(&options.identities)?) };
    let contents = opened.as_ref().map_or(Ok(entry.path.as_path()), Entry::contents)?;
    let here = Here::look().map_err(|source| Error::os("read /proc about this process", source))?;
    let rules: Vec<FileRule> = options.files.iter().chain(&manifest.program.file_rules).cloned().collect();
    let now = |path: &Path| {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Now {
            size: Bytes(file.len()),
            identity: procfs::identity(&file),
            modified: file.modified().ok()?,
        })
    };
    let world = World {
        same_machine: manifest.life.machine == here.machine,
        is_over: options.has_ended || here.is_over(&manifest.life),
        dumped: manifest.answered,
        now: &now,
        writer: &procfs::writer_of,
        copies: &manifest.copies,
        likeness: &|copy| copies::likeness(contents, copy),
        newcomers: &copies::newcomers(&manifest.program.copy_files, &manifest.copies),
    };
    Ok(files::plan(&manifest.processes, &rules, &world))
}

/// Whether the newest checkpoint of a target has to be brought back by a restorer that leads a session at a terminal
/// ([`at_a_terminal`]): a shell had started the program, and there is no terminal here, or one of another session.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] where there is no checkpoint.
pub fn needs_a_terminal(store: &Path, target: Option<&Path>) -> Result<bool> {
    let newest = candidates(store, target)?.swap_remove(0);
    let outside = newest.manifest.iter().flat_map(|manifest| &manifest.criu.needs.outside);
    let had_one = outside.into_iter().any(|outside| outside.kind == OutsideKind::ShellsTerminal);
    Ok(had_one && (sys::terminal::ours().is_none() || sys::process::id() == 1))
}

/// Whether a program fits here: with the programs and libraries that it runs, on this processor, in the free memory.
///
/// # Errors
///
/// [`ErrorKind::Unfit`] where it doesn't, with everything that keeps it from that.
pub fn check_fit(entry: &Entry) -> Result<()> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let memory: Bytes = manifest.processes.iter().map(|process| process.memory_bytes).sum();
    let here = fit::Here {
        build_id: &sys::elf::build_id,
        cpu_features: &procfs::cpu_features(),
        memory: procfs::free_memory(),
    };
    fit::check(&manifest.program.mapped, &manifest.program.cpu_features, memory, &here)
}

/// Whether the program of a checkpoint has ended, as far as can be seen from here: its process, not a later life of
/// it.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] where the checkpoint's manifest can't be read.
pub fn has_ended(entry: &Entry) -> Result<bool> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let here = Here::look().map_err(|source| Error::os("read /proc about this process", source))?;
    Ok(here.is_over(&manifest.life))
}

/// Brings a program back as a child of this process. It runs when all of the checkpoint was found to be as it was
/// committed.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] where it isn't, [`ErrorKind::PidTaken`] where one of its process ids stays another's, [`ErrorKind::FileChanged`] and
/// [`ErrorKind::FileGone`] where a file that it had open is not what it has to be, [`ErrorKind::Unfit`] where it doesn't
/// fit here ([`check_fit`]), [`ErrorKind::Encrypted`] where none of the identities opens it, and whatever else CRIU
/// meets. Files are then as they were before.
pub fn restore(entry: &Entry, options: &Options) -> Result<Revived> {
    let verification = Verification::begin(entry)?;
    // What it is opened to goes when CRIU is done with it.
    let entry = &entry.open(&options.identities)?;
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    if !options.trust {
        check_trust(entry)?;
    }
    if !options.force {
        check_fit(entry)?;
    }
    let Program { runtime, .. } = &manifest.program;
    let handover = handover::lay_ready(runtime, manifest.pid(), &manifest.id, &options.settings)?;
    let is_lazy = options.lazy && can_be_lazy(entry, manifest)?;
    let mut revival = Revival { entry, manifest, options, verification, is_lazy };
    let restored = revival.with_another_try();
    if restored.is_err() {
        handover.take_back();
    }
    restored
}

/// CRIU's `lazy-pages` never says of a page that was read from images below others that it is there, so whoever touches it
/// would wait for ever (`read_parent_page` in CRIU's pagemap.c, which knows nothing of `io_complete`).
fn can_be_lazy(entry: &Entry, manifest: &Manifest) -> Result<bool> {
    let is_whole = !image::delta::builds_on_others(&entry.images()?);
    if !is_whole {
        log::warn!(
            "the program is restored at once, since {} builds on the images of earlier checkpoints; SELFDUMP_INCREMENTAL=off has each store all memory",
            manifest.id
        );
    }
    Ok(is_whole)
}

impl Revival<'_> {
    fn with_another_try(&mut self) -> Result<Revived> {
        let mut tries = 0..TRIES;
        loop {
            // Only then is it certain that the program itself doesn't write to its files any more.
            pids::wait_until_free(self.manifest)?;
            let work = WorkFolder::make("restore")?;
            let guard = self.options.guard.as_ref();
            guard.iter().for_each(|guard| guard.watch(self.manifest.pid(), &work.path));
            let restored = self.with_its_files(&work.path);
            guard.iter().for_each(|guard| match &restored {
                Ok(_) => guard.knows(self.manifest.pid(), &work.path),
                Err(_) => guard.forget(),
            });
            let again = restored.as_ref().is_err_and(|error| self.may_do_better(error, &mut tries));
            match restored {
                Ok(mut revived) => {
                    match &mut revived.filling {
                        Some(filling) => filling.keeps(self.entry, work),
                        None => work.remove(),
                    }
                    return Ok(revived);
                }
                Err(_) if again => work.remove(),
                // The log of the last try is what its error points to.
                Err(error) if points_to_a_log(&error) => return Err(error),
                Err(error) => {
                    work.remove();
                    return Err(error);
                }
            }
        }
    }

    /// Whether a restore that has failed is to be tried once more.
    fn may_do_better(&mut self, error: &Error, tries: &mut Range<u32>) -> bool {
        match error.kind() {
            // Taken between our look and CRIU's; the next look says by whom, if it stays so.
            ErrorKind::PidTaken => tries.next().is_some(),
            ErrorKind::Damaged | ErrorKind::FileGone | ErrorKind::FileChanged | ErrorKind::Config => false,
            _ if self.is_lazy => {
                log::warn!("the program is restored at once, since it can't be lazily: {}", error.chain());
                self.is_lazy = false;
                true
            }
            _ => false,
        }
    }

    /// Has the files as they have to be, and back as they were if the program doesn't come.
    fn with_its_files(&mut self, work: &Path) -> Result<Revived> {
        let Revival { entry, manifest, options, .. } = *self;
        let files = plan(entry, options)?;
        files::refused(&files)?;
        let reconnected = reconnect(manifest, options)?;
        let (sizes, images) = (kept(&files), entry.images()?);
        let service = guarded::service(&images, options);
        let images = if service.is_some() { images } else { resized(entry, images, &sizes, work)? };
        let rewound = rewind::rewind(&entry.path, entry.contents()?, &files, &manifest.copies)?;
        let restored = match service {
            Some(service) => self.by_the_service(service, &images, work, &reconnected, &sizes),
            None => self.by_the_first_fit(&images, work, &reconnected),
        };
        match restored {
            Ok(Restored { pid, keeper, filling }) => {
                let (cut, relay) = (rewound.folder, reconnected.relay);
                Ok(Revived { pid, files, cut, relay, keeper, filling })
            }
            Err(error) => {
                rewound.undo();
                // A CRIU that met what is damaged says something else.
                self.verification.result().and(Err(error))
            }
        }
    }
}

/// What CRIU or a service has brought back.
struct Restored {
    pid: i32,
    keeper: Option<Keeper>,
    filling: Option<Filling>,
}

/// What takes the place of what led outside.
fn reconnect(manifest: &Manifest, options: &Options) -> Result<Reconnected> {
    let reconnected = stdio::reconnect(&manifest.processes, &manifest.criu.needs, &options.inherit)?;
    if reconnected.relay.is_some() && options.detached {
        return Err(Error::new(
            ErrorKind::Config,
            "the program had a terminal, and there is none here that it could have",
        )
        .with_hint("restore it without --detach, or name a terminal for it: --inherit 0=/dev/pts/N"));
    }
    Ok(reconnected)
}

/// The sizes of files that are to stay as they are.
fn kept(files: &[FilePlan]) -> BTreeMap<PathBuf, Bytes> {
    files
        .iter()
        .filter_map(|file| match file.action {
            FileAction::Keep { size } => Some((file.path.clone(), size)),
            _ => None,
        })
        .collect()
}

/// The checkpoint's images, or some that expect these sizes.
fn resized(entry: &Entry, images: PathBuf, kept: &BTreeMap<PathBuf, Bytes>, work: &Path) -> Result<PathBuf> {
    if kept.is_empty() {
        return Ok(images);
    }
    let images = images.canonicalize().map_err(|source| Error::io("find", &images, source))?;
    // They are no more to be read by others than those that they were made from.
    let beside = if entry.is_opened_elsewhere() { entry.contents()? } else { work };
    let resized = beside.join("resized");
    image::with_sizes(&images, &resized, kept)?;
    Ok(resized)
}

fn points_to_a_log(error: &Error) -> bool {
    error.criu().is_some_and(|criu| criu.log.is_some())
}

fn open(folder: &Path) -> Result<File> {
    File::open(folder).map_err(|source| Error::io("open", folder, source))
}
