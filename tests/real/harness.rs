//! The vocabulary of these tests: a [`Lab`] with a store of its own, [`Subject`]s that run in it, and
//! waiting with a deadline.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const USR2: i32 = 12;
pub const KILL: i32 = 9;

/// Slack for a machine that is busy with other things; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The CRIU that everything is tested with.
pub fn criu() -> PathBuf {
    installed("SELFDUMP_CRIU", "criu/bin/criu")
}

/// The oldest CRIU that is supported, 4.1.1.
pub fn oldest_criu() -> PathBuf {
    installed("SELFDUMP_CRIU_OLD", "criu-4.1.1/bin/criu")
}

fn installed(variable: &str, in_target: &str) -> PathBuf {
    let found = std::env::var_os(variable).map_or_else(|| target().join(in_target), PathBuf::from);
    assert!(found.is_file(), "no CRIU at {}: run `cargo xtask setup`, which gets one", found.display());
    found
}

/// The target folder: the test itself is target/PROFILE/deps/real-HASH.
pub fn target() -> PathBuf {
    built(Path::new("")).parent().expect("target/PROFILE").to_owned()
}

pub fn built(path: &Path) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.parent().and_then(Path::parent).expect("target/PROFILE/deps").join(path)
}

/// `linked`, built without shared libraries by `cargo xtask test`: target/KIND/TRIPLE/debug/linked.
pub fn static_program(kind: &str) -> PathBuf {
    let built = fs::read_dir(target().join(kind)).into_iter().flatten().flatten();
    let mut programs = built.map(|triple| triple.path().join("debug/linked"));
    let found = programs.find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("the {kind} program is not built: run `cargo xtask test`"))
}

/// A program of `tests/programs` or `examples`.
pub fn program(name: &str) -> PathBuf {
    let path = built(&Path::new("examples").join(name));
    assert!(path.is_file(), "{} is not built: run `cargo build --examples`", path.display());
    path
}

/// The command line tool.
pub fn selfdump() -> Command {
    let path = built(Path::new("selfdump"));
    assert!(path.is_file(), "{} is not built: run `cargo build -p selfdump-cli`", path.display());
    Command::new(path)
}

/// Copies a program to where it is run from. Who writes it is another process: while a program of the tests' own is open for
/// writing in them, each process that another test starts has the descriptor until it is another program, and the kernel
/// doesn't run what anybody may write to ("Text file busy").
pub fn copy_program(program: impl AsRef<Path>, to: &Path) {
    succeeds(Command::new("cp").arg("--").arg(program.as_ref()).arg(to));
}

/// Writes a script, or whatever else is to be run, in the same way.
pub fn write_script(path: &Path, text: impl AsRef<[u8]>) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"cat > "$0" && chmod 755 "$0""#]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("sh");
    shell.stdin.take().expect("a pipe").write_all(text.as_ref()).expect("a script");
    assert!(shell.wait().expect("a child").success(), "{} is not written", path.display());
}

/// libselfdump.so.
pub fn library() -> PathBuf {
    let path = built(Path::new("libselfdump.so"));
    assert!(path.is_file(), "{} is not built: run `cargo build -p selfdump-preload`", path.display());
    path
}

/// Runs a command that has to succeed, and returns what it prints.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits for something to be there; panics with `what` when it never comes.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    patiently(look).unwrap_or_else(|| panic!("never came: {what}"))
}

/// Looks until there is something, or for so long that it won't come any more.
pub fn patiently<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let found = look();
        if found.is_some() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A folder of its own with a store in it; both go when it is dropped.
pub struct Lab {
    folder: tempfile::TempDir,
    pub criu: PathBuf,
}

impl Lab {
    pub fn new() -> Lab {
        Lab { folder: tempfile::tempdir().expect("a folder for the test"), criu: criu() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A program of ours, to be started in this lab; its output is appended to the file `NAME.out`.
    pub fn program(&self, name: &str) -> Launch {
        self.launch(Command::new(program(name)), name)
    }

    /// `selfdump COMMAND …` in this lab.
    pub fn selfdump<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = selfdump();
        command.args(arguments).envs(self.environment()).stdin(Stdio::null());
        command
    }

    /// The same, run to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.selfdump(arguments).output().expect("selfdump runs")
    }

    /// Restores a target in the foreground, as a user would; the program's output goes on in `NAME.out`.
    pub fn restore(&self, target: impl AsRef<OsStr>) -> Subject {
        let mut command = selfdump();
        command.arg("restore").arg(target);
        self.launch(command, "restore").start()
    }

    /// Any command, to be started in this lab; its output is appended to the file `NAME.out`.
    pub fn launch(&self, mut command: Command, name: &str) -> Launch {
        command.envs(self.environment());
        Launch { command, output: self.path(&format!("{name}.out")) }
    }

    /// Starts a command with its own standard input; its output is appended to the file `NAME.out`.
    pub fn launch_piped(&self, mut command: Command, name: &str) -> Child {
        let output = append(&self.path(&format!("{name}.out")));
        let errors = output.try_clone().expect("a duplicate");
        command.stdout(output).stderr(errors).spawn().expect("it starts")
    }

    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        // The runtime folder stays the machine's: `selfdump status PID` has to find programs there.
        // What a failed restore leaves to be looked at goes with the lab.
        vec![("SELFDUMP_DIR", self.store()), ("SELFDUMP_CRIU", self.criu.clone()), ("TMPDIR", self.path(""))]
    }

    /// The folders of all committed checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = below(&self.store())
            .iter()
            .flat_map(|program| below(program))
            .flat_map(|instance| below(&instance))
            .filter(|folder| name(folder).bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        found.sort();
        found
    }

    /// The last status.json of the only instance, once `accepted` likes it.
    pub fn status_when(&self, what: &str, accepted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.status().filter(|status| accepted(status)))
    }

    pub fn status(&self) -> Option<Value> {
        let instance = below(&self.store()).first().and_then(|program| below(program).pop())?;
        read_json(&instance.join("status.json"))
    }

    /// Waits until the newest checkpoint has at least this number.
    pub fn wait_for_checkpoint(&self, number: u64) -> PathBuf {
        eventually(&format!("checkpoint {number}"), || {
            self.checkpoints().pop().filter(|newest| name(newest).parse::<u64>().is_ok_and(|n| n >= number))
        })
    }
}

pub fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The manifest of a checkpoint.
pub fn manifest(checkpoint: &Path) -> Value {
    read_json(&checkpoint.join("manifest.json")).expect("a manifest")["manifest"].clone()
}

/// The number in a checkpoint's folder name.
pub fn number(checkpoint: &Path) -> u64 {
    name(checkpoint).parse().expect("a number")
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders in a folder, by name, without links.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    folders
}

/// A program that is about to be started.
pub struct Launch {
    command: Command,
    output: PathBuf,
}

impl Launch {
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Launch {
        self.command.arg(argument);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Launch {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.command.env(name, value);
        self
    }

    pub fn env_remove(mut self, name: &str) -> Launch {
        self.command.env_remove(name);
        self
    }

    /// As a user, in the group of the same number, and in a folder that everybody can be in.
    pub fn user(mut self, user: u32) -> Launch {
        use std::os::unix::process::CommandExt;
        self.command.uid(user).gid(user).current_dir("/");
        self
    }

    pub fn start(mut self) -> Subject {
        let output = append(&self.output);
        let errors = output.try_clone().expect("a duplicate");
        let child =
            self.command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("it starts");
        Subject { child, output: self.output }
    }
}

/// A file that is appended to may have grown when the program is restored.
fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("an output file")
}

/// A running program. It is killed, by its process id, and waited for when it is dropped.
pub struct Subject {
    child: Child,
    output: PathBuf,
}

impl Subject {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    /// Stops it. A signal only asks for that: of a busy process the other threads may go on for a while.
    pub fn stop(&self) {
        stop(self.pid());
    }

    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits for a line of the output that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        eventually(text, || self.output().lines().find(|line| line.contains(text)).map(str::to_owned))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Ends it as a crash would, and waits until its process id is free.
    pub fn crash(mut self) -> ExitStatus {
        self.signal(KILL);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = patiently(|| self.child.try_wait().expect("a child"));
        ended.unwrap_or_else(|| panic!("process {} never ended, which said: {}", self.pid(), self.output()))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops a process, and waits until all its threads stand still.
pub fn stop(pid: i32) {
    send(pid, libc::SIGSTOP);
    eventually("the stop of all threads", || is_stopped(pid).then_some(()));
}

/// Whether all threads of a process stand still because of a signal.
pub fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    states.all(|state| state.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
}

/// Sends a signal by process id.
pub fn send(pid: i32, signal: i32) {
    // SAFETY: kill(2) on a number; no memory is involved.
    unsafe { libc::kill(pid, signal) };
}

/// A restored program, ended by its own process id when it is dropped: `selfdump restore` being killed
/// would leave it running.
pub struct Restored {
    pub restorer: Subject,
    pub pid: i32,
}

impl Drop for Restored {
    fn drop(&mut self) {
        send(self.pid, KILL);
        let _ = self.restorer.child.wait();
    }
}

/// Whether a process was ended by this signal.
pub fn died_of(status: ExitStatus, signal: i32) -> bool {
    status.signal() == Some(signal)
}
