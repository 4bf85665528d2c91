//! Reads a log of CRIU's: whether it went well, and if not, which line tells the cause.

use super::dictionary::{self, Rule};

/// How many lines of a log are shown before and after the one that tells the cause.
const AROUND: usize = 2;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Its text.
    pub text: String,
}

/// What a log tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The version of the CRIU that wrote it (`4.2.1`), where it says so.
    pub criu_version: Option<String>,
    /// Whether it says that the dump or the restore went well.
    pub succeeded: bool,
    /// The cause and the remedy, where the dictionary knows them.
    pub rule: Option<&'static Rule>,
    /// The line that tells the cause.
    pub cause: Option<Line>,
    /// That line with those around it.
    pub context: Vec<Line>,
    /// The lines that tell of errors, each once, without those of runs that succeed as well.
    pub errors: Vec<Line>,
}

impl AsRef<str> for Line {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// Explains a log of a dump or a restore, given as text.
pub fn explain(log: &str) -> Explanation {
    let succeeded = log.contains("finished successfully");
    let errors = errors(log.lines());
    let found = dictionary::find(&errors).filter(|_| !succeeded);
    let cause = found.map(|(_, position)| errors[position].clone());
    Explanation {
        criu_version: log.lines().find_map(version),
        succeeded,
        rule: found.map(|(rule, _)| rule),
        context: cause.as_ref().map(|line| around(log, line.number)).unwrap_or_default(),
        cause,
        errors,
    }
}

/// The lines that tell of errors: `(00.012345) Error (criu/files-reg.c:2175): File … has bad size`. What is said
/// again is left out.
pub(super) fn errors<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Line> {
    let mut errors: Vec<Line> = Vec::new();
    for (index, line) in lines.enumerate().filter(|(_, line)| dictionary::is_telling(line)) {
        if !errors.iter().any(|known| message(&known.text) == message(line)) {
            errors.push(Line { number: index + 1, text: line.trim().to_owned() });
        }
    }
    errors
}

/// The text of a line, without time, level and place.
pub(super) fn message(line: &str) -> &str {
    line.split_once("): ").map_or(line, |(_, message)| message).trim()
}

/// `(00.000058) Version: 4.2.1 (gitid 0)`
fn version(line: &str) -> Option<String> {
    let (_, version) = line.split_once(") Version: ")?;
    version.split_whitespace().next().map(str::to_owned)
}

/// A line of the log, by its number, with those around it.
fn around(log: &str, number: usize) -> Vec<Line> {
    let first = number.saturating_sub(AROUND).max(1);
    let lines = log.lines().enumerate().skip(first - 1).take(number + AROUND + 1 - first);
    lines.map(|(index, line)| Line { number: index + 1, text: line.trim_end().to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "(00.01) Version: 4.2.1 (gitid 0)\n\
        (00.02) Error (criu/rlimit.c:31): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
        (00.03) 7 fdinfo 3: pos: 0\n\
        (00.04) Error (criu/files-ext.c:94): Can't dump file 3 of that type [600] (anon anon_inode:bpf-map)\n\
        (00.05) Error (criu/cr-dump.c:1545): Dump files (pid: 7) failed with -1\n\
        (00.06) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";

    fn numbers(lines: &[Line]) -> Vec<usize> {
        lines.iter().map(|line| line.number).collect()
    }

    #[test]
    fn the_cause_is_shown_in_its_place() {
        let explanation = explain(LOG);
        assert_eq!(explanation.criu_version.as_deref(), Some("4.2.1"));
        assert_eq!(explanation.rule.unwrap().id, "bpf");
        assert_eq!(explanation.cause.unwrap().number, 4);
        assert_eq!(numbers(&explanation.context), [2, 3, 4, 5, 6]);
        assert_eq!(numbers(&explanation.errors), [4, 5, 6]);
    }

    #[test]
    fn the_first_and_the_last_line_have_fewer_around_them() {
        assert_eq!(numbers(&around(LOG, 1)), [1, 2, 3]);
        assert_eq!(numbers(&around(LOG, 6)), [4, 5, 6]);
    }

    #[test]
    fn a_run_that_went_well_has_no_cause_whatever_it_says_on_the_way() {
        let explanation = explain(&format!("{LOG}(00.07) Dumping finished successfully\n"));
        assert!(explanation.succeeded && explanation.rule.is_none() && explanation.cause.is_none());
    }

    #[test]
    fn what_is_told_in_passing_counts_only_where_nothing_else_is_told() {
        let warning = "(00.01) Warn  (compel/src/lib/infect.c:132): Unable to interrupt task: 7 (Operation not permitted)\n";
        let end = "(00.02) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";
        assert_eq!(explain(&format!("{warning}{end}")).rule.unwrap().id, "unstoppable");
        let another = "(00.02) Error (criu/new.c:1): something new\n";
        assert!(explain(&format!("{warning}{another}{end}")).rule.is_none());
    }

    #[test]
    fn an_empty_log_tells_nothing() {
        let explanation = explain("");
        assert!(!explanation.succeeded && explanation.rule.is_none() && explanation.errors.is_empty());
    }
}
