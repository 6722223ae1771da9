//! What a long operation tells whoever is watching.
//!
//! The engine reports *facts* (this layer exists, so many more of its bytes have
//! come in, it is in that stage now); how they look is the watcher's affair: bars on
//! a terminal, lines in a log, events of an API, or nothing ([`Silent`]).
//!
//! The calls come from several threads and tasks at once, often (a call of
//! [`Progress::advance`] for each chunk read from a socket), so an implementation must be cheap and must not block.

/// Where a layer (or another blob) is on its way.
///
/// A layer is announced with [`Progress::layer`], goes through some of the stages in
/// the order of its flow, and rests in one for which [`Stage::is_final`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Known, not begun.
    Waiting,
    /// Bytes come in from a registry or an archive; they are verified and made into a layer as they come.
    Downloading,
    /// All bytes are here and have the right digest.
    DownloadComplete,
    /// The rest of unpacking, after the last byte came in.
    Unpacking,
    /// The layer is ready in the store. Final.
    PullComplete,
    /// The layer was in the store before. Final.
    AlreadyExists,
    /// A transfer broke; it goes on after a pause at the byte where it broke.
    Retrying {
        /// How many attempts failed, the first one included.
        attempt: u32,
    },
    /// Bytes go out to a registry or an archive.
    Pushing,
    /// The registry has all bytes and confirmed the digest. Final.
    Pushed,
    /// The registry had the blob before. Final.
    LayerAlreadyExists,
    /// The registry linked the blob from another of its repositories; nothing was sent. Final.
    Mounted {
        /// The repository it was linked from, `library/debian`.
        from: String,
    },
}

impl Stage {
    /// Whether nothing follows this stage.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Stage::PullComplete
                | Stage::AlreadyExists
                | Stage::Pushed
                | Stage::LayerAlreadyExists
                | Stage::Mounted { .. }
        )
    }
}

/// A watcher of a long operation.
///
/// `id` is what the layer is called in front of a user: the digest of its blob
/// (`sha256:…`), or its diff ID where there is no blob. Calls for an `id` that was not
/// announced count as an announcement with unknown size.
pub trait Progress: Send + Sync {
    /// A layer takes part: `size` is the number of bytes to transfer, where it is known.
    /// The order of these calls is the order in which layers are shown.
    fn layer(&self, id: &str, size: Option<u64>);

    /// The layer entered a stage. [`Stage::Downloading`] and [`Stage::Pushing`] begin at 0 bytes.
    fn stage(&self, id: &str, stage: Stage);

    /// That many more bytes of the layer were transferred.
    fn advance(&self, id: &str, bytes: u64);

    /// That many bytes count as transferred: after a resume, or when an attempt starts over at 0.
    fn position(&self, id: &str, bytes: u64);

    /// A sentence for the user that belongs to no layer: `latest: Pulling from library/alpine`.
    fn message(&self, text: &str);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn layer(&self, _id: &str, _size: Option<u64>) {}
    fn stage(&self, _id: &str, _stage: Stage) {}
    fn advance(&self, _id: &str, _bytes: u64) {}
    fn position(&self, _id: &str, _bytes: u64) {}
    fn message(&self, _text: &str) {}
}
