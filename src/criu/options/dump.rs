//! The options of a dump.

use std::path::PathBuf;
use std::time::Duration;

use super::{CPU_INSTRUCTIONS, Cgroups, LogLevel, Mounts, PreDumpMode};
use super::{bytes, encode_log, encode_surroundings};
use crate::criu::rpc;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Needs, Outside, OutsideKind};

/// How a program has itself dumped.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpOptions {
    /// The folder that the images go to, through a symbolic link: CRIU up to 4.1.1 takes no other path.
    pub images: PathBuf,
    /// What the state of the program itself asks for.
    pub needs: Needs,
    /// A process to be dumped in the place of the one that asks, and to be ended then (`pid`, `leave_running`).
    pub instead: Option<i32>,
    /// A file with more settings, in the form of criu(8), which come before these. CRIU passes over a file that it
    /// can't read (`config_file`).
    pub config_file: Option<PathBuf>,
    /// How much goes into the log.
    pub log_level: LogLevel,
    /// The log's name in the images folder; it may not have a slash.
    pub log_file: String,
    /// How long CRIU may take to stop the tree; CRIU's own default is 10 s (`timeout`, whole seconds).
    pub freeze_timeout: Option<Duration>,
    /// A freezer control group to stop the tree with (`freeze_cgroup`).
    pub freeze_cgroup: Option<PathBuf>,
    /// Descriptors, mounts and namespaces that are left to the restorer, by CRIU's keys (`external`).
    pub external: Vec<String>,
    /// Names are made for open files that have lost theirs. With a program that goes on they are gone
    /// when the dump ends, and such a checkpoint can't be restored (`link_remap`).
    pub link_remap: bool,
    /// Paths of watched files are searched in the whole file system (`force_irmap`).
    pub force_irmap: bool,
    /// Where they are searched first (`irmap_scan_paths`).
    pub irmap_scan_paths: Vec<PathBuf>,
    /// A character device may be found under another path than it was opened by (`evasive_devices`).
    pub evasive_devices: bool,
    /// TCP connections that are just being made are left out (`tcp_skip_in_flight`).
    pub tcp_skip_in_flight: bool,
    /// TCP connections are dumped as closed ones (`tcp_close`): nothing is done to them meanwhile. To dump one that can
    /// be restored CRIU has it in a state of its own for that long, and its packets dropped by the firewall; a CRIU that
    /// is killed then leaves both behind, and the program's connection is silent for ever.
    pub tcp_close: bool,
    /// The images that this dump builds on, relative to its own folder (`parent_img`).
    pub parent: Option<PathBuf>,
    /// Tracks changed pages, for a next dump that builds on this one. Needs soft-dirty (`track_mem`).
    pub track_memory: bool,
    /// Pages that are written again are taken out of the parent's images (`auto_dedup`).
    pub auto_dedup: bool,
    /// How a pre-dump reads the memory (`pre_dump_mode`).
    pub pre_dump_mode: PreDumpMode,
    /// Mounts.
    pub mounts: Mounts,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Which features of the CPU are recorded, in `cpuinfo.img` (`cpu_cap`, CRIU's bits).
    pub cpu_features: Option<u32>,
}

impl DumpOptions {
    /// A dump into the folder behind the link `images`, of a program with these needs.
    pub fn new(images: impl Into<PathBuf>, needs: Needs) -> DumpOptions {
        let tcp_close = needs.tcp_established;
        DumpOptions {
            images: images.into(),
            needs,
            instead: None,
            config_file: None,
            log_level: LogLevel::default(),
            log_file: "dump.log".to_owned(),
            freeze_timeout: None,
            freeze_cgroup: None,
            external: Vec::new(),
            link_remap: false,
            force_irmap: false,
            irmap_scan_paths: Vec::new(),
            evasive_devices: false,
            tcp_skip_in_flight: false,
            tcp_close,
            parent: None,
            track_memory: false,
            auto_dedup: false,
            pre_dump_mode: PreDumpMode::default(),
            mounts: Mounts::default(),
            cgroups: Cgroups::default(),
            cpu_features: Some(CPU_INSTRUCTIONS),
        }
    }

    pub(in crate::criu) fn encode(&self) -> Result<rpc::Options> {
        let mut options = rpc::Options {
            // The folder goes by its path: a descriptor of it would be in the image, and the restore
            // would fail as soon as the folder is renamed.
            images_dir_fd: -1,
            images_dir: Some(bytes(&self.images)),
            config_file: self.config_file.as_deref().map(bytes),
            pid: self.instead,
            leave_running: Some(self.instead.is_none()),
            timeout: self.freeze_timeout.map(whole_seconds),
            freeze_cgroup: self.freeze_cgroup.as_deref().map(bytes),
            link_remap: Some(self.link_remap),
            ghost_limit: self.needs.ghost_limit.map(|limit| encode_ghost_limit(limit.0)).transpose()?,
            force_irmap: Some(self.force_irmap),
            irmap_scan_paths: self.irmap_scan_paths.iter().map(|path| bytes(path)).collect(),
            evasive_devices: Some(self.evasive_devices),
            tcp_established: Some(self.needs.tcp_established && !self.tcp_close),
            tcp_skip_in_flight: Some(self.tcp_skip_in_flight),
            tcp_close: Some(self.tcp_close),
            parent_img: self.parent.as_deref().map(bytes),
            track_mem: Some(self.track_memory),
            auto_dedup: Some(self.auto_dedup),
            pre_dump_mode: Some(match self.pre_dump_mode {
                PreDumpMode::Splice => rpc::PreDumpMode::Splice as i32,
                PreDumpMode::VmRead => rpc::PreDumpMode::VmRead as i32,
            }),
            cpu_cap: self.cpu_features,
            external: keys(&self.needs.outside)
                .chain(self.external.iter().cloned())
                .map(String::into_bytes)
                .collect(),
            ..rpc::Options::default()
        };
        encode_log(&mut options, self.log_level, &self.log_file)?;
        encode_surroundings(&mut options, &self.needs, &self.mounts, &self.cgroups);
        Ok(options)
    }
}

/// The keys of what is left to the restorer.
fn keys(outside: &[Outside]) -> impl Iterator<Item = String> {
    let told = outside.iter().filter(|outside| outside.kind != OutsideKind::ShellsTerminal);
    told.map(|outside| outside.key.clone())
}

/// CRIU's limit is a 32-bit number of bytes.
fn encode_ghost_limit(bytes: u64) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| {
        Error::new(
            ErrorKind::Descriptor,
            format!("an open file without a name has {bytes} bytes; CRIU carries at most 4 GiB of one"),
        )
        .with_hint("keep the file's name until the program is done with it")
    })
}

/// Rounded up: a timeout of less than a second is not none.
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::{Bytes, NetworkLock};

    #[test]
    fn a_dump_names_its_folder_by_path_and_leaves_the_program_running() {
        let options = DumpOptions::new("/store/link", Needs::default()).encode().unwrap();
        assert_eq!((options.images_dir_fd, options.images_dir), (-1, Some(b"/store/link".to_vec())));
        assert_eq!((options.leave_running, options.pid), (Some(true), None));
        assert_eq!(options.manage_cgroups_mode, Some(rpc::CgroupMode::Ignore as i32));
    }

    #[test]
    fn needs_become_options() {
        let needs = Needs {
            shell_job: true,
            ghost_limit: Some(Bytes(5 << 20)),
            network_lock: NetworkLock::Skip,
            ..Needs::default()
        };
        let options = DumpOptions::new("/link", needs).encode().unwrap();
        assert_eq!((options.shell_job, options.file_locks), (Some(true), Some(false)));
        assert_eq!((options.ghost_limit, options.network_lock), (Some(5 << 20), Some(3)));
    }

    #[test]
    fn connections_are_dumped_as_closed_ones_unless_they_are_to_be_kept() {
        let none = DumpOptions::new("/link", Needs::default());
        let closed = DumpOptions::new("/link", Needs { tcp_established: true, ..Needs::default() });
        let kept = DumpOptions { tcp_close: false, ..closed.clone() };
        for (options, told) in [(none, (false, false)), (closed, (false, true)), (kept, (true, false))] {
            let encoded = options.encode().unwrap();
            assert_eq!((encoded.tcp_established, encoded.tcp_close), (Some(told.0), Some(told.1)));
        }
    }

    #[test]
    fn what_crius_fields_cannot_hold_is_refused_before_it_is_asked() {
        let needs = Needs { ghost_limit: Some(Bytes(5 << 30)), ..Needs::default() };
        assert_eq!(DumpOptions::new("/link", needs).encode().unwrap_err().kind(), ErrorKind::Descriptor);
        let mut options = DumpOptions::new("/link", Needs::default());
        options.log_file = "logs/dump.log".to_owned();
        assert_eq!(options.encode().unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn a_part_of_a_second_is_a_second() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
    }
}
