//! What we read of images, held against what crit's library reads of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

use crate::harness::target;

/// Prints what crit reads of the files that are named, as JSON by the files' names.
const CRIT: &str = r#"
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pycriu import images
def entries(path):
    with open(path, "rb") as file: return images.load(file)["entries"]
json.dump({os.path.basename(path): entries(path) for path in sys.argv[2:]}, sys.stdout)
"#;

/// Where crit's library is.
pub fn crit() -> PathBuf {
    let installed = std::env::var_os("SELFDUMP_CRIT").map_or_else(|| target().join("crit"), PathBuf::from);
    let library = installed.join("usr/lib/python3/dist-packages");
    assert!(library.is_dir(), "no crit at {}: run `cargo xtask setup`, which gets one", installed.display());
    library
}

/// What crit reads of these images, by file name.
fn read_by_crit(images: &[PathBuf]) -> Map<String, Value> {
    let mut python = Command::new("python3");
    // Without the machine's own modules, of which some may be of another protobuf.
    python.arg("-S").args(["-c", CRIT]).arg(crit()).args(images);
    let output =
        python.env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python").output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Compares all that is in a folder of images, of which this is our list. How many fields, by image.
pub fn compare_all(images: &[Value], folder: &Path) -> BTreeMap<String, usize> {
    let strange: Vec<_> = images.iter().filter(|image| image["content"] == "unknown").collect();
    assert!(strange.is_empty(), "not read at all: {strange:?}");
    let ours: Vec<&Value> = images.iter().filter(|image| image["content"] == "messages").collect();
    let name = |image: &Value| image["name"].as_str().expect("a name").to_owned();
    let paths: Vec<PathBuf> = ours.iter().map(|image| folder.join(name(image))).collect();
    let theirs = read_by_crit(&paths);
    let mut compared = BTreeMap::new();
    for image in ours {
        let (name, messages) = (name(image), image["messages"].as_array().expect("messages"));
        let entries: Vec<Value> =
            theirs[&name].as_array().expect("entries").iter().flat_map(message_by_message).collect();
        assert_eq!(messages.len(), entries.len(), "messages of {name}");
        let mut differences = Differences::default();
        for (at, (message, entry)) in messages.iter().zip(entries).enumerate() {
            assert_eq!(message["unknown_fields"], Value::Array(Vec::new()), "{name} {at}");
            differences.message(&format!("{name} {at}"), message, &entry);
        }
        assert!(differences.found.is_empty(), "{:#?}", differences.found);
        *compared.entry(name.split(['-', '.']).next().unwrap().to_owned()).or_default() +=
            differences.compared;
    }
    compared
}

/// An entry as it stands in the file. To crit the messages of a queue belong to it, each with its text behind it, and so
/// do the values of semaphores; both are filled up to a multiple of 8.
fn message_by_message(entry: &Value) -> Vec<Value> {
    let Some(inner) = entry["extra"].as_array() else { return vec![entry.clone()] };
    let with = |entry: &Value, size: usize| {
        let mut entry = entry.clone();
        entry["extra"] = size.next_multiple_of(8).into();
        entry
    };
    if inner.iter().all(Value::is_number) {
        return vec![with(entry, inner.len() * 2)];
    }
    let text = |data: &Value| base64(data.as_str().expect("a text")).expect("base64").len();
    let waiting = inner.chunks(2).map(|pair| with(&pair[0], text(&pair[1])));
    [with(entry, 0)].into_iter().chain(waiting).collect()
}

/// What differs between a message of ours and one of theirs.
#[derive(Default)]
struct Differences {
    found: Vec<String>,
    compared: usize,
}

impl Differences {
    fn message(&mut self, place: &str, ours: &Value, theirs: &Value) {
        let mut entry = theirs.as_object().expect("fields").clone();
        // What stands behind a message: of a connection what waits to be read and what to be sent.
        let behind = match entry.remove("extra") {
            None => 0,
            Some(Value::Number(size)) => size.as_u64().expect("a size") as usize,
            Some(Value::String(data)) => base64(&data).expect("base64").len(),
            Some(parts) => {
                ["inq", "outq"].iter().map(|part| base64(parts[part].as_str().unwrap()).unwrap().len()).sum()
            }
        };
        if ours["payload_bytes"] != behind {
            self.found
                .push(format!("{place}: {behind} bytes behind it, ours says {}", ours["payload_bytes"]));
        }
        self.value(place, &ours["fields"], &Value::Object(entry));
    }

    fn value(&mut self, place: &str, ours: &Value, theirs: &Value) {
        match (ours, theirs) {
            (Value::Object(ours), Value::Object(theirs)) => {
                let only = |one: &Map<_, _>, other: &Map<_, _>| {
                    one.keys().filter(|name| !other.contains_key(*name)).cloned().collect::<Vec<_>>()
                };
                for name in [only(ours, theirs), only(theirs, ours)].concat() {
                    self.found.push(format!("{place}.{name} is only in one of both"));
                }
                for (name, ours) in ours {
                    if let Some(theirs) = theirs.get(name) {
                        self.value(&format!("{place}.{name}"), ours, theirs);
                    }
                }
            }
            (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
                for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                    self.value(&format!("{place}[{at}]"), ours, theirs);
                }
            }
            _ => {
                self.compared += 1;
                if !is_same(ours, theirs) {
                    self.found.push(format!("{place}: {ours} is {theirs} to crit"));
                }
            }
        }
    }
}

/// Whether two values are the same, though crit names what is a number and encodes what is no text.
fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(number), Value::String(name)) => {
            ENUMS.iter().any(|(known, value)| known == name && number.as_i64() == Some(*value))
        }
        (Value::String(_) | Value::Array(_), Value::String(text)) => bytes(ours).is_some_and(|bytes| {
            text.as_bytes() == bytes
                || base64(text).is_some_and(|decoded| decoded == bytes)
                || quoted_printable(text) == bytes
        }),
        _ => ours == theirs,
    }
}

/// The bytes that a text or an array of numbers stands for.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(list) => list.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
        _ => None,
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=').map(digit);
    let digits: Vec<u32> = digits.collect::<Option<_>>()?;
    let decoded = digits.chunks(4).flat_map(|group| {
        let bits = group.iter().enumerate().fold(0, |bits, (at, digit)| bits | digit << (18 - 6 * at));
        bits.to_be_bytes()[1..group.len()].to_vec()
    });
    Some(decoded.collect())
}

/// As MIME has it, which crit uses for the names of unix sockets.
fn quoted_printable(text: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'=', [b'\n', after @ ..]) => rest = after,
            (b'=', [high, low, after @ ..]) => {
                let hex = [*high, *low].map(char::from).iter().collect::<String>();
                decoded.push(u8::from_str_radix(&hex, 16).unwrap_or(b'='));
                rest = after;
            }
            _ => decoded.push(*byte),
        }
    }
    decoded
}

/// What crit calls numbers, of all kinds together: no name has two.
const ENUMS: [(&str, i64); 58] = [
    ("UND", 0),
    ("REG", 1),
    ("PIPE", 2),
    ("FIFO", 3),
    ("INETSK", 4),
    ("UNIXSK", 5),
    ("EVENTFD", 6),
    ("EVENTPOLL", 7),
    ("INOTIFY", 8),
    ("SIGNALFD", 9),
    ("PACKETSK", 10),
    ("TTY", 11),
    ("FANOTIFY", 12),
    ("NETLINKSK", 13),
    ("NS", 14),
    ("TUNF", 15),
    ("EXT", 16),
    ("TIMERFD", 17),
    ("MEMFD", 18),
    ("BPFMAP", 19),
    ("PIDFD", 20),
    ("UNKNOWN", 0),
    ("X86_64", 1),
    ("AARCH64", 3),
    ("NATIVE", 1),
    ("COMPAT", 2),
    ("disabled", 0),
    ("strict", 1),
    ("filter", 2),
    ("NONE", 0),
    ("READ", 1),
    ("WRITE", 2),
    ("BOTH", 3),
    ("PTY", 1),
    ("CONSOLE", 2),
    ("VT", 3),
    ("CTTY", 4),
    ("EXT_TTY", 5),
    ("SERIAL", 6),
    ("NO_LSM", 0),
    ("SELINUX", 1),
    ("APPARMOR", 2),
    ("GHOST", 1),
    ("PROCFS", 2),
    ("INTEL", 1),
    ("AMD", 2),
    ("INODE", 1),
    ("MOUNT", 2),
    ("LOOPBACK", 1),
    ("VETH", 2),
    ("TUN", 3),
    ("EXTLINK", 4),
    ("VENET", 5),
    ("BRIDGE", 6),
    ("MACVLAN", 7),
    ("SIT", 8),
    ("CTL_STR", 5),
    ("CTL_32", 6),
];

#[test]
fn a_difference_is_seen() {
    let ours = serde_json::json!({ "fields": { "a": 1, "b": [1, 2], "c": "text" }, "payload_bytes": 2 });
    let alike = serde_json::json!({ "a": 1, "b": [1, 2], "c": "text", "extra": "AAA=" });
    let mut differences = Differences::default();
    differences.message("same", &ours, &alike);
    assert!(differences.found.is_empty() && differences.compared == 4, "{:?}", differences.found);
    for (name, other) in [("a", 2.into()), ("b", vec![1].into()), ("c", "TEXT".into()), ("d", 1.into())] {
        let mut other_one = alike.clone();
        other_one[name] = other;
        let mut differences = Differences::default();
        differences.message("other", &ours, &other_one);
        assert_eq!(differences.found.len(), 1, "{name}");
    }
}
