//! How bytes of an image are shown: as text where they are some, else as an array of numbers.

use serde::{Serialize, Serializer};

/// A field of the type `bytes`: required, optional or repeated.
pub(super) trait Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
}

/// The form in which serde asks for it.
pub(super) fn serialize<B: Bytes, S: Serializer>(bytes: &B, to: S) -> Result<S::Ok, S::Error> {
    bytes.serialize(to)
}

/// A zero byte stands in no path and no name: where there is one the bytes are something else.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

impl Bytes for Vec<u8> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match text(self) {
            Some(text) => text.serialize(to),
            None => Serialize::serialize(self, to),
        }
    }
}

impl Bytes for Option<Vec<u8>> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(bytes) => Bytes::serialize(bytes, to),
            None => to.serialize_none(),
        }
    }
}

impl Bytes for Vec<Vec<u8>> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(Shown))
    }
}

/// One of several.
struct Shown<'a>(&'a Vec<u8>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Bytes::serialize(self.0, to)
    }
}
