//! A program that installs and uninstalls selfdump again and again, and compares what is left with what was there
//! before. It is to be started with SELFDUMP unset, and has been installed by linking before main.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use selfdump::{Config, ErrorKind, Outcome};

static EARLIER: AtomicU64 = AtomicU64::new(0);

extern "C" fn earlier(_: libc::c_int) {
    EARLIER.fetch_add(1, Ordering::Relaxed);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What linking installed ends here, and comes back no more.
    selfdump::install()?.uninstall()?;
    let before = state();
    for round in 0..20 {
        let config = Config::new().exit_signal("TERM".parse()?).on_panic(true).on_fatal_signal(true);
        let handle = config.install()?;
        let other = handle.clone();
        assert_ne!(state().signals, before.signals, "the handlers are in place");
        let again = selfdump::install().expect_err("it is installed");
        assert_eq!(again.kind(), ErrorKind::AlreadyInstalled);
        if round == 3 {
            assert!(matches!(handle.checkpoint()?, Outcome::Saved(_)));
        }
        handle.uninstall()?;
        assert_eq!(other.checkpoint().expect_err("it is uninstalled").kind(), ErrorKind::NotInstalled);
        assert_eq!(other.uninstall().expect_err("it is uninstalled").kind(), ErrorKind::NotInstalled);
        wait_for_threads(&before);
        assert_eq!(state(), before, "round {round}");
    }
    println!("nothing is left");

    put_earlier_handler();
    let before = state();
    let handle = selfdump::install()?;
    raise(libc::SIGUSR2);
    assert_eq!(EARLIER.load(Ordering::Relaxed), 1, "the handler that was there runs as well");
    handle.uninstall()?;
    raise(libc::SIGUSR2);
    assert_eq!(EARLIER.load(Ordering::Relaxed), 2, "and it has its signal back");
    wait_for_threads(&before);
    assert_eq!(state(), before);
    println!("the handler is back");

    let _handle = Config::new().exit_signal("TERM".parse()?).on_fatal_signal(true).install()?;
    let listed = Command::new("ls").arg("/proc/self/fd").output()?;
    // The fourth is the folder that ls reads.
    println!(
        "exec has {}",
        String::from_utf8(listed.stdout)?.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

#[derive(Debug, PartialEq)]
struct State {
    descriptors: BTreeSet<String>,
    threads: BTreeSet<String>,
    /// The handler and the flags of each signal.
    signals: Vec<(usize, i32)>,
}

fn state() -> State {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(folder).expect("/proc");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
    };
    // The folder that is read is among them, under the lowest number that is free.
    State { descriptors: names("/proc/self/fd"), threads: names("/proc/self/task"), signals: signals() }
}

fn signals() -> Vec<(usize, i32)> {
    // The C library sets it with each action that is put, and shows it (SA_RESTORER, sigaction(2)).
    const OF_THE_LIBRARY: i32 = 0x0400_0000;
    let action = |signal| {
        // SAFETY: nothing is changed; zeros are a valid sigaction.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            (action.sa_sigaction, action.sa_flags & !OF_THE_LIBRARY)
        }
    };
    (1..=64).map(action).collect()
}

/// A thread that was waited for may still stand in /proc for a moment.
fn wait_for_threads(expected: &State) {
    for _ in 0..1000 {
        if state().threads == expected.threads {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn put_earlier_handler() {
    // SAFETY: an all-zero sigaction has an empty mask and no flags; the handler only counts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = earlier as *const () as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
    }
}

fn raise(signal: libc::c_int) {
    // SAFETY: a number.
    unsafe { libc::raise(signal) };
}
