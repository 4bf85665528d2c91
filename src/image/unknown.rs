//! The fields of a message that are not declared here: a newer CRIU may have written some.
//!
//! A reader of protobuf passes over what it doesn't know. So what was read is written again, and a field of the
//! original that is missing in that is one that was passed over.

use std::collections::HashMap;

use prost::DecodeError;

use super::wire::{Field, fields};

/// How deep messages are looked into: as deep as they are decoded.
const DEEPEST: u32 = 100;

/// The numbers of the fields that `written` lacks, each with those of the messages around it: `4.17`.
pub(super) fn unknown(original: &[u8], written: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut found = Vec::new();
    look(original, written, "", 0, &mut found)?;
    found.dedup();
    Ok(found)
}

fn look(
    original: &[u8],
    written: &[u8],
    prefix: &str,
    depth: u32,
    found: &mut Vec<String>,
) -> Result<(), DecodeError> {
    // Most messages are written as they were.
    if original == written || depth > DEEPEST {
        return Ok(());
    }
    let written = fields(written)?;
    let mut again: HashMap<u32, std::vec::IntoIter<&Field<'_>>> = HashMap::new();
    for number in written.iter().map(|field| field.number) {
        let same = || written.iter().filter(|field| field.number == number).collect::<Vec<_>>().into_iter();
        again.entry(number).or_insert_with(same);
    }
    for field in fields(original)? {
        match again.get_mut(&field.number).map(Iterator::next) {
            None => found.push(format!("{prefix}{}", field.number)),
            Some(Some(Field { nested: Some(written), .. })) => {
                if let Some(original) = field.nested.filter(|original| original != written) {
                    // It differs, so it is a message, of which something was passed over.
                    look(original, written, &format!("{prefix}{}.", field.number), depth + 1, found)?;
                }
            }
            // A field that stands there twice counts once: the last one.
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::super::images::{Core, Task, TreeItem};
    use super::*;

    /// A message with one more field at its end.
    fn with_another(mut bytes: Vec<u8>, number: u32) -> Vec<u8> {
        encode_key(number, WireType::Varint, &mut bytes);
        encode_varint(4711, &mut bytes);
        bytes
    }

    fn unknown_in<M: Message + Default>(bytes: &[u8]) -> Vec<String> {
        unknown(bytes, &M::decode(bytes).unwrap().encode_to_vec()).unwrap()
    }

    #[test]
    fn what_is_declared_is_known() {
        let item = TreeItem { pid: 7, threads: vec![7, 8, 9], ..Default::default() };
        assert!(unknown_in::<TreeItem>(&item.encode_to_vec()).is_empty());
    }

    #[test]
    fn an_unknown_field_is_named_at_its_place() {
        assert_eq!(
            unknown_in::<TreeItem>(&with_another(TreeItem::default().encode_to_vec(), 1000)),
            ["1000"]
        );
        let task = with_another(Task { comm: b"app".into(), ..Default::default() }.encode_to_vec(), 99);
        let mut core = Core::default().encode_to_vec();
        encode_key(3, WireType::LengthDelimited, &mut core);
        encode_varint(task.len() as u64, &mut core);
        core.extend(&task);
        assert_eq!(unknown_in::<Core>(&core), ["3.99"]);
    }
}
