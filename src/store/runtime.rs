//! The folder for what concerns processes that run now. It goes with the boot, as they do.

use std::path::PathBuf;

use super::layout;
use crate::config;
use crate::sys::process;

/// The runtime folder of this user.
pub(crate) fn folder() -> PathBuf {
    let runtime = config::environment("XDG_RUNTIME_DIR").map(PathBuf::from);
    layout::runtime_folder(process::is_root(), runtime, process::user().1)
}
