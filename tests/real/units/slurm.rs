//! The job in a cluster of one node: Slurm's own daemons on loopback, with files and ports of their own, for the length
//! of the test.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::harness::send;

/// Its jobs are cancelled and its daemons ended when it is dropped.
struct Cluster {
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
}

/// How a job of the partition `lab` makes way for one of `urgent`: after so many seconds, and with more settings.
struct Preemption {
    grace: u32,
    more: &'static str,
}

impl Cluster {
    fn start() -> Cluster {
        Cluster::start_with(Preemption { grace: 0, more: "" })
    }

    fn start_with(preemption: Preemption) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder for the cluster");
        let mut cluster = Cluster { folder, daemons: Vec::new() };
        for below in ["state", "spool"] {
            fs::create_dir(cluster.path(below)).expect("a folder");
        }
        fs::write(cluster.path("slurm.conf"), cluster.configuration(&preemption)).expect("slurm.conf");
        cluster.start_munge();
        cluster.daemon("slurmctld", &["-D".into(), "-c".into()]);
        cluster.daemon("slurmd", &["-D".into()]);
        eventually("a node that is idle", || {
            cluster.run("sinfo", &["-h", "-o", "%T"]).contains("idle").then_some(())
        });
        cluster
    }

    /// By its own key: only the daemons of this cluster trust each other.
    fn start_munge(&mut self) {
        let mut key = [0; 1024];
        std::io::Read::read_exact(&mut File::open("/dev/urandom").expect("chance"), &mut key)
            .expect("chance");
        fs::write(self.path("key"), key).expect("a key");
        fs::set_permissions(self.path("key"), PermissionsExt::from_mode(0o400)).expect("a mode");
        let option = |name: &str, file: &str| {
            let mut option = OsString::from(format!("--{name}="));
            option.push(self.path(file));
            option
        };
        // Force: the folders above are open to more users than it likes, or to fewer.
        let mut options: Vec<OsString> = vec!["--foreground".into(), "--force".into()];
        options.extend([
            option("socket", "munge"),
            option("key-file", "key"),
            option("pid-file", "munge.pid"),
        ]);
        options.extend([option("seed-file", "seed"), option("log-file", "munge.log")]);
        self.daemon("munged", &options);
        eventually("munge's socket", || self.path("munge").exists().then_some(()));
    }

    /// A credential that expires soon, since a job waits for that before it runs again; and a scheduler that looks each
    /// second. Nothing here needs cgroups or accounting.
    fn configuration(&self, Preemption { grace, more }: &Preemption) -> String {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
        let host = host.trim().split('.').next().unwrap_or_default();
        let [first, second] = free_ports();
        let folder = self.folder.path().display();
        format!(
            "ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={first}
SlurmdPort={second}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=10
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory=100
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{more}
PartitionName=lab Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn daemon(&mut self, name: &str, arguments: &[OsString]) {
        let said = File::create(self.path(&format!("{name}.out"))).expect("a file for what it says");
        let mut command = Command::new(name);
        command.args(arguments).env("SLURM_CONF", self.path("slurm.conf")).stdin(Stdio::null());
        command.stdout(said.try_clone().expect("a duplicate")).stderr(said);
        let started =
            command.spawn().unwrap_or_else(|error| panic!("{name}: {error}; run `cargo xtask setup`"));
        self.daemons.push(started);
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("SLURM_CONF", self.path("slurm.conf")).env("PATH", path()).stdin(Stdio::null());
        command
    }

    /// A command of Slurm's, and what it writes. Before the daemons are ready that is nothing.
    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.command(name).args(arguments).output().expect("a command of Slurm's");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A field of `scontrol show job`.
    fn field(&self, job: &str, field: &str) -> Option<String> {
        let shown = self.run("scontrol", &["show", "job", job]);
        let wanted = format!("{field}=");
        shown.split_whitespace().find_map(|word| word.strip_prefix(&wanted)).map(str::to_owned)
    }

    /// What the job and its program have said.
    fn said(&self) -> String {
        fs::read_to_string(self.path("job.out")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let daemons = ["slurmctld.out", "slurmd.out"].map(|log| fs::read_to_string(self.path(log)));
            eprintln!("{}\n{daemons:#?}", self.said());
        }
        // The job's processes aren't children of ours: slurmd has to end them, and takes KillWait for it.
        self.run("scancel", &["--user", "root"]);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(15) && !self.run("squeue", &["-h"]).is_empty() {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.daemons.iter_mut().rev().for_each(end);
    }
}

/// By SIGTERM, since they have children that they end then; by SIGKILL if that takes too long.
fn end(daemon: &mut Child) {
    send(daemon.id() as i32, libc::SIGTERM);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) && matches!(daemon.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = daemon.kill();
    let _ = daemon.wait();
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// The job, running `errand`, with these options.
fn submit(cluster: &Cluster, lab: &Lab, options: &[&str]) -> String {
    let mut sbatch = cluster.command("sbatch");
    sbatch.arg("--parsable").args(options);
    sbatch.arg("--chdir").arg(lab.path("")).arg("--output").arg(cluster.path("job.out"));
    sbatch.arg(ready_made("slurm/selfdump.sbatch"));
    sbatch.arg(program("errand")).arg(lab.path("errand.txt")).arg(lab.path("order"));
    let output = sbatch.envs(lab.environment()).output().expect("sbatch");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_job_whose_time_is_over_is_put_back_in_the_queue_and_ends_with_the_right_result() {
    let lab = Lab::new();
    let cluster = Cluster::start();
    let file = lab.path("errand.txt");
    // Slurm looks at the time that is left twice a minute.
    let job = submit(&cluster, &lab, &["--time=1", "--signal=B:USR2@50"]);
    let field = |name| cluster.field(&job, name).unwrap_or_default();

    eventually("its lines", || (lines(&file) > 10).then_some(()));
    // For its time limit: nobody else sends it anything.
    eventually("its leaving", || cluster.said().contains("--resume goes on from there").then_some(()));
    let before = unbroken(&file);
    eventually("its return", || cluster.said().contains("restored job-").then_some(()));
    assert_eq!(field("Restarts"), "1");
    eventually("its next lines", || (lines(&file) > before + 10).then_some(()));

    order(&lab.path("order"), "exit 0");
    eventually("its end", || (field("JobState") == "COMPLETED").then_some(()));
    assert_eq!(field("ExitCode"), "0:0");
    unbroken(&file);
}

#[test]
fn a_job_that_is_cancelled_leaves_with_a_checkpoint_and_another_one_of_its_name_goes_on() {
    let lab = Lab::new();
    let cluster = Cluster::start();
    let file = lab.path("errand.txt");
    let named = ["--export=ALL,SELFDUMP_NAME=kept"];

    let first = submit(&cluster, &lab, &named);
    eventually("its lines", || (lines(&file) > 10).then_some(()));
    cluster.run("scancel", &[&first]);
    eventually("its end", || (cluster.field(&first, "JobState")? == "CANCELLED").then_some(()));
    eventually("its leaving", || cluster.said().contains("--resume goes on from there").then_some(()));
    let before = unbroken(&file);

    let second = submit(&cluster, &lab, &named);
    eventually("its next lines", || (lines(&file) > before + 10).then_some(()));
    order(&lab.path("order"), "exit 3");
    eventually("its end", || (cluster.field(&second, "JobState")? == "FAILED").then_some(()));
    assert_eq!(cluster.field(&second, "ExitCode").as_deref(), Some("3:0"));
    assert!(cluster.said().contains("restored kept/"), "{}", cluster.said());
    unbroken(&file);
}

/// A job makes way for another, and goes on after that; returns what it said.
fn makes_way(preemption: Preemption) -> String {
    let lab = Lab::new();
    let cluster = Cluster::start_with(preemption);
    let file = lab.path("errand.txt");
    let job = submit(&cluster, &lab, &[]);
    let field = |job, name| cluster.field(job, name).unwrap_or_default();
    eventually("its lines", || (lines(&file) > 10).then_some(()));

    // The node has one processor.
    let urgent = ["--parsable", "--partition=urgent", "--output=/dev/null", "--wrap=exec sleep 1"];
    let urgent = cluster.run("sbatch", &urgent).trim().to_owned();
    eventually("the other job's end", || (field(&urgent, "JobState") == "COMPLETED").then_some(()));
    let before = unbroken(&file);
    eventually("its return", || cluster.said().contains("restored job-").then_some(()));
    eventually("its next lines", || (lines(&file) > before + 10).then_some(()));
    assert_eq!(field(&job, "Restarts"), "1");

    order(&lab.path("order"), "exit 0");
    eventually("its end", || (field(&job, "JobState") == "COMPLETED").then_some(()));
    unbroken(&file);
    cluster.said()
}

#[test]
fn a_job_that_is_preempted_without_a_notice_leaves_while_it_is_killed_and_goes_on() {
    let said = makes_way(Preemption { grace: 0, more: "" });
    assert!(said.contains("DUE TO PREEMPTION"), "{said}");
}

#[test]
fn a_job_that_has_notice_of_its_preemption_leaves_at_once_and_goes_on() {
    // Nobody waits here until that is over.
    let said = makes_way(Preemption { grace: 600, more: "SlurmctldParameters=preempt_send_user_signal" });
    assert!(!said.contains("DUE TO PREEMPTION"), "{said}");
}
