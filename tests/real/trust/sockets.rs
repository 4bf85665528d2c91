//! A service's socket that somebody else can have put there gets no request: who answers there would get all that the
//! program has in its memory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::super::failures::Service;
use super::super::failures::asker::{Asker, Failure};
use super::{STRANGER, give_away, set_mode};
use crate::harness::{Lab, eventually};

fn is_refused(asker: &Asker<'_>, cause: &str) {
    let remedy = "have to be root's or yours";
    asker.fails(&Failure { kind: "permission", cause, remedy });
}

#[test]
fn a_socket_that_others_can_have_put_there_is_refused() {
    let lab = Lab::new();
    let folder = lab.path("sockets");
    fs::create_dir(&folder).expect("a folder");
    let socket = folder.join("criu.socket");
    let service = Service::start(&lab, &socket);
    let asker = Asker::plain(&lab, &[("SELFDUMP_SERVICE", socket.clone())]);
    asker.saves();
    give_away(&socket, STRANGER);
    is_refused(&asker, &format!("{} is user {STRANGER}'s", socket.display()));
    give_away(&socket, 0);
    set_mode(&folder, 0o777);
    is_refused(&asker, &format!("can write to {} (mode 0777)", folder.display()));
    set_mode(&folder, 0o755);
    give_away(&folder, STRANGER);
    is_refused(&asker, &format!("{} is user {STRANGER}'s (mode 0755)", folder.display()));
    give_away(&folder, 0);
    asker.saves();
    drop(service);
    let listener = Listener::start(&lab, &socket);
    give_away(&socket, 0);
    is_refused(&asker, &format!("user {STRANGER} listens there"));
    drop(listener);
    fs::remove_file(&socket).expect("the socket");
    let _service = Service::start(&lab, &socket);
    asker.saves();
}

/// A stranger's process that listens at a socket, and answers nothing.
struct Listener(Child);

impl Listener {
    fn start(lab: &Lab, socket: &Path) -> Listener {
        // The stranger makes the socket in a folder of its own; it is root who moves it.
        let own = Path::new("/tmp").join(format!("selfdump-stranger-{}", std::process::id()));
        fs::create_dir(&own).expect("a folder");
        give_away(&own, STRANGER);
        let made = own.join("socket");
        let script = "import socket, sys, time\n\
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
            s.bind(sys.argv[1]); s.listen(5); print('listens', flush=True); time.sleep(600)";
        let mut python = Command::new("setpriv");
        python.args([&format!("--reuid={STRANGER}"), &format!("--regid={STRANGER}"), "--clear-groups"]);
        python.args(["/usr/bin/python3", "-c", script]).arg(&made);
        let said = fs::File::create(lab.path("listener.out")).expect("a file");
        let child = python.stdin(Stdio::null()).stdout(said).spawn().expect("python starts");
        eventually("the stranger listens", || {
            fs::read_to_string(lab.path("listener.out")).ok().filter(|said| said.contains("listens"))
        });
        fs::rename(&made, socket).expect("it is moved");
        fs::remove_dir(&own).expect("the folder is empty");
        Listener(child)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
