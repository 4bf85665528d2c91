//! A program that says what is counted of its checkpoints, whenever that changes: `metrics saved N failed KIND=N… last ID
//! bytes N`. At SIGHUP it becomes `sleep`, under the same process id.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use selfdump::Metrics;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let handle = selfdump::install()?;
    let become_another = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGHUP, Arc::clone(&become_another))?;
    say("ready");
    let mut known = None;
    while !become_another.load(Ordering::Relaxed) {
        let now = handle.metrics()?;
        if known.as_ref() != Some(&now) {
            say(&line(&now));
            known = Some(now);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(std::process::Command::new("sleep").arg("600").exec().into())
}

fn line(metrics: &Metrics) -> String {
    let failed: Vec<String> = metrics.failed.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
    let last = metrics.last.as_ref().map_or("none", |last| &last.checkpoint);
    let means_it = metrics.age().is_some() == metrics.last.is_some() && metrics.paused <= metrics.took;
    assert!(means_it, "{metrics:?}");
    format!(
        "metrics saved {} failed {} last {last} bytes {}",
        metrics.saved,
        failed.join(" "),
        metrics.written.0
    )
}

/// One write for each line.
fn say(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
