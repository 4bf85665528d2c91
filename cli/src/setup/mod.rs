//! `selfdump setup`: makes sure that a CRIU is there which works on this kernel.
//!
//! - `probe`: whether a CRIU works, and why not
//! - `private`: a copy of a newer one in a folder of its own
//! - `rootless`: a copy with capabilities, for ordinary users
//! - `staging`: a file system in memory, by way of which checkpoints are made
//! - `apt`: where the packages for that come from
//! - `command`: other programs, with a deadline

mod apt;
mod command;
mod private;
mod probe;
mod rootless;
mod staging;

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

pub use apt::{
    download as download_packages, download_alone as download_package_alone, unpack as unpack_package,
};
pub use command::find as find_program;
pub use probe::{Failure, Stage, Version, probe};

/// The Debian release that a private copy is taken from: its CRIU is the one that selfdump is tested with.
const RELEASE: &str = "forky";

/// Make sure that a CRIU is there which works on this kernel
///
/// The one in SELFDUMP_CRIU, on PATH or in the private copy is taken, whichever passes `criu check` and a real dump
/// of a small process first. If none does, a private copy is made of Debian's packages, in a folder of its own:
/// nothing on the machine is installed or changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the private copy goes [default: the user's data folder]
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// The Debian release to take a private copy from [default: forky]
    #[arg(long, value_name = "NAME")]
    release: Option<String>,
    /// Make the private copy even if another CRIU works
    #[arg(long)]
    force: bool,
    /// Make a CRIU with which ordinary users can checkpoint their own programs, without root and without a service: a
    /// copy that nobody else can change gets the capabilities cap_checkpoint_restore and cap_setpcap by its file. As root
    /// (docs/rootless.md)
    #[arg(long)]
    rootless: bool,
    /// The CRIU that gets the capabilities, instead of a copy
    #[arg(long, value_name = "FILE", requires = "rootless", conflicts_with_all = ["prefix", "release", "force"])]
    criu: Option<PathBuf>,
    /// Only this group may run it
    #[arg(long, value_name = "GROUP", requires = "rootless")]
    group: Option<String>,
    /// It gets cap_sys_ptrace as well, which kernels ask for where kernel.yama.ptrace_scope is not 0. Whoever may run such
    /// a CRIU is as good as root, so that a group has to be named
    #[arg(long, requires = "group")]
    ptrace: bool,
    /// Mount a file system in large pages at /run/selfdump-staging, by way of which all users' programs can be checkpointed
    /// with shorter pauses (SELFDUMP_STAGING=auto). As root, until the next boot (docs/staging.md)
    #[arg(long, conflicts_with_all = ["prefix", "release", "force", "rootless"])]
    staging: bool,
    /// Print the result as JSON on standard output, and the steps on standard error
    #[arg(long)]
    json: bool,
}

/// Does what [`Args`] ask for and prints it as steps.
pub fn run(args: Args) -> Result<()> {
    let mut out: Box<dyn Write> = if args.json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    if args.staging {
        let mounted = staging::set_up(&mut *out)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&mounted)?);
        }
        return Ok(());
    }
    let report = if args.rootless {
        rootless::set_up(&args, &mut *out)?
    } else {
        let prefix = args.prefix.clone().map_or_else(default_prefix, Ok)?;
        set_up(&args, &prefix, &mut *out)?
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Makes sure that `prefix` holds a private copy of `release`'s CRIU that works, whatever the system has.
///
/// A copy that is there and works is kept. Returns the binary.
pub fn ensure(prefix: &Path, release: &str, out: &mut dyn Write) -> Result<PathBuf> {
    private::ensure(prefix, release, out)
}

/// Unpacks packages of a Debian release, without what they need, into a folder of their own; one that is there stays.
pub fn unpack(folder: &Path, release: &str, packages: &[&str], out: &mut dyn Write) -> Result<()> {
    private::unpack(folder, release, packages, out)
}

/// Where the private copy goes if the user names no other place: where selfdump looks for it.
fn default_prefix() -> Result<PathBuf> {
    selfdump::criu::private_prefix()
        .context("neither XDG_DATA_HOME nor HOME names a folder for a private CRIU: pass --prefix")
}

fn set_up(args: &Args, prefix: &Path, out: &mut dyn Write) -> Result<Report> {
    let mut failed = Vec::new();
    if !args.force {
        for candidate in candidates(prefix, args.release.as_deref()) {
            writeln!(out, "trying {} ({})", candidate.criu.display(), candidate.from)?;
            match probe::probe(&candidate.criu) {
                Ok(version) => return Ok(Report::new(candidate, version, failed)),
                Err(failure) => {
                    writeln!(out, "  {failure}")?;
                    failed.push(Failed { candidate, reason: failure.to_string() });
                }
            }
        }
    }
    let criu = private::ensure(prefix, args.release.as_deref().unwrap_or(RELEASE), out)?;
    let version = probe::probe(&criu)?;
    // The copy of before, if it failed, is the one that works now.
    failed.retain(|failed| failed.candidate.from != Origin::Private);
    Ok(Report::new(Candidate { criu, from: Origin::Private }, version, failed))
}

/// What there is already, in the order in which selfdump looks for it.
fn candidates(prefix: &Path, release: Option<&str>) -> Vec<Candidate> {
    // A private copy of another release than the one asked for is no candidate.
    let fits = |made: String| release.is_none_or(|asked| asked == made);
    let private = private::release_of(prefix).is_some_and(fits).then(|| private::binary(prefix));
    let variable = env::var_os("SELFDUMP_CRIU").filter(|value| !value.is_empty()).map(PathBuf::from);
    [(Origin::Variable, variable), (Origin::Path, command::find("criu")), (Origin::Private, private)]
        .into_iter()
        .filter_map(|(from, criu)| Some(Candidate { criu: criu?, from }))
        .collect()
}

/// Where a CRIU was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Origin {
    Variable,
    Path,
    Private,
    Shared,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Variable => "from SELFDUMP_CRIU",
            Self::Path => "the system's",
            Self::Private => "the private copy",
            Self::Shared => "for ordinary users",
        })
    }
}

#[derive(Debug, Serialize)]
struct Candidate {
    criu: PathBuf,
    from: Origin,
}

#[derive(Debug, Serialize)]
struct Failed {
    #[serde(flatten)]
    candidate: Candidate,
    reason: String,
}

/// What a setup found or made.
#[derive(Debug, Serialize)]
struct Report {
    format_version: u32,
    #[serde(flatten)]
    candidate: Candidate,
    version: String,
    /// Those that come before it and don't work.
    failed: Vec<Failed>,
}

impl Report {
    fn new(candidate: Candidate, version: Version, failed: Vec<Failed>) -> Self {
        Self { format_version: 1, candidate, version: version.to_string(), failed }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { criu, from } = &self.candidate;
        writeln!(f, "CRIU {} will be used: {} ({from})", self.version, criu.display())?;
        let is_found = match from {
            Origin::Private => {
                default_prefix().is_ok_and(|prefix| private::binary(&prefix) == *criu)
                    && self.failed.is_empty()
            }
            Origin::Shared => *criu == private::binary(Path::new(selfdump::criu::SHARED_PREFIX)),
            Origin::Variable | Origin::Path => true,
        };
        if !is_found {
            // Elsewhere it isn't looked for, and one that fails would be found before it.
            writeln!(f, "so that it's the one that is found: export SELFDUMP_CRIU='{}'", criu.display())?;
        }
        Ok(())
    }
}
