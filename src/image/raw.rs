//! Every image as it stands: its messages field by field, how much follows each, and what isn't known of them.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use prost::{DecodeError, Message};
use serde::Serialize;
use serde_json::Value;

use super::file::Reader;
use super::images::*;
use super::kind::{Image, Kind, is_foreign, pages_id};
use super::unknown::{Difference, differences, unknown};
use crate::error::{Error, Result};
use crate::frozen::Bytes;

/// A file of the images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: Bytes,
    /// What it holds.
    pub content: Content,
}

/// What a file of the images holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Content {
    /// Messages that are read here.
    Messages,
    /// Pages of memory, one after the other.
    Pages,
    /// What another program wrote for CRIU: ip, iptables, nft or tar.
    Foreign,
    /// CRIU's log, or a folder or link of images.
    Aside,
    /// Something that isn't read here: a kind that only CRIU knows.
    Unknown,
}

/// A message of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ImageMessage {
    /// Its fields, by the names that CRIU has for them; those that aren't set are left out.
    pub fields: Value,
    /// How much stands behind it that is no message: the contents of a pipe, of a file without a name.
    pub payload_bytes: Bytes,
    /// The numbers of fields that are not known here, each with those of the messages around it: `4.17`.
    pub unknown_fields: Vec<String>,
}

/// The messages of an image, in order. Nothing comes after an error.
pub struct ImageMessages {
    reader: Reader,
    kind: Kind,
    /// How many have come.
    count: u64,
    /// How many more belong to the queue that came last.
    queued: u32,
    failed: bool,
}

/// What stands behind a message.
enum Payload {
    Nothing,
    Of(u64),
    /// So many messages that belong to it.
    Messages(u32),
    /// All the rest of the file.
    Rest,
}

/// Lists the files of the images, by name.
pub(crate) fn files(images: &Path) -> Result<Vec<ImageFile>> {
    let failed = |source| Error::io("read", images, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(images).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let about = entry.metadata().map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let content = content(&name, about.is_file());
        files.push(ImageFile { name, size_bytes: Bytes(about.len()), content });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

fn content(name: &str, is_file: bool) -> Content {
    match Image::named(name) {
        _ if !is_file || [".log", ".json"].iter().any(|other| name.ends_with(other)) => Content::Aside,
        Some(_) => Content::Messages,
        None if pages_id(name).is_some() => Content::Pages,
        None if is_foreign(name) => Content::Foreign,
        None => Content::Unknown,
    }
}

/// Opens an image by the name of its file; none where it is of no kind that is read here.
pub(crate) fn messages(images: &Path, name: &str) -> Result<Option<ImageMessages>> {
    let open = |image: Image| Ok(ImageMessages::of(image, Reader::open(image, images)?));
    Image::named(name).map(open).transpose()
}

/// The same of an image that is in memory.
pub(crate) fn messages_in(name: &str, bytes: Box<dyn Read>) -> Result<Option<ImageMessages>> {
    let open = |image: Image| Ok(ImageMessages::of(image, Reader::over(image, name.into(), bytes)?));
    Image::named(name).map(open).transpose()
}

impl ImageMessages {
    fn of(image: Image, reader: Reader) -> ImageMessages {
        ImageMessages { reader, kind: image.kind, count: 0, queued: 0, failed: false }
    }

    fn message(&mut self) -> Result<Option<ImageMessage>> {
        let Some(decoded) = self.next_decoded()? else { return Ok(None) };
        let payload_bytes = self.pass(&decoded, &mut io::sink())?;
        let unknown_fields = unknown(&decoded.differences);
        Ok(Some(ImageMessage { fields: decoded.fields, payload_bytes, unknown_fields }))
    }

    /// The next message, without what stands behind it, which has to be passed on before another one is read.
    pub(super) fn next_decoded(&mut self) -> Result<Option<Decoded>> {
        let Some(bytes) = self.reader.next_bytes()? else {
            return match self.queued {
                _ if self.is_single() && self.count == 0 => Err(self.reader.damaged("it holds no message")),
                0 => Ok(None),
                left => Err(self.reader.damaged(format!("{left} messages of a queue are missing"))),
            };
        };
        if self.is_single() && self.count > 0 {
            return Err(self.reader.damaged("more follows where it should end"));
        }
        let decoded = self
            .decode(&bytes)
            .map_err(|error| self.reader.damaged("the message before can't be decoded").with_source(error))?;
        self.count += 1;
        self.queued = match decoded.payload {
            Payload::Messages(count) => count,
            _ => self.queued.saturating_sub(1),
        };
        Ok(Some(decoded))
    }

    /// Passes on what stands behind a message.
    pub(super) fn pass(&mut self, behind: &Decoded, to: &mut dyn Write) -> Result<Bytes> {
        Ok(Bytes(match behind.payload {
            Payload::Nothing | Payload::Messages(_) => 0,
            Payload::Of(size) => self.reader.pass(Some(size), to)?,
            Payload::Rest => self.reader.pass(None, to)?,
        }))
    }

    /// Where the next message begins in the file, its size included.
    pub(super) fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// Whether the image has one message and no more.
    fn is_single(&self) -> bool {
        matches!(
            self.kind,
            Kind::Inventory
                | Kind::Core
                | Kind::Ids
                | Kind::Place
                | Kind::Memory
                | Kind::TcpStream
                | Kind::Seccomp
                | Kind::TimeNamespace
                | Kind::NodeNames
                | Kind::UserNamespace
                | Kind::PidNamespace
                | Kind::IpcLimits
                | Kind::NetworkNamespace
                | Kind::ControlGroups
                | Kind::Processors
                | Kind::Stats
        )
    }

    fn decode(&self, bytes: &[u8]) -> Result<Decoded, DecodeError> {
        match self.kind {
            Kind::Inventory => plain::<Inventory>(bytes),
            Kind::Tree => plain::<TreeItem>(bytes),
            Kind::Core => plain::<Core>(bytes),
            Kind::Ids => plain::<ObjectIds>(bytes),
            Kind::Place => plain::<Place>(bytes),
            Kind::Memory => plain::<Memory>(bytes),
            Kind::Pagemap | Kind::SharedPagemap if self.count == 0 => plain::<PagemapHead>(bytes),
            Kind::Pagemap | Kind::SharedPagemap => plain::<PageRun>(bytes),
            Kind::FdInfo => plain::<FdInfo>(bytes),
            Kind::Files => plain::<OpenFile>(bytes),
            Kind::MemFds => plain::<MemFdInode>(bytes),
            Kind::BpfMapsData => decode(bytes, |map: &BpfMapData| {
                Payload::Of(u64::from(map.keys_bytes) + u64::from(map.values_bytes))
            }),
            Kind::PipesData | Kind::FifosData => {
                decode(bytes, |pipe: &PipeData| Payload::Of(pipe.bytes.into()))
            }
            Kind::SocketQueues => decode(bytes, |packet: &QueuedPacket| Payload::Of(packet.length.into())),
            Kind::TcpStream => decode(bytes, |stream: &TcpStream| {
                Payload::Of(u64::from(stream.inq_len) + u64::from(stream.outq_len))
            }),
            Kind::TerminalInfo => plain::<TerminalInfo>(bytes),
            Kind::TerminalData => plain::<TerminalData>(bytes),
            Kind::Remaps => plain::<Remap>(bytes),
            Kind::GhostFile if self.count == 0 => decode(bytes, |ghost: &GhostFile| match ghost.chunks {
                Some(true) => Payload::Nothing,
                _ => Payload::Rest,
            }),
            Kind::GhostFile => decode(bytes, |chunk: &GhostChunk| Payload::Of(chunk.len)),
            Kind::FileLocks => plain::<FileLock>(bytes),
            Kind::Seccomp => plain::<Seccomp>(bytes),
            Kind::TimeNamespace => plain::<TimeNamespace>(bytes),
            Kind::NodeNames => plain::<NodeNames>(bytes),
            Kind::UserNamespace => plain::<UserNamespace>(bytes),
            Kind::PidNamespace => plain::<PidNamespace>(bytes),
            Kind::IpcLimits => plain::<IpcLimits>(bytes),
            Kind::IpcMemory => decode(bytes, |memory: &IpcMemory| match memory.in_pagemaps {
                Some(true) => Payload::Nothing,
                _ => filled_up(memory.size, 4),
            }),
            Kind::IpcSemaphores => {
                decode(bytes, |set: &IpcSemaphores| filled_up(u64::from(set.nsems) * 2, 8))
            }
            Kind::IpcQueues if self.queued == 0 => {
                decode(bytes, |queue: &IpcQueue| Payload::Messages(queue.qnum))
            }
            Kind::IpcQueues => decode(bytes, |message: &IpcMessage| filled_up(message.msize.into(), 8)),
            Kind::NetworkNamespace => plain::<NetworkNamespace>(bytes),
            Kind::NetworkDevices => plain::<NetworkDevice>(bytes),
            Kind::Mounts => plain::<Mount>(bytes),
            Kind::ControlGroups => plain::<ControlGroups>(bytes),
            Kind::Processors => plain::<Processors>(bytes),
            Kind::Stats => plain::<Stats>(bytes),
        }
    }
}

/// Contents that are filled up to a multiple.
fn filled_up(size: u64, multiple: u64) -> Payload {
    Payload::Of(size.checked_next_multiple_of(multiple).unwrap_or(size))
}

impl Iterator for ImageMessages {
    type Item = Result<ImageMessage>;

    fn next(&mut self) -> Option<Result<ImageMessage>> {
        if self.failed {
            return None;
        }
        let message = self.message();
        self.failed = message.is_err();
        message.transpose()
    }
}

impl std::fmt::Debug for ImageMessages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageMessages").field("kind", &self.kind.name()).finish_non_exhaustive()
    }
}

/// A message that was read.
pub(super) struct Decoded {
    fields: Value,
    payload: Payload,
    /// The message written once more.
    pub(super) again: Vec<u8>,
    /// Where that isn't what was read.
    pub(super) differences: Vec<Difference>,
}

fn plain<M: Message + Default + Serialize>(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    decode(bytes, |_: &M| Payload::Nothing)
}

fn decode<M: Message + Default + Serialize>(
    bytes: &[u8],
    payload: impl Fn(&M) -> Payload,
) -> Result<Decoded, DecodeError> {
    let message = M::decode(bytes)?;
    // Numbers, text and lists of them: nothing that could fail.
    let fields = serde_json::to_value(&message).unwrap_or_default();
    let again = message.encode_to_vec();
    let differences = differences(bytes, &again);
    Ok(Decoded { fields: without_the_unset(fields), payload: payload(&message), again, differences })
}

/// Leaves out fields that aren't set: null, and lists of nothing.
fn without_the_unset(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, field)| !field.is_null() && field.as_array().is_none_or(|list| !list.is_empty()))
                .map(|(name, field)| (name, without_the_unset(field)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_the_unset).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;

    fn all(folder: &Folder, name: &str) -> Result<Vec<ImageMessage>> {
        messages(folder.path(), name)?.expect("a known kind").collect()
    }

    #[test]
    fn fields_have_their_names_and_those_that_are_not_set_are_left_out() {
        let folder = Folder::new();
        folder.write(Image::TREE, &[TreeItem { pid: 7, ..Default::default() }]);
        let expected = serde_json::json!({ "pid": 7, "ppid": 0, "pgid": 0, "sid": 0 });
        assert_eq!(all(&folder, "pstree.img").unwrap()[0].fields, expected);
    }

    #[test]
    fn what_follows_a_message_is_measured_and_passed_over() {
        let folder = Folder::new();
        let image = Image::of(Kind::PipesData, 0_u32);
        let pipe = PipeData { pipe_id: 1, bytes: 5, size: None };
        let one = folder.write(image, &[pipe]);
        let both = [&one[..], b"hello", &one[8..], b"world"].concat();
        folder.overwrite(image, &both);
        let found = all(&folder, "pipes-data.img").unwrap();
        assert_eq!(found.iter().map(|message| message.payload_bytes.0).collect::<Vec<_>>(), [5, 5]);
        folder.overwrite(image, &both[..both.len() - 1]);
        assert!(all(&folder, "pipes-data.img").unwrap_err().to_string().ends_with("are cut after 4"));
    }

    #[test]
    fn keys_and_values_of_a_map_follow_it() {
        let (folder, image) = (Folder::new(), Image::of(Kind::BpfMapsData, 0_u32));
        let map = folder.write(image, &[BpfMapData { keys_bytes: 4, values_bytes: 8, ..Default::default() }]);
        folder.overwrite(image, &[&map[..], &[7; 12]].concat());
        assert_eq!(all(&folder, "bpfmap-data.img").unwrap()[0].payload_bytes.0, 12);
    }

    #[test]
    fn the_messages_of_a_queue_follow_it() {
        let (folder, image) = (Folder::new(), Image::of(Kind::IpcQueues, 7_u32));
        let queue = |qnum| folder.write(image, &[IpcQueue { qnum, ..Default::default() }]);
        let text = folder.write(image, &[IpcMessage { mtype: 5, msize: 9 }]);
        let waiting = [&text[8..], &b"a message\0\0\0\0\0\0\0"[..]].concat();
        let whole = [&queue(2)[..], &waiting, &waiting, &queue(0)[8..]].concat();
        folder.overwrite(image, &whole);
        let found = all(&folder, "ipcns-msg-7.img").unwrap();
        assert_eq!(found.iter().map(|message| message.payload_bytes.0).collect::<Vec<_>>(), [0, 16, 16, 0]);
        assert_eq!(found[2].fields, serde_json::json!({ "mtype": 5, "msize": 9 }));
        folder.overwrite(image, &[&queue(2)[..], &waiting].concat());
        let error = all(&folder, "ipcns-msg-7.img").unwrap_err().to_string();
        assert!(error.ends_with("1 messages of a queue are missing"), "{error}");
    }

    #[test]
    fn what_is_not_read_is_listed() {
        let folder = Folder::new();
        for name in ["autofs-9.img", "route-9.img", "pages-1.img", "dump.log", "seal.json"] {
            std::fs::write(folder.path().join(name), "?").unwrap();
        }
        let found = files(folder.path()).unwrap();
        let found: Vec<_> = found.iter().map(|file| (&*file.name, file.content)).collect();
        let expected = [
            ("autofs-9.img", Content::Unknown),
            ("dump.log", Content::Aside),
            ("pages-1.img", Content::Pages),
            ("route-9.img", Content::Foreign),
            ("seal.json", Content::Aside),
        ];
        assert_eq!(found, expected);
    }
}
