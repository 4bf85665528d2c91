use std::time::Duration;

use super::*;
use crate::frozen::Descriptor;

const SIZE: Bytes = Bytes(42);
const READ: u32 = 0;
const WRITE: u32 = 1;
const READ_AND_WRITE: u32 = 2;
const APPEND: u32 = 0o2000;

fn identity(inode: u64) -> FileIdentity {
    FileIdentity { device: 1, inode, made_unix_ns: None }
}

fn open(fd: i32, path: &str, flags: u32) -> Descriptor {
    // CRIU keeps no size of what is only open for appending.
    let size = (flags != WRITE | APPEND).then_some(SIZE);
    Descriptor {
        fd,
        kind: DescriptorKind::File,
        path: Some(path.into()),
        flags,
        position_bytes: Some(Bytes(7)),
        size_bytes: size,
        identity: Some(identity(5)),
    }
}

fn process(descriptors: Vec<Descriptor>) -> Process {
    Process {
        pid: 40,
        parent: 0,
        process_group: 40,
        session: 40,
        name: "p".into(),
        threads: vec![40],
        mappings: 1,
        memory_bytes: Bytes(0),
        descriptors,
    }
}

fn dumped() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
}

fn now(size: u64) -> Now {
    Now { size: Bytes(size), identity: identity(5), modified: dumped() - Duration::from_secs(1) }
}

/// A spare copy of `/data/out`, which has this likeness to it now: the plan for it.
fn planned_with_a_spare(now: Option<Now>, likeness: Likeness, rules: &[&str], written: bool) -> FileAction {
    let rules: Vec<FileRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let copy = CopiedFile {
        path: "/data/out".into(),
        copy: "files/1".into(),
        size: SIZE,
        mode: 0o640,
        user: 0,
        group: 0,
        modified: 999_000_000_000,
        spare: true,
    };
    let world = World {
        same_machine: true,
        is_over: true,
        dumped: dumped(),
        now: &|_| now.clone(),
        writer: &|_| written.then(|| (17, "logger".to_owned())),
        copies: &[copy],
        likeness: &|_| likeness,
        newcomers: &[],
    };
    plan(&[process(vec![open(1, "/data/out", READ_AND_WRITE)])], &rules, &world).remove(0).action
}

/// The plan for `/data/out`, opened with these flags, which is like this now.
fn planned(flags: u32, now: Option<Now>, rules: &[&str]) -> FilePlan {
    planned_among(flags, now, rules, None)
}

fn planned_among(flags: u32, now: Option<Now>, rules: &[&str], writer: Option<(i32, String)>) -> FilePlan {
    let rules: Vec<FileRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let world = World {
        same_machine: true,
        is_over: true,
        dumped: dumped(),
        now: &|_| now.clone(),
        writer: &|_| writer.clone(),
        copies: &[],
        likeness: &|_| Likeness::Same,
        newcomers: &[],
    };
    plan(&[process(vec![open(1, "/data/out", flags)])], &rules, &world).remove(0)
}

fn is_refused(plan: &FilePlan, why: &str, remedy: &str) {
    let FileAction::Refuse { remedy: said } = &plan.action else { panic!("{plan:?}") };
    assert!(plan.why.contains(why) && said.contains(remedy), "{plan:?}");
}

#[test]
fn what_the_kernel_tells_of_a_process_comes_back_with_it_and_of_another_it_is_gone() {
    let tells = ["/proc/40/stat", "/proc/40/task/40/comm", "/proc/41/stat", "/procs/40/stat"];
    let open = (3..).zip(tells).map(|(fd, path)| open(fd, path, READ)).collect();
    let frozen = frozen(&[process(open)]);
    let planned: Vec<&Path> = frozen.keys().map(PathBuf::as_path).collect();
    assert_eq!(planned, [Path::new("/proc/41/stat"), Path::new("/procs/40/stat")]);
}

#[test]
fn each_change_has_its_default() {
    let rewind = FileAction::Rewind { to: SIZE, cut: Bytes(8) };
    let keep = FileAction::Keep { size: Bytes(50) };
    for (flags, size, action) in [
        (WRITE, 42, FileAction::Nothing),
        (WRITE, 50, rewind.clone()),
        (READ_AND_WRITE, 50, rewind),
        (READ, 50, keep.clone()),
        (READ, 42, FileAction::Nothing),
        (READ_AND_WRITE | APPEND, 50, keep),
        (WRITE | APPEND, 50, FileAction::Nothing),
    ] {
        let plan = planned(flags, Some(now(size)), &[]);
        assert_eq!(plan.action, action, "flags {flags:o}, now {size} bytes: {}", plan.why);
    }
}

#[test]
fn a_spare_copy_is_put_back_only_where_cutting_back_would_not_do() {
    use Likeness::{Longer, Other, Same};
    let other = Now { identity: identity(6), ..now(42) };
    let recreate = FileAction::Recreate { size: SIZE };
    for (now, likeness, action) in [
        (Some(now(42)), Same, FileAction::Nothing),
        (Some(now(42)), Other, recreate.clone()),
        (Some(now(50)), Longer, FileAction::Rewind { to: SIZE, cut: Bytes(8) }),
        (Some(now(50)), Other, recreate.clone()),
        (Some(now(41)), Other, recreate.clone()),
        (Some(other), Other, recreate.clone()),
        (None, Other, recreate),
    ] {
        let planned = planned_with_a_spare(now.clone(), likeness, &[], false);
        assert_eq!(planned, action, "{now:?}, {likeness:?}");
    }
}

#[test]
fn a_spare_copy_keeps_no_program_from_coming_back() {
    let now = |size| Some(now(size));
    let keep = FileAction::Keep { size: Bytes(50) };
    let planned = planned_with_a_spare;
    assert_eq!(planned(now(42), Likeness::Other, &[], true), FileAction::Nothing, "others write to it");
    assert_eq!(planned(now(50), Likeness::Other, &[], true), keep, "others write to it");
    assert_eq!(planned(now(50), Likeness::Other, &["keep:*"], false), keep, "a rule is a rule");
    assert_eq!(planned(now(42), Likeness::Other, &["keep:*"], false), FileAction::Nothing);
}

#[test]
fn a_file_that_others_write_to_is_not_cut() {
    let plan = planned_among(WRITE, Some(now(50)), &[], Some((17, "logger".into())));
    assert_eq!(plan.action, FileAction::Keep { size: Bytes(50) });
    assert!(plan.why.contains("process 17 (logger)") && plan.why.contains("old position"), "{plan:?}");
    let plan = planned_among(WRITE, Some(now(50)), &["rewind:*"], Some((17, "logger".into())));
    assert!(matches!(plan.action, FileAction::Rewind { .. }), "a rule is a rule: {plan:?}");
}

#[test]
fn what_would_lose_data_is_refused_with_the_way_out() {
    is_refused(&planned(WRITE, None, &[]), "is gone", "put it back");
    for now in [None, Some(now(41)), Some(Now { identity: identity(6), ..now(42) })] {
        is_refused(&planned(WRITE, now, &[]), "", "SELFDUMP_COPY_FILES=/data/out");
    }
    is_refused(&planned(READ, None, &["keep:*"]), "is gone", "put it back");
    is_refused(&planned(WRITE, Some(now(41)), &[]), "shorter", "--files keep:/data/out");
    let other = Now { identity: identity(6), ..now(42) };
    is_refused(&planned(WRITE, Some(other.clone()), &[]), "another file", "--files keep:/data/out");
    is_refused(&planned(WRITE, Some(now(50)), &["fail:*.log", "fail:/data/*"]), "a rule", "older checkpoint");
    assert_eq!(planned(READ, Some(other), &[]).action, FileAction::Keep { size: SIZE });
}

#[test]
fn the_first_rule_that_matches_counts_and_can_keep_what_is_refused_otherwise() {
    let rules = ["rewind:*.csv", "keep:/data/**", "fail:*"];
    assert_eq!(planned(WRITE, Some(now(41)), &rules).action, FileAction::Keep { size: Bytes(41) });
    assert_eq!(planned(WRITE, Some(now(50)), &rules).action, FileAction::Keep { size: Bytes(50) });
    assert_eq!(planned(WRITE, Some(now(42)), &["fail:*"]).action, FileAction::Nothing);
}

#[test]
fn inodes_say_nothing_on_another_machine() {
    let other = Now { identity: identity(6), ..now(42) };
    let world = World {
        same_machine: false,
        is_over: false,
        dumped: dumped(),
        now: &|_| Some(other.clone()),
        writer: &|_| None,
        copies: &[],
        likeness: &|_| Likeness::Same,
        newcomers: &[],
    };
    let plans = plan(&[process(vec![open(1, "/data/out", WRITE)])], &[], &world);
    assert_eq!(plans[0].action, FileAction::Nothing);
}

#[test]
fn a_file_that_was_written_to_in_place_is_said() {
    let later = Now { modified: dumped() + Duration::from_secs(1), ..now(42) };
    let plan = planned(READ_AND_WRITE, Some(later.clone()), &[]);
    assert_eq!(plan.action, FileAction::Nothing);
    assert!(plan.why.contains("later than what the program remembers"), "{plan:?}");
    assert!(plan.why.contains("SELFDUMP_COPY_FILES=/data/out"), "{plan:?}");
    assert!(planned(READ, Some(later), &[]).why.contains("the size that it had"));
}

#[test]
fn a_file_is_planned_once_however_often_it_is_open_and_one_without_a_name_not_at_all() {
    let unnamed = Descriptor { identity: None, ..open(9, "/tmp/gone", WRITE) };
    let device = Descriptor { position_bytes: None, identity: None, ..open(0, "/dev/null", READ) };
    let family = [
        process(vec![open(1, "/data/out", WRITE | APPEND), open(2, "/data/out", READ), unnamed, device]),
        process(vec![open(1, "/data/out", WRITE | APPEND), open(3, "/data/in", READ)]),
    ];
    let world = World {
        same_machine: true,
        is_over: true,
        dumped: dumped(),
        now: &|_| Some(now(50)),
        writer: &|_| None,
        copies: &[],
        likeness: &|_| Likeness::Same,
        newcomers: &[],
    };
    let plans = plan(&family, &[], &world);
    let paths: Vec<&str> = plans.iter().filter_map(|plan| plan.path.to_str()).collect();
    assert_eq!(paths, ["/data/in", "/data/out"]);
    assert!(plans[1].why.contains("at the end"), "all its writers append: {:?}", plans[1]);
    assert!(refused(&plans).is_ok());
}

#[test]
fn a_program_that_may_still_run_elsewhere_keeps_what_it_has_written() {
    let world = World {
        same_machine: true,
        is_over: false,
        dumped: dumped(),
        now: &|_| Some(now(50)),
        writer: &|_| None,
        copies: &[],
        likeness: &|_| Likeness::Same,
        newcomers: &[],
    };
    let planned =
        |rules: &[FileRule]| plan(&[process(vec![open(1, "/data/out", WRITE)])], rules, &world).remove(0);
    is_refused(&planned(&[]), "may still run", "--files keep:/data/out");
    assert!(matches!(planned(&["rewind:*".parse().unwrap()]).action, FileAction::Rewind { .. }));
}
