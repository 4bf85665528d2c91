use super::*;
use std::collections::BTreeSet;
use std::sync::Mutex;

fn resolve(config: Config, variables: &[(&str, &str)]) -> Result<Settings> {
    config.resolve(&|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    })
}

/// Nobody has its identity.
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Each setting by method, and by variable in each form that it may have.
fn every_setting() -> Vec<(Config, &'static [(&'static str, &'static str)])> {
    let new = Config::new;
    let signal = |name: &str| name.parse().unwrap();
    vec![
        (new().dir("/tmp/checkpoints"), &[("SELFDUMP_DIR", "/tmp/checkpoints")]),
        (new().name("app"), &[("SELFDUMP_NAME", "app")]),
        (new().keep(5), &[("SELFDUMP_KEEP", "5")]),
        (new().keep_forensic(9), &[("SELFDUMP_KEEP_FORENSIC", "9")]),
        (new().signal(signal("USR1")), &[("SELFDUMP_SIGNAL", "USR1")]),
        (new().signal(signal("SIGUSR1")), &[("SELFDUMP_SIGNAL", "10")]),
        (new().signal(signal("RTMIN+3")), &[("SELFDUMP_SIGNAL", "sigrtmin+3")]),
        (new().exit_signal(signal("TERM")), &[("SELFDUMP_EXIT_SIGNAL", "TERM")]),
        (new().exit_with(Exit::Status(85)), &[("SELFDUMP_EXIT_STATUS", "85")]),
        (new().every(Duration::from_secs(90)), &[("SELFDUMP_EVERY", "1m 30s")]),
        (new().every(Duration::from_secs(90)), &[("SELFDUMP_EVERY", "90")]),
        (
            new().every(minutes(10)).jitter(minutes(1)),
            &[("SELFDUMP_EVERY", "10m"), ("SELFDUMP_JITTER", "1m")],
        ),
        (new().overhead(0.01), &[("SELFDUMP_OVERHEAD", "1%")]),
        (new().overhead(0.01), &[("SELFDUMP_OVERHEAD", "0.01")]),
        (new().mtbf(minutes(360)), &[("SELFDUMP_MTBF", "6h")]),
        (new().first_after(minutes(2)), &[("SELFDUMP_FIRST_AFTER", "2m")]),
        (new().min_interval(minutes(2)), &[("SELFDUMP_MIN_INTERVAL", "2m")]),
        (new().hold_timeout(minutes(2)), &[("SELFDUMP_HOLD_TIMEOUT", "2m")]),
        (
            new().files(["rewind:*.csv".parse().unwrap(), "keep:/var/log/**".parse().unwrap()]),
            &[("SELFDUMP_FILES", "rewind:*.csv keep:/var/log/**")],
        ),
        (
            new().copy_files(["/data/app.db*".parse().unwrap(), "*.log".parse().unwrap()]),
            &[("SELFDUMP_COPY_FILES", "/data/app.db* *.log")],
        ),
        (new().copy_limit(Bytes::mebibytes(500)), &[("SELFDUMP_COPY_LIMIT", "500 MiB")]),
        (new().copy_limit(Bytes(500)), &[("SELFDUMP_COPY_LIMIT", "500")]),
        (new().copy_open(Bytes::mebibytes(2)), &[("SELFDUMP_COPY_OPEN", "2 MiB")]),
        (new().keep_tcp(true), &[("SELFDUMP_KEEP_TCP", "on")]),
        (new().encrypt_to([RECIPIENT.parse().unwrap()]), &[("SELFDUMP_ENCRYPT_TO", RECIPIENT)]),
        (new().max_pause(Duration::from_millis(50)), &[("SELFDUMP_MAX_PAUSE", "50ms")]),
        (new().huge_pages(false), &[("SELFDUMP_HUGE_PAGES", "off")]),
        (new().staging(Staging::Auto), &[("SELFDUMP_STAGING", "auto")]),
        (new().staging(Staging::Folder("/mnt/huge".into())), &[("SELFDUMP_STAGING", "/mnt/huge")]),
        (new().snapshot(Snapshot::Auto), &[("SELFDUMP_SNAPSHOT", "auto")]),
        (new().snapshot(Snapshot::Cow), &[("SELFDUMP_SNAPSHOT", "cow")]),
        (new().incremental(false), &[("SELFDUMP_INCREMENTAL", "off")]),
        (new().compress(Compression::Zstd { level: 7 }), &[("SELFDUMP_COMPRESS", "zstd:7")]),
        (new().on_panic(true), &[("SELFDUMP_ON_PANIC", "on")]),
        (new().on_fatal_signal(true), &[("SELFDUMP_ON_FATAL_SIGNAL", "1")]),
        (
            new().metrics_textfile("/var/lib/node/app.prom"),
            &[("SELFDUMP_METRICS_TEXTFILE", "/var/lib/node/app.prom")],
        ),
        (new().timeout(Duration::from_secs(7)), &[("SELFDUMP_TIMEOUT", "7")]),
        (new().criu("/opt/criu"), &[("SELFDUMP_CRIU", "/opt/criu")]),
        (new().service("/run/criu.socket"), &[("SELFDUMP_SERVICE", "/run/criu.socket")]),
    ]
}

#[test]
fn every_setting_has_one_meaning_by_method_and_by_variable() {
    let default = resolve(Config::new(), &[]).unwrap();
    for (by_method, by_variable) in every_setting() {
        let set = resolve(by_method, &[]).unwrap();
        assert_ne!(set, default, "{by_variable:?} sets nothing");
        assert_eq!(set, resolve(Config::new(), by_variable).unwrap(), "{by_variable:?}");
    }
}

#[test]
fn a_setting_by_its_name_is_that_by_its_variable() {
    for (_, by_variable) in every_setting() {
        let by_name = by_variable.iter().fold(Config::new(), |config, (variable, value)| {
            let name = variable.strip_prefix("SELFDUMP_").unwrap().to_lowercase();
            config.set(&name, value).unwrap().set(&name, "").unwrap()
        });
        let set = resolve(Config::new(), by_variable).unwrap();
        assert_eq!(resolve(by_name, &[]).unwrap(), set, "{by_variable:?}");
    }
    for (name, value, form) in [("evry", "10m", "SELFDUMP_EVERY"), ("every", "often", "a duration")] {
        let error = Config::new().set(name, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.hint().unwrap().contains(form), "{error:?}");
    }
}

/// The rows of the table: method, variable, default.
fn table() -> Vec<(Option<&'static str>, &'static str, &'static str)> {
    let unquoted = |cell: &'static str| cell.trim().trim_matches('`');
    let rows = include_str!("../../docs/settings.md").lines().filter(|line| line.contains("| `SELFDUMP"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let method = unquoted(cells[1]);
        ((method != "—").then_some(method), unquoted(cells[2]), cells[5].trim())
    })
    .collect()
}

#[test]
fn the_table_has_every_variable_that_is_read_and_no_other() {
    let asked = Mutex::new(BTreeSet::new());
    let look = |name: &str| {
        if name.starts_with("SELFDUMP") {
            asked.lock().unwrap().insert(name.to_owned());
        }
        None
    };
    Config::new().resolve(&look).unwrap();
    let listed: BTreeSet<String> = table().into_iter().map(|(_, variable, _)| variable.to_owned()).collect();
    assert_eq!(listed, asked.into_inner().unwrap());
    let tested: BTreeSet<&str> =
        every_setting().iter().flat_map(|(_, variables)| variables.iter().map(|(name, _)| *name)).collect();
    let missing: Vec<&String> = listed.iter().filter(|name| !tested.contains(name.as_str())).collect();
    assert_eq!(missing, ["SELFDUMP"], "each but the switch has a test of its own");
}

#[test]
fn the_table_has_every_method_and_no_other() {
    let source = include_str!("mod.rs");
    let methods: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub fn ")?.split_once("(mut self")?.0.into())
        .collect();
    assert!(methods.len() > 10, "{methods:?}");
    let listed: BTreeSet<&str> = table().into_iter().filter_map(|(method, ..)| method).collect();
    assert_eq!(listed, methods);
    // `every` is `SELFDUMP_EVERY`, and so on: one name for one thing.
    for (method, variable, _) in table() {
        let Some(method) = method.filter(|method| *method != "exit_with") else { continue };
        assert_eq!(variable, format!("SELFDUMP_{}", method.to_uppercase()));
    }
}

#[test]
fn a_default_of_the_table_changes_nothing_where_it_is_set() {
    let default = resolve(Config::new(), &[]).unwrap();
    let mut checked = 0;
    for (_, variable, value) in table() {
        // Some are told in words.
        let Some(value) = value.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else { continue };
        if value.contains('`') {
            continue;
        }
        let every = ("SELFDUMP_EVERY", "10m");
        let (with, without) = match variable {
            "SELFDUMP_JITTER" => (vec![every, (variable, value)], vec![every]),
            _ => (vec![(variable, value)], vec![]),
        };
        assert_eq!(resolve(Config::new(), &with).unwrap(), resolve(Config::new(), &without).unwrap());
        checked += 1;
    }
    assert!(checked >= 10, "{checked} defaults");
    assert_eq!((default.timing.schedule, default.exit_signal), (Schedule::OnDemand, None));
}

#[test]
fn what_the_program_sets_stands_and_an_empty_variable_is_none() {
    let settings = resolve(Config::new().keep(2), &[("SELFDUMP_KEEP", "9"), ("SELFDUMP_EVERY", "")]).unwrap();
    assert_eq!((settings.keep, settings.timing.schedule), (2, Schedule::OnDemand));
    let settings = resolve(Config::new().mtbf(minutes(60)), &[("SELFDUMP_EVERY", "10m")]).unwrap();
    assert_eq!(settings.timing.schedule, Schedule::Mtbf { mtbf: minutes(60) });
}

#[test]
fn wrong_values_are_named_with_the_allowed_form() {
    for (name, value, form) in [
        ("SELFDUMP", "maybe", "on or off"),
        ("SELFDUMP_NAME", "a/b", "letters"),
        ("SELFDUMP_NAME", "..", "letters"),
        ("SELFDUMP_KEEP", "-1", "whole number"),
        ("SELFDUMP_KEEP", "0", "from 1 up"),
        ("SELFDUMP_KEEP_FORENSIC", "few", "whole number"),
        ("SELFDUMP_SIGNAL", "KILL", "can't be handled"),
        ("SELFDUMP_SIGNAL", "SEGV", "of a crash"),
        ("SELFDUMP_SIGNAL", "USR3", "USR1"),
        ("SELFDUMP_EXIT_SIGNAL", "RTMIN+99", "RTMIN+3"),
        ("SELFDUMP_EXIT_SIGNAL", "USR2", "another signal"),
        ("SELFDUMP_EXIT_STATUS", "256", "0 to 255"),
        ("SELFDUMP_EVERY", "often", "30s"),
        ("SELFDUMP_EVERY", "0s", "above zero"),
        ("SELFDUMP_JITTER", "some", "a duration"),
        ("SELFDUMP_JITTER", "1m", "SELFDUMP_EVERY"),
        ("SELFDUMP_OVERHEAD", "2", "between 0 and 1"),
        ("SELFDUMP_OVERHEAD", "nan", "between 0 and 1"),
        ("SELFDUMP_OVERHEAD", "much", "1%"),
        ("SELFDUMP_MTBF", "0", "above zero"),
        ("SELFDUMP_FIRST_AFTER", "-3", "a duration"),
        ("SELFDUMP_MIN_INTERVAL", "x", "a duration"),
        ("SELFDUMP_HOLD_TIMEOUT", "x", "a duration"),
        ("SELFDUMP_FILES", "cut:*.csv", "rewind:*.csv"),
        ("SELFDUMP_COPY_FILES", "/data/*.db data/*.db", "/data/app.db*"),
        ("SELFDUMP_COPY_LIMIT", "much", "2GiB"),
        ("SELFDUMP_COPY_OPEN", "all", "2GiB"),
        ("SELFDUMP_STAGING", "memory", "off, auto"),
        ("SELFDUMP_SNAPSHOT", "fork", "freeze, auto or cow"),
        ("SELFDUMP_SNAPSHOT", "/dev/shm", "freeze, auto or cow"),
        ("SELFDUMP_ON_PANIC", "yes", "on or off"),
        ("SELFDUMP_ON_FATAL_SIGNAL", "2", "on or off"),
        ("SELFDUMP_TIMEOUT", "0", "above zero"),
    ] {
        let error = resolve(Config::new(), &[(name, value)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name}={value}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(name) && hint.contains(form), "{name}={value}: {hint}");
    }
}

#[test]
fn two_schedules_are_one_too_many() {
    let by_both = resolve(Config::new(), &[("SELFDUMP_EVERY", "10m"), ("SELFDUMP_MTBF", "6h")]);
    let by_method = resolve(Config::new().overhead(0.1).every(minutes(1)), &[]);
    for error in [by_both.unwrap_err(), by_method.unwrap_err()] {
        assert!(error.hint().unwrap().contains("only one of"), "{error:?}");
    }
}

#[test]
fn a_relative_store_is_made_absolute_while_the_current_folder_is_known() {
    let settings = resolve(Config::new().dir("checkpoints"), &[]).unwrap();
    assert_eq!(settings.dir, std::env::current_dir().unwrap().join("checkpoints"));
}

#[test]
fn an_interpreter_s_checkpoints_are_found_under_its_script_where_nothing_else_is_said() {
    let script = || Config::new().program("/jobs/train one.py");
    assert_eq!(resolve(script(), &[]).unwrap().name, "train_one.py");
    assert_eq!(resolve(script(), &[("SELFDUMP_NAME", "job")]).unwrap().name, "job");
    assert_eq!(resolve(script().name("called"), &[("SELFDUMP_NAME", "job")]).unwrap().name, "called");
}

#[test]
fn a_copy_contradicts_no_other_setting() {
    let config = Config::new().snapshot(Snapshot::Cow).staging(Staging::Auto).max_pause(minutes(1));
    let settings = resolve(config, &[("SELFDUMP_SNAPSHOT", "freeze")]).unwrap();
    assert_eq!((settings.snapshot, settings.staging), (Snapshot::Cow, Staging::Auto));
}

#[test]
fn to_be_encrypted_to_nobody_is_no_way_to_have_it_not_encrypted() {
    let error = resolve(Config::new().encrypt_to([]), &[("SELFDUMP_ENCRYPT_TO", RECIPIENT)]).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("nobody")), (ErrorKind::Config, true));
    for value in [" ", "age1nobody", "team.txt", "./no/such/file"] {
        let error = resolve(Config::new(), &[("SELFDUMP_ENCRYPT_TO", value)]).unwrap_err();
        assert!(error.chain().contains(value), "{error:?}");
    }
}
