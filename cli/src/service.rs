//! `selfdump service`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use selfdump::service::{self, LOCK_GROUP, Limits, Options};
use selfdump::{Bytes, criu};

/// Make the checkpoints of ordinary users' programs, as a daemon
///
/// Listens for everybody, and has each program dumped for itself alone, by a CRIU that acts as the program's own user.
/// The images are the user's, and bear a seal by which this machine's service knows them again. It has to be started as
/// root and keeps of root's rights what it needs; docs/service.md tells who may do what.
///
/// A line on standard error for each request tells who asked, for what, and what came of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen, unless systemd hands over a socket
    #[arg(long, value_name = "PATH", default_value = criu::GUARDED_SERVICE)]
    socket: PathBuf,
    /// The CRIU to use, which only root may be able to change [default: on PATH, else that of `selfdump setup`]
    #[arg(long, env = "SELFDUMP_CRIU", value_name = "PROGRAM")]
    criu: Option<PathBuf>,
    /// Where its key and its journal are
    #[arg(long, value_name = "DIR", default_value = service::STATE)]
    state: PathBuf,
    /// The group, which no user may be in, that may write into a folder while images are written
    #[arg(long, value_name = "NUMBER", default_value_t = LOCK_GROUP)]
    group: u32,
    /// Dumps at a time
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().dumps)]
    dumps: usize,
    /// Dumps at a time for each user
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().dumps_each)]
    dumps_each: usize,
    /// Connections at a time
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections)]
    connections: usize,
    /// Connections at a time for each user
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections_each)]
    connections_each: usize,
    /// Requests in a minute for each user; a checkpoint takes three
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().requests_each)]
    requests_each: usize,
    /// The largest program: what it and its children have in memory
    #[arg(long, value_name = "SIZE", default_value = "1TiB")]
    size: Bytes,
    /// What has to be left of the disk
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    reserve: Bytes,
    /// How long a dump may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    deadline: Duration,
    /// How long a connection may say nothing, and a dump wait for others to end
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    silence: Duration,
}

pub fn run(args: &Args) -> Result<()> {
    let mut limits = Limits::default();
    limits.dumps = args.dumps;
    limits.dumps_each = args.dumps_each;
    limits.connections = args.connections;
    limits.connections_each = args.connections_each;
    limits.requests_each = args.requests_each;
    limits.size = args.size;
    limits.reserve = args.reserve;
    limits.deadline = args.deadline;
    limits.silence = args.silence;
    let mut options = Options::default();
    options.socket.clone_from(&args.socket);
    options.criu.clone_from(&args.criu);
    options.state.clone_from(&args.state);
    options.group = args.group;
    options.limits = limits;
    Ok(service::serve(&options)?)
}
