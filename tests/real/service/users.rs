//! Two users, each with programs of its own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use super::words::{hear, number, send as say, text};
use super::{ONE, OTHER, Served, TERM, looks, names, people};
use crate::harness::{
    Restored, Subject, USR2, copy_program, criu, eventually, oldest_criu, program, selfdump,
};

fn each_user_checkpoints_its_own_program(criu: &Path) {
    let served = Served::by(criu, &[]);
    for user in [ONE, OTHER] {
        let mut chain = served.launch(user, "chain").arg("3").start();
        chain.wait_for("step 100");
        chain.signal(USR2);
        let attempt = served.attempt(user, "chain", true);
        assert!(chain.is_running(), "{attempt}");
        let [checkpoint] = &*served.checkpoints(user, "chain") else { panic!("{attempt}") };
        let images = checkpoint.join("images");
        assert_eq!(looks(&images), (user, user, 0o700));
        let files = names(&images);
        assert!(files.contains(&"seal.json".to_owned()) && files.contains(&"inventory.img".to_owned()));
        for file in &files {
            assert_eq!(looks(&images.join(file)), (user, user, 0o600), "{file}");
        }
        let manifest = crate::harness::manifest(checkpoint);
        assert!(manifest["criu"]["peer"].as_str().unwrap().contains("selfdump.sock"), "{manifest}");
        served.service.wait_for(&format!(
            "user={user} pid={} program=\"chain\" asked=dump result=\"sealed",
            chain.pid()
        ));
    }
    assert!(served.is_idle());
}

#[test]
fn two_users_checkpoint_their_own_programs() {
    each_user_checkpoints_its_own_program(&criu());
}

#[test]
fn two_users_checkpoint_their_own_programs_by_the_oldest_criu() {
    each_user_checkpoints_its_own_program(&oldest_criu());
}

/// With nothing set but where the service of this test listens; so their checkpoints are in their homes.
struct Login<'a> {
    served: &'a Served,
    user: u32,
}

impl Login<'_> {
    /// A line of the user's shell, as a login has it.
    fn shell(&self, line: &str) -> Command {
        let (socket, run) = (self.served.socket(), self.served.lab.path(&format!("run-{}", self.user)));
        let line =
            format!("export SELFDUMP_SERVICE={} XDG_RUNTIME_DIR={}; {line}", socket.display(), run.display());
        let mut command = Command::new("runuser");
        command.args(["--login", people::name(self.user), "--command", &line]).env_clear().current_dir("/");
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }

    /// Whether it succeeds, and what it says.
    fn runs(&self, line: &str) -> (bool, String) {
        let output = self.shell(line).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    /// Starts a program in the background, whose output goes to a file of the user's.
    fn starts(&self, line: &str) -> Subject {
        let name = format!("login-{}.out", self.user);
        fs::File::options().create(true).append(true).open(self.served.lab.path(&name)).unwrap();
        chown(self.served.lab.path(&name), Some(self.user), None).unwrap();
        let shell = self.shell(&format!("echo pid $$; exec {line}"));
        self.served.lab.launch(shell, &name.replace(".out", "")).start()
    }
}

#[test]
fn neither_of_two_users_who_log_in_gets_at_the_others_programs_and_checkpoints() {
    let served = Served::new(&[]);
    let command = served.lab.path("selfdump");
    copy_program(selfdump().get_program(), &command);
    let command = command.display();
    let users = [ONE, OTHER].map(|user| Login { served: &served, user });
    let programs: Vec<Restored> = users
        .iter()
        .map(|user| {
            let restorer = user.starts(&format!("{} 3", served.lab.path("chain").display()));
            let pid = restorer.wait_for("pid ").replace("pid ", "").parse().unwrap();
            let program = Restored { restorer, pid };
            program.restorer.wait_for("step 100");
            program
        })
        .collect();
    let stores = [ONE, OTHER].map(|user| people::home(user).join(".local/state/selfdump"));
    for (user, Restored { pid, .. }) in users.iter().zip(&programs) {
        assert_eq!(looks(Path::new(&format!("/proc/{pid}"))).0, user.user);
        let (done, said) = user.runs(&format!("{command} trigger --wait {pid}"));
        assert!(done, "{said}");
    }
    for (mine, others) in [(0, 1), (1, 0)] {
        let (user, pid, store) = (&users[mine], programs[others].pid, stores[others].display());
        let checkpoint = fs::read_dir(stores[others].join("chain")).unwrap().flatten().next().unwrap().path();
        let checkpoint = checkpoint.join("000001").display().to_string();
        for (line, expected) in [
            (format!("kill -USR2 {pid}"), "not permitted"),
            (format!("{command} trigger {pid}"), "ask as the user that it runs as"),
            (format!("ls {store}"), "Permission denied"),
            (format!("cat {checkpoint}/manifest.json"), "Permission denied"),
            (format!("cat {checkpoint}/images/pages-1.img"), "Permission denied"),
            (format!("{command} restore {checkpoint}"), "there are no checkpoints of"),
            (format!("{command} restore --trust {checkpoint}"), "there are no checkpoints of"),
            (format!("SELFDUMP_DIR={store} {command} restore chain"), "there are no checkpoints of"),
            (format!("rm -r {checkpoint}"), "Permission denied"),
        ] {
            let (done, said) = user.runs(&line);
            assert!(!done && said.contains(expected), "{line}: {said}");
        }
    }
    let mut restored = Vec::new();
    for (user, program) in users.iter().zip(programs) {
        let pid = program.pid;
        drop(program);
        let restorer = user.starts(&format!("{command} restore chain"));
        restorer.wait_for("selfdump: restored chain/");
        let back = restorer.output().rfind("restored chain/").unwrap();
        eventually("steps after it", || restorer.output()[back..].contains("step").then_some(()));
        assert_eq!(looks(Path::new(&format!("/proc/{pid}"))).0, user.user);
        restored.push(Restored { restorer, pid });
    }
    for (user, others) in users.iter().zip([&restored[1], &restored[0]]) {
        let (done, said) = user.runs(&format!("kill -TERM {}", others.pid));
        assert!(!done && said.contains("not permitted"), "{said}");
    }
    let asked = |what: &str| served.service.output().matches(&format!("asked={what} result=\"")).count();
    assert_eq!((asked("dump"), asked("restore")), (2, 2), "{}", served.service.output());
}

#[test]
fn a_program_that_was_dumped_by_the_service_comes_back_and_knows_it() {
    let served = Served::new(&[]);
    let (checkpoint, pid) = super::restores::checkpoint(&served, ONE);
    let verified = served.lab.run(["verify".as_ref(), checkpoint.as_os_str(), "--json".as_ref()]);
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    let results = report["checkpoints"][0]["results"].as_array().unwrap();
    let wrong: Vec<&serde_json::Value> =
        results.iter().filter(|one| one["result"] != "good").map(|one| &one["check"]).collect();
    assert_eq!(wrong, ["trust"], "for root it is another's: {report}");
    let mut restore = crate::harness::selfdump();
    restore.arg("restore").arg("--trust").arg(checkpoint);
    let restored = Restored { restorer: served.lab.launch(restore, "restore").start(), pid };
    let output = served.lab.path(&format!("chain-{ONE}.out"));
    let text = || fs::read_to_string(&output).unwrap();
    eventually("the second return", || text().contains("restored chain/").then_some(()));
    let back = text().find("restored chain/").unwrap();
    eventually("steps after it", || text()[back..].contains("step").then_some(()));
    assert_eq!(looks(Path::new(&format!("/proc/{pid}"))), (ONE, ONE, 0o555));
    // What it remembers of the service ends with its next checkpoint, which is as any other.
    crate::harness::send(pid, USR2);
    eventually("a checkpoint of the life that began", || {
        (served.checkpoints(ONE, "chain").len() == 2).then_some(())
    });
    drop(restored);
}

#[test]
fn many_programs_of_a_user_are_dumped_one_after_the_other() {
    let served = Served::new(&["--dumps-each", "1"]);
    let programs: Vec<_> = (0..4)
        .map(|number| {
            let name = format!("chain{number}");
            copy_program(program("chain"), &served.lab.path(&name));
            served.launch(ONE, &name).start()
        })
        .collect();
    programs.iter().for_each(|program| drop(program.wait_for("step 50")));
    programs.iter().for_each(|program| program.signal(USR2));
    for number in 0..4 {
        served.attempt(ONE, &format!("chain{number}"), true);
    }
    eventually("nothing under way", || served.is_idle().then_some(()));
}

#[test]
fn children_are_dumped_with_their_parent() {
    let served = Served::new(&[]);
    let family = served.launch(ONE, "family").arg("1").arg("fork").start();
    family.wait_for("ready");
    family.signal(USR2);
    served.attempt(ONE, "family", true);
    let [checkpoint] = &*served.checkpoints(ONE, "family") else { panic!("one checkpoint") };
    let processes = crate::harness::manifest(checkpoint)["processes"].as_array().unwrap().clone();
    // Children outlive their parent.
    for process in &processes {
        crate::harness::send(process["pid"].as_i64().unwrap() as i32, crate::harness::KILL);
    }
    assert!(processes.len() > 1, "{processes:?}");
}

#[test]
fn what_others_lend_their_rights_to_is_not_dumped() {
    use std::os::unix::fs::PermissionsExt;
    let served = Served::new(&[]);
    // A child with root's rights, as `sudo` is while it waits for a password.
    let lent = served.lab.path("lent");
    copy_program("/bin/sleep", &lent);
    fs::set_permissions(&lent, PermissionsExt::from_mode(0o4755)).unwrap();
    let line = format!("{} 1000 & exec {}", lent.display(), served.lab.path("chain").display());
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(&line);
    copy_program("/bin/sh", &served.lab.path("shell"));
    let chain = served.launch(ONE, "shell").arg("-c").arg(&line).start();
    chain.wait_for("step 50");
    chain.signal(USR2);
    let attempt = served.attempt(ONE, "shell", false);
    assert_eq!(attempt["saved"], false, "{attempt}");
    let drafts = served.checkpoints(ONE, "shell");
    assert!(drafts.is_empty(), "{drafts:?}");
    eventually("nothing under way", || served.is_idle().then_some(()));
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", chain.pid())).unwrap();
    child.split_whitespace().for_each(|pid| crate::harness::send(pid.parse().unwrap(), crate::harness::KILL));
}

/// As systemd starts it: with the socket as its third descriptor, and what the unit takes away gone.
#[test]
fn a_socket_that_was_handed_over_is_served_with_the_units_capabilities() {
    let unit =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/systemd/selfdump.service")).unwrap();
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let bounding = bounding.to_lowercase().replace("cap_", "+").replace(' ', ",");
    let mut served = Served::new(&[]);
    served.service.signal(TERM);
    served.service.wait();
    let options = format!("--criu {} --state {}", criu().display(), served.lab.path("state").display());
    let socket = served.socket();
    // Python is what can listen and then become another program, with the socket where that looks for it.
    let listening = format!(
        "import os, socket\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind({path:?}); os.chmod({path:?}, 0o666); s.listen()\n\
         os.dup2(os.dup(s.fileno()), 3)\n\
         os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n\
         os.execvp('setpriv', ['setpriv', '--no-new-privs', '--bounding-set=-all,{bounding}', {program:?}, 'service']\
         + {options:?}.split())",
        path = socket.display().to_string(),
        program = selfdump().get_program().to_str().unwrap(),
    );
    let mut python = Command::new("python3");
    python.arg("-c").arg(listening);
    served.service = served.lab.launch(python, "handed-over").start();
    served.service.wait_for("listens at");
    let chain = served.launch(ONE, "chain").start();
    chain.wait_for("step 50");
    chain.signal(USR2);
    served.attempt(ONE, "chain", true);
    served.service.signal(TERM);
    assert!(served.service.wait().success());
    assert!(socket.exists(), "systemd's socket is systemd's");
}

/// What CRIU and the kernel can do is answered by a CRIU of this user's.
#[test]
fn questions_about_the_kernel_are_passed_on() {
    let served = Served::new(&[]);
    let features = [number(1, 9), number(4, 1), text(5, number(2, 1))].concat();
    let check = [number(1, 3), text(2, [number(1, u64::MAX), number(67, 1)].concat())].concat();
    let heard = served.speak(ONE, &[say(&features), hear(), say(&check), hear()]);
    assert_eq!(heard.matches("heard").count(), 2, "{heard}");
    for asked in ["features", "check"] {
        served.service.wait_for(&format!("program=\"speaker\" asked={asked} result=\"passed on\""));
    }
}

/// It is open to everybody, as CRIU's own must not be.
#[test]
fn the_doctor_tells_it_from_a_service_of_crius() {
    let served = Served::new(&[]);
    copy_program(selfdump().get_program(), &served.lab.path("selfdump"));
    let mut doctor = served.launch(ONE, "selfdump").arg("doctor").start();
    doctor.wait();
    let said = doctor.output();
    let line = said.lines().find(|line| line.contains(" service: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("ok"), "{said}");
}
