//! The framing of an image file: its numbers at the start, then one message after the other.

use std::fs::File;
use std::io::{BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use prost::Message;

use super::kind::Image;
use crate::error::{Error, ErrorKind, Result};

/// The largest message that is read: far above any that CRIU writes (30,000 mappings are 2 MiB), and little
/// enough to hold in memory when a damaged size says so.
const LARGEST_MESSAGE: u32 = 64 << 20;

impl Image {
    /// The one message of an image that has only one.
    pub(super) fn read_one<M: Message + Default>(self, images: &Path) -> Result<M> {
        let mut reader = Reader::open(self, images)?;
        let message = reader.next()?.ok_or_else(|| self.damaged(images, "it holds no message"))?;
        match reader.at_end()? {
            true => Ok(message),
            false => Err(reader.damaged("more follows where it should end")),
        }
    }

    /// The messages of an image that has only one kind of them.
    pub(super) fn read_all<M: Message + Default>(self, images: &Path) -> Result<Messages<M>> {
        Ok(Messages { reader: Reader::open(self, images)?, kind: PhantomData })
    }
}

/// What remains of an image, message by message; nothing more comes after an error.
pub(super) struct Messages<M> {
    reader: Reader,
    kind: PhantomData<M>,
}

impl<M: Message + Default> Iterator for Messages<M> {
    type Item = Result<M>;

    fn next(&mut self) -> Option<Result<M>> {
        self.reader.next().transpose()
    }
}

/// An open image, somewhere between two of its messages.
pub(super) struct Reader {
    path: PathBuf,
    file: Box<dyn Read>,
    offset: u64,
    failed: bool,
}

impl Reader {
    /// Opens an image and checks that it is one, of the kind that its name says.
    pub(super) fn open(image: Image, images: &Path) -> Result<Reader> {
        let path = image.path(images);
        let file = File::open(&path).map_err(|error| open_error(&path, error))?;
        Reader::over(image, path, Box::new(BufReader::new(file)))
    }

    /// The same of an image that is there already, as it would be read from `path`.
    pub(super) fn over(image: Image, path: PathBuf, file: Box<dyn Read>) -> Result<Reader> {
        let mut reader = Reader { path, file, offset: 0, failed: false };
        for expected in image.kind.magic() {
            match reader.number()? {
                Some(found) if found == expected => reader.offset += 4,
                Some(found) => {
                    return Err(reader.damaged(format!("{found:#010x} stands where {expected:#010x} should")));
                }
                None => return Err(reader.damaged("the file ends before its contents begin")),
            }
        }
        Ok(reader)
    }

    /// The next message, or none at the end of the file.
    pub(super) fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        let at = self.offset;
        let Some(body) = self.next_bytes()? else { return Ok(None) };
        M::decode(&*body).map(Some).map_err(|error| {
            (self.failed, self.offset) = (true, at);
            self.damaged("the message can't be decoded").with_source(error)
        })
    }

    /// The bytes of the next message, or none at the end of the file.
    pub(super) fn next_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        if self.failed {
            return Ok(None);
        }
        // Set until it went well, so that whoever goes on after an error doesn't read from the middle.
        self.failed = true;
        let Some(size) = self.number()? else { return Ok(None) };
        let body = self.body(size)?;
        self.offset += 4 + u64::from(size);
        self.failed = false;
        Ok(Some(body))
    }

    /// Passes on what stands between two messages; none is everything up to the end. How much that was.
    pub(super) fn pass(&mut self, size: Option<u64>, to: &mut dyn std::io::Write) -> Result<u64> {
        let mut part = self.file.by_ref().take(size.unwrap_or(u64::MAX));
        let passed = std::io::copy(&mut part, to).map_err(|error| Error::io("pass on", &self.path, error))?;
        match size {
            Some(size) if passed < size => {
                self.failed = true;
                Err(self.damaged(format!("contents of {size} bytes are cut after {passed}")))
            }
            _ => {
                self.offset += passed;
                Ok(passed)
            }
        }
    }

    /// Passes over what stands between two messages. How much that was.
    #[cfg(feature = "inspect")]
    pub(super) fn skip(&mut self, size: Option<u64>) -> Result<u64> {
        self.pass(size, &mut std::io::sink())
    }

    /// Where the next message begins.
    #[cfg(feature = "inspect")]
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the file ends here.
    fn at_end(&mut self) -> Result<bool> {
        Ok(self.number()?.is_none())
    }

    /// Reads a 32-bit number; none if the file ends before it.
    fn number(&mut self) -> Result<Option<u32>> {
        let bytes = self.up_to(4)?;
        match <[u8; 4]>::try_from(&*bytes) {
            Ok(bytes) => Ok(Some(u32::from_le_bytes(bytes))),
            Err(_) if bytes.is_empty() => Ok(None),
            Err(_) => Err(self.damaged("the file is cut in the middle of a number")),
        }
    }

    /// Reads the body of a message.
    fn body(&mut self, size: u32) -> Result<Vec<u8>> {
        if size > LARGEST_MESSAGE {
            return Err(self.damaged(format!("a message of {size} bytes can't be")));
        }
        let body = self.up_to(size)?;
        if body.len() < size as usize {
            return Err(self.damaged(format!("a message of {size} bytes is cut after {}", body.len())));
        }
        Ok(body)
    }

    /// Reads that many bytes, or fewer at the end of the file. It takes no more memory than was read, so that
    /// a size that is wrong costs nothing.
    fn up_to(&mut self, size: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.file.by_ref();
        file.take(u64::from(size))
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("read", &self.path, error))?;
        Ok(bytes)
    }

    /// The error of a file that is wrong here.
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> Error {
        let path = self.path.display();
        Error::new(ErrorKind::Damaged, format!("{path} is damaged at byte {}: {what}", self.offset))
    }
}

/// An image that is being written: its numbers, and what follows.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(image: Image) -> Writer {
        Writer(image.kind.magic().iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    /// Adds a message.
    pub(super) fn put(&mut self, message: &[u8]) {
        self.0.extend((message.len() as u32).to_le_bytes());
        self.0.extend(message);
    }

    /// Adds what stands behind a message, without a size of its own.
    pub(super) fn put_contents(&mut self, contents: &[u8]) {
        self.0.extend(contents);
    }

    /// The bytes of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An image that isn't there was lost: nothing is asked for that a dump doesn't write.
fn open_error(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::Damaged, format!("{} is missing", path.display())).with_source(error)
        }
        _ => Error::io("open", path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::images::{Pipe, TreeItem};
    use super::super::testing::Folder;
    use super::*;

    fn items(folder: &Folder) -> Result<Vec<TreeItem>> {
        Image::TREE.read_all(folder.path())?.collect()
    }

    fn failure(folder: &Folder) -> String {
        let error = items(folder).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let text = error.to_string();
        assert!(text.contains("pstree.img"), "{text}");
        text
    }

    #[test]
    fn messages_come_in_order_until_the_file_ends() {
        let folder = Folder::new();
        let written = [1, 2].map(|pid| TreeItem { pid, ..Default::default() });
        folder.write(Image::TREE, &written);
        assert_eq!(items(&folder).unwrap(), written);
    }

    #[test]
    fn an_image_without_messages_is_empty() {
        let folder = Folder::new();
        folder.write::<TreeItem>(Image::TREE, &[]);
        assert_eq!(items(&folder).unwrap(), []);
    }

    #[test]
    fn a_wrong_magic_is_named_with_its_place() {
        let folder = Folder::new();
        let mut bytes = folder.write(Image::TREE, &[TreeItem::default()]);
        bytes[4] ^= 1;
        folder.overwrite(Image::TREE, &bytes);
        assert!(failure(&folder).contains("at byte 4: 0x50273031 stands where 0x50273030 should"));
    }

    #[test]
    fn a_file_cut_anywhere_but_between_messages_is_damaged() {
        let folder = Folder::new();
        let bytes = folder.write(Image::TREE, &[TreeItem::default()]);
        for length in (0..bytes.len()).filter(|length| *length != 8) {
            folder.overwrite(Image::TREE, &bytes[..length]);
            failure(&folder);
        }
    }

    #[test]
    fn a_cut_message_says_how_much_of_it_is_left() {
        let folder = Folder::new();
        let bytes = folder.write(Image::TREE, &[TreeItem::default()]);
        folder.overwrite(Image::TREE, &bytes[..bytes.len() - 1]);
        assert!(failure(&folder).contains("at byte 8: a message of 8 bytes is cut after 7"));
    }

    #[test]
    fn an_oversized_message_is_refused_before_it_is_read() {
        let folder = Folder::new();
        let mut bytes = folder.write(Image::TREE, &[TreeItem::default()]);
        bytes[8..12].copy_from_slice(&(LARGEST_MESSAGE + 1).to_le_bytes());
        folder.overwrite(Image::TREE, &bytes);
        assert!(failure(&folder).contains("at byte 8: a message of 67108865 bytes can't be"));
    }

    #[test]
    fn a_message_that_is_none_is_damaged_and_ends_the_reading() {
        let folder = Folder::new();
        let mut bytes = folder.write(Image::TREE, &[TreeItem::default(), TreeItem::default()]);
        bytes[12] = 0xff;
        folder.overwrite(Image::TREE, &bytes);
        let mut messages = Image::TREE.read_all::<TreeItem>(folder.path()).unwrap();
        assert_eq!(messages.next().unwrap().unwrap_err().kind(), ErrorKind::Damaged);
        assert!(messages.next().is_none());
    }

    #[test]
    fn where_one_message_is_expected_two_are_damage() {
        let folder = Folder::new();
        folder.write(Image::DUMP_STATS, &[Pipe::default(), Pipe::default()]);
        let error = Image::DUMP_STATS.read_one::<Pipe>(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("more follows where it should end"), "{error}");
    }

    #[test]
    fn a_missing_image_is_damage() {
        let error = items(&Folder::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().ends_with("pstree.img is missing"));
    }
}
