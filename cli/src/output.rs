//! How things are said: errors with their remedy, tables, ages.

use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

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

/// Prints a table without the blanks that its last column is padded with.
pub fn print_table(table: &Table) {
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

/// How long ago something was: `42s`, `3m 20s`, `2days 4h`: the two largest units.
pub fn age(then: SystemTime) -> String {
    seconds(SystemTime::now().duration_since(then).unwrap_or_default())
}

/// A time in whole seconds, in its two largest units.
pub fn seconds(time: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A number of microseconds as milliseconds.
pub fn milliseconds(micros: u128) -> String {
    format!("{:.1} ms", micros as f64 / 1e3)
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
