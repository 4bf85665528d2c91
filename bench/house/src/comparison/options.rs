//! What CRIU is told by either side of a comparison with it.

use selfdump::frozen::{Needs, NetworkLock};

/// What selfdump tells CRIU over RPC at a dump and at a restore, as it is spelled on the command line.
pub fn options(needs: &Needs) -> Vec<String> {
    let network_lock = match needs.network_lock {
        NetworkLock::Nftables => Some("--network-lock=nftables"),
        NetworkLock::Skip => Some("--network-lock=skip"),
        _ => None,
    };
    let needed = [
        needs.shell_job.then_some("--shell-job"),
        needs.file_locks.then_some("--file-locks"),
        needs.ext_unix_sk.then_some("--ext-unix-sk"),
        needs.unprivileged.then_some("--unprivileged"),
        network_lock,
    ];
    let fixed = ["-v2", "--manage-cgroups=ignore"];
    fixed.into_iter().chain(needed.into_iter().flatten()).map(str::to_owned).collect()
}
