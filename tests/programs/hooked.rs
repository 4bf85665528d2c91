//! A program with all hooks, which says when each is called. `hooked [SITUATION…]`
//!
//! Each SIGUSR1 has it ask for a checkpoint and say what came of it. The situations: `veto` and `panic` (what the
//! hook before a checkpoint does), `nested` (a hook adds another one, and asks for a checkpoint itself), `hold=MS`
//! (a thread holds up checkpoints for so long each time that one is asked for), `own-hold` (the thread that asks
//! holds them up itself).

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use selfdump::{Handle, Outcome};

fn main() -> Result<(), selfdump::Error> {
    let situations: Vec<String> = std::env::args().skip(1).collect();
    let is = |situation: &str| situations.iter().any(|known| known == situation);
    let handle = selfdump::install()?;
    add_hooks(&handle)?;
    if is("veto") {
        handle.before_checkpoint(|_| Err("a transfer is under way".to_owned()))?;
    }
    if is("panic") {
        handle.before_checkpoint(|_| panic!("in a hook"))?;
    }
    if is("nested") {
        add_nested_hooks(&handle)?;
    }
    let hold = situations.iter().find_map(|known| known.strip_prefix("hold=")?.parse().ok());
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGUSR1, Arc::clone(&asked)).expect("a handler");
    say("ready");
    loop {
        if asked.swap(false, Ordering::Relaxed) {
            if let Some(time) = hold.map(Duration::from_millis) {
                hold_up_for(&handle, time);
            }
            let own = is("own-hold").then(|| handle.hold());
            say(&told(handle.checkpoint()));
            drop(own);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn add_hooks(handle: &Handle) -> Result<(), selfdump::Error> {
    handle.before_checkpoint(|cause| {
        say(&format!("first before {cause}"));
        Ok(())
    })?;
    handle.before_checkpoint(|cause| {
        say(&format!("second before {cause}"));
        Ok(())
    })?;
    handle.after_checkpoint(|report| {
        say(&format!("after {} {}", report.cause, if report.outcome.is_ok() { "saved" } else { "failed" }));
    })?;
    handle.on_restore(|restored| {
        let same = (restored.same_host, restored.same_boot, restored.same_pid_namespace);
        say(&format!("on restore generation {} {same:?} {:?}", selfdump::generation(), restored.settings()));
    })
}

fn add_nested_hooks(handle: &Handle) -> Result<(), selfdump::Error> {
    let inner = handle.clone();
    let mut added = false;
    handle.before_checkpoint(move |_| {
        let kind = |error: selfdump::Error| error.kind().name();
        say(&format!("asking in a hook: {}", inner.checkpoint().map_or_else(kind, |_| "served")));
        say(&format!("holding in a hook: {}", inner.hold().map_or_else(kind, |_| "held")));
        say(&format!("uninstalling in a hook: {}", inner.clone().uninstall().map_or_else(kind, |()| "done")));
        if !std::mem::replace(&mut added, true) {
            let add = inner.before_checkpoint(|_| {
                say("added by a hook");
                Ok(())
            });
            add.expect("a hook may add another");
        }
        Ok(())
    })
}

/// Comes back when the hold has begun.
fn hold_up_for(handle: &Handle, time: Duration) {
    let (handle, (begun, wait)) = (handle.clone(), std::sync::mpsc::channel());
    let holder = std::thread::Builder::new().name("holder".to_owned());
    let holder = holder.spawn(move || {
        let hold = handle.hold().expect("a hold");
        begun.send(()).expect("somebody waits");
        std::thread::sleep(time);
        say("hold ends");
        drop(hold);
    });
    holder.expect("a thread");
    wait.recv().expect("a hold");
}

fn told(outcome: Result<Outcome, selfdump::Error>) -> String {
    match outcome {
        Ok(Outcome::Saved(checkpoint)) => format!("outcome saved {}", checkpoint.id),
        Ok(Outcome::Restored(restored)) => format!("outcome restored {}", restored.id),
        Err(error) => format!("outcome error {} | {}", error.kind().name(), error.chain()),
    }
}

/// One write for each line, so that lines of threads don't mix.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
