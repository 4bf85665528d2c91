//! What was in pipes: the process has read from them since, and written to them.

use prost::Message;

use super::draft::Draft;
use super::files::Open;
use super::info::Info;
use crate::error::Result;
use crate::image::file::Writer;
use crate::image::images::{OpenFile, PipeData};
use crate::image::kind::{Image, Kind};
use crate::sys::snapshot::moment::Contents;

/// Puts what was noted into the images of pipes' contents. CRIU has an entry for each pipe that the process can read
/// from, be it empty.
pub(super) fn refill(draft: &mut Draft, open: &[Open]) -> Result<()> {
    refill_kind(draft, Kind::PipesData, open, |file| file.pipe.map(|pipe| pipe.pipe_id))?;
    refill_kind(draft, Kind::FifosData, open, |file| file.fifo.map(|fifo| fifo.pipe_id))
}

fn refill_kind(
    draft: &mut Draft,
    kind: Kind,
    open: &[Open],
    id_of: impl Fn(&OpenFile) -> Option<u32>,
) -> Result<()> {
    let image = Image::of(kind, 0_u32);
    let entries: Vec<PipeData> = match draft.has(image) {
        true => draft.read_with_contents(image, |entry: &PipeData| entry.bytes.into())?,
        false => Vec::new(),
    };
    let full = open.iter().filter(|end| end.descriptor.contents.is_some() && is_read_from(end));
    for id in full.filter_map(|end| id_of(&end.file)) {
        if !entries.iter().any(|entry| entry.pipe_id == id) {
            return Err(draft.damaged(image, format!("pipe {id} is missing")));
        }
    }
    let (mut writer, mut is_empty) = (Writer::new(image), true);
    for entry in entries {
        let mut ends = open.iter().filter(|end| id_of(&end.file) == Some(entry.pipe_id)).peekable();
        // A pipe that the process doesn't have is that of the copy's leash.
        if ends.peek().is_none() {
            continue;
        }
        put(&mut writer, &entry, ends.find_map(|end| end.descriptor.contents.as_ref()));
        is_empty = false;
    }
    match (is_empty, draft.has(image)) {
        (true, true) => draft.remove(image),
        (true, false) => {}
        (false, _) => draft.put(image, &writer)?,
    }
    Ok(())
}

/// Whether an end is more than one to write to (O_WRONLY).
fn is_read_from(end: &Open) -> bool {
    Info(&end.descriptor.info).flags().is_some_and(|flags| flags & 0o3 != 1)
}

/// A pipe of which nothing was noted was empty.
fn put(writer: &mut Writer, entry: &PipeData, contents: Option<&Contents>) {
    let bytes = contents.map_or(&[][..], |contents| &contents.bytes);
    let size = contents.map(|contents| contents.capacity).or(entry.size);
    // The kernel bounds a pipe far below that.
    let entry = PipeData { bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX), size, ..*entry };
    writer.put(&entry.encode_to_vec());
    writer.put_contents(bytes);
}
