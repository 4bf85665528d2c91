//! Who can have written what lies in a store: only root and the one who uses it, or it is refused.
//!
//! A checkpoint holds all secrets of a process, and who can write to one has whatever they like run by whoever restores
//! it. So every way into a store leads through here, before anything is written to it or run from it. Whoever only looks
//! need not ask.

use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::disk;
use crate::sys::trust::{self, Distrust, Refusal, Trusted, Why};

/// Makes a folder to write to, and those above it, or sees that they are ours alone. The last `ours` of them are the
/// store's own: there nothing may be a link, or anybody else's.
pub(crate) fn make(folder: &Path, ours: usize) -> Result<()> {
    // What is there is looked at before anything is made in it: a link may lead anywhere.
    let missing = folder.ancestors().take_while(|folder| folder.symlink_metadata().is_err()).count();
    if let Some(there) = folder.ancestors().nth(missing).filter(|there| there.is_dir()) {
        look(there, ours.saturating_sub(missing))?;
    }
    disk::make_all_private(folder).map_err(|source| Error::io("make", folder, source))?;
    if missing > 0 { look(folder, ours) } else { Ok(()) }
}

/// The same for a folder that is there.
pub(crate) fn look(folder: &Path, ours: usize) -> Result<()> {
    let store = folder.ancestors().nth(ours).unwrap_or(folder);
    let below = folder.strip_prefix(store).unwrap_or(Path::new(""));
    let entered = below.iter().try_fold(Trusted::open(store), |at, name| Ok(at?.enter_ours(name)));
    entered.and_then(|at| at).map(drop).map_err(|refusal| refused(folder, refusal))
}

/// Sees that nobody else can have written a checkpoint: what is restored from it runs with our rights. The files are
/// named by their paths in its folder.
pub(crate) fn trust<'a>(checkpoint: &Path, mut files: impl Iterator<Item = &'a Path>) -> Result<()> {
    let judge = |file: &Path| match trust::file(&checkpoint.join(file)) {
        // That is for the checksums to find.
        Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    let judged = Trusted::open(checkpoint).and_then(|_| files.try_for_each(judge));
    judged.map_err(|refusal| match refusal {
        Refusal::Io(source) => Error::io("look at", checkpoint, source),
        Refusal::Distrust(distrust) => Error::new(
            ErrorKind::Permission,
            format!("who restores {} runs what others may have written: {distrust}", checkpoint.display()),
        )
        .with_hint("restore it as the user whose it is, or take away what lets others write there; if they are to be trusted with all that you may do, restore it with --trust"),
    })
}

fn refused(folder: &Path, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Io(source) => Error::io("look at", folder, source),
        Refusal::Distrust(distrust) => Error::new(
            ErrorKind::Permission,
            format!("no checkpoints are written to {}: {distrust}", folder.display()),
        )
        .with_hint(remedy(&distrust)),
    }
}

/// What to do about a folder that others have a hand in.
pub(crate) fn remedy(Distrust { path, why, .. }: &Distrust) -> String {
    let (path, user) = (path.display(), crate::sys::process::user().1);
    match why {
        Why::Owner => format!(
            "`chown {user} {path}` if it is to be yours, or name a folder of your own with SELFDUMP_DIR"
        ),
        Why::Writable => format!(
            "`chmod go-w {path}`, or `chmod +t {path}` where others have to write there too; or name another folder with SELFDUMP_DIR"
        ),
        Why::Link => format!("take the link away (`rm {path}`), or name where it leads to with SELFDUMP_DIR"),
    }
}
