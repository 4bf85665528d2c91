//! Images that are read and written back: byte by byte what they were, or it is said where they aren't.
//!
//! Each message is written from what was read of it, and what stands behind messages is passed on untouched. So what
//! comes out equal holds nothing that isn't read here, and can be changed by somebody who writes images.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::file::Writer;
use super::kind::{Image, is_foreign, pages_id};
use super::raw;
use super::unknown::Difference;
use crate::error::{Error, Result};
use crate::frozen::Bytes;

/// An image that was written back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rewritten {
    /// How many messages it has.
    pub messages: u64,
    /// How much stands behind them that was passed on.
    pub payload_bytes: Bytes,
    /// Where it isn't what it was: nothing if and only if it is the same file, byte by byte.
    pub unequal: Vec<Unequal>,
}

/// Something in an image that isn't written back as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unequal {
    /// The name of the image.
    pub image: String,
    /// Which of its messages it is in, the first being 0.
    pub message: u64,
    /// The number of the field, with those of the messages around it: `4.17`. It is empty where no field is to blame,
    /// but that they stand in another order, say.
    pub field: String,
    /// Where it begins in the file as it was.
    pub offset: u64,
    /// Whether the field is not known at all; else it is read as something that it isn't.
    pub unknown: bool,
}

impl fmt::Display for Unequal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unequal { image, message, field, offset, unknown } = self;
        write!(f, "{image}, message {message}, ")?;
        match &**field {
            "" => {}
            field => write!(f, "field {field}, ")?,
        }
        let what = if *unknown { "it isn't known" } else { "it is written otherwise" };
        write!(f, "at byte {offset}: {what}")
    }
}

/// Reads an image, by the name of its file, and writes it back; none where it is of no kind that is known here. What
/// holds no messages passes through as it is.
pub(crate) fn rewrite(name: &str, mut image: Box<dyn Read>, to: &mut dyn Write) -> Result<Option<Rewritten>> {
    let failed = |error| Error::io("write", Path::new(name), error);
    let mut rewritten = Rewritten { messages: 0, payload_bytes: Bytes(0), unequal: Vec::new() };
    let Some(known) = Image::named(name) else {
        if pages_id(name).is_none() && !is_foreign(name) {
            return Ok(None);
        }
        rewritten.payload_bytes.0 = io::copy(&mut image, to).map_err(failed)?;
        return Ok(Some(rewritten));
    };
    let Some(mut messages) = raw::messages_in(name, image)? else { return Ok(None) };
    to.write_all(Writer::new(known).bytes()).map_err(failed)?;
    loop {
        // Behind the number that is its size.
        let begin = messages.offset() + 4;
        let Some(decoded) = messages.next_decoded()? else { return Ok(Some(rewritten)) };
        let unequal = |Difference { field, offset, undeclared }: &Difference| Unequal {
            image: name.to_owned(),
            message: rewritten.messages,
            field: field.clone(),
            offset: begin + offset,
            unknown: *undeclared,
        };
        let unequal: Vec<_> = decoded.differences.iter().map(unequal).collect();
        rewritten.unequal.extend(unequal);
        to.write_all(&framed(&decoded.again)).map_err(failed)?;
        rewritten.messages += 1;
        rewritten.payload_bytes.0 += messages.pass(&decoded, to)?.0;
    }
}

/// A message behind its size.
fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_le_bytes(), message].concat()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::images::{GhostChunk, GhostFile, PipeData, TreeItem};
    use super::super::kind::Kind;
    use super::*;

    /// An image of these messages, each with what stands behind it.
    fn image(image: Image, parts: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
        let framed = parts.iter().map(|(message, behind)| [&framed(message), *behind].concat());
        [Writer::new(image).bytes().to_vec()].into_iter().chain(framed).flatten().collect()
    }

    fn rewritten(name: &str, bytes: &[u8]) -> Result<(Rewritten, Vec<u8>)> {
        let mut back = Vec::new();
        let read = io::Cursor::new(bytes.to_vec());
        let rewritten = rewrite(name, Box::new(read), &mut back)?.expect("a known kind");
        Ok((rewritten, back))
    }

    #[test]
    fn messages_and_what_stands_behind_them_come_out_as_they_were() {
        let pipe = |bytes| PipeData { pipe_id: 1, bytes, size: None }.encode_to_vec();
        let pipes = image(
            Image::of(Kind::PipesData, 0_u32),
            &[(pipe(5), b"hello"), (pipe(0), b""), (pipe(2), b"\x08\x01")],
        );
        let (found, back) = rewritten("pipes-data.img", &pipes).unwrap();
        assert_eq!((found.messages, found.payload_bytes.0, found.unequal), (3, 7, vec![]));
        assert_eq!(back, pipes);
    }

    #[test]
    fn a_ghost_comes_out_whole_or_in_chunks() {
        let ghost = |chunks| GhostFile { chunks, ..Default::default() }.encode_to_vec();
        let chunk = GhostChunk { len: 3, off: 4096 }.encode_to_vec();
        for parts in [vec![(ghost(None), &b"all of it"[..])], vec![(ghost(Some(true)), b""), (chunk, b"abc")]]
        {
            let file = image(Image::of(Kind::GhostFile, 10_u32), &parts);
            let (found, back) = rewritten("ghost-file-a.img", &file).unwrap();
            assert_eq!((found.unequal, back), (vec![], file));
        }
    }

    #[test]
    fn what_is_not_equal_is_named_by_image_message_field_and_offset() {
        let item = TreeItem::default().encode_to_vec();
        let strange = [&item[..], &[9 << 3, 1]].concat();
        let tree = image(Image::TREE, &[(item.clone(), b""), (strange, b"")]);
        let (found, back) = rewritten("pstree.img", &tree).unwrap();
        let said: Vec<String> = found.unequal.iter().map(Unequal::to_string).collect();
        assert_eq!(said, ["pstree.img, message 1, field 9, at byte 32: it isn't known"]);
        assert_eq!(&tree[32..], [9 << 3, 1]);
        assert_eq!(back, image(Image::TREE, &[(item.clone(), b""), (item.clone(), b"")]));
        let turned = image(Image::TREE, &[([&item[2..], &item[..2]].concat(), b"")]);
        let said = rewritten("pstree.img", &turned).unwrap().0.unequal[0].to_string();
        assert_eq!(said, "pstree.img, message 0, at byte 12: it is written otherwise");
    }

    #[test]
    fn whatever_stands_there_is_equal_if_and_only_if_nothing_is_named() {
        let item = TreeItem { pid: 7, threads: vec![7, 300], ..Default::default() }.encode_to_vec();
        let tree = image(Image::TREE, &[(item.clone(), b""), (item, b"")]);
        let mut unequal = 0;
        for (at, byte) in (0..tree.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
            let mut changed = tree.clone();
            changed[at] = byte;
            let Ok((found, back)) = rewritten("pstree.img", &changed) else { continue };
            assert_eq!(found.unequal.is_empty(), back == changed, "{byte} at {at}: {:?}", found.unequal);
            unequal += usize::from(back != changed);
        }
        assert!(unequal > 100, "{unequal} that are read and written otherwise");
    }

    #[test]
    fn what_is_cut_is_an_error_and_what_is_not_read_is_nothing() {
        let tree = image(Image::TREE, &[(TreeItem::default().encode_to_vec(), b"")]);
        for length in (0..tree.len()).filter(|length| *length != 8) {
            assert!(rewritten("pstree.img", &tree[..length]).is_err(), "{length}");
        }
        assert_eq!(rewrite("dump.log", Box::new(io::empty()), &mut Vec::new()).unwrap(), None);
    }

    #[test]
    fn pages_and_what_other_programs_wrote_pass_through() {
        for name in ["pages-1.img", "route-9.img"] {
            let (found, back) = rewritten(name, &[7; 8192]).unwrap();
            assert_eq!((found.messages, found.payload_bytes.0), (0, 8192));
            assert_eq!(back, [7; 8192]);
        }
    }
}
