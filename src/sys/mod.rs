//! The operating system: everything `unsafe`, every use of libc and nix stands behind these functions.
//!
//! - [`message`]: whole messages over a SOCK_SEQPACKET socket, with a deadline.
//! - [`passing`]: descriptors in messages.
//! - `listener`, `peer`: a service's socket, and who is at the other end of a connection.
//! - `credentials`: acting as somebody else.
//! - [`wake`]: the pipe through which a signal handler or another thread wakes the agent.
//! - [`signal`]: signals by name and number; keeping the agent free of them, sending them, taking them.
//! - [`handler`]: the handlers of the signals that ask for checkpoints.
//! - [`crash`]: the handler of the signals that a program dies of.
//! - [`spawn`]: starting CRIU's worker without a fork of the program's memory.
//! - [`ourselves`]: this very code in a process of its own, which goes on while the program stands still.
//! - [`fork`]: what of our descriptors a forked child is not to have.
//! - [`copying`]: taking pages out of a pipe with several processors.
//! - [`snapshot`]: a copy of this process as it is at one moment, with all that its other threads were.
//! - `ptrace`: the requests of ptrace(2), typed.
//! - `tracee`: a child that stands still at its own end.
//! - [`limit`]: having a worker end after a time.
//! - [`hidden`]: a file system in memory, in huge pages, that is mounted nowhere.
//! - [`leisure`]: reading and writing when nobody else wants the disk.
//! - [`process`]: who we are, who waits for whom.
//! - [`pidfd`]: processes that we are not the parent of.
//! - [`program`]: starting somebody else's program.
//! - [`procfs`]: what `/proc` says of processes.
//! - [`cgroup`]: how much memory the control groups of this process leave it.
//! - [`task`]: what a process is doing, what it may do, and its handlers.
//! - [`sock_diag`]: unix sockets and who is at their other ends.
//! - [`mappings`]: the names of what a process has mapped.
//! - [`xattr`]: extended attributes: capabilities of programs, protocols of sockets.
//! - [`xsave`]: where the processor keeps what of its registers.
//! - [`machine`]: what a kernel, its security modules and its file systems allow.
//! - [`terminal`]: whether there is a terminal, its size and mode, and pseudoterminals.
//! - [`namespace`]: a pid namespace of its own for a command.
//! - [`elf`]: what an ELF file says of itself.
//! - [`copies`]: other copies of this library in the same process.
//! - [`trust`]: whether somebody else can have put there what a path leads to.
//! - `folder`: what is done in an open folder, whatever its path leads to by now.
//! - `part`: copying a part of a file.
//! - [`sparse`]: files that take no room for what is all zero in them.
//! - [`disk`]: what `std::fs` lacks: free space, renames that overwrite nothing, fsync of folders.

pub(crate) mod cgroup;
pub(crate) mod copies;
pub(crate) mod copying;
pub(crate) mod crash;
#[cfg(feature = "service")]
pub(crate) mod credentials;
pub(crate) mod disk;
pub(crate) mod elf;
#[cfg(feature = "service")]
pub(crate) mod folder;
pub(crate) mod fork;
pub(crate) mod handler;
pub(crate) mod hidden;
pub(crate) mod leisure;
mod limit;
#[cfg(feature = "service")]
pub(crate) mod listener;
pub(crate) mod machine;
pub(crate) mod mappings;
pub(crate) mod message;
pub(crate) mod namespace;
pub(crate) mod ourselves;
#[cfg(feature = "inspect")]
pub(crate) mod part;
pub(crate) mod passing;
#[cfg(feature = "service")]
pub(crate) mod peer;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod program;
mod ptrace;
pub(crate) mod signal;
pub(crate) mod snapshot;
pub(crate) mod sock_diag;
pub(crate) mod sparse;
pub(crate) mod spawn;
pub(crate) mod task;
pub(crate) mod terminal;
pub(crate) mod tracee;
pub(crate) mod trust;
pub(crate) mod wake;
pub(crate) mod xattr;
pub(crate) mod xsave;
