//! What a service is told, as bytes.

use std::path::Path;

/// A field that holds a number.
pub fn number(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value)].concat()
}

/// A field that holds bytes, text or a message.
pub fn text(field: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(u64::from(field) << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub const DUMP: u64 = 1;
pub const FOLDER: u64 = 1000;

/// VERSION, after which more is to come.
pub fn version() -> Vec<u8> {
    [number(1, 10), number(4, 1)].concat()
}

/// FOLDER.
pub fn folder() -> Vec<u8> {
    number(1, FOLDER)
}

/// The options of a dump that is allowed, in the order of their numbers; a field that is given takes the place of that
/// with its number.
pub fn options(given: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut fields = vec![
        (1, number(1, u64::MAX)),
        (3, number(3, 1)),
        (7, number(7, 1)),
        (9, number(9, 2)),
        (10, text(10, "dump.log")),
        (34, number(34, 0)),
        (64, number(64, 3)),
        (67, number(67, 1)),
        (68, text(68, "/proc/self/fd/4")),
    ];
    for (field, bytes) in given {
        fields.retain(|(number, _)| number != field);
        fields.push((*field, bytes.clone()));
    }
    fields.sort_by_key(|&(number, _)| number);
    fields.into_iter().flat_map(|(_, bytes)| bytes).collect()
}

/// DUMP with options.
pub fn dump(options: &[u8]) -> Vec<u8> {
    [number(1, DUMP), text(2, options)].concat()
}

pub fn send(message: &[u8]) -> String {
    format!("send:{}", hex(message))
}

/// FOLDER with the descriptors of these files.
pub fn with(files: &[&Path]) -> String {
    with_message(&folder(), files)
}

/// A message with the descriptors of these files.
pub fn with_message(message: &[u8], files: &[&Path]) -> String {
    let paths: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    format!("with:{}:{}", hex(message), paths.join(":"))
}

pub fn hear() -> String {
    "hear".to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
