//! Compression of layers: which one a stream has, and how to undo it.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Result};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), of any number of members.
    Gzip,
    /// Zstandard (RFC 8878), of any number of frames.
    Zstd,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// What is read from the stream at once.
const INPUT_BUFFER: usize = 128 << 10;

/// The largest window of a zstd stream, as a power of two: 128 MiB, which is what
/// the `zstd` command accepts, so that memory stays bounded.
const ZSTD_WINDOW_LOG: u32 = 27;

impl Compression {
    /// Tells compression by the first bytes. A tar archive cannot begin like
    /// either form: its first bytes are a name, which is text or a zero.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame that readers skip; zstd:chunked layers may begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A stream with its compression undone. Implements [`Read`].
pub struct Decoder<R: Read>(Inner<BufReader<Start<R>>>);

enum Inner<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::Decoder<'static, R>>),
}

/// The bytes that were read to tell the compression, and the rest.
type Start<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

impl<R: Read> Decoder<R> {
    /// The compression that the stream has.
    pub fn compression(&self) -> Compression {
        match self.0 {
            Inner::Plain(_) => Compression::None,
            Inner::Gzip(_) => Compression::Gzip,
            Inner::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(inner) => inner.read(buffer),
            Inner::Gzip(inner) => inner.read(buffer),
            Inner::Zstd(inner) => inner.read(buffer),
        }
    }
}

/// Undoes the compression of a stream, which is told by its first bytes.
///
/// With `expected`, the compression that the media type says, a stream that has
/// another one is refused: a descriptor that lies about its blob is not one to
/// trust. (Docker's media types say nothing dependable about compression;
/// callers pass `None` for those.)
///
/// A gzip stream must end with its last member: what follows that is not
/// another member is an error when it is read, also zeros.
pub fn decoder<R: Read>(mut stream: R, expected: Option<Compression>) -> Result<Decoder<R>> {
    let stream_error = |source| Error::Stream { op: "read the layer", source };
    let mut start = Vec::with_capacity(4);
    stream.by_ref().take(4).read_to_end(&mut start).map_err(stream_error)?;
    let found = Compression::of(&start);
    if let Some(expected) = expected
        && expected != found
    {
        return Err(Error::Corrupt {
            what: "the layer".to_owned(),
            problem: format!("its media type says {expected}, its content is {found}"),
        });
    }
    let stream = BufReader::with_capacity(INPUT_BUFFER, io::Cursor::new(start).chain(stream));
    Ok(Decoder(match found {
        Compression::None => Inner::Plain(stream),
        Compression::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(stream))),
        Compression::Zstd => {
            let mut inner = zstd::Decoder::with_buffer(stream).map_err(stream_error)?;
            inner.window_log_max(ZSTD_WINDOW_LOG).map_err(stream_error)?;
            Inner::Zstd(Box::new(inner))
        }
    }))
}
