//! The descriptors, and the open files behind them: the copy shares these with the process, which has gone on.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::draft::Draft;
use super::info::{Info, Watch};
use super::senseless;
use crate::error::{Error, Result};
use crate::image::images::{EventPoll, EventPollTarget, FdInfo, FileKind, OpenFile, RegularFile};
use crate::image::kind::{Image, Kind};
use crate::sys::snapshot::moment::{Descriptor, Moment};

/// The open flags that fcntl(2) can change: O_APPEND, O_NONBLOCK, O_ASYNC, O_DIRECT, O_NOATIME.
const CHANGEABLE: u32 = 0o2_000 | 0o4_000 | 0o20_000 | 0o40_000 | 0o1_000_000;

/// A descriptor: its entry, what was noted of it, and what it refers to, completed.
pub(super) struct Open<'a> {
    pub(super) entry: FdInfo,
    pub(super) descriptor: &'a Descriptor,
    pub(super) file: OpenFile,
}

/// By kind and id, as an older CRIU gave one id to files of different kinds.
type Key = (i32, u32);

/// Makes open files what they were, and takes the descriptor `leash` out. The descriptors, in the table's order.
pub(super) fn complete<'a>(
    draft: &mut Draft,
    files_id: u32,
    leash: i32,
    moment: &'a Moment,
) -> Result<Vec<Open<'a>>> {
    let image = Image::of(Kind::FdInfo, files_id);
    let (gone, table): (Vec<FdInfo>, Vec<FdInfo>) =
        draft.read::<FdInfo>(image)?.into_iter().partition(|entry| i32::try_from(entry.fd) == Ok(leash));
    let used: HashSet<Key> = table.iter().map(key).collect();
    let unused: HashSet<Key> = gone.iter().map(key).filter(|key| !used.contains(key)).collect();
    let mut files: Vec<OpenFile> = draft.read(Image::FILES)?;
    files.retain(|file| !unused.contains(&(file.r#type, file.id)));
    let places: HashMap<Key, usize> =
        files.iter().enumerate().map(|(place, file)| ((file.r#type, file.id), place)).collect();
    let noted = match_up(draft, image, &table, moment)?;
    for (entry, descriptor) in table.iter().zip(&noted) {
        let place = *places
            .get(&key(entry))
            .ok_or_else(|| draft.damaged(image, format!("descriptor {} refers to nothing", entry.fd)))?;
        set(&mut files[place], descriptor, moment)?;
        // A named pipe or a terminal has a regular file besides, which says how it was opened.
        let opened = opened_at(&files[place]).and_then(|id| places.get(&(FileKind::Regular.into(), id)));
        if let Some(&place) = opened {
            set(&mut files[place], descriptor, moment)?;
        }
    }
    draft.write(image, &table)?;
    draft.write(Image::FILES, &files)?;
    let open = table.into_iter().zip(noted).map(|(entry, descriptor)| {
        let file = files[places[&key(&entry)]].clone();
        Open { entry, descriptor, file }
    });
    Ok(open.collect())
}

fn key(entry: &FdInfo) -> Key {
    (entry.r#type, entry.id)
}

/// What was noted of each descriptor of the table. Both have to have the same ones.
fn match_up<'a>(
    draft: &Draft,
    image: Image,
    table: &[FdInfo],
    moment: &'a Moment,
) -> Result<Vec<&'a Descriptor>> {
    let mut noted: BTreeMap<i32, &Descriptor> =
        moment.descriptors.iter().map(|descriptor| (descriptor.fd, descriptor)).collect();
    let of = |entry: &FdInfo| {
        let found = i32::try_from(entry.fd).ok().and_then(|fd| noted.remove(&fd));
        found.ok_or_else(|| draft.damaged(image, format!("descriptor {} was not noted", entry.fd)))
    };
    let found = table.iter().map(of).collect::<Result<Vec<_>>>()?;
    match noted.first_key_value() {
        Some((fd, _)) => Err(draft.damaged(image, format!("descriptor {fd} is missing"))),
        None => Ok(found),
    }
}

/// The id of the regular file that says where and how this was opened.
fn opened_at(file: &OpenFile) -> Option<u32> {
    let of_fifo = file.fifo.map(|fifo| fifo.regf_id.unwrap_or(fifo.id));
    of_fifo.or(file.tty.map(|terminal| terminal.regf_id.unwrap_or(terminal.id)))
}

/// Makes an open file what it was.
fn set(file: &mut OpenFile, noted: &Descriptor, moment: &Moment) -> Result<()> {
    let unread = || unread(noted);
    let info = Info(&noted.info);
    let flags = info.flags().ok_or_else(unread)?;
    let position = info.position().ok_or_else(unread)?;
    if let Some(regular) = &mut file.reg {
        regular.pos = position;
        set_size(regular, noted)?;
    }
    if let Some(mem_fd) = &mut file.memfd {
        mem_fd.pos = position;
    }
    if let Some(event) = &mut file.efd {
        event.counter = info.count().ok_or_else(unread)?;
    }
    if let Some(signal) = &mut file.sgfd {
        signal.sigmask = info.signals().ok_or_else(unread)?;
    }
    if let Some(timer) = &mut file.tfd {
        let noted = info.timer().ok_or_else(unread)?;
        (timer.clockid, timer.ticks, timer.settime_flags) = (noted.clock, noted.ticks, noted.settime_flags);
        ((timer.vsec, timer.vnsec), (timer.isec, timer.insec)) = (noted.value, noted.interval);
    }
    if let Some(poll) = &mut file.epfd {
        set_watches(poll, &info.watches().ok_or_else(unread)?, noted, moment)?;
    }
    set_flags(file, flags);
    Ok(())
}

/// The size is what a restore holds the file against. CRIU doesn't write every file's.
fn set_size(file: &mut RegularFile, noted: &Descriptor) -> Result<()> {
    if file.size.is_some() {
        let without = || senseless(format!("descriptor {} has no size", noted.fd));
        file.size = Some(noted.size.ok_or_else(without)?);
    }
    Ok(())
}

/// All flags stay but those that can have changed since.
fn set_flags(file: &mut OpenFile, noted: u32) {
    let set = |flags: &mut u32, changeable: u32| *flags = *flags & !changeable | noted & changeable;
    if let Some(pipe) = &mut file.pipe {
        // CRIU refuses packets, and writes no O_DIRECT.
        set(&mut pipe.flags, CHANGEABLE & !0o40_000);
    }
    let others = [
        file.reg.as_mut().map(|file| &mut file.flags),
        file.isk.as_mut().map(|file| &mut file.flags),
        file.usk.as_mut().map(|file| &mut file.flags),
        file.nlsk.as_mut().map(|file| &mut file.flags),
        file.psk.as_mut().map(|file| &mut file.flags),
        file.efd.as_mut().map(|file| &mut file.flags),
        file.epfd.as_mut().map(|file| &mut file.flags),
        file.sgfd.as_mut().map(|file| &mut file.flags),
        file.tfd.as_mut().map(|file| &mut file.flags),
        file.ify.as_mut().map(|file| &mut file.flags),
        file.ffy.as_mut().map(|file| &mut file.flags),
        file.tty.as_mut().map(|file| &mut file.flags),
        file.memfd.as_mut().map(|file| &mut file.flags),
        file.bpf.as_mut().map(|file| &mut file.flags),
        file.nsf.as_mut().map(|file| &mut file.flags),
        file.pidfd.as_mut().map(|file| &mut file.flags),
    ];
    others.into_iter().flatten().for_each(|flags| set(flags, CHANGEABLE));
}

/// Has an epoll instance watch what it watched.
fn set_watches(poll: &mut EventPoll, watches: &[Watch], noted: &Descriptor, moment: &Moment) -> Result<()> {
    let targets = watches.iter().map(|watch| {
        let fd = watched(poll, watch, moment).ok_or_else(|| {
            senseless(format!("epoll instance {} watches {}, which is closed", noted.fd, watch.fd))
        })?;
        Ok(EventPollTarget {
            id: 0,
            tfd: fd,
            events: watch.events,
            data: watch.data,
            pos: watch.file.map(|(position, ..)| position),
            inode: watch.file.map(|(_, inode, _)| inode),
            dev: watch.file.map(|(.., device)| device),
        })
    });
    poll.tfd = targets.collect::<Result<_>>()?;
    Ok(())
}

/// The descriptor by which something is watched. The kernel says what number that had when the watch began. CRIU finds
/// out what it has now, if the watch is still there when the copy is dumped.
fn watched(poll: &EventPoll, watch: &Watch, moment: &Moment) -> Option<u32> {
    let is_it = |target: &&EventPollTarget| {
        let file = watch.file.map(|(_, inode, device)| (inode, device));
        target.data == watch.data && target.inode.zip(target.dev) == file
    };
    let by_criu = || poll.tfd.iter().filter(is_it).map(|target| target.tfd);
    let is_open = |descriptor: &Descriptor| {
        u32::try_from(descriptor.fd) == Ok(watch.fd)
            && watch.file.is_none_or(|(_, inode, _)| inode == descriptor.inode)
    };
    let same = by_criu().find(|fd| *fd == watch.fd);
    same.or_else(|| by_criu().next()).or_else(|| moment.descriptors.iter().any(is_open).then_some(watch.fd))
}

/// What the kernel said can't be read.
pub(super) fn unread(noted: &Descriptor) -> Error {
    senseless(format!("descriptor {} is described as {:?}", noted.fd, noted.info))
}
