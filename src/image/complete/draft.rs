//! Images that are being changed: what is new stands aside until all of it is there.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::error::{Error, Result};
use crate::image::file::{Reader, Writer};
use crate::image::kind::Image;
use crate::sys::disk;

/// Changes to a folder of images.
pub(super) struct Draft<'a> {
    images: &'a Path,
    written: Vec<Image>,
    renamed: Vec<(Image, Image)>,
    removed: Vec<Image>,
}

impl<'a> Draft<'a> {
    pub(super) fn of(images: &'a Path) -> Draft<'a> {
        Draft { images, written: Vec::new(), renamed: Vec::new(), removed: Vec::new() }
    }

    /// Whether CRIU has written an image: some only if there is something to put there.
    pub(super) fn has(&self, image: Image) -> bool {
        image.path(self.images).exists()
    }

    /// The messages of an image, all of whose fields are known here.
    pub(super) fn read<M: Message + Default>(&self, image: Image) -> Result<Vec<M>> {
        self.read_with_contents(image, |_| 0)
    }

    /// The same of an image that has only one.
    pub(super) fn read_one<M: Message + Default>(&self, image: Image) -> Result<M> {
        let mut messages = self.read(image)?;
        match (messages.pop(), messages.len()) {
            (Some(message), 0) => Ok(message),
            (_, others) => Err(self.damaged(image, format!("it has {others} messages, not one"))),
        }
    }

    /// The messages of an image in which contents stand behind each, of as many bytes as that says.
    pub(super) fn read_with_contents<M: Message + Default>(
        &self,
        image: Image,
        behind: impl Fn(&M) -> u64,
    ) -> Result<Vec<M>> {
        let mut reader = Reader::open(image, self.images)?;
        let mut messages = Vec::new();
        while let Some(bytes) = reader.next_bytes()? {
            let message = M::decode(&*bytes)
                .map_err(|error| reader.damaged("the message before can't be decoded").with_source(error))?;
            // It is written again, and what is passed over here would be lost.
            if message.encode_to_vec() != bytes {
                return Err(reader.damaged("the message before holds something that is not known here"));
            }
            reader.pass(Some(behind(&message)), &mut std::io::sink())?;
            messages.push(message);
        }
        Ok(messages)
    }

    /// Writes an image anew.
    pub(super) fn write<M: Message>(&mut self, image: Image, messages: &[M]) -> Result<()> {
        let mut writer = Writer::new(image);
        messages.iter().for_each(|message| writer.put(&message.encode_to_vec()));
        self.put(image, &writer)
    }

    /// The same of one that holds more than messages.
    pub(super) fn put(&mut self, image: Image, writer: &Writer) -> Result<()> {
        let aside = aside(&image.path(self.images));
        disk::write_new(&aside, writer.bytes()).map_err(|source| Error::io("write", &aside, source))?;
        self.written.push(image);
        Ok(())
    }

    /// Gives an image another name.
    pub(super) fn rename(&mut self, from: Image, to: Image) -> Result<()> {
        if !self.has(from) {
            return Err(self.damaged(from, "it is missing"));
        }
        self.renamed.push((from, to));
        Ok(())
    }

    /// Takes an image away.
    pub(super) fn remove(&mut self, image: Image) {
        self.removed.push(image);
    }

    /// Puts all in its place.
    pub(super) fn finish(self) -> Result<()> {
        for image in self.removed {
            let path = image.path(self.images);
            fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
        let renamed = self.renamed.into_iter().map(|(from, to)| (from.path(self.images), to));
        let written = self.written.into_iter().map(|image| (aside(&image.path(self.images)), image));
        for (from, to) in renamed.chain(written) {
            let to = to.path(self.images);
            fs::rename(from, &to).map_err(|source| Error::io("replace", &to, source))?;
        }
        Ok(())
    }

    /// The error of an image whose contents can't be.
    pub(super) fn damaged(&self, image: Image, what: impl std::fmt::Display) -> Error {
        image.damaged(self.images, what)
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("new")
}
