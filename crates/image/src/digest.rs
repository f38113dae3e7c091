//! Digests on the way: readers and writers that hash what passes, and archives in whichever compression.

use sha2::{Digest as _, Sha256, Sha512};
use std::io::{self, BufRead, BufReader, Read, Write};

/// `sha256:` and the digest of some bytes.
pub(crate) fn of(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// The hexadecimal part of `sha256:…`.
pub(crate) fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

/// A running sha256.
#[derive(Clone)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    pub(crate) fn finish(self) -> String {
        format!("sha256:{}", to_hex(&self.0.finalize()))
    }
}

/// Verifies against a digest of either algorithm.
pub(crate) enum Verifier {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Verifier {
    pub(crate) fn for_digest(digest: &str) -> Self {
        if digest.starts_with("sha512:") { Self::Sha512(Box::default()) } else { Self::Sha256(Sha256::new()) }
    }
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(h) => format!("sha256:{}", to_hex(&h.finalize())),
            Self::Sha512(h) => format!("sha512:{}", to_hex(&h.finalize())),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hashes and counts what is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    pub(crate) hasher: Hasher,
    pub(crate) count: u64,
}
impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::new(), count: 0 }
    }
}
impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// Hashes and counts what is written through it.
pub(crate) struct HashingWriter<W> {
    pub(crate) inner: W,
    pub(crate) hasher: Hasher,
    pub(crate) count: u64,
}
impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(), count: 0 }
    }
}
impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes all that is read to a second place too.
pub(crate) struct Tee<R, W> {
    pub(crate) from: R,
    pub(crate) to: W,
}
impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.to.write_all(&buffer[..n])?;
        Ok(n)
    }
}

/// How an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // zstd's skippable frames come first in some archives
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Reads an archive whatever its compression: its first bytes say.
pub(crate) fn decompress<'a>(reader: impl Read + Send + 'a) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let mut start = Vec::with_capacity(6);
    while start.len() < 6 {
        let more = reader.fill_buf()?;
        if more.is_empty() {
            break;
        }
        let n = more.len().min(6 - start.len());
        start.extend_from_slice(&more[..n]);
        reader.consume(n);
    }
    let compression = Compression::of(&start);
    let whole = BufReader::with_capacity(1 << 16, io::Cursor::new(start).chain(reader));
    let plain: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(whole, true)),
    };
    Ok((compression, plain))
}
