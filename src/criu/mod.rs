//! Speaks to CRIU, and knows nothing of a store.
//!
//! - [`Connection`] asks: version, check, features, pre-dump, dump, restore. It is the same over a running
//!   service and over a worker of our own.
//! - [`DumpOptions`] and [`RestoreOptions`] are CRIU's options as types; [`needs()`] works out those that
//!   follow from the program's own state.
//! - [`explain()`] tells what a log of CRIU's means, by the [`DICTIONARY`].
//! - [`ways`] are the CRIUs that can be had here, in the order in which they are tried.
//!
//! Most programs need none of this: [`install`](crate::install()) does it for them.
//!
//! Sources: criu(8), CRIU's `images/rpc.proto` (field numbers), `criu/cr-service.c`, <https://criu.org/RPC>.

mod connection;
mod diagnosis;
mod dictionary;
mod explain;
mod guarded;
mod lazy_pages;
mod locate;

mod needs;
mod obstacles;
mod options;
#[cfg(feature = "service")]
pub(crate) mod request;
mod revival;
mod rpc;
mod version;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use connection::{Connection, Dumped, Features};
pub use diagnosis::{Explanation, Line, explain};
pub use dictionary::{Chapter, DICTIONARY, Rule};
pub(crate) use lazy_pages::LazyPages;
pub(crate) use locate::on_path;
pub use locate::{GUARDED_SERVICE, SHARED_PREFIX, STANDARD_SERVICE, check_trust, private_prefix, programs};
pub use needs::needs;
pub(crate) use needs::obstacles_of;
pub(crate) use obstacles::Obstacle;
pub use options::{
    CPU_INSTRUCTIONS, CgroupMode, Cgroups, DumpOptions, LogLevel, Mounts, PreDumpMode, RestoreOptions,
};
pub(crate) use revival::Kept;
#[cfg(feature = "service")]
pub(crate) use revival::served as restoring;
pub use version::Version;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::process;

/// The oldest CRIU that is spoken to.
pub const OLDEST: Version = Version { major: 4, minor: 1, patch: 1 };

/// How long the standard socket may take to answer before it counts as nobody's.
const PROBE: Duration = Duration::from_secs(2);

/// A way to reach a CRIU for a dump of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A running service's socket.
    Service(PathBuf),
    /// A program, to be started as a detached worker.
    Worker(PathBuf),
}

/// The ways to CRIU, best first: the service that is named; else, for an ordinary user, `selfdump service`; else the
/// standard socket, each if something answers there; else a worker of each program that [`programs`] finds.
pub fn ways(service: Option<&Path>, program: Option<&Path>) -> Result<Vec<Way>> {
    if let Some(socket) = service {
        return Ok(vec![Way::Service(socket.to_owned())]);
    }
    let guarded = locate::guarded_service();
    let standard = Some(Path::new(STANDARD_SERVICE)).filter(|standard| standard.exists());
    for socket in guarded.into_iter().chain(standard) {
        match Connection::service(socket, PROBE).and_then(|service| service.version()) {
            Ok(_) => return Ok(vec![Way::Service(socket.to_owned())]),
            Err(error) => log::debug!("no service at {}: {}", socket.display(), error.chain()),
        }
    }
    Ok(programs(program)?.into_iter().map(Way::Worker).collect())
}

/// A connection to the `selfdump service` that checkpoints of ordinary users are restored by, if it answers: the one that
/// is named, or that of this machine.
pub(crate) fn guard(named: Option<&Path>, timeout: Duration) -> Option<Connection> {
    let socket = named.filter(|_| !process::is_root()).or_else(|| locate::guarded_service())?;
    let asked = Connection::service(socket, timeout).and_then(|service| service.version().map(|_| service));
    let service =
        asked.inspect_err(|error| log::debug!("no service at {}: {}", socket.display(), error.chain()));
    service.ok().filter(Connection::is_guarded)
}

impl Way {
    /// Goes this way, and makes sure that a CRIU is there which is new enough. What a worker says before
    /// it has a log of its own goes to `output`.
    pub fn connect(&self, output: &Path, timeout: Duration) -> Result<(Connection, Version)> {
        match self {
            Way::Service(socket) => {
                let service = Connection::service(socket, timeout)?;
                let version = new_enough(&service, service.version()?)?;
                Ok((service, version))
            }
            Way::Worker(program) => {
                let worker = Connection::worker(program, output, timeout)?;
                let version = supported_version(&worker, program, Some(output))?;
                Ok((worker, version))
            }
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Service(socket) => write!(f, "the service at {}", socket.display()),
            Way::Worker(program) => write!(f, "{}", program.display()),
        }
    }
}

/// The version of a program's CRIU, if it runs at all and is new enough to be worked with. Its last words
/// are in `output`.
pub(crate) fn supported_version(
    connection: &Connection,
    program: &Path,
    output: Option<&Path>,
) -> Result<Version> {
    let version = connection.version().map_err(|error| match error.kind() {
        ErrorKind::ServiceDied => explain::unusable(program, output),
        _ => error,
    })?;
    new_enough(connection, version)
}

fn new_enough(connection: &Connection, version: Version) -> Result<Version> {
    if version >= OLDEST {
        return Ok(version);
    }
    Err(Error::new(
        ErrorKind::CriuTooOld,
        format!(
            "CRIU ({}) is version {version}; {OLDEST} is the oldest that selfdump works with",
            connection.peer()
        ),
    )
    .with_hint("run `selfdump setup`, or install criu 4.2 or later and name it with SELFDUMP_CRIU"))
}
