//! Blobs on their way in: one continuous, checked stream, whatever the line does.
//!
//! ```text
//!   GET /v2/x/blobs/sha256:…            200  ▓▓▓▓▓▓▓▓▓░ broken
//!   GET …  Range: bytes=9437184-        206           ▓▓▓▓▓▓░ stalled
//!   GET …  Range: bytes=15728640-       200  ░░░░░░░░░░░░░░▓▓▓▓▓▓▓▓  (ignores Range: skipped)
//!   to the caller:                           ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓  then the digest is compared
//! ```
//!
//! The hash state is kept over all of it, so no byte is hashed or fetched twice. The URLs of foreign
//! layers are never followed: they would let an image send us anywhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onggi_oci::{Descriptor, Digest, Hasher, Reference};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::Subject;
use crate::auth::Access;
use crate::client::{Client, Inner, Purpose, no_host, repository_name};
use crate::endpoint::{Call, Endpoint, Target};
use crate::error::{Error, Result};
use crate::retry::Backoff;
use crate::transport;

/// This much between two failures counts as progress, and the count of attempts starts anew. A line
/// that breaks after every few bytes is given up.
const PROGRESS: u64 = 64 << 10;

/// A server that sends less than this in a whole stall time-out has stalled, even if it drips.
const DRIP: u64 = 4 << 10;

impl Client {
    /// Opens a blob. The stream holds one of the client's transfers until it is dropped; this waits
    /// for one to be free, and for the registry's first answer.
    pub async fn blob(&self, repository: &Reference, descriptor: &Descriptor) -> Result<BlobStream> {
        let inner = Arc::clone(&self.inner);
        // The semaphore is never closed.
        let permit = Arc::clone(&inner.transfers).acquire_owned().await.ok();
        let endpoints = inner.endpoints_for(repository.registry(), Purpose::Pull)?;
        let mut stream = BlobStream {
            subject: Subject::Blob(descriptor.digest.to_string(), repository_name(repository)),
            repository: repository.repository().to_owned(),
            registry: repository.registry().to_owned(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            hasher: Some(Hasher::new(descriptor.digest.algorithm())),
            offset: 0,
            skip: 0,
            body: None,
            endpoints,
            backoff: Backoff::new(inner.options.retry),
            progress_at: 0,
            waited: Duration::ZERO,
            window: 0,
            resumes: 0,
            state: State::Flowing,
            inner,
            _permit: permit,
        };
        stream.connect().await?;
        Ok(stream)
    }

    /// A small blob as a whole, such as an image's config; `limit` in bytes.
    pub async fn blob_bytes(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes> {
        if descriptor.size > limit {
            let object = format!("blob {} of {}", descriptor.digest, repository_name(repository));
            return Err(Error::TooLarge { object, limit });
        }
        let mut stream = self.blob(repository, descriptor).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next_chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    /// Whether a repository holds a blob, and its size if the registry says.
    pub async fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool> {
        let endpoint = self.inner.push_endpoint(repository.registry())?;
        self.blob_exists(&endpoint, repository, digest).await
    }

    pub(crate) async fn blob_exists(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        digest: &Digest,
    ) -> Result<bool> {
        let subject = Subject::Blob(digest.to_string(), repository_name(repository));
        let name = repository.repository();
        let target = Target::Path(format!("{name}/blobs/{digest}"));
        let call = Call::new("look up", &subject, Method::HEAD, target, name, Access::push(name));
        let response = endpoint.send(&call).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(endpoint.refusal(&call, response).await),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    /// All bytes came and were right.
    Done,
    /// An error was returned; there will be nothing more.
    Failed,
}

/// The bytes of one blob, in order, each once.
pub struct BlobStream {
    inner: Arc<Inner>,
    subject: Subject,
    registry: String,
    repository: String,
    digest: Digest,
    size: u64,
    hasher: Option<Hasher>,
    /// Bytes given to the caller.
    offset: u64,
    /// Bytes of the present body that the caller has already.
    skip: u64,
    body: Option<Response>,
    /// The hosts that are left to ask, the present one first.
    endpoints: Vec<Arc<Endpoint>>,
    backoff: Backoff,
    progress_at: u64,
    waited: Duration,
    window: u64,
    resumes: u32,
    state: State,
    _permit: Option<OwnedSemaphorePermit>,
}

impl BlobStream {
    /// Leaves the comparison of the digest to the caller, who hashes the bytes anyway. The size is
    /// still enforced.
    #[must_use]
    pub fn hashed_by_caller(mut self) -> Self {
        self.hasher = None;
        self
    }

    /// Bytes given so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes there will be.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How often the transfer was taken up again.
    pub fn resumes(&self) -> u32 {
        self.resumes
    }

    /// The next bytes; none once the whole blob has been given and its size and digest are right.
    /// After an error there is nothing more.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        match self.state {
            State::Done => return Ok(None),
            State::Failed => return Err(self.protocol("the transfer has failed before")),
            State::Flowing => {}
        }
        let next = self.advance().await;
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Done,
            Err(_) => self.state = State::Failed,
        }
        if self.state != State::Flowing {
            self.body = None;
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.body.is_none() {
                // Broken after the last byte: there is nothing left to ask for.
                if self.offset == self.size {
                    self.finish()?;
                    return Ok(None);
                }
                self.connect().await?;
            }
            let Some(body) = self.body.as_mut() else { continue };
            let asked = tokio::time::Instant::now();
            let next = self.inner.transport.next_chunk(body, "fetch", &self.subject.to_string()).await;
            match next {
                Ok(Some(mut bytes)) => {
                    let drips = self.drips(asked.elapsed(), bytes.len() as u64);
                    if self.skip > 0 {
                        let part = self.skip.min(bytes.len() as u64);
                        self.skip -= part;
                        let part = usize::try_from(part).unwrap_or(bytes.len());
                        bytes = bytes.split_off(part);
                    }
                    if drips {
                        self.broke(self.stalled()).await?;
                    }
                    if bytes.is_empty() {
                        continue;
                    }
                    return self.accept(bytes).map(Some);
                }
                Ok(None) if self.offset == self.size && self.skip == 0 => {
                    self.finish()?;
                    return Ok(None);
                }
                // The body ended early, though in order.
                Ok(None) => self.broke(self.wrong_size(self.offset)).await?,
                Err(error) if error.is_passing() => self.broke(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    fn accept(&mut self, bytes: Bytes) -> Result<Bytes> {
        let end = self.offset + bytes.len() as u64;
        if end > self.size {
            return Err(self.wrong_size(end));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.offset = end;
        if self.offset - self.progress_at >= PROGRESS {
            self.progress_at = self.offset;
            self.backoff.progressed();
        }
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<()> {
        let Some(actual) = self.hasher.take().map(Hasher::finish) else { return Ok(()) };
        if actual == self.digest {
            return Ok(());
        }
        let (object, expected) = (self.subject.to_string(), self.digest.clone());
        Err(Error::DigestMismatch { object, expected, actual })
    }

    /// Whether the server, in the time we waited for it (not it for our caller), gave too little.
    fn drips(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.window += bytes;
        if self.window >= DRIP {
            (self.waited, self.window) = (Duration::ZERO, 0);
        }
        self.waited >= self.inner.options.timeouts.stall
    }

    fn stalled(&self) -> Error {
        Error::Stalled {
            host: self.host(),
            operation: "fetch",
            object: self.subject.to_string(),
            after: self.inner.options.timeouts.stall,
        }
    }

    /// Takes note of a broken transfer and waits; an error if it is to be given up here and no other
    /// host is left.
    async fn broke(&mut self, error: Error) -> Result<()> {
        self.body = None;
        (self.waited, self.window) = (Duration::ZERO, 0);
        if self.backoff.wait(None).await {
            self.resumes += 1;
            return Ok(());
        }
        self.next_host(error)
    }

    fn next_host(&mut self, error: Error) -> Result<()> {
        if self.endpoints.len() <= 1 || !error.another_host_may_help() {
            return Err(error);
        }
        self.endpoints.remove(0);
        self.backoff.progressed();
        Ok(())
    }

    /// Asks for the rest, from the first host that gives it.
    async fn connect(&mut self) -> Result<()> {
        loop {
            match self.open().await {
                Ok(()) => return Ok(()),
                Err(error) => self.next_host(error)?,
            }
        }
    }

    async fn open(&mut self) -> Result<()> {
        let endpoint = self.endpoints.first().ok_or_else(|| no_host(&self.registry, Purpose::Pull))?;
        let target = Target::Path(format!("{}/blobs/{}", self.repository, self.digest));
        let access = Access::pull(&self.repository);
        let mut call = Call::new("fetch", &self.subject, Method::GET, target, &self.repository, access);
        if self.offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.offset));
            call.headers.insert(RANGE, range.map_err(|_| self.protocol("the offset makes no header"))?);
        }
        let response = endpoint.send(&call).await?;
        match response.status() {
            StatusCode::OK => {
                if let Some(length) =
                    transport::content_length(response.headers()).filter(|&n| n != self.size)
                {
                    return Err(self.wrong_size(length));
                }
                self.skip = self.offset;
            }
            StatusCode::PARTIAL_CONTENT if self.offset > 0 => {
                self.check_range(response.headers())?;
                self.skip = 0;
            }
            // There is nothing at our offset: the blob is shorter than its descriptor says.
            StatusCode::RANGE_NOT_SATISFIABLE if self.offset > 0 => return Err(self.wrong_size(self.offset)),
            _ => return Err(endpoint.refusal(&call, response).await),
        }
        self.body = Some(response);
        Ok(())
    }

    /// `Content-Range: bytes 9437184-20971519/20971520` must be the rest of the blob.
    fn check_range(&self, headers: &HeaderMap) -> Result<()> {
        let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let parsed = text.strip_prefix("bytes ").and_then(|rest| {
            let (range, total) = rest.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?, total.trim()))
        });
        match parsed {
            Some((first, _, _)) if first != self.offset => {
                Err(self.protocol(&format!("asked for bytes from {}, it sends {text:?}", self.offset)))
            }
            Some((_, _, total)) if total != "*" && total != self.size.to_string() => {
                Err(self.wrong_size(total.parse().unwrap_or_default()))
            }
            Some((_, last, _)) if last >= self.size => Err(self.wrong_size(last.saturating_add(1))),
            Some(_) => Ok(()),
            None => Err(self.protocol(&format!("its Content-Range is {text:?}"))),
        }
    }

    fn wrong_size(&self, actual: u64) -> Error {
        Error::SizeMismatch { object: self.subject.to_string(), expected: self.size, actual }
    }

    fn protocol(&self, problem: &str) -> Error {
        Error::Protocol {
            host: self.host(),
            operation: "fetch",
            object: self.subject.to_string(),
            problem: problem.to_owned(),
        }
    }

    fn host(&self) -> String {
        self.endpoints
            .first()
            .map_or_else(|| self.registry.clone(), |endpoint| endpoint.host.authority.clone())
    }
}
