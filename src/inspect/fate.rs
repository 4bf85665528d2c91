//! What a restore does with each open descriptor, as far as it can be told beforehand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Descriptor, Detail, Inside};
use crate::error::Result;
use crate::frozen::DescriptorKind;
use crate::restore::{self, FilePlan, Options, Place};
use crate::store::catalogue::Entry;
use crate::store::manifest::Manifest;

/// What becomes of an open descriptor, were the program brought back now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "restore")]
#[non_exhaustive]
pub enum Fate {
    /// It is made again in the state that it had.
    AsItWas,
    /// It is opened again by its path.
    Reopened,
    /// So is this one, and its contents are looked after before.
    File(FilePlan),
    /// It leads to a standard stream of the restorer's.
    Stream {
        /// The number of the stream.
        stream: i32,
    },
    /// It leads to a terminal: the restorer's, or one that is made for the program.
    Terminal,
    /// The other end has hung up.
    HungUp,
    /// It is the end of a pipe whose other end nobody has.
    DeadEnd,
    /// It leads to a file that is named for it ([`Options::inherit`]).
    Given {
        /// The file.
        path: PathBuf,
    },
}

/// What becomes of each descriptor: by process and by descriptor, as `inside` has them. Nothing is touched.
///
/// # Errors
///
/// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) where the checkpoint's manifest can't be read.
pub fn fates(entry: &Entry, inside: &Inside, options: &Options) -> Result<Vec<Vec<Fate>>> {
    let manifest = entry.manifest.as_ref().map_err(Clone::clone)?;
    let plans = restore::plan(entry, options)?;
    let plans = plans.into_iter().map(|plan| (plan.path.clone(), plan)).collect();
    let outside = leading_outside(manifest, options);
    let of = |descriptor: &Descriptor| fate(descriptor, &plans, &outside, options.keep_tcp);
    Ok(inside.processes.iter().map(|process| process.descriptors.iter().map(of).collect()).collect())
}

/// What takes the place of what led outside, by the path that a descriptor of it has.
fn leading_outside(manifest: &Manifest, options: &Options) -> HashMap<PathBuf, Fate> {
    let root = manifest.processes.first();
    let path_of = |fd: &i32| root?.descriptors.iter().find(|open| open.fd == *fd)?.path.clone();
    let mut fates = HashMap::new();
    for (key, descriptors, place) in restore::places(&manifest.processes, &manifest.criu.needs.outside) {
        let given = descriptors.iter().find_map(|fd| options.inherit.get(fd));
        let fate = given.map_or_else(|| in_place(place), |path| Fate::Given { path: path.clone() });
        let paths = descriptors.iter().filter_map(path_of).chain([PathBuf::from(key)]);
        fates.extend(paths.map(|path| (path, fate.clone())));
    }
    fates
}

fn in_place(place: Place) -> Fate {
    match place {
        Place::Stream(stream) => Fate::Stream { stream },
        Place::Terminal | Place::ShellsTerminal => Fate::Terminal,
        Place::HungUp => Fate::HungUp,
        Place::DeadEnd => Fate::DeadEnd,
    }
}

fn fate(
    descriptor: &Descriptor,
    plans: &HashMap<PathBuf, FilePlan>,
    outside: &HashMap<PathBuf, Fate>,
    keep_tcp: bool,
) -> Fate {
    let path = descriptor.about.path.as_deref().unwrap_or(Path::new(""));
    if let Some(fate) = outside.get(path) {
        return fate.clone();
    }
    let was_deleted = matches!(&descriptor.detail, Some(Detail::File(file)) if file.deleted);
    match descriptor.about.kind {
        DescriptorKind::File if was_deleted => Fate::AsItWas,
        DescriptorKind::File => plans.get(path).cloned().map_or(Fate::Reopened, Fate::File),
        DescriptorKind::InetSocket if !keep_tcp && is_connection(descriptor) => Fate::HungUp,
        _ => Fate::AsItWas,
    }
}

/// Whether it is a TCP connection in any of its states, from the handshake to the last acknowledgement.
fn is_connection(descriptor: &Descriptor) -> bool {
    const TCP: u32 = 6;
    const CLOSED: u32 = 7;
    const LISTENING: u32 = 10;
    match &descriptor.detail {
        Some(Detail::InetSocket(socket)) => {
            socket.protocol == TCP && socket.state != CLOSED && socket.state != LISTENING
        }
        _ => false,
    }
}
