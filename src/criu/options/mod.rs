//! What CRIU can be told about a dump or a restore of a program by itself.
//!
//! Each field is one of CRIU's options (criu(8), `rpc.proto`), by its field's name where there is no
//! plainer one. What CRIU offers beyond these is for others than the program itself: another process's
//! pid, notifications and commands to run, obsolete forms, the page server and its TLS. Scripts to run at its stages
//! can only be told by a file of settings ([`DumpOptions::config_file`]).

mod dump;
mod restore;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use dump::DumpOptions;
pub use restore::RestoreOptions;

use super::rpc;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Needs, NetworkLock};

/// The bits of `cpu_cap` for the instructions that the processor has and for the size of its floating-point state: a
/// restore takes any processor that has at least those.
pub const CPU_INSTRUCTIONS: u32 = 0b101;

/// How much CRIU writes into its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors (1).
    Error,
    /// Errors and warnings (2), CRIU's own default.
    #[default]
    Warn,
    /// What it does, step by step (3).
    Info,
    /// Everything (4). Costs time where there are many mappings.
    Debug,
}

/// What becomes of the control groups that the program is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// They are neither dumped nor restored: the program comes back in the groups of its restorer, as a
    /// batch system or a supervisor wants it. selfdump's default.
    #[default]
    Ignore,
    /// They have to be there at the restore.
    None,
    /// Their properties are restored where they are there.
    Properties,
    /// They are made where they are missing.
    Soft,
    /// They are made, and their properties always restored.
    Full,
    /// They must not be there, and are made.
    Strict,
}

/// How a pre-dump reads the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreDumpMode {
    /// Through pipes spliced while the program is frozen.
    #[default]
    Splice,
    /// With `process_vm_readv`, while the program runs.
    VmRead,
}

/// The mounts of a program in a mount namespace of its own.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Mounts {
    /// Mounts from outside are found out by CRIU itself (`auto_ext_mnt`).
    pub detect_external: bool,
    /// External mounts may be shared with the outside (`ext_sharing`).
    pub external_sharing: bool,
    /// External mounts may be slaves of the outside (`ext_masters`).
    pub external_masters: bool,
    /// Mount points to leave out (`skip_mnt`).
    pub skip: Vec<PathBuf>,
    /// File systems that CRIU doesn't know and shall treat as ordinary ones (`enable_fs`).
    pub enable_fs: Vec<String>,
}

/// The control groups of a program.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Cgroups {
    /// What becomes of them (`manage_cgroups_mode`).
    pub mode: CgroupMode,
    /// Another root to restore them under: controller (none for all) and path (`cg_root`).
    pub roots: Vec<(Option<String>, String)>,
    /// Which properties of which controllers there are, in CRIU's YAML (`cgroup_props`).
    pub properties: Option<String>,
    /// The same from a file (`cgroup_props_file`).
    pub properties_file: Option<PathBuf>,
    /// Controllers to dump the properties of; all where it is empty (`cgroup_dump_controller`).
    pub dump_controllers: Vec<String>,
    /// Where the controllers are mounted already (`cgroup_yard`).
    pub yard: Option<PathBuf>,
}

fn encode_log(options: &mut rpc::Options, level: LogLevel, file: &str) -> Result<()> {
    if file.is_empty() || file.contains('/') {
        return Err(Error::new(ErrorKind::Config, format!("{file:?} can't be the name of CRIU's log"))
            .with_hint("give a file's name without a slash; it is written into the folder of the images"));
    }
    options.log_file = Some(file.as_bytes().to_vec());
    options.log_level = Some(match level {
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
    });
    Ok(())
}

/// What a restore is told again as at the dump.
fn encode_surroundings(options: &mut rpc::Options, needs: &Needs, mounts: &Mounts, cgroups: &Cgroups) {
    encode_needs(options, needs);
    encode_mounts(options, mounts);
    encode_cgroups(options, cgroups);
}

fn encode_needs(options: &mut rpc::Options, needs: &Needs) {
    options.shell_job = Some(needs.shell_job);
    options.file_locks = Some(needs.file_locks);
    options.ext_unix_sk = Some(needs.ext_unix_sk);
    options.unprivileged = needs.unprivileged.then_some(true);
    options.network_lock = match needs.network_lock {
        NetworkLock::Default => None,
        NetworkLock::Nftables => Some(rpc::NetworkLock::Nftables as i32),
        NetworkLock::Skip => Some(rpc::NetworkLock::Skip as i32),
    };
}

fn encode_mounts(options: &mut rpc::Options, mounts: &Mounts) {
    options.auto_ext_mnt = Some(mounts.detect_external);
    options.ext_sharing = Some(mounts.external_sharing);
    options.ext_masters = Some(mounts.external_masters);
    options.skip_mnt = mounts.skip.iter().map(|path| bytes(path)).collect();
    options.enable_fs = strings(&mounts.enable_fs);
}

fn encode_cgroups(options: &mut rpc::Options, cgroups: &Cgroups) {
    options.manage_cgroups_mode = Some(match cgroups.mode {
        CgroupMode::Ignore => rpc::CgroupMode::Ignore as i32,
        CgroupMode::None => rpc::CgroupMode::None as i32,
        CgroupMode::Properties => rpc::CgroupMode::Props as i32,
        CgroupMode::Soft => rpc::CgroupMode::Soft as i32,
        CgroupMode::Full => rpc::CgroupMode::Full as i32,
        CgroupMode::Strict => rpc::CgroupMode::Strict as i32,
    });
    options.cg_root = cgroups
        .roots
        .iter()
        .map(|(controller, path)| rpc::CgroupRoot {
            ctrl: controller.clone().map(String::into_bytes),
            path: path.clone().into_bytes(),
        })
        .collect();
    options.cgroup_props = cgroups.properties.clone().map(String::into_bytes);
    options.cgroup_props_file = cgroups.properties_file.as_deref().map(bytes);
    options.cgroup_dump_controller = strings(&cgroups.dump_controllers);
    options.cgroup_yard = cgroups.yard.as_deref().map(bytes);
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn strings(list: &[String]) -> Vec<Vec<u8>> {
    list.iter().map(|string| string.clone().into_bytes()).collect()
}
