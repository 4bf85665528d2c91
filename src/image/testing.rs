//! Small images built by hand, for the tests of this module.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use prost::Message;

use super::file::Writer;
use super::kind::Image;

/// A folder of images that goes when it is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("selfdump-image-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes an image as CRIU would, and gives its bytes.
    pub(super) fn write<M: Message>(&self, image: Image, messages: &[M]) -> Vec<u8> {
        let mut writer = Writer::new(image);
        messages.iter().for_each(|message| writer.put(&message.encode_to_vec()));
        self.overwrite(image, writer.bytes());
        writer.bytes().to_vec()
    }

    /// Writes an image byte by byte.
    pub(super) fn overwrite(&self, image: Image, bytes: &[u8]) {
        std::fs::write(image.path(&self.0), bytes).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
