//! The options of a restore.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use super::{Cgroups, LogLevel, Mounts};
use super::{bytes, encode_log, encode_surroundings, strings};
use crate::criu::rpc;
use crate::error::Result;
use crate::frozen::Needs;

/// How a checkpoint is brought back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreOptions<'fd> {
    /// The folder of the images.
    pub images: BorrowedFd<'fd>,
    /// The folder that the log and CRIU's own statistics go to.
    pub work_dir: BorrowedFd<'fd>,
    /// What the state of the program asks for, as at its dump.
    pub needs: Needs,
    /// How much goes into the log.
    pub log_level: LogLevel,
    /// The log's name in the work folder; it may not have a slash.
    pub log_file: String,
    /// The program becomes a child of the caller instead of CRIU's. Only by swrk (`rst_sibling`).
    pub sibling: bool,
    /// Further options as a configuration file of CRIU's holds them (criu(8), `config_file`).
    pub config_file: Option<PathBuf>,
    /// The program is left stopped (`leave_stopped`).
    pub leave_stopped: bool,
    /// Descriptors of the worker that take the place of dumped ones, by CRIU's keys. Only by swrk
    /// (`inherit_fd`).
    pub inherit: Vec<(String, i32)>,
    /// What was left to the restorer at the dump, by CRIU's keys (`external`).
    pub external: Vec<String>,
    /// TCP connections come back closed (`tcp_close`): after a crash the other end has given them up.
    pub tcp_close: bool,
    /// Modes of files are not compared with those at the dump (`skip_file_rwx_check`).
    pub skip_file_rwx_check: bool,
    /// A terminal's master that is outside of the tree gets a new one (`orphan_pts_master`).
    pub orphan_pts_master: bool,
    /// A character device may be found under another path (`evasive_devices`).
    pub evasive_devices: bool,
    /// System controls that can't be restored are passed over (`weak_sysctls`).
    pub weak_sysctls: bool,
    /// Memory is fetched when it is first touched, from `criu lazy-pages` (`lazy_pages`).
    pub lazy_pages: bool,
    /// Images give up what has been read of them: they restore once (`auto_dedup`).
    pub auto_dedup: bool,
    /// The root of a program in a mount namespace of its own (`root`).
    pub root: Option<PathBuf>,
    /// Mounts are restored by the old engine (`mntns_compat_mode`).
    pub mntns_compat_mode: bool,
    /// The network namespace is left empty, to be filled by the restorer (`empty_ns`).
    pub empty_network: bool,
    /// Namespaces to join: kind (`net`, `ipc`, …), file, and CRIU's extra option (`join_ns`).
    pub join_namespaces: Vec<(String, PathBuf, Option<String>)>,
    /// Mounts.
    pub mounts: Mounts,
    /// Control groups.
    pub cgroups: Cgroups,
    /// The security module's profile to come back under (`lsm_profile`).
    pub lsm_profile: Option<String>,
    /// The security module's context for mounts (`lsm_mount_context`).
    pub lsm_mount_context: Option<String>,
    /// Which features of the CPU are compared (`cpu_cap`, CRIU's bits).
    pub cpu_features: Option<u32>,
}

impl<'fd> RestoreOptions<'fd> {
    /// A restore from `images`, logged into `work_dir`, of a program with these needs.
    pub fn new(images: BorrowedFd<'fd>, work_dir: BorrowedFd<'fd>, needs: Needs) -> RestoreOptions<'fd> {
        let tcp_close = needs.tcp_established;
        RestoreOptions {
            images,
            work_dir,
            needs,
            log_level: LogLevel::default(),
            log_file: "restore.log".to_owned(),
            sibling: false,
            config_file: None,
            leave_stopped: false,
            inherit: Vec::new(),
            external: Vec::new(),
            tcp_close,
            skip_file_rwx_check: false,
            orphan_pts_master: false,
            evasive_devices: false,
            weak_sysctls: false,
            lazy_pages: false,
            auto_dedup: false,
            root: None,
            mntns_compat_mode: false,
            empty_network: false,
            join_namespaces: Vec::new(),
            mounts: Mounts::default(),
            cgroups: Cgroups::default(),
            lsm_profile: None,
            lsm_mount_context: None,
            cpu_features: None,
        }
    }

    pub(in crate::criu) fn encode(&self) -> Result<rpc::Options> {
        /// CLONE_NEWNET of sched.h, the one namespace that `empty_ns` takes.
        const NETWORK_NAMESPACE: u32 = 0x4000_0000;
        let mut options = rpc::Options {
            images_dir_fd: self.images.as_raw_fd(),
            work_dir_fd: Some(self.work_dir.as_raw_fd()),
            rst_sibling: Some(self.sibling),
            config_file: self.config_file.as_deref().map(bytes),
            leave_stopped: Some(self.leave_stopped),
            inherit_fd: self
                .inherit
                .iter()
                .map(|(key, fd)| rpc::InheritFd { key: key.clone().into_bytes(), fd: *fd })
                .collect(),
            external: strings(&self.external),
            tcp_established: Some(self.needs.tcp_established),
            tcp_close: Some(self.tcp_close),
            skip_file_rwx_check: Some(self.skip_file_rwx_check),
            orphan_pts_master: Some(self.orphan_pts_master),
            evasive_devices: Some(self.evasive_devices),
            weak_sysctls: Some(self.weak_sysctls),
            lazy_pages: Some(self.lazy_pages),
            auto_dedup: Some(self.auto_dedup),
            root: self.root.as_deref().map(bytes),
            mntns_compat_mode: Some(self.mntns_compat_mode),
            empty_ns: self.empty_network.then_some(NETWORK_NAMESPACE),
            join_ns: self
                .join_namespaces
                .iter()
                .map(|(kind, file, extra)| rpc::JoinNamespace {
                    ns: kind.clone().into_bytes(),
                    ns_file: bytes(file),
                    extra_opt: extra.clone().map(String::into_bytes),
                })
                .collect(),
            lsm_profile: self.lsm_profile.clone().map(String::into_bytes),
            lsm_mount_context: self.lsm_mount_context.clone().map(String::into_bytes),
            cpu_cap: self.cpu_features,
            ..rpc::Options::default()
        };
        encode_log(&mut options, self.log_level, &self.log_file)?;
        encode_surroundings(&mut options, &self.needs, &self.mounts, &self.cgroups);
        Ok(options)
    }
}
