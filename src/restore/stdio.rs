//! Standard streams that led out of the tree through a pipe: the other end is gone, so they are connected
//! to the restorer's own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Error, Result};
use crate::frozen::{DescriptorKind, Process};
use crate::sys;

/// CRIU's keys of the pipes and, for each, a duplicate of the standard stream that takes its place.
pub(super) fn reconnect(processes: &[Process]) -> Result<Vec<(String, OwnedFd)>> {
    outside_pipes(processes)
        .into_iter()
        .map(|(pipe, stream)| {
            let ours = sys::process::standard_stream(stream).map_err(|source: io::Error| {
                Error::os(&format!("use our own descriptor {stream}"), source)
            })?;
            Ok((pipe, ours))
        })
        .collect()
}

/// The pipes behind the root's descriptors 0 to 2 of which the tree holds only one end, each with the
/// lowest of these numbers.
fn outside_pipes(processes: &[Process]) -> BTreeMap<String, i32> {
    let ends = |path: &Path| {
        let ends = processes.iter().flat_map(|process| &process.descriptors);
        let ends = ends.filter(|end| end.kind == DescriptorKind::Pipe && end.path.as_deref() == Some(path));
        ends.fold((false, false), |(read, write), end| (read || end.reads(), write || end.writes()))
    };
    let mut pipes = BTreeMap::new();
    for stream in processes.first().into_iter().flat_map(|root| &root.descriptors) {
        if let (0..=2, DescriptorKind::Pipe, Some(path)) = (stream.fd, stream.kind, stream.path.as_deref()) {
            if ends(path) != (true, true) {
                pipes.entry(path.display().to_string()).or_insert(stream.fd);
            }
        }
    }
    pipes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::Descriptor;

    fn pipe(fd: i32, name: &str, flags: u32) -> Descriptor {
        Descriptor {
            fd,
            kind: DescriptorKind::Pipe,
            path: Some(name.into()),
            flags,
            position_bytes: None,
            size_bytes: None,
            identity: None,
        }
    }

    fn process(descriptors: Vec<Descriptor>) -> Process {
        Process {
            pid: 40,
            parent: 0,
            process_group: 40,
            session: 40,
            name: "p".into(),
            threads: vec![40],
            mappings: 1,
            memory_bytes: Default::default(),
            descriptors,
        }
    }

    #[test]
    fn a_pipe_to_the_outside_is_reconnected_once_however_many_streams_use_it() {
        let root = process(vec![pipe(0, "pipe:[1]", 0), pipe(1, "pipe:[2]", 1), pipe(2, "pipe:[2]", 1)]);
        let expected = [("pipe:[1]".to_owned(), 0), ("pipe:[2]".to_owned(), 1)];
        assert_eq!(outside_pipes(&[root]), BTreeMap::from(expected));
    }

    #[test]
    fn a_pipe_within_the_tree_stays_as_it_is() {
        let root = process(vec![pipe(1, "pipe:[2]", 1)]);
        let child = process(vec![pipe(0, "pipe:[2]", 0)]);
        assert!(outside_pipes(&[root, child]).is_empty());
    }

    #[test]
    fn other_descriptors_are_not_standard_streams() {
        assert!(outside_pipes(&[process(vec![pipe(7, "pipe:[3]", 1)])]).is_empty());
    }
}
