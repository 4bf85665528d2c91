use super::super::Verdict;
use super::*;
use crate::error::Error;

const ALL: u64 = u64::MAX;

/// A machine on which all is well, as root sees it.
fn well() -> Machine {
    let folder = |path: &str| Folder {
        path: path.into(),
        found: Some((0, 0o700)),
        nearest: path.into(),
        unwritable: None,
        distrusted: None,
    };
    Machine {
        capabilities: ALL,
        has_iptables: true,
        run_is_in_memory: true,
        runtime: folder("/run/selfdump"),
        store: Store {
            folder: folder("/var/lib/selfdump"),
            free: Some(Bytes::mebibytes(9000)),
            file_system: Some("ext4".into()),
            runs_programs: true,
            ..Store::default()
        },
        ..Machine::default()
    }
}

fn service_at(owner: u32, mode: u32, is_reachable: bool) -> Option<Service> {
    Some(Service {
        socket: "/run/criu.socket".into(),
        is_socket: true,
        owner,
        mode,
        is_reachable,
        is_guarded: false,
    })
}

fn writable() -> Error {
    Error::new(crate::ErrorKind::Permission, "others can write there").with_hint("chmod")
}

/// What is not as it has to be.
fn wrong(facts: &Machine) -> Vec<(&'static str, Verdict)> {
    let found = machine(facts);
    for finding in &found {
        assert_eq!(finding.verdict == Verdict::Ok, finding.remedy.is_none(), "{finding:?}");
    }
    let wrong = found.into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    wrong.map(|finding| (finding.check, finding.verdict)).collect()
}

#[test]
fn nothing_is_wrong_with_a_machine_that_has_all() {
    assert!(wrong(&well()).is_empty(), "{:?}", wrong(&well()));
}

#[test]
fn each_lack_is_found_and_nothing_else() {
    let program = |capabilities| Some(("/usr/sbin/criu".into(), capabilities));
    let user = |facts: Machine| {
        let folder = |folder: Folder| Folder { found: Some((1000, 0o700)), ..folder };
        let store = Store { folder: folder(facts.store.folder.clone()), ..facts.store.clone() };
        Machine { user: 1000, capabilities: 0, runtime: folder(facts.runtime.clone()), store, ..facts }
    };
    let stored = |store: Store| Machine { store, ..well() };
    let store = || well().store;
    let in_folder = |folder: Folder| stored(Store { folder, ..store() });
    let folder = || store().folder;
    let enough = 1 << SETPCAP | 1 << CHECKPOINT_RESTORE;
    use Verdict::{Failed, Warning};
    let table: Vec<(&str, Machine, (&str, Verdict))> = vec![
        ("root without rights", Machine { capabilities: 0, ..well() }, ("rights", Failed)),
        (
            "no SYS_RESOURCE",
            Machine { capabilities: ALL & !(1 << SYS_RESOURCE), ..well() },
            ("rights", Warning),
        ),
        (
            "a user's CRIU without rights",
            user(Machine { program_capabilities: program(None), ..well() }),
            ("rights", Failed),
        ),
        (
            "one with half of them",
            user(Machine { program_capabilities: program(Some(1 << SYS_PTRACE)), ..well() }),
            ("rights", Failed),
        ),
        (
            "no_new_privs",
            user(Machine { program_capabilities: program(Some(enough)), no_new_privileges: true, ..well() }),
            ("rights", Failed),
        ),
        (
            "no SETPCAP",
            user(Machine { program_capabilities: program(Some(enough & !(1 << SETPCAP))), ..well() }),
            ("rights", Warning),
        ),
        ("no ptrace at all", Machine { ptrace_scope: Some(3), ..well() }, ("ptrace", Failed)),
        ("a seccomp filter", Machine { is_filtered: true, ..well() }, ("seccomp", Warning)),
        (
            "a profile",
            Machine { confinement: Some("docker-default (enforce)".into()), ..well() },
            ("security modules", Warning),
        ),
        ("a session from outside", Machine { is_led_from_outside: true, ..well() }, ("container", Warning)),
        (
            "a service for everybody",
            Machine { service: service_at(0, 0o666, true), ..well() },
            ("service", Warning),
        ),
        (
            "a service of another",
            Machine { service: service_at(7, 0o600, false), ..well() },
            ("service", Failed),
        ),
        ("no service", Machine { service: Some(Service::default()), ..well() }, ("service", Failed)),
        ("no firewall", Machine { has_iptables: false, ..well() }, ("firewall", Warning)),
        ("no cp", Machine { missing_tools: vec!["cp"], ..well() }, ("tools", Warning)),
        ("/run on a disk", Machine { run_is_in_memory: false, ..well() }, ("kernel data", Warning)),
        (
            "a store for all to read",
            in_folder(Folder { found: Some((0, 0o755)), ..folder() }),
            ("store", Warning),
        ),
        (
            "a store for all to write",
            in_folder(Folder { distrusted: Some(writable()), ..folder() }),
            ("store", Failed),
        ),
        (
            "a store that can't be made",
            in_folder(Folder { found: None, unwritable: Some("no".into()), ..folder() }),
            ("store", Failed),
        ),
        ("a store in memory", stored(Store { is_in_memory: true, ..store() }), ("store's disk", Warning)),
        ("a container's store", stored(Store { is_an_overlay: true, ..store() }), ("store's disk", Warning)),
        ("noexec", stored(Store { runs_programs: false, ..store() }), ("store's disk", Warning)),
        ("a full disk", stored(Store { free: Some(Bytes(5)), ..store() }), ("store's space", Warning)),
    ];
    for (what, facts, expected) in table {
        assert_eq!(wrong(&facts), [expected], "{what}");
    }
    let fine = user(Machine { program_capabilities: program(Some(enough)), ..well() });
    assert!(wrong(&fine).is_empty(), "{:?}", wrong(&fine));
    let closed = Machine { service: service_at(0, 0o666, false), capabilities: 0, ..well() };
    assert!(wrong(&closed).is_empty(), "nobody gets there, and the service's rights count");
    let guarded = Service { is_guarded: true, ..service_at(0, 0o666, true).unwrap_or_default() };
    let guarded = Machine { service: Some(guarded), capabilities: 0, ..well() };
    assert!(wrong(&guarded).is_empty(), "it is for everybody");
    let others = Machine { user: 1000, service: service_at(0, 0o600, false), ..well() };
    assert!(wrong(&others).is_empty(), "whom root's service lets in may ask it");
}
