//! Who else can have a program dumped: CRIU's command line, its service, and what speaks to it from Rust and from Python.
//!
//! Each is told what selfdump tells CRIU: to leave the program running, to log at level 2, to leave control groups alone,
//! and what the program's state asks for ([`Needs`]).

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};
use protobuf::{EnumOrUnknown, Message, MessageField};
use rust_criu::rust_criu_protobuf::rpc::{Criu_cg_mode, Criu_opts, Criu_req, Criu_req_type, Criu_resp};
use selfdump::frozen::Needs;

use crate::comparison::noise::between;
use crate::comparison::{Failure, options, scene};

/// What pycriu is started with.
const PYCRIU: &str = include_str!("pycriu.py");

/// Whoever dumps the program from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    CommandLine,
    Service,
    RustCriu,
    Pycriu,
}

/// What is dumped, and where to.
pub struct Job<'a> {
    pub criu: &'a Path,
    pub pid: i32,
    pub images: &'a Path,
    pub needs: &'a Needs,
    pub service: &'a Service,
}

impl Peer {
    /// Dumps it; how long that took, from the request to the answer.
    pub fn dump(self, job: &Job<'_>) -> Result<Duration, Failure> {
        match self {
            Peer::CommandLine => command_line(job),
            Peer::Service => through_the_service(job),
            Peer::RustCriu => rust_criu(job),
            Peer::Pycriu => pycriu(job),
        }
        .map_err(|error| {
            let log = fs::read_to_string(job.images.join("dump.log")).unwrap_or_default();
            format!("{self:?} has failed: {error}\n{log}").into()
        })
    }
}

/// From the start of the command to its end.
fn command_line(job: &Job<'_>) -> Result<Duration, Failure> {
    let mut command = Command::new(job.criu);
    command.args(["dump", "--tree", &job.pid.to_string(), "--images-dir"]).arg(job.images);
    command.args(dump_options(job.needs));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let asked = SystemTime::now();
    let status = command.status()?;
    let time = between(asked, SystemTime::now())?;
    if status.success() { Ok(time) } else { Err(status.to_string().into()) }
}

/// As they are spelled on the command line.
pub fn dump_options(needs: &Needs) -> Vec<String> {
    let mut options = options::options(needs);
    options.extend(["--leave-running", "--log-file=dump.log"].map(str::to_owned));
    options.extend(needs.tcp_established.then(|| "--tcp-established".to_owned()));
    options
}

fn through_the_service(job: &Job<'_>) -> Result<Duration, Failure> {
    let images = File::open(job.images)?;
    let mut told = Criu_opts::new();
    told.set_images_dir_fd(images.as_raw_fd());
    told.set_pid(job.pid);
    told.set_leave_running(true);
    told.set_log_level(2);
    told.set_log_file("dump.log".to_owned());
    told.set_shell_job(job.needs.shell_job);
    told.set_file_locks(job.needs.file_locks);
    told.set_ext_unix_sk(job.needs.ext_unix_sk);
    told.set_manage_cgroups_mode(Criu_cg_mode::IGNORE);
    let mut request = Criu_req::new();
    request.type_ = Some(EnumOrUnknown::new(Criu_req_type::DUMP));
    request.opts = MessageField::some(told);
    let request = request.write_to_bytes()?;
    let asked = SystemTime::now();
    let connection = job.service.connect()?;
    send(connection.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; 64 * 1024];
    let length = recv(connection.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let time = between(asked, SystemTime::now())?;
    let answer = Criu_resp::parse_from_bytes(&answer[..length])?;
    if answer.success() { Ok(time) } else { Err(answer.cr_errmsg().into()) }
}

fn rust_criu(job: &Job<'_>) -> Result<Duration, Failure> {
    let images = File::open(job.images)?;
    let asked = SystemTime::now();
    let mut criu = rust_criu::Criu::new_with_criu_path(job.criu.display().to_string())?;
    criu.set_pid(job.pid);
    criu.set_images_dir_fd(images.as_raw_fd());
    criu.set_leave_running(true);
    criu.set_log_level(2);
    criu.set_log_file("dump.log".to_owned());
    criu.set_shell_job(job.needs.shell_job);
    criu.set_file_locks(job.needs.file_locks);
    criu.set_ext_unix_sk(job.needs.ext_unix_sk);
    criu.cgroups_mode(rust_criu::CgMode::IGNORE);
    criu.dump()?;
    between(asked, SystemTime::now())
}

/// From its call to its return: the interpreter's start is not counted.
fn pycriu(job: &Job<'_>) -> Result<Duration, Failure> {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", scene::target()?.join("crit/usr/lib/python3/dist-packages"));
    python.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
    python.arg("-c").arg(PYCRIU).arg(job.criu).arg(job.pid.to_string()).arg(job.images);
    let flags = [job.needs.shell_job, job.needs.file_locks, job.needs.ext_unix_sk];
    python.args(flags.map(|flag| if flag { "yes" } else { "" }));
    let output = python.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let microseconds: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Duration::from_secs_f64(microseconds / 1e6))
}

/// A running `criu service`; killed and waited for when it is dropped.
pub struct Service {
    child: Child,
    socket: PathBuf,
}

impl Service {
    /// Starts one, with its socket and its log in a folder.
    pub fn start(criu: &Path, folder: &Path) -> Result<Service, Failure> {
        let socket = folder.join("service");
        let mut command = Command::new(criu);
        command.arg("service").arg("--address").arg(&socket).arg("--work-dir").arg(folder);
        command.args(["-v2", "--log-file=service.log"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let service = Service { child, socket };
        for _ in 0..500 {
            if service.connect().is_ok() {
                return Ok(service);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the service doesn't answer".into())
    }

    fn connect(&self) -> Result<OwnedFd, Failure> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(&self.socket)?)?;
        Ok(socket)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
