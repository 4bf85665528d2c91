//! The descriptors of a process: what each number refers to.
//!
//! A table of descriptors (`fdinfo-ID.img`) says for each number which open file it refers to; what that is
//! stands once in `files.img`, however many descriptors refer to it, as in the kernel.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::file::Image;
use super::images::{FdInfo, FileKind, MemFd, MemFdInode, OpenFile, RegularFile};
use crate::error::Result;
use crate::frozen::{Bytes, Descriptor, DescriptorKind};

/// The bits of a mode that say what kind of file it is, and what they are for a regular one.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// What the descriptors of a dump refer to.
pub(super) struct OpenFiles {
    /// By kind and id: an older CRIU gave one id to files of different kinds.
    files: HashMap<(i32, u32), OpenFile>,
    mem_fds: HashMap<u64, MemFdInode>,
}

impl OpenFiles {
    /// Reads them all.
    pub(super) fn read(images: &Path) -> Result<OpenFiles> {
        let files = Image::Files
            .read_all(images)?
            .map(|file| file.map(|file: OpenFile| ((file.kind, file.id), file)))
            .collect::<Result<HashMap<_, _>>>()?;
        // CRIU writes that image only if it has something to put there.
        let mem_fds = match files.values().any(|file| file.mem_fd.is_some()) {
            true => mem_fds(images)?,
            false => HashMap::new(),
        };
        Ok(OpenFiles { files, mem_fds })
    }

    /// The descriptors of one table, by number.
    pub(super) fn of_table(&self, images: &Path, files_id: u32) -> Result<Vec<Descriptor>> {
        let image = Image::FdInfo { files_id };
        let mut descriptors = image
            .read_all(images)?
            .map(|entry| {
                let entry: FdInfo = entry?;
                let number = entry.fd;
                self.descriptor(&entry)
                    .ok_or_else(|| image.damaged(images, format!("descriptor {number} refers to nothing")))
            })
            .collect::<Result<Vec<_>>>()?;
        descriptors.sort_by_key(|descriptor| descriptor.fd);
        Ok(descriptors)
    }

    /// What a descriptor refers to, or none if the images don't have it.
    fn descriptor(&self, entry: &FdInfo) -> Option<Descriptor> {
        let file = self.files.get(&(entry.kind, entry.id))?;
        let about = self.about(file)?;
        Some(Descriptor {
            fd: i32::try_from(entry.fd).ok()?,
            kind: kind(entry.kind),
            path: about.path,
            flags: about.flags,
            position_bytes: about.position,
            size_bytes: about.size,
            identity: None,
        })
    }

    /// What is known of an open file. None if something that it refers to isn't there.
    fn about(&self, file: &OpenFile) -> Option<About> {
        Some(if let Some(regular) = &file.regular {
            regular_file(regular)
        } else if let Some(pipe) = &file.pipe {
            About::named(pipe.flags, format!("pipe:[{}]", pipe.pipe_id))
        } else if let Some(socket) = &file.inet_socket {
            About::named(socket.flags, format!("socket:[{}]", socket.ino))
        } else if let Some(socket) = &file.unix_socket {
            About::named(socket.flags, format!("socket:[{}]", socket.ino))
        } else if let Some(socket) = &file.netlink_socket {
            About::named(socket.flags, format!("socket:[{}]", socket.ino))
        } else if let Some(fifo) = &file.fifo {
            self.opened_at(fifo.regular_id.unwrap_or(fifo.id))?
        } else if let Some(terminal) = &file.terminal {
            // A terminal that the restore provides has no regular file.
            self.opened_at(terminal.regular_id.unwrap_or(terminal.id))
                .unwrap_or(About::nameless(terminal.flags))
        } else if let Some(mem_fd) = &file.mem_fd {
            self.mem_fd(mem_fd)?
        } else {
            About::nameless(nameless_flags(file))
        })
    }

    /// Where and how a named pipe or a terminal was opened, for which CRIU keeps a regular file besides.
    fn opened_at(&self, id: u32) -> Option<About> {
        let key = (FileKind::Regular.into(), id);
        self.files.get(&key)?.regular.as_ref().map(regular_file)
    }

    fn mem_fd(&self, file: &MemFd) -> Option<About> {
        let inode = self.mem_fds.get(&file.inode_id.into())?;
        let name = [b"/memfd:", &*inode.name].concat();
        Some(About {
            flags: file.flags,
            path: Some(path(name)),
            position: Some(Bytes(file.pos)),
            size: Some(Bytes(inode.size)),
        })
    }
}

fn mem_fds(images: &Path) -> Result<HashMap<u64, MemFdInode>> {
    let inodes = Image::MemFds.read_all(images)?;
    inodes.map(|inode| inode.map(|inode: MemFdInode| (inode.inode_id, inode))).collect()
}

/// What is known of an open file.
struct About {
    flags: u32,
    path: Option<PathBuf>,
    position: Option<Bytes>,
    size: Option<Bytes>,
}

impl About {
    fn nameless(flags: u32) -> About {
        About { flags, path: None, position: None, size: None }
    }

    fn named(flags: u32, name: String) -> About {
        About { path: Some(name.into()), ..About::nameless(flags) }
    }
}

fn regular_file(file: &RegularFile) -> About {
    let external = file.ext == Some(true);
    // Folders and devices have a position too, but it isn't one in a file's contents.
    let has_contents = file.mode.is_none_or(|mode| mode & FILE_TYPE == REGULAR);
    About {
        flags: file.flags,
        path: Some(if external { path(file.name.clone()) } else { absolute(&file.name) }),
        position: has_contents.then_some(Bytes(file.pos)),
        size: file.size.map(Bytes),
    }
}

/// The path that a name stands for: an older CRIU left out the slash at its start.
pub(super) fn absolute(name: &[u8]) -> PathBuf {
    Path::new("/").join(path(name.to_vec()))
}

fn path(name: Vec<u8>) -> PathBuf {
    OsString::from_vec(name).into()
}

/// The open flags of what has neither a path nor a number; 0 where the image doesn't have them.
fn nameless_flags(file: &OpenFile) -> u32 {
    let anonymous = [
        &file.event_fd,
        &file.event_poll,
        &file.signal_fd,
        &file.timer_fd,
        &file.inotify,
        &file.fanotify,
        &file.bpf_map,
    ];
    let anonymous = anonymous.into_iter().flatten().map(|file| file.flags).next();
    anonymous
        .or(file.packet_socket.as_ref().map(|file| file.flags))
        .or(file.namespace.as_ref().map(|file| file.flags))
        .or(file.pid_fd.as_ref().map(|file| file.flags))
        .unwrap_or(0)
}

fn kind(number: i32) -> DescriptorKind {
    match FileKind::try_from(number).unwrap_or(FileKind::Undefined) {
        FileKind::Regular => DescriptorKind::File,
        FileKind::Pipe => DescriptorKind::Pipe,
        FileKind::Fifo => DescriptorKind::Fifo,
        FileKind::InetSocket => DescriptorKind::InetSocket,
        FileKind::UnixSocket => DescriptorKind::UnixSocket,
        FileKind::NetlinkSocket => DescriptorKind::NetlinkSocket,
        FileKind::PacketSocket => DescriptorKind::PacketSocket,
        FileKind::Terminal => DescriptorKind::Terminal,
        FileKind::EventFd => DescriptorKind::EventFd,
        FileKind::EventPoll => DescriptorKind::Epoll,
        FileKind::SignalFd => DescriptorKind::SignalFd,
        FileKind::TimerFd => DescriptorKind::TimerFd,
        FileKind::Inotify | FileKind::Fanotify => DescriptorKind::FileWatch,
        FileKind::MemFd => DescriptorKind::MemFd,
        FileKind::Namespace
        | FileKind::Tun
        | FileKind::External
        | FileKind::BpfMap
        | FileKind::PidFd
        | FileKind::Undefined => DescriptorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::images::{Pipe, Terminal, UnixSocket};
    use super::super::testing::Folder;
    use super::*;
    use crate::error::ErrorKind;

    /// The descriptors of one table that has one for each of these files.
    fn descriptors(files: &[OpenFile]) -> Result<Vec<Descriptor>> {
        let folder = Folder::new();
        folder.write(Image::Files, files);
        let entries: Vec<_> = files
            .iter()
            .zip(3..)
            .map(|(file, fd)| FdInfo { id: file.id, flags: 0, kind: file.kind, fd })
            .collect();
        folder.write(Image::FdInfo { files_id: 1 }, &entries);
        OpenFiles::read(folder.path())?.of_table(folder.path(), 1)
    }

    fn descriptor(file: OpenFile) -> Descriptor {
        descriptors(&[file]).unwrap().remove(0)
    }

    fn regular(file: RegularFile) -> OpenFile {
        let kind = FileKind::Regular.into();
        OpenFile { kind, id: file.id, regular: Some(file), ..Default::default() }
    }

    #[test]
    fn a_kind_that_only_a_newer_criu_knows_is_other() {
        let unknown = descriptor(OpenFile { kind: 99, id: 1, ..Default::default() });
        assert_eq!((unknown.kind, unknown.path, unknown.flags), (DescriptorKind::Other, None, 0));
    }

    #[test]
    fn a_path_keeps_its_bytes_and_gets_its_slash() {
        for name in [b"/tmp/caf\xe9".to_vec(), b"tmp/caf\xe9".to_vec()] {
            let file = descriptor(regular(RegularFile { name, ..Default::default() }));
            assert_eq!(file.path.unwrap().into_os_string().into_vec(), b"/tmp/caf\xe9");
        }
    }

    #[test]
    fn an_external_file_keeps_the_name_that_criu_gave_it() {
        let file = RegularFile { name: b"file[1:2]".into(), ext: Some(true), ..Default::default() };
        assert_eq!(descriptor(regular(file)).path.unwrap(), Path::new("file[1:2]"));
    }

    #[test]
    fn only_a_regular_file_has_a_position() {
        let of_mode =
            |mode| descriptor(regular(RegularFile { pos: 5, mode: Some(mode), ..Default::default() }));
        assert_eq!(of_mode(0o100_644).position_bytes, Some(Bytes(5)));
        assert_eq!(of_mode(0o040_755).position_bytes, None);
    }

    #[test]
    fn pipes_and_sockets_are_named_as_for_inherit_fd() {
        let pipe = Pipe { id: 1, pipe_id: 42, flags: 1 };
        let pipe = OpenFile { kind: FileKind::Pipe.into(), id: 1, pipe: Some(pipe), ..Default::default() };
        let socket = UnixSocket { id: 2, ino: 43, flags: 2 };
        let kind = FileKind::UnixSocket.into();
        let socket = OpenFile { kind, id: 2, unix_socket: Some(socket), ..Default::default() };
        let found = descriptors(&[pipe, socket]).unwrap();
        let found: Vec<_> = found.iter().map(|d| (d.fd, d.path.as_deref().unwrap(), d.flags)).collect();
        assert_eq!(found, [(3, Path::new("pipe:[42]"), 1), (4, Path::new("socket:[43]"), 2)]);
    }

    #[test]
    fn a_terminal_is_named_by_where_it_was_opened() {
        let opened =
            regular(RegularFile { id: 8, name: b"/dev/pts/0".into(), flags: 2, ..Default::default() });
        let kind = FileKind::Terminal.into();
        let terminal = |regular_id| OpenFile {
            kind,
            id: 1,
            terminal: Some(Terminal { id: 1, flags: 2, regular_id }),
            ..Default::default()
        };
        let named = descriptors(&[terminal(Some(8)), opened]).unwrap().remove(0);
        assert_eq!((named.kind, named.path), (DescriptorKind::Terminal, Some("/dev/pts/0".into())));
        assert_eq!(descriptor(terminal(None)).path, None);
    }

    #[test]
    fn a_descriptor_of_a_file_that_is_not_there_is_damage() {
        let folder = Folder::new();
        folder.write::<OpenFile>(Image::Files, &[]);
        folder.write(Image::FdInfo { files_id: 1 }, &[FdInfo { fd: 5, ..Default::default() }]);
        let files = OpenFiles::read(folder.path()).unwrap();
        let error = files.of_table(folder.path(), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().ends_with("fdinfo-1.img is damaged: descriptor 5 refers to nothing"));
    }
}
