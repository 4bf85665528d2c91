//! Where a CRIU can be had on this machine.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::sys::spawn::SYSTEM_FOLDERS;
use crate::sys::trust::{self, Refusal};

/// Where a service is expected when none is named: CRIU itself has no other default than its current
/// folder, so this is the path that its documentation and units use.
pub const STANDARD_SERVICE: &str = "/run/criu_service.socket";

/// Where the CRIU for ordinary users lies that root makes by `selfdump setup --rootless`.
pub const SHARED_PREFIX: &str = "/opt/selfdump/criu";

/// Where `selfdump service` listens.
pub const GUARDED_SERVICE: &str = "/run/selfdump/selfdump.sock";

/// The socket of a `selfdump service` of root's, for a program that isn't root's: root needs none.
pub(super) fn guarded_service() -> Option<&'static Path> {
    let socket = Path::new(GUARDED_SERVICE);
    (!sys::process::is_root() && is_roots_alone(socket)).then_some(socket)
}

/// Whether nobody but root can have put a socket there.
fn is_roots_alone(socket: &Path) -> bool {
    socket.symlink_metadata().is_ok_and(|found| found.uid() == 0) && trust::file(socket).is_ok()
}

/// The CRIU programs to try, best first: the named one alone, else the one on PATH and then the private
/// copy that `selfdump setup` makes. For ordinary users the one that root has made for them comes first: others lack the
/// capabilities, most likely.
pub fn programs(named: Option<&Path>) -> Result<Vec<PathBuf>> {
    if let Some(named) = named {
        return match is_program(named) {
            true => Ok(vec![named.to_owned()]),
            false => Err(Error::new(ErrorKind::NoCriu, format!("{} is not a program", named.display()))
                .with_hint("set SELFDUMP_CRIU (or Config::criu) to the path of a criu, or leave it unset; `selfdump setup` gets one")),
        };
    }
    let shared = Path::new(SHARED_PREFIX).join("bin/criu");
    let found: Vec<PathBuf> = Some(shared)
        .filter(|shared| !sys::process::is_root() && sys::disk::is_executable(shared))
        .into_iter()
        .chain(on_path("criu"))
        .chain(private_prefix().map(|prefix| prefix.join("bin/criu")).filter(|copy| is_program(copy)))
        .collect();
    if found.is_empty() {
        return Err(Error::new(
            ErrorKind::NoCriu,
            "no criu was found, neither on PATH nor as a private copy",
        )
        .with_hint("run `selfdump setup`, or install criu 4.2 or later and name it with SELFDUMP_CRIU"));
    }
    Ok(found)
}

/// The folder of the private copy that `selfdump setup` makes, under the user's data folder, whether it is
/// there or not; the program in it is `bin/criu`. None for a user without a home.
pub fn private_prefix() -> Option<PathBuf> {
    let absolute =
        |name: &str| config::environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("selfdump/criu"))
}

/// A program by its name, as a worker of ours finds it: on PATH, else in the system's own folders.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = config::environment("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
}

/// Sees that nobody but root and we can have written a program, which is about to be given rights.
///
/// # Errors
///
/// [`ErrorKind::Permission`] where others can, [`ErrorKind::Io`] where it can't be looked at.
pub fn check_trust(program: &Path) -> Result<()> {
    trust::file(program).map_err(|refusal| match refusal {
        Refusal::Io(source) => Error::io("look at", program, source),
        Refusal::Distrust(distrust) => Error::new(
            ErrorKind::Permission,
            format!("others could put something else in the place of {}: {distrust}", program.display()),
        )
        .with_hint("`chown root` and `chmod go-w` it and the folders above it, or name another place"),
    })
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_that_others_could_have_put_there_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("selfdump.sock");
        let mode = |mode| fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).unwrap();
        mode(0o755);
        assert!(!is_roots_alone(&socket), "it isn't there");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(is_roots_alone(&socket), sys::process::is_root());
        mode(0o777);
        assert!(!is_roots_alone(&socket));
    }
}
