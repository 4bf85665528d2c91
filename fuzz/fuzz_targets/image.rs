//! One image, of the kind that the first byte says: whatever is in it, it is read or refused, in bounded memory,
//! and written back as it was, or said where not.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use selfdump::inspect;

#[path = "names.rs"]
mod names;

fuzz_target!(|input: &[u8]| {
    let Some((kind, image)) = input.split_first() else { return };
    let name = names::NAMES[usize::from(*kind) % names::NAMES.len()];
    let mut back = Vec::new();
    if let Ok(rewritten) = inspect::rewrite(name, Cursor::new(image.to_vec()), &mut back) {
        let rewritten = rewritten.expect("every name is of a kind that is read");
        assert_eq!(rewritten.unequal.is_empty(), back == image, "{:?}", rewritten.unequal);
    }
    let Ok(messages) = inspect::messages_in(name, Cursor::new(image.to_vec())) else { return };
    for message in messages.expect("every name is of a kind that is read") {
        let Ok(message) = message else { return };
        assert!(message.payload_bytes.0 <= image.len() as u64);
        assert!(message.fields.is_object());
    }
});
