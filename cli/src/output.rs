//! How things are said: errors with their remedy, tables, ages.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};
use selfdump::Bytes;
use selfdump::status::{Attempt, Failure};
use tabled::builder::Builder;
use tabled::grid::records::PeekableRecords;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Format, Padding, Style};

/// An error, its causes, what CRIU said, and what to do, on standard error.
pub fn report(error: &anyhow::Error) {
    match error.downcast_ref::<selfdump::Error>() {
        Some(error) => eprintln!("selfdump: {error:?}"),
        None => eprintln!("selfdump: {error:#}"),
    }
}

/// The width that a table keeps to where it can.
const WIDTH: usize = 80;

/// A table for people, without borders; where it is wider than the terminal, its widest columns wrap.
pub struct Table {
    rows: Builder,
    right_aligned: Vec<usize>,
    /// The width that it keeps to where there is no terminal.
    width: Option<usize>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N], right_aligned: &[usize]) -> Table {
        let mut rows = Builder::new();
        rows.push_record(header);
        Table { rows, right_aligned: right_aligned.to_vec(), width: None }
    }

    /// Names or numbers and texts, without a header, no wider than a page wherever it goes.
    pub fn pairs() -> Table {
        Table { rows: Builder::new(), right_aligned: Vec::new(), width: Some(WIDTH) }
    }

    pub fn add_row(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push_record(row);
    }

    pub fn add_rows(&mut self, rows: impl IntoIterator<Item = impl IntoIterator<Item = impl Into<String>>>) {
        rows.into_iter().for_each(|row| self.add_row(row));
    }

    pub fn print(self) {
        let mut table = self.rows.build();
        table.with(Style::empty());
        for column in self.right_aligned {
            table.modify(Columns::one(column), Alignment::right());
        }
        fit(&mut table, terminal_width().or(self.width));
        // At once: standard output is written line by line otherwise, and there may be ten thousand.
        let text: String = table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
        print!("{text}");
    }
}

/// Brings its columns closer together where it would be wider than a page, or than `width`; its widest columns wrap where
/// that isn't enough for `width`.
fn fit(table: &mut tabled::Table, width: Option<usize>) {
    spread(table, GAP);
    if table.total_width() > width.unwrap_or(WIDTH) {
        spread(table, GAP - 1);
    }
    if let Some(width) = width.filter(|width| table.total_width() > *width) {
        wrap_widest(table, table.total_width() - width);
    }
}

/// The blanks between two columns.
const GAP: usize = 2;

/// Has so many blanks between the columns, and none after the last.
fn spread(table: &mut tabled::Table, gap: usize) {
    table.with(Padding::new(0, gap, 0, 0)).modify(Columns::last(), Padding::zero());
}

/// The least width that a column is brought to.
const NARROWEST: usize = 20;

/// Wraps the texts of the widest columns, so that the table gets narrower by `surplus` where it can.
fn wrap_widest(table: &mut tabled::Table, surplus: usize) {
    let before: Vec<usize> = (0..table.count_columns()).map(|column| width_of(table, column)).collect();
    let mut widths = before.clone();
    for _ in 0..surplus {
        if let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROWEST) {
            *widest -= 1;
        }
    }
    for (column, (width, before)) in widths.into_iter().zip(before).enumerate() {
        if width < before {
            table.modify(Columns::one(column), Format::content(|text| textwrap::fill(text, words(width))));
        }
    }
}

fn width_of(table: &tabled::Table, column: usize) -> usize {
    let texts = (0..table.count_rows()).map(|row| table.get_records().get_text((row, column).into()));
    texts.flat_map(str::lines).map(textwrap::core::display_width).max().unwrap_or_default()
}

/// The width of the terminal that standard output is, if it is one.
fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into())
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

/// A text in lines, each no wider than the page without the indent.
pub fn wrapped(text: &str, indent: usize) -> Vec<String> {
    textwrap::wrap(text, words(WIDTH - indent)).into_iter().map(Into::into).collect()
}

/// Lines of so much room that break at blanks alone: a path or a command with hyphens in it is copied as a whole.
fn words(room: usize) -> textwrap::Options<'static> {
    textwrap::Options::new(room)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
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

/// Shows itself only on a terminal, and a few times in a second.
pub fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// One that is done at once needs none.
pub fn progress(bar: &ProgressBar, done: Bytes, total: Bytes) {
    if bar.elapsed() > Duration::from_secs(1) {
        bar.set_length(total.0);
        bar.set_position(done.0);
    }
}
