//! One line for each request: who, what, and what came of it. Whatever comes from users is written so that it stays on
//! its line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::criu::Version;

/// No reason and no name is written out at greater length.
const LONGEST: usize = 200;

/// Who asks.
pub(super) struct Who {
    pub(super) user: u32,
    pub(super) pid: i32,
    /// The program's name, which it gives itself.
    pub(super) program: String,
}

pub(super) fn began(socket: &str, criu: &Path, version: &Version) {
    line(&format!("listens at {socket}; criu={} version={version}", harmless(&criu.display().to_string())));
}

/// Something that no request is to blame for.
pub(super) fn trouble(what: &str) {
    line(&format!("trouble={}", harmless(what)));
}

/// A request, and what came of it.
pub(super) fn request(who: &Who, asked: &str, result: &str, took: Duration) {
    line(&describe(who, asked, result, took));
}

fn describe(who: &Who, asked: &str, result: &str, took: Duration) -> String {
    let mut text = format!("user={} pid={} program={}", who.user, who.pid, harmless(&who.program));
    let _ = write!(text, " asked={asked} result={} seconds={:.3}", harmless(result), took.as_secs_f64());
    text
}

/// In quotes, with everything escaped that isn't plain text.
fn harmless(text: &str) -> String {
    let short: String = text.chars().take(LONGEST).collect();
    let escaped: String = short.escape_debug().filter(char::is_ascii).collect();
    format!("\"{escaped}\"")
}

/// A log that can't be written to is no reason to end.
fn line(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("selfdump service: {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_write_a_line_of_its_own() {
        let who = Who { user: 7, pid: 9, program: "a\"\nselfdump service: user=0\u{1b}[2J".to_owned() };
        let said = describe(&who, "dump", "sealed", Duration::from_millis(20));
        assert_eq!(
            said,
            "user=7 pid=9 program=\"a\\\"\\nselfdump service: user=0\\u{1b}[2J\" asked=dump result=\"sealed\" seconds=0.020"
        );
        let long = Who { user: 7, pid: 9, program: "x".repeat(100_000) };
        assert!(describe(&long, "dump", "", Duration::ZERO).len() < 300);
    }
}
