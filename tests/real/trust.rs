//! Who can read a checkpoint, write one or have one made: nobody but root and the program's own user (SECURITY.md).

mod elsewhere;
mod entrances;
mod modes;
mod restores;
mod setuid;
mod sockets;

use std::path::Path;

/// A user that nobody is.
pub const STRANGER: u32 = 54321;

/// Gives a file away; of a link, the link itself.
pub fn give_away(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).expect("root can give files away");
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}
