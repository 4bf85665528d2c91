//! The daemon that makes the checkpoints of ordinary users' programs.
//!
//! CRIU needs rights that an ordinary user hasn't got, and whoever has CRIU's own service at hand can have any process
//! dumped. This one listens for everybody, and has each program dumped for itself alone:
//!
//! - who asks is what the kernel says of the connection (`sys::peer`);
//! - what is asked is looked at before CRIU reads it, in the very message that it reads (`talk`, `criu::request`);
//! - CRIU runs as the user who asks, with the few capabilities that it takes, so that it opens no file that this user may not open;
//! - the folder of the images is the service's as long as CRIU writes into it (`lock`), and what is in it then is looked
//!   through and sealed (`seal`) before the user gets it: images that bear the seal are CRIU's and nobody else's.
//!
//! What can end in the middle ends with the folder given back and empty: by the conversation itself, and where the
//! service was killed, by the next one (`journal`).

mod audit;
mod dump;
mod journal;
mod limits;
mod lock;
mod revive;
mod seal;
mod talk;

use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

pub use limits::Limits;

use crate::criu::{self, Connection, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::credentials::{self, Capability};
use crate::sys::listener::{Listener, first_ready};
use crate::sys::{disk, machine, message, process, signal};
use journal::Journal;
use limits::Ledger;
use seal::Key;

/// The group that may write into a folder while it is locked. No user is in it: it is above all ranges that users, dynamic
/// users and containers get their numbers from, which end below two to the power of 31.
pub const LOCK_GROUP: u32 = 4_294_900_000;

/// Where the service keeps its key and its journal.
pub const STATE: &str = "/var/lib/selfdump/service";

/// What the service itself needs: to act as others and give them what CRIU needs (`crius`), to take their folders and
/// give them back, to look into those, and to end a CRIU that runs as somebody else.
const OWN: [Capability; 9] = [
    Capability::Chown,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::SysPtrace,
    Capability::CheckpointRestore,
];

/// What a CRIU that isn't root's needs. Whoever came by these could trace nobody but those that its user may trace anyway.
const CRIUS: [Capability; 2] = [Capability::CheckpointRestore, Capability::Setpcap];

/// The same where the kernel lets only ancestors trace (Yama): CRIU isn't the parent of what it dumps, nor of what it
/// restores as the service's child.
const CRIUS_UNDER_YAMA: [Capability; 3] = [CRIUS[0], CRIUS[1], Capability::SysPtrace];

fn crius() -> &'static [Capability] {
    match machine::ptrace_scope() {
        None | Some(0) => &CRIUS,
        Some(_) => &CRIUS_UNDER_YAMA,
    }
}

/// How long CRIU may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the service is run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where it listens, unless systemd hands it a socket.
    pub socket: PathBuf,
    /// The CRIU to use; else the first that is found.
    pub criu: Option<PathBuf>,
    /// Where its key and its journal are.
    pub state: PathBuf,
    /// The group of locked folders, which no user may be in.
    pub group: u32,
    /// How much is done for whom.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            socket: PathBuf::from(criu::GUARDED_SERVICE),
            criu: None,
            state: PathBuf::from(STATE),
            group: LOCK_GROUP,
            limits: Limits::default(),
        }
    }
}

/// What all conversations share.
struct Service {
    criu: PathBuf,
    version: Version,
    group: u32,
    key: Key,
    journal: Journal,
    /// The folder of the copies that are restored from.
    copies: PathBuf,
    limits: Limits,
    ledger: Ledger,
    /// Held while a folder is being locked.
    taking: Mutex<()>,
    /// Hung up when the service is to end.
    stop: OwnedFd,
}

/// Serves until it is told to end by a signal; dumps that run then are finished, or ended where they take long.
///
/// # Errors
///
/// Where it can't begin: it isn't root, another one listens there, no CRIU works.
pub fn serve(options: &Options) -> Result<()> {
    if !process::is_root() {
        return Err(Error::new(
            ErrorKind::Permission,
            "the service has to act as other users, and isn't root",
        )
        .with_hint("run it as root; it keeps what it needs and gives up the rest"));
    }
    // Before anything is opened, which could get its number.
    let handed_over = Listener::handed_over()
        .map_err(|source| Error::os("use the socket that was handed over (LISTEN_FDS)", source))?;
    // Before there are threads, so that they have these held back as well.
    signal::hold_back(&signal::TO_END).map_err(|source| Error::os("hold signals back", source))?;
    let (criu, version) = working_criu(options.criu.as_deref())?;
    let journal = Journal::open(&options.state)?;
    let key = Key::of(&options.state)?;
    let copies = revive::folder(&options.state)?;
    let listener = handed_over.map_or_else(|| listen(&options.socket), Ok)?;
    credentials::keep_only(&OWN).map_err(|source| Error::os("give up what isn't needed", source))?;
    journal.mend();
    let (stop, running) = message::pair().map_err(|source| Error::os("make a socket pair", source))?;
    audit::began(&listener_name(options), &criu, &version);
    let service = Service {
        criu,
        version,
        group: options.group,
        key,
        journal,
        copies,
        limits: options.limits.clone(),
        ledger: Ledger::new(options.limits.clone()),
        taking: Mutex::new(()),
        stop,
    };
    thread::scope(|scope| {
        scope.spawn(|| accept(&service, &listener));
        let told = signalled();
        // Everybody who waits sees this.
        drop(running);
        told
    })
    .map_err(|source| Error::os("wait for signals", source))
}

fn listener_name(options: &Options) -> String {
    options.socket.display().to_string()
}

/// Waits for a signal to end.
fn signalled() -> std::io::Result<()> {
    const A_WHILE: Duration = Duration::from_secs(3600);
    while signal::take(&signal::TO_END, A_WHILE)?.is_none() {}
    Ok(())
}

/// Takes connections, each into a thread of its own, and waits for all of them at the end.
fn accept(service: &Service, listener: &Listener) {
    use std::os::fd::AsFd;
    thread::scope(|scope| {
        // The end comes first, however many want to be served.
        while let Ok(Some(1)) = first_ready(&[service.stop.as_fd(), listener.as_fd()], None) {
            match listener.accept() {
                Ok(Some(socket)) => {
                    let Some(client) = talk::admit(service, socket) else { continue };
                    let started =
                        thread::Builder::new().spawn_scoped(scope, move || client.converse(service));
                    if let Err(error) = started {
                        audit::trouble(&format!("can't start a thread: {error}"));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    // Out of descriptors, say: those who are served give theirs back.
                    audit::trouble(&format!("can't take a connection: {error}"));
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    });
}

/// A CRIU that answers, and that nobody but root can have changed: it gets rights that its user hasn't got.
fn working_criu(named: Option<&Path>) -> Result<(PathBuf, Version)> {
    let mut failed = None;
    for program in criu::programs(named)? {
        let tried = roots_own(&program).and_then(|program| {
            let connection = Connection::child(&program, &[], None, PATIENCE)?;
            let version = criu::supported_version(&connection, &program, None);
            connection.end();
            version.map(|version| (program, version))
        });
        match tried {
            Ok(found) => return Ok(found),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(ErrorKind::NoCriu, "no criu was found")))
}

/// Where a program really is, by which it is started from then on: no link and no PATH is asked once more. Who can change
/// it can have what they like run with its rights, and who can't get there can't start it.
fn roots_own(program: &Path) -> Result<PathBuf> {
    criu::check_trust(program)?;
    let program = program.canonicalize().map_err(|source| Error::io("find", program, source))?;
    for path in program.ancestors() {
        let about = path.metadata().map_err(|source| Error::io("look at", path, source))?;
        if about.mode() & 0o001 == 0 {
            return Err(Error::new(
                ErrorKind::Permission,
                format!("ordinary users can't start {}: {} is closed to them", program.display(), path.display()),
            )
            .with_hint("CRIU acts as the user whose program it dumps: have it where all users get to, or name another one with --criu"));
        }
    }
    Ok(program)
}

fn listen(socket: &Path) -> Result<Listener> {
    let folder = socket.parent().unwrap_or(Path::new("/"));
    open_folder(folder)?;
    Listener::at(socket).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            Error::new(ErrorKind::Io, format!("somebody listens at {} already", socket.display()))
                .with_hint("stop that service first, or name another socket with --socket")
        }
        _ => Error::io("listen at", socket, source),
    })
}

/// Makes the socket's folder, or opens it to those who are to connect; nobody else may put anything into it.
fn open_folder(folder: &Path) -> Result<()> {
    let failed = |source| Error::io("make", folder, source);
    match std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder) {
        Ok(()) => {}
        Err(source) => return Err(failed(source)),
    }
    let about = folder.symlink_metadata().map_err(failed)?;
    if about.uid() != 0 || !about.is_dir() {
        return Err(Error::new(
            ErrorKind::Permission,
            format!("{} isn't a folder of root's, so that others could put a socket there", folder.display()),
        )
        .with_hint("name a socket in a folder of root's with --socket"));
    }
    if about.mode() & 0o777 != 0o755 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    Ok(())
}

/// Makes a folder of the service's own, or sees that it is nobody else's.
fn own_folder(folder: &Path) -> Result<()> {
    let failed = |source| Error::io("make", folder, source);
    disk::make_all_private(folder).map_err(failed)?;
    let about = folder.symlink_metadata().map_err(failed)?;
    match about.is_dir() && about.uid() == 0 && about.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Permission,
            format!("{} is open to others than root", folder.display()),
        )
        .with_hint("`chown root` and `chmod 700` it, or name another one with --state")),
    }
}
