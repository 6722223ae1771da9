//! Compression of layers: which one a stream has, how to undo and how to do it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;

use flate2::bufread::MultiGzDecoder;
use onggi_oci::LayerCompression;

use super::gzip::{DEFAULT_GZIP_LEVEL, GzipWriter};
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

impl From<Compression> for LayerCompression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
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
            // The second is a frame that readers skip; a zstd:chunked layer may begin with one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
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
            Inner::Gzip(inner) => inner.read(buffer).map_err(|error| damaged("gzip", error)),
            Inner::Zstd(inner) => inner.read(buffer).map_err(|error| damaged("zstd", error)),
        }
    }
}

/// The decoders report damage as kinds that say something else. Errors of the
/// stream below them pass as they are.
fn damaged(what: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            io::Error::new(io::ErrorKind::InvalidData, format!("its {what} data is damaged: {error}"))
        }
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::InvalidData, format!("its {what} data ends early"))
        }
        _ => error,
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

/// zstd's own default level.
pub const DEFAULT_ZSTD_LEVEL: i32 = 3;

/// Writes zstd on several threads, the same bytes whatever their number.
/// [`ZstdWriter::finish`] must be called; without it the output is cut off.
pub struct ZstdWriter<W: Write>(zstd::Encoder<'static, W>);

impl<W: Write> ZstdWriter<W> {
    /// Begins a zstd stream of a level (1 to 22) with this many threads.
    pub fn new(inner: W, level: i32, threads: NonZeroUsize) -> io::Result<Self> {
        if !(1..=22).contains(&level) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a zstd level is between 1 and 22"));
        }
        let mut encoder = zstd::Encoder::new(inner, level)?;
        // Without workers zstd cuts its input elsewhere: one thread is a worker too.
        encoder.multithread(u32::try_from(threads.get()).unwrap_or(u32::MAX))?;
        encoder.include_checksum(true)?;
        Ok(Self(encoder))
    }

    /// Ends the stream and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for ZstdWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    /// Does nothing: where frames and blocks end must depend on the input only.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that compresses, or doesn't, as asked for.
pub enum Encoder<W: Write> {
    /// As it comes.
    Plain(W),
    /// As gzip.
    Gzip(GzipWriter<W>),
    /// As zstd.
    Zstd(ZstdWriter<W>),
}

impl<W: Write> Encoder<W> {
    /// Begins a stream with the default level of its kind.
    pub fn new(inner: W, compression: Compression, threads: NonZeroUsize) -> io::Result<Self> {
        Self::with_level(inner, compression, None, threads)
    }

    /// The same with a level; with the default one for `None`.
    ///
    /// # Errors
    /// A level that the algorithm doesn't have; a thread that can't be started.
    pub fn with_level(
        inner: W,
        compression: Compression,
        level: Option<i32>,
        threads: NonZeroUsize,
    ) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(inner),
            Compression::Gzip => {
                // A negative one is out of range as well.
                let level =
                    level.map_or(DEFAULT_GZIP_LEVEL, |level| u32::try_from(level).unwrap_or(u32::MAX));
                Self::Gzip(GzipWriter::new(inner, level, threads)?)
            }
            Compression::Zstd => {
                Self::Zstd(ZstdWriter::new(inner, level.unwrap_or(DEFAULT_ZSTD_LEVEL), threads)?)
            }
        })
    }

    /// Ends the stream and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(inner) => Ok(inner),
            Self::Gzip(inner) => inner.finish(),
            Self::Zstd(inner) => inner.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.write(buffer),
            Self::Gzip(inner) => inner.write(buffer),
            Self::Zstd(inner) => inner.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(inner) => inner.flush(),
            Self::Gzip(inner) => inner.flush(),
            Self::Zstd(inner) => inner.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(input: &[u8], compression: Compression, threads: usize, piece: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), compression, NonZeroUsize::new(threads).unwrap()).unwrap();
        for piece in input.chunks(piece) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decode(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        decoder(input, None).map_err(io::Error::other)?.read_to_end(&mut output)?;
        Ok(output)
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|i| b"layers and layers"[i * i / 7 % 17]).collect()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let input = sample(9 << 20);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let one = encode(&input, compression, 1, 1 << 20);
            assert!(one == encode(&input, compression, 3, 4099), "{compression}");
            assert_eq!(Compression::of(&one), compression);
            assert!(decode(&one).unwrap() == input, "{compression}");
        }
    }

    #[test]
    fn members_and_frames_follow_one_another() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let parts = [&b"one "[..], b"", b"two"].map(|part| encode(part, compression, 1, 99));
            assert_eq!(decode(&parts.concat()).unwrap(), b"one two");
        }
    }

    #[test]
    fn damage_is_an_error() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let whole = encode(&sample(100_000), compression, 1, 4096);
            assert!(decode(&whole[..whole.len() - 1]).is_err(), "{compression}: cut");
            assert!(decode(&whole[..whole.len() / 2]).is_err(), "{compression}: cut in half");
            let mut flipped = whole.clone();
            let last = flipped.len() - 5;
            flipped[last] ^= 1;
            assert!(decode(&flipped).is_err(), "{compression}: flipped");
            let trailing = [&whole[..], b"garbage, more than a header"].concat();
            assert!(decode(&trailing).is_err(), "{compression}: trailing");
        }
    }

    #[test]
    fn the_media_type_is_checked() {
        let gzip = encode(b"x", Compression::Gzip, 1, 1);
        assert!(decoder(&gzip[..], Some(Compression::Gzip)).is_ok());
        assert!(decoder(&gzip[..], Some(Compression::Zstd)).is_err());
        assert_eq!(decoder(&b""[..], None).unwrap().compression(), Compression::None);
        assert!(decoder(&b"ab"[..], Some(Compression::Gzip)).is_err());
    }
}
