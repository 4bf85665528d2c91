//! How things are said: errors with their remedy, tables, ages.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use selfdump::Bytes;
use selfdump::status::{Attempt, Failure};

/// An error, its causes, what CRIU said, and what to do, on standard error.
pub fn report(error: &anyhow::Error) {
    match error.downcast_ref::<selfdump::Error>() {
        Some(error) => eprintln!("selfdump: {error:?}"),
        None => eprintln!("selfdump: {error:#}"),
    }
}

/// A table for people: no borders, and no wider than the terminal.
pub fn table<const N: usize>(header: [&str; N], right_aligned: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right_aligned.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table of names or numbers and texts, without a header: the texts wrap at the terminal's width, or at `width`.
pub fn pairs(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table
}

/// The width that a table keeps to where it can.
const WIDTH: usize = 80;

/// Prints a table without the blanks that its last column is padded with, and closer together where it would be too wide.
pub fn print_table(table: &mut Table) {
    let mut lines: Vec<String> = table.lines().collect();
    if lines.iter().any(|line| line.trim_end().chars().count() > WIDTH) {
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 1));
        });
        lines = table.lines().collect();
    }
    // At once: standard output is written line by line otherwise, and there may be ten thousand.
    let text: String = lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect();
    print!("{text}");
}

/// What is known of a failure besides its message: CRIU's words, its log, and what to do.
pub fn failure(failure: &Failure) -> impl Iterator<Item = String> {
    let criu = failure.criu.iter().map(|line| format!("criu: {line}"));
    let log = failure.log.iter().map(|log| format!("log: {}", log.display()));
    let hint = failure.hint.iter().map(|hint| format!("help: {hint}"));
    criu.chain(log).chain(hint)
}

/// A checkpoint that came of an attempt: which, how large, how long the program stood still for it.
pub fn saved(attempt: &Attempt) -> String {
    let checkpoint = attempt.checkpoint.as_deref().unwrap_or("?");
    let size = attempt.size_bytes.unwrap_or_default();
    let frozen = milliseconds(attempt.frozen_us.unwrap_or_default().into());
    format!("{checkpoint}, {size}, stood still for {frozen}")
}

/// A number of things: `1 warning`, `2 warnings`.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A text in lines of words, each no wider than the page without the indent.
pub fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = |line: &String| indent + line.chars().count() + 1 + word.chars().count() <= WIDTH;
        match lines.last_mut().filter(|line| line.is_empty() || fits(line)) {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A colour of the terminal's.
#[derive(Clone, Copy)]
pub enum Colour {
    Green = 32,
    Yellow = 33,
    Red = 31,
}

impl Colour {
    /// The text in this colour, where standard output is a terminal and nobody has set NO_COLOR.
    pub fn paint(self, text: &str) -> String {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match std::io::stdout().is_terminal() && !plain {
            true => format!("\x1b[{}m{text}\x1b[0m", self as u8),
            false => text.to_owned(),
        }
    }
}

/// How long ago something was: `42s`, `3m 20s`, `2days 4h`: the two largest units.
pub fn age(then: SystemTime) -> String {
    seconds(SystemTime::now().duration_since(then).unwrap_or_default())
}

/// How long ago something was, in its largest unit alone: `42s`, `3m`, `2days`.
pub fn short_age(then: SystemTime) -> String {
    age(then).split(' ').next().unwrap_or_default().to_owned()
}

/// A size as an argument.
pub fn size(text: &str) -> Result<Bytes, String> {
    text.parse().map_err(|error: selfdump::Error| format!("it takes {}", error.hint().unwrap_or("a size")))
}

/// How long it is until then: nothing where that has passed.
pub fn until(then: SystemTime) -> String {
    seconds(then.duration_since(SystemTime::now()).unwrap_or_default())
}

/// A time in whole seconds, in its two largest units.
pub fn seconds(time: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A number of microseconds as milliseconds, of which no more digits are given than mean something.
pub fn milliseconds(micros: u128) -> String {
    let digits = usize::from(micros < 100_000);
    format!("{:.digits$} ms", micros as f64 / 1e3)
}

/// The default action of SIGPIPE, which Rust ignores, ends a writer whose reader is gone.
pub fn end_quietly_on_broken_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// The opposite, for who has more to do than to write.
pub fn outlive_readers() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: to ignore a signal runs no code of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

/// What a mapping is: its file, or its kind.
pub fn mapping(mapping: &selfdump::inspect::Mapping) -> String {
    let kind = || name(&mapping.kind);
    mapping.path.as_ref().map_or_else(kind, |path| path.display().to_string())
}

/// The name that a plain value has in JSON.
pub fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
}
