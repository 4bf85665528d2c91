//! What led out of the tree: the other end is gone, or somebody else's. The restorer puts something in its place.
//!
//! - A standard stream that was a pipe or a socket is connected to the restorer's own.
//! - A terminal becomes the restorer's; a pseudoterminal of its own where that has none, or where the program had led
//!   its session.
//! - Any other socket is a connection whose other end has hung up, as after any crash of that.
//! - A file that is named for a descriptor takes the place of whatever it was.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::relay::Relay;
use crate::error::{Error, ErrorKind, Result};
use crate::frozen::{Descriptor, DescriptorKind, Needs, Outside, OutsideKind, Process};
use crate::sys::{process, terminal};

/// What takes the place of what led outside.
pub(super) struct Reconnected {
    /// By CRIU's keys (`inherit_fd`).
    pub(super) descriptors: Vec<(String, OwnedFd)>,
    /// The terminal of a program that a shell has started: CRIU's standard input.
    pub(super) terminal: Option<OwnedFd>,
    /// The pseudoterminal that was made for it.
    pub(super) relay: Option<Relay>,
}

/// Where a descriptor of the root leads from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To this stream of ours.
    Stream(i32),
    /// To a terminal.
    Terminal,
    /// To the terminal that is CRIU's standard input.
    ShellsTerminal,
    /// Nowhere: the other end has hung up.
    HungUp,
    /// To where CRIU has a pipe lead whose other end it doesn't know.
    DeadEnd,
}

/// Puts something in the place of all that leads outside. `given` are files for descriptors of the root.
pub(super) fn reconnect(
    processes: &[Process],
    needs: &Needs,
    given: &BTreeMap<i32, PathBuf>,
) -> Result<Reconnected> {
    let mut reconnected = Reconnected { descriptors: Vec::new(), terminal: None, relay: None };
    let mut unused: Vec<i32> = given.keys().copied().collect();
    for (key, descriptors, place) in places(processes, &needs.outside) {
        let file = descriptors.iter().find_map(|fd| Some((*fd, given.get(fd)?)));
        unused.retain(|fd| !descriptors.contains(fd));
        if let (Place::ShellsTerminal, None) = (place, &reconnected.terminal) {
            reconnected.terminal = Some(match file {
                Some((fd, path)) => open_for(processes, fd, path)?,
                None => reconnected.a_terminal(processes)?,
            });
        }
        let put = match (file, place) {
            (_, Place::ShellsTerminal) | (None, Place::DeadEnd) => continue,
            (Some((fd, path)), _) => open_for(processes, fd, path)?,
            (None, Place::Stream(number)) => stream(number)?,
            (None, Place::Terminal) => reconnected.a_terminal(processes)?,
            (None, Place::HungUp) => hung_up()?,
        };
        reconnected.descriptors.push((key, put));
    }
    match unused.first() {
        None => Ok(reconnected),
        Some(fd) => Err(Error::new(
            ErrorKind::Config,
            format!("descriptor {fd} of the program doesn't lead outside, so nothing can take its place"),
        )
        .with_hint("--inherit is for pipes, sockets and terminals whose other end is another program's; `selfdump list --json` and the manifest tell what the descriptors were")),
    }
}

/// CRIU's key of each thing that leads outside, its descriptors in the root, and where it leads from now on.
pub(crate) fn places(processes: &[Process], outside: &[Outside]) -> Vec<(String, Vec<i32>, Place)> {
    let mut places: Vec<(String, Vec<i32>, Place)> = Vec::new();
    for (pipe, descriptors) in outside_pipes(processes) {
        let place = standard(&descriptors).map_or(Place::DeadEnd, Place::Stream);
        places.push((pipe, descriptors, place));
    }
    for Outside { kind, key, descriptors } in outside {
        let place = match (kind, standard(descriptors)) {
            (OutsideKind::Terminal, _) => Place::Terminal,
            (OutsideKind::ShellsTerminal, _) => Place::ShellsTerminal,
            (_, Some(stream)) => Place::Stream(stream),
            (_, None) => Place::HungUp,
        };
        // At the restore CRIU calls a unix socket by another name than at the dump.
        let key = key.strip_prefix("unix").map_or_else(|| key.clone(), |inode| format!("socket:{inode}"));
        places.push((key, descriptors.clone(), place));
    }
    places
}

/// The lowest of the standard streams among descriptors.
fn standard(descriptors: &[i32]) -> Option<i32> {
    descriptors.iter().copied().filter(|fd| (0..=2).contains(fd)).min()
}

impl Reconnected {
    /// A terminal for the program. All that it had become one.
    fn a_terminal(&mut self, processes: &[Process]) -> Result<OwnedFd> {
        if let Some(ours) = terminal::ours().filter(|_| !leads_its_session(processes)) {
            return Ok(ours);
        }
        if self.relay.is_some() {
            return Err(Error::new(ErrorKind::Config, "the program had more than one terminal")
                .with_hint("name a terminal for the others: --inherit FD=/dev/pts/N"));
        }
        let (relay, slave) = Relay::make().map_err(|source| Error::os("make a pseudoterminal", source))?;
        self.relay = Some(relay);
        Ok(slave)
    }
}

/// Its terminal was then its controlling one, and the one that it gets will be as well.
fn leads_its_session(processes: &[Process]) -> bool {
    processes.first().is_some_and(|root| root.session == root.pid)
}

fn stream(number: i32) -> Result<OwnedFd> {
    process::standard_stream(number)
        .map_err(|source: io::Error| Error::os(&format!("use our own descriptor {number}"), source))
}

fn hung_up() -> Result<OwnedFd> {
    let (ours, _gone) = UnixStream::pair().map_err(|source| Error::os("make a socket", source))?;
    process::off_the_streams(ours.into()).map_err(|source| Error::os("make a socket", source))
}

/// A file in the place of a descriptor, opened as that was.
fn open_for(processes: &[Process], fd: i32, path: &Path) -> Result<OwnedFd> {
    let open = processes.first().and_then(|root| root.descriptors.iter().find(|open| open.fd == fd));
    let (reads, writes) = open.map_or((true, true), |open| (open.reads(), open.writes()));
    let file: io::Result<File> = OpenOptions::new().read(reads).append(writes).create(writes).open(path);
    file.and_then(|file| process::off_the_streams(file.into()))
        .map_err(|source| Error::io("open", path, source))
}

/// The pipes of the root of which the tree holds only one end, each with its descriptors.
fn outside_pipes(processes: &[Process]) -> BTreeMap<String, Vec<i32>> {
    let ends = |path: &Path| {
        let ends = processes.iter().flat_map(|process| &process.descriptors);
        let ends = ends.filter(|end| end.kind == DescriptorKind::Pipe && end.path.as_deref() == Some(path));
        ends.fold((false, false), |(read, write), end| (read || end.reads(), write || end.writes()))
    };
    let mut pipes: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for Descriptor { fd, kind, path, .. } in processes.first().into_iter().flat_map(|root| &root.descriptors)
    {
        if let (DescriptorKind::Pipe, Some(path)) = (kind, path.as_deref()) {
            if ends(path) != (true, true) {
                pipes.entry(path.display().to_string()).or_default().push(*fd);
            }
        }
    }
    pipes
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn outside(kind: OutsideKind, key: &str, descriptors: &[i32]) -> Outside {
        Outside { kind, key: key.into(), descriptors: descriptors.to_vec() }
    }

    #[test]
    fn a_pipe_to_the_outside_is_reconnected_once_however_many_streams_use_it() {
        let root = process(vec![pipe(0, "pipe:[1]", 0), pipe(1, "pipe:[2]", 1), pipe(2, "pipe:[2]", 1)]);
        let expected = [
            ("pipe:[1]".to_owned(), vec![0], Place::Stream(0)),
            ("pipe:[2]".to_owned(), vec![1, 2], Place::Stream(1)),
        ];
        assert_eq!(places(&[root], &[]), expected);
    }

    #[test]
    fn a_pipe_within_the_tree_stays_as_it_is_and_one_that_is_no_standard_stream_is_a_dead_end() {
        let root = process(vec![pipe(1, "pipe:[2]", 1), pipe(7, "pipe:[3]", 1)]);
        let child = process(vec![pipe(0, "pipe:[2]", 0)]);
        let expected = [("pipe:[3]".to_owned(), vec![7], Place::DeadEnd)];
        assert_eq!(places(&[root.clone(), child.clone()], &[]), expected);
        let left = reconnect(&[root, child], &Needs::default(), &BTreeMap::new()).unwrap();
        assert!(left.descriptors.is_empty());
    }

    #[test]
    fn sockets_go_where_their_streams_go_and_others_hang_up() {
        let outside = [
            outside(OutsideKind::UnixSocket, "unix[70]", &[1, 2]),
            outside(OutsideKind::UnixSocket, "unix[71]", &[5]),
            outside(OutsideKind::UnixSocket, "unix[72]", &[]),
            outside(OutsideKind::Terminal, "tty[8803:18]", &[0, 9]),
        ];
        let expected = [
            ("socket:[70]".to_owned(), vec![1, 2], Place::Stream(1)),
            ("socket:[71]".to_owned(), vec![5], Place::HungUp),
            ("socket:[72]".to_owned(), vec![], Place::HungUp),
            ("tty[8803:18]".to_owned(), vec![0, 9], Place::Terminal),
        ];
        assert_eq!(places(&[process(vec![])], &outside), expected);
    }

    #[test]
    fn a_file_takes_the_place_of_what_led_outside_and_of_nothing_else() {
        let lab = tempfile::tempdir().unwrap();
        let file = lab.path().join("in");
        std::fs::write(&file, "x").unwrap();
        let root = [process(vec![pipe(5, "pipe:[1]", 0), pipe(0, "pipe:[2]", 0)])];
        let given = |fd| BTreeMap::from([(fd, file.clone())]);
        let put = |fd| reconnect(&root, &Needs::default(), &given(fd)).unwrap();
        assert_eq!(put(0).descriptors[0].0, "pipe:[2]");
        assert_eq!(put(5).descriptors[0].0, "pipe:[1]");
        let error = reconnect(&root, &Needs::default(), &given(9)).err().unwrap();
        assert!(error.to_string().contains("descriptor 9"), "{error}");
    }
}
