//! Starting somebody else's program as our child.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;

/// The signals that a process blocks, as one value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask(SigSet);

/// What the calling thread blocks now: to be asked before any signal is held back.
pub(crate) fn mask() -> io::Result<Mask> {
    Ok(Mask(SigSet::thread_get_mask()?))
}

/// Starts a program with these variables besides our own, and with the signals blocked that were blocked for us: what
/// we hold back since is not held back in it. It is to be waited for by its id.
pub(crate) fn start(
    command: &[OsString],
    variables: impl IntoIterator<Item = (String, OsString)>,
    Mask(mask): Mask,
) -> io::Result<i32> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(variables);
    // SAFETY: between fork and exec it makes one system call, which is async-signal-safe and allocates nothing.
    unsafe { command.pre_exec(move || Ok(mask.thread_set_mask()?)) };
    // A `Child` that is dropped goes on as it is.
    Ok(command.spawn()?.id() as i32)
}
