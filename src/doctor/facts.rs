//! What is so on this machine, as plain data.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{PATIENCE, Setup};
use crate::criu::{Connection, STANDARD_SERVICE, on_path, programs};
use crate::error::Error;
use crate::frozen::Bytes;
use crate::store::staging::{self, Possible};
use crate::store::{entrance, runtime};
use crate::sys::{self, disk, machine, procfs, task, xattr};

/// Everything that is judged of a machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) kernel: String,
    /// Our effective user id.
    pub(super) user: u32,
    /// Our effective capabilities, a bit for each.
    pub(super) capabilities: u64,
    /// Those that the first CRIU program has by its file; none where it has none.
    pub(super) program_capabilities: Option<(PathBuf, Option<u64>)>,
    pub(super) no_new_privileges: bool,
    /// A seccomp filter judges our system calls.
    pub(super) is_filtered: bool,
    pub(super) ptrace_scope: Option<u32>,
    pub(super) confinement: Option<String>,
    pub(super) container: Option<String>,
    /// The leader of our session is outside of our pid namespace.
    pub(super) is_led_from_outside: bool,
    /// Programs of the system's that are needed, and whether they are there.
    pub(super) has_iptables: bool,
    pub(super) has_nft: bool,
    pub(super) missing_tools: Vec<&'static str>,
    /// CRIU can keep there what it has found out about the kernel.
    pub(super) run_is_in_memory: bool,
    pub(super) runtime: Folder,
    pub(super) staging: Option<Possible>,
    pub(super) store: Store,
    pub(super) service: Option<Service>,
}

/// A folder that is ours to write to.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// It is there, and whose it is and what may be done with it.
    pub(super) found: Option<(u32, u32)>,
    /// The nearest that is there at or above it.
    pub(super) nearest: PathBuf,
    /// Why nothing can be written there.
    pub(super) unwritable: Option<String>,
    /// Who else can write there, or put another folder in its place.
    pub(super) distrusted: Option<Error>,
}

/// The store, and what holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) folder: Folder,
    pub(super) free: Option<Bytes>,
    pub(super) file_system: Option<String>,
    pub(super) is_in_memory: bool,
    pub(super) is_an_overlay: bool,
    /// Programs can be run from there.
    pub(super) runs_programs: bool,
    pub(super) shares_blocks: bool,
}

/// A socket at which a CRIU service is, or should be.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) socket: PathBuf,
    pub(super) is_socket: bool,
    pub(super) owner: u32,
    pub(super) mode: u32,
    /// Every folder above it can be passed by everybody.
    pub(super) is_reachable: bool,
    /// It is `selfdump service`, which is for everybody.
    pub(super) is_guarded: bool,
}

pub(super) fn look(setup: &Setup) -> Machine {
    let ours = task::look(sys::process::id()).unwrap_or_default();
    let program = programs(setup.criu.as_deref()).ok().and_then(|found| found.into_iter().next());
    Machine {
        kernel: machine::kernel(),
        user: sys::process::user().1,
        capabilities: ours.capabilities,
        program_capabilities: program.map(|program| {
            let capabilities = xattr::file_capabilities(&program);
            (program, capabilities)
        }),
        no_new_privileges: ours.no_new_privileges,
        is_filtered: ours.is_filtered,
        ptrace_scope: machine::ptrace_scope(),
        confinement: machine::confinement(),
        container: machine::container(),
        is_led_from_outside: procfs::stat(sys::process::id()).is_ok_and(|stat| stat.session == 0),
        has_iptables: on_path("iptables").is_some(),
        has_nft: on_path("nft").is_some(),
        missing_tools: ["sh", "cp"].into_iter().filter(|tool| on_path(tool).is_none()).collect(),
        run_is_in_memory: machine::is_in_memory(Path::new("/run")).unwrap_or(false),
        runtime: folder(&runtime::folder()),
        staging: Some(staging::possible()),
        store: store(&setup.store),
        service: service(setup.service.as_deref()),
    }
}

fn folder(path: &Path) -> Folder {
    let found = fs::metadata(path).ok().map(|found| (found.uid(), found.mode() & 0o7777));
    let nearest = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let unwritable = make_a_folder(nearest).err().map(|error| error.to_string());
    let distrusted = entrance::look(nearest, 0).err();
    Folder { path: path.to_owned(), found, nearest: nearest.to_owned(), unwritable, distrusted }
}

/// Whether something can be made there is asked by doing it: for root, modes tell nothing. It is gone at once.
fn make_a_folder(above: &Path) -> std::io::Result<()> {
    let trial = above.join(format!(".selfdump-doctor-{}", procfs::fresh_id()?));
    disk::make_private(&trial)?;
    fs::remove_dir(&trial)
}

fn store(path: &Path) -> Store {
    let folder = folder(path);
    let at = folder.nearest.clone();
    Store {
        free: disk::free_space(&at).ok(),
        file_system: machine::file_system(&at),
        is_in_memory: machine::is_in_memory(&at).unwrap_or(false),
        is_an_overlay: machine::is_an_overlay(&at).unwrap_or(false),
        runs_programs: disk::allows_programs(&at).unwrap_or(true),
        shares_blocks: machine::shares_blocks(&at).unwrap_or(false),
        folder,
    }
}

/// The one that is named, or else the standard one if it is there.
fn service(named: Option<&Path>) -> Option<Service> {
    let standard = Path::new(STANDARD_SERVICE);
    let socket = named.or_else(|| standard.exists().then_some(standard))?;
    let found = fs::metadata(socket).ok();
    let can_be_passed = |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0);
    Some(Service {
        socket: socket.to_owned(),
        is_socket: found.as_ref().is_some_and(|found| found.file_type().is_socket()),
        owner: found.as_ref().map_or(0, MetadataExt::uid),
        mode: found.as_ref().map_or(0, |found| found.mode() & 0o777),
        is_reachable: socket.ancestors().skip(1).all(can_be_passed),
        is_guarded: Connection::service(socket, PATIENCE)
            .is_ok_and(|service| service.version().is_ok() && service.is_guarded()),
    })
}
