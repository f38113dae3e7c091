//! How bytes become messages. A frame has a header of eight bytes: the payload's length (little endian, four bytes),
//! what it is (one byte), how many descriptors travel with it (one byte), two of zero. Pure: no socket here.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A postcard value: a [`Call`](crate::Call) to the shim, a [`Message`](crate::Message) from it.
    Value = 0,
    /// Bytes for the process.
    Stdin = 1,
    /// The client will send no more stdin.
    StdinEnd = 2,
    /// Bytes of its standard output, or of its terminal.
    Stdout = 3,
    /// Bytes of its standard error.
    Stderr = 4,
    /// No more output: the process and all that wrote for it are gone.
    End = 5,
}

/// The most bytes of stdio in one frame.
pub const STDIO_MAX: usize = 64 * 1024;
/// The most bytes of a value: a launch with a large environment and a seccomp filter has 100 kB.
pub const VALUE_MAX: usize = 16 << 20;
/// The most descriptors with one frame.
pub const DESCRIPTORS_MAX: usize = 16;
const HEADER: usize = 8;

/// Bytes that are no frame: the peer is not who we think, and the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

impl std::fmt::Display for Garbled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the shim connection carries bytes that are no message")
    }
}
impl std::error::Error for Garbled {}

/// One frame, taken from a [`Decoder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// How many of the connection's received descriptors belong to it.
    pub descriptors: usize,
    /// Without the header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The payload as a value.
    ///
    /// # Errors
    /// It is none, or not one of this type.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, Garbled> {
        if self.kind != Kind::Value {
            return Err(Garbled);
        }
        postcard::from_bytes(&self.payload).map_err(|_| Garbled)
    }
}

/// Append a frame of raw bytes.
pub fn encode_bytes(into: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    header(into, kind, 0, payload.len());
    into.extend_from_slice(payload);
}

/// Append a frame with a value, which travels with so many descriptors.
///
/// # Errors
/// A path in it is not UTF-8.
pub fn encode_value<T: Serialize>(into: &mut Vec<u8>, value: &T, descriptors: usize) -> Result<(), Garbled> {
    let payload = postcard::to_stdvec(value).map_err(|_| Garbled)?;
    if payload.len() > VALUE_MAX || descriptors > DESCRIPTORS_MAX {
        return Err(Garbled);
    }
    header(into, Kind::Value, descriptors, payload.len());
    into.extend_from_slice(&payload);
    Ok(())
}

fn header(into: &mut Vec<u8>, kind: Kind, descriptors: usize, length: usize) {
    into.extend_from_slice(&(length as u32).to_le_bytes());
    into.extend_from_slice(&[kind as u8, descriptors as u8, 0, 0]);
}

/// Bytes in, frames out.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Takes in what was received, wherever it is cut.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// What was pushed is no frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Garbled> {
        let rest = &self.bytes[self.taken..];
        let Some((head, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (kind, most) = match head[4] {
            0 => (Kind::Value, VALUE_MAX),
            1 => (Kind::Stdin, STDIO_MAX),
            2 => (Kind::StdinEnd, 0),
            3 => (Kind::Stdout, STDIO_MAX),
            4 => (Kind::Stderr, STDIO_MAX),
            5 => (Kind::End, 0),
            _ => return Err(Garbled),
        };
        let descriptors = usize::from(head[5]);
        if length > most || descriptors > DESCRIPTORS_MAX || head[6..] != [0, 0] {
            return Err(Garbled);
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame { kind, descriptors, payload: payload.to_vec() };
        self.taken += HEADER + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, Process, Request, Whom};

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let call = Call { number: 7, request: Request::Signal { whom: Whom::One(Process::Exec(3)), signal: 15 } };
        let mut bytes = Vec::new();
        encode_value(&mut bytes, &call, 2).unwrap();
        encode_bytes(&mut bytes, Kind::Stdout, b"hello");
        encode_bytes(&mut bytes, Kind::End, b"");
        for cut in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames.len(), 3, "cut every {cut} bytes");
            assert_eq!(frames[0].value::<Call>().unwrap(), call);
            assert_eq!(frames[0].descriptors, 2);
            assert_eq!(frames[1].payload, b"hello");
            assert_eq!(frames[2].kind, Kind::End);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let check = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.next_frame(), Err(Garbled), "{bytes:?}");
        };
        check(&[0, 0, 0, 0, 9, 0, 0, 0]);
        check(&[255, 255, 255, 255, 0, 0, 0, 0]);
        check(&[0, 0, 2, 0, 3, 0, 0, 0]);
        check(&[0, 0, 0, 0, 0, 200, 0, 0]);
        check(&[0, 0, 0, 0, 0, 0, 1, 0]);
        check(&[1, 0, 0, 0, 5, 0, 0, 0]);
    }
}
