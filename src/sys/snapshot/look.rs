//! What `/proc` and the kernel say of a process that stands still, as far as a copy of it wouldn't show it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, tee};
use nix::unistd;

use super::super::procfs;
use super::moment::{Contents, Descriptor, Moment, Thread};

/// The lines of a thread's status that say who it is and what it may do.
const RIGHTS: [&str; 10] =
    ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];

/// All but its threads, descriptors and what it alone can tell.
pub(super) fn process(pid: i32) -> io::Result<Moment> {
    let stat = procfs::stat(pid)?;
    let timers = fs::read_to_string(format!("/proc/{pid}/timers")).unwrap_or_default();
    let adjustment = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    Ok(Moment {
        pid,
        process_group: stat.group,
        session: stat.session,
        oom_score_adj: adjustment.trim().parse().unwrap_or(0),
        mappings: fs::read_to_string(format!("/proc/{pid}/maps"))?,
        children: procfs::tree(pid).split_off(1),
        posix_timers: timers.lines().filter(|line| line.starts_with("ID:")).count(),
        locked_kib: procfs::status_number(pid, "VmLck")?,
        leads_a_terminal: stat.session == pid && stat.has_terminal,
        ..Moment::default()
    })
}

/// What can be read of a thread without its help.
pub(super) fn thread(pid: i32, tid: i32) -> io::Result<Thread> {
    let folder = format!("/proc/{pid}/task/{tid}");
    let status = fs::read_to_string(format!("{folder}/status"))?;
    let says_rights = |line: &&str| line.split(':').next().is_some_and(|key| RIGHTS.contains(&key));
    let rights: Vec<&str> = status.lines().filter(says_rights).collect();
    let (policy, priority) = schedule(tid)?;
    Ok(Thread {
        tid,
        name: fs::read(format!("{folder}/comm"))?.trim_ascii_end().to_vec(),
        robust_list: robust_list(tid)?,
        policy,
        priority,
        nice: nice(tid)?,
        rights: rights.join("\n"),
        ..Thread::default()
    })
}

/// Whether this is the error of who looks at a thread or a descriptor that has gone meanwhile.
pub(super) fn has_gone(error: &io::Error) -> bool {
    let gone = [libc::ENOENT, libc::ESRCH, libc::EBADF];
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}

/// The ids of a process's threads.
pub(super) fn threads(pid: i32) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn robust_list(tid: i32) -> io::Result<(u64, u64)> {
    let (mut head, mut size): (u64, u64) = (0, 0);
    // SAFETY: the kernel writes an address and a size to where both are.
    let done = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut size) };
    Errno::result(done)?;
    Ok((head, size))
}

/// The policy and the real-time priority.
fn schedule(tid: i32) -> io::Result<(u32, u32)> {
    let mut parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: numbers, and a struct that lives until the call returns.
    let policy = unsafe {
        Errno::result(libc::sched_getparam(tid, &raw mut parameters))?;
        Errno::result(libc::sched_getscheduler(tid))?
    };
    Ok((policy as u32, parameters.sched_priority as u32))
}

fn nice(tid: i32) -> io::Result<i32> {
    Errno::clear();
    // SAFETY: plain numbers.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, tid as u32) };
    match Errno::last() {
        errno if nice == -1 && errno as i32 != 0 => Err(errno.into()),
        _ => Ok(nice),
    }
}

/// All that it has open. Of a process that looks at itself not what it looks by.
pub(super) fn descriptors(pid: i32) -> io::Result<Vec<Descriptor>> {
    let folder = format!("/proc/{pid}/fd");
    let listed = fs::read_dir(&folder)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<i32> = listed.collect();
    // That of the listing itself is closed again.
    numbers.retain(|number| fs::symlink_metadata(format!("{folder}/{number}")).is_ok());
    numbers.sort_unstable();
    let (process, mut pipes) = (open_process(pid)?, HashSet::new());
    let looked = numbers.into_iter().map(|fd| descriptor(pid, &process, fd, &mut pipes));
    // Of a process that runs some may be closed again. Of one that stands still CRIU will say so if one is missing.
    looked.filter(|seen| !seen.as_ref().is_err_and(has_gone)).collect()
}

fn descriptor(pid: i32, process: &OwnedFd, fd: i32, pipes: &mut HashSet<u64>) -> io::Result<Descriptor> {
    let link = format!("/proc/{pid}/fd/{fd}");
    let (target, file) = (fs::read_link(&link)?, fs::metadata(&link)?);
    let is_new_pipe = target.as_os_str().as_encoded_bytes().starts_with(b"pipe:") && pipes.insert(file.ino());
    Ok(Descriptor {
        fd,
        info: fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?,
        size: file.is_file().then(|| file.size()),
        inode: file.ino(),
        mode: file.mode(),
        links: file.nlink(),
        contents: if is_new_pipe { contents(Path::new(&link))? } else { None },
        listens: file.file_type().is_socket() && listens(process, fd)?,
        target,
    })
}

/// What is in a pipe, which stays there.
fn contents(pipe: &Path) -> io::Result<Option<Contents>> {
    let source = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(pipe)?;
    let capacity = fcntl(&source, FcntlArg::F_GETPIPE_SZ)?;
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    // As many pieces fit into both.
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(capacity))?;
    match tee(source.as_fd(), writer.as_fd(), capacity as usize, SpliceFFlags::SPLICE_F_NONBLOCK) {
        Ok(0) | Err(Errno::EAGAIN) => return Ok(None),
        Err(errno) => return Err(errno.into()),
        Ok(_) => {}
    }
    drop(writer);
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes)?;
    Ok(Some(Contents { bytes, capacity: capacity as u32 }))
}

/// A descriptor of the process itself.
fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor that it returns is ours alone.
    unsafe {
        let descriptor = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(descriptor as i32))
    }
}

/// Whether a socket of the process listens: it is asked through a descriptor of our own.
fn listens(process: &OwnedFd, fd: i32) -> io::Result<bool> {
    let (mut answer, mut size): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: plain numbers; the descriptor that pidfd_getfd returns is ours alone; the kernel writes a number to where one
    // is.
    let socket = unsafe {
        let socket = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0))?;
        OwnedFd::from_raw_fd(socket as i32)
    };
    // SAFETY: the kernel writes a number to where one is.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut answer).cast(),
            &raw mut size,
        )
    };
    // A kind of sockets that doesn't know the question doesn't listen.
    Ok(asked == 0 && answer == 1)
}
