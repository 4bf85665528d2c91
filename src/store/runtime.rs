//! The folder for what concerns processes that run now. It goes with the boot, as they do.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::layout;
use crate::config;
use crate::sys::{disk, process};

/// The runtime folder of this user.
pub(crate) fn folder() -> PathBuf {
    let runtime = config::environment("XDG_RUNTIME_DIR").map(PathBuf::from);
    layout::runtime_folder(process::is_root(), runtime, process::user().1)
}

/// Makes a runtime folder, or sees that it is nobody else's: in /tmp somebody may have been there first.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    disk::make_all_private(folder)?;
    match is_private(folder) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is another user's, or others may write to it; take it away, or set XDG_RUNTIME_DIR",
        )),
    }
}

/// The same for what is only read: none where others can have written what lies there.
pub(crate) fn to_read() -> Option<PathBuf> {
    Some(folder()).filter(|folder| is_private(folder))
}

/// Whether nobody else can have put into a folder what lies there. Root looks into those of others.
fn is_private(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|found| {
        found.is_dir()
            && found.mode() & 0o022 == 0
            && (process::is_root() || found.uid() == process::user().1)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_that_somebody_else_can_write_to_is_refused_and_so_is_a_link() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("selfdump");
        make(&folder).unwrap();
        make(&folder).unwrap();
        symlink(&folder, lab.path().join("link")).unwrap();
        assert!(make(&lab.path().join("link")).is_err());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let error = make(&folder).unwrap_err();
        assert!(error.to_string().contains("XDG_RUNTIME_DIR"), "{error}");
    }
}
