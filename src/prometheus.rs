//! The figures of programs in Prometheus' text format, version 0.0.4. The names are listed in `docs/metrics.md`.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use crate::store::status::Status;

/// What is measured in one way, under one name.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The samples of a program: what follows the name, further labels, the value.
    samples: fn(&Status) -> Vec<Sample>,
}

struct Sample {
    suffix: &'static str,
    label: Option<(&'static str, String)>,
    value: f64,
}

const FAMILIES: [Family; 11] = [
    Family {
        name: "selfdump_checkpoints_total",
        kind: "counter",
        help: "Checkpoints that were saved since the program was started or came back.",
        samples: |status| one(status.metrics.saved as f64),
    },
    Family {
        name: "selfdump_checkpoint_failures_total",
        kind: "counter",
        help: "Attempts at a checkpoint that failed since the program was started or came back, by kind of error.",
        samples: |status| {
            let failed = status.metrics.failed.iter();
            failed
                .map(|(kind, count)| Sample { label: Some(("kind", kind.clone())), ..sample(*count as f64) })
                .collect()
        },
    },
    Family {
        name: "selfdump_checkpoint_written_bytes_total",
        kind: "counter",
        help: "Size of all checkpoints that were saved, deleted ones included.",
        samples: |status| one(status.metrics.written.0 as f64),
    },
    Family {
        name: "selfdump_checkpoint_pause_seconds",
        kind: "summary",
        help: "How long the program stood still for its checkpoints.",
        samples: |status| summary(status.metrics.paused, status.metrics.saved),
    },
    Family {
        name: "selfdump_checkpoint_duration_seconds",
        kind: "summary",
        help: "How long it took from the beginning of an attempt until the checkpoint was on disk.",
        samples: |status| summary(status.metrics.took, status.metrics.saved),
    },
    Family {
        name: "selfdump_last_checkpoint_timestamp_seconds",
        kind: "gauge",
        help: "When the last checkpoint was on disk.",
        samples: |status| maybe(status.metrics.last.as_ref().map(|last| unix(last.finished))),
    },
    Family {
        name: "selfdump_last_checkpoint_pause_seconds",
        kind: "gauge",
        help: "How long the program stood still for its last checkpoint.",
        samples: |status| maybe(status.metrics.last.as_ref().map(|last| last.frozen.as_secs_f64())),
    },
    Family {
        name: "selfdump_last_checkpoint_size_bytes",
        kind: "gauge",
        help: "Size of the last checkpoint.",
        samples: |status| maybe(status.metrics.last.as_ref().map(|last| last.size.0 as f64)),
    },
    Family {
        name: "selfdump_next_checkpoint_timestamp_seconds",
        kind: "gauge",
        help: "When the schedule's next checkpoint is due.",
        samples: |status| maybe(status.next.map(unix)),
    },
    Family {
        name: "selfdump_checkpoint_failures_in_a_row",
        kind: "gauge",
        help: "Attempts that have failed since the last that did not.",
        samples: |status| one(status.failures_in_a_row as f64),
    },
    Family {
        name: "selfdump_generation",
        kind: "gauge",
        help: "How many times the program has come back from a checkpoint.",
        samples: |status| one(status.generation() as f64),
    },
];

/// The figures of programs, each with its name and process id as labels. A name that none has a figure for is left
/// out.
pub fn text(programs: &[Status]) -> String {
    let mut text = String::new();
    for Family { name, kind, help, samples } in FAMILIES {
        let found: Vec<(&Status, Sample)> = programs
            .iter()
            .flat_map(|status| samples(status).into_iter().map(move |sample| (status, sample)))
            .collect();
        if found.is_empty() {
            continue;
        }
        // Writing into a String can't fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (status, Sample { suffix, label, value }) in found {
            let _ =
                write!(text, "{name}{suffix}{{program=\"{}\",pid=\"{}\"", quoted(&status.name), status.pid());
            if let Some((label, of)) = label {
                let _ = write!(text, ",{label}=\"{}\"", quoted(&of));
            }
            let _ = writeln!(text, "}} {value}");
        }
    }
    text
}

fn sample(value: f64) -> Sample {
    Sample { suffix: "", label: None, value }
}

fn one(value: f64) -> Vec<Sample> {
    vec![sample(value)]
}

fn maybe(value: Option<f64>) -> Vec<Sample> {
    value.map(sample).into_iter().collect()
}

fn summary(sum: Duration, count: u64) -> Vec<Sample> {
    vec![
        Sample { suffix: "_sum", ..sample(sum.as_secs_f64()) },
        Sample { suffix: "_count", ..sample(count as f64) },
    ]
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A label's value, in which these three are written by a backslash.
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
