//! Where a message that was read and is written again isn't what it was, byte by byte.
//!
//! A reader of protobuf passes over what isn't declared: a newer CRIU may have written such fields. So what was read is
//! written again and held against the original. A field that is missing then is one that was passed over; one that is
//! there, but otherwise, is declared as something that it isn't.

use std::collections::HashMap;

use super::wire::{Field, fields};

/// How deep messages are looked into: as deep as they are decoded.
const DEEPEST: u32 = 100;

/// Something in a message that isn't written as it stood there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// The number of the field, with those of the messages around it: `4.17`. Of the message itself it is empty.
    pub(super) field: String,
    /// Where it begins in the message.
    pub(super) offset: u64,
    /// Whether it is not declared at all.
    pub(super) undeclared: bool,
}

/// All that isn't equal, of the same field several times in a row the first: nothing if and only if both are the same,
/// byte by byte.
pub(super) fn differences(original: &[u8], written: &[u8]) -> Vec<Difference> {
    let mut found = Vec::new();
    let message = Place { field: String::new(), offset: 0, depth: 0 };
    message.compare(original, written, &mut found);
    found
}

/// The numbers of the fields that aren't declared, each once.
pub(super) fn unknown(differences: &[Difference]) -> Vec<String> {
    let undeclared = differences.iter().filter(|difference| difference.undeclared);
    let mut found: Vec<String> = undeclared.map(|difference| difference.field.clone()).collect();
    found.dedup();
    found
}

/// Adds one, unless it is the same again as the last: a list of a million numbers counts once.
fn add(found: &mut Vec<Difference>, field: String, offset: u64, undeclared: bool) {
    let is_same = |last: &Difference| last.undeclared == undeclared && last.field == field;
    if !found.last().is_some_and(is_same) {
        found.push(Difference { field, offset, undeclared });
    }
}

/// Where a message begins in the one that is around all.
struct Place {
    field: String,
    offset: u64,
    depth: u32,
}

impl Place {
    fn compare(&self, original: &[u8], written: &[u8], found: &mut Vec<Difference>) {
        // Most messages are written as they were.
        if original == written {
            return;
        }
        let is_explained = match (fields(original), fields(written)) {
            (Ok(original), Ok(written)) if self.depth <= DEEPEST => {
                self.compare_fields(&original, &written, found)
            }
            // Something that isn't a message, such as a list of numbers.
            _ => false,
        };
        // No field of its own is to blame: there is one too many, or they stand in another order.
        if !is_explained {
            let same = original.iter().zip(written).take_while(|(one, other)| one == other).count() as u64;
            add(found, self.field.clone(), self.offset + same, false);
        }
    }

    /// Whether there was a field that isn't as it was.
    fn compare_fields(
        &self,
        original: &[Field<'_>],
        written: &[Field<'_>],
        found: &mut Vec<Difference>,
    ) -> bool {
        let mut again: HashMap<u32, std::vec::IntoIter<&Field<'_>>> = HashMap::new();
        for number in written.iter().map(|field| field.number) {
            let same =
                || written.iter().filter(|field| field.number == number).collect::<Vec<_>>().into_iter();
            again.entry(number).or_insert_with(same);
        }
        let (mut begin, mut is_explained) = (self.offset, false);
        for field in original {
            let offset = begin;
            begin += field.bytes.len() as u64;
            let written = again.get_mut(&field.number).map(Iterator::next);
            if written.flatten().is_some_and(|written| written.bytes == field.bytes) {
                continue;
            }
            is_explained = true;
            match (written, field.nested) {
                (Some(Some(Field { nested: Some(written), .. })), Some(original)) if original != *written => {
                    self.inner(field, offset).compare(original, written, found);
                }
                // Of a field that stands there twice, and may do so only once, the last one counts.
                (known, _) => add(found, self.inner(field, offset).field, offset, known.is_none()),
            }
        }
        is_explained
    }

    /// Where what a field holds begins, if that field begins at `offset`.
    fn inner(&self, field: &Field<'_>, offset: u64) -> Place {
        let key = field.bytes.len() - field.nested.map_or(0, <[u8]>::len);
        let name = match &*self.field {
            "" => field.number.to_string(),
            outer => format!("{outer}.{}", field.number),
        };
        Place { field: name, offset: offset + key as u64, depth: self.depth + 1 }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::super::images::{Core, SignalAction, Task, TreeItem};
    use super::*;

    /// A message with one more field at its end.
    fn with_another(mut bytes: Vec<u8>, number: u32) -> Vec<u8> {
        encode_key(number, WireType::Varint, &mut bytes);
        encode_varint(4711, &mut bytes);
        bytes
    }

    /// A core whose task is this.
    fn core_of(task: &[u8]) -> Vec<u8> {
        let mut core = Core::default().encode_to_vec();
        encode_key(3, WireType::LengthDelimited, &mut core);
        encode_varint(task.len() as u64, &mut core);
        core.extend(task);
        core
    }

    fn found_in<M: Message + Default>(bytes: &[u8]) -> Vec<Difference> {
        differences(bytes, &M::decode(bytes).unwrap().encode_to_vec())
    }

    fn unknown_in<M: Message + Default>(bytes: &[u8]) -> Vec<String> {
        unknown(&found_in::<M>(bytes))
    }

    fn is_otherwise(field: &str, offset: u64) -> [Difference; 1] {
        [Difference { field: field.to_owned(), offset, undeclared: false }]
    }

    #[test]
    fn what_is_declared_is_written_as_it_was() {
        let item = TreeItem { pid: 7, threads: vec![7, 8, 9], ..Default::default() };
        assert_eq!(found_in::<TreeItem>(&item.encode_to_vec()), []);
        let task = Task { comm: b"app".into(), ..Default::default() }.encode_to_vec();
        assert_eq!(found_in::<Core>(&core_of(&task)), []);
    }

    #[test]
    fn an_unknown_field_is_named_at_its_place() {
        assert_eq!(
            unknown_in::<TreeItem>(&with_another(TreeItem::default().encode_to_vec(), 1000)),
            ["1000"]
        );
        let task = Task { comm: b"app".into(), ..Default::default() }.encode_to_vec();
        let core = core_of(&with_another(task, 99));
        assert_eq!(unknown_in::<Core>(&core), ["3.99"]);
        // Its key has two bytes, and so has its number.
        let at = core.len() as u64 - 4;
        assert_eq!(
            found_in::<Core>(&core),
            [Difference { field: "3.99".into(), offset: at, undeclared: true }]
        );
    }

    #[test]
    fn a_field_that_is_unknown_many_times_in_a_row_is_named_once() {
        let item = TreeItem::default().encode_to_vec();
        let many = (0..100).fold(item, |item, _| with_another(item, 9));
        assert_eq!(
            found_in::<TreeItem>(&many),
            [Difference { field: "9".into(), offset: 8, undeclared: true }]
        );
        let action = with_another(SignalAction::default().encode_to_vec(), 99);
        let framed = [&[15 << 3 | 2, action.len() as u8], &action[..]].concat();
        let task = [Task::default().encode_to_vec(), framed.repeat(3)].concat();
        assert_eq!(unknown_in::<Task>(&task), ["15.99"]);
        assert_eq!(found_in::<Task>(&task).len(), 1);
    }

    #[test]
    fn a_number_that_does_not_fit_is_written_otherwise() {
        let mut item = vec![8];
        encode_varint(1 << 40 | 7, &mut item);
        item.extend(&TreeItem::default().encode_to_vec()[2..]);
        assert_eq!(found_in::<TreeItem>(&item), is_otherwise("1", 0));
        assert!(unknown_in::<TreeItem>(&item).is_empty());
    }

    #[test]
    fn a_field_that_stands_there_twice_is_written_once() {
        let twice = with_another(TreeItem { sid: 4711, ..Default::default() }.encode_to_vec(), 4);
        assert_eq!(found_in::<TreeItem>(&twice), is_otherwise("4", 9));
    }

    #[test]
    fn another_order_is_found_where_it_begins() {
        let item = TreeItem { pid: 7, ..Default::default() }.encode_to_vec();
        let turned = [&item[2..], &item[..2]].concat();
        assert_eq!(found_in::<TreeItem>(&turned), is_otherwise("", 0));
        let tail = [&item[..2], &item[4..], &item[2..4]].concat();
        assert_eq!(found_in::<TreeItem>(&tail), is_otherwise("", 2));
    }

    #[test]
    fn what_is_required_and_is_not_there_is_one_too_many() {
        let item = TreeItem::default().encode_to_vec();
        assert_eq!(found_in::<TreeItem>(&item[..6]), is_otherwise("", 6));
    }

    #[test]
    fn a_list_that_is_packed_is_written_number_by_number() {
        let mut item = TreeItem::default().encode_to_vec();
        item.extend([5 << 3 | 2, 2, 7, 8]);
        assert_eq!(found_in::<TreeItem>(&item), is_otherwise("5", 8));
    }

    #[test]
    fn a_size_that_takes_more_bytes_than_it_needs_is_written_otherwise() {
        let core = core_of(&[]);
        let long = [&core[..core.len() - 1], &[0x80, 0]].concat();
        let found = differences(&long, &core);
        assert_eq!(found, is_otherwise("3", long.len() as u64 - 3));
    }
}
