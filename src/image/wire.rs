//! A message as it stands in an image, field by field, without knowing what it is.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A field as it stands in a message.
pub(super) struct Field<'a> {
    pub(super) number: u32,
    /// With its key.
    pub(super) bytes: &'a [u8],
    /// What it holds, where that is bytes, a string or a message.
    pub(super) nested: Option<&'a [u8]>,
}

/// The fields of a message, in order.
pub(super) fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, DecodeError> {
    let (mut rest, mut fields) = (message, Vec::new());
    while !rest.is_empty() {
        let begin = rest;
        let (number, kind) = decode_key(&mut rest)?;
        let mut value = rest;
        skip_field(kind, number, &mut rest, DecodeContext::default())?;
        let nested = match kind {
            WireType::LengthDelimited => {
                decode_varint(&mut value)?;
                Some(&value[..value.len() - rest.len()])
            }
            _ => None,
        };
        fields.push(Field { number, bytes: &begin[..begin.len() - rest.len()], nested });
    }
    Ok(fields)
}
