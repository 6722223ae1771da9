//! Blobs on their way out.
//!
//! ```text
//!   HEAD  …/blobs/<digest>                        200 ─► there already
//!   POST  …/blobs/uploads/?mount=<digest>&from=y  201 ─► mounted from a repository beside it
//!                                                 202 ─► declined, but its session is ours
//!   POST  …/blobs/uploads/                        202 Location: <session>
//!   PUT   <session>&digest=…   the whole blob     201
//!          broken? GET <session>  204 Range: 0-N ─► PATCH the rest, PUT
//!                                 else           ─► a new session, from the first byte
//! ```
//!
//! A blob whose digest is only known at its end ([`Client::upload`]) goes as PATCHes of one chunk
//! each. A chunk stays in memory until the registry has acknowledged it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use onggi_oci::{Descriptor, Digest, Reference};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::Subject;
use crate::auth::Access;
use crate::client::{Client, Inner, repository_name};
use crate::endpoint::{Call, Endpoint, Target, location};
use crate::error::{Error, Result};
use crate::retry::Backoff;
use crate::source::{BlobSource, Feed};
use crate::transport;

/// Repositories a mount is tried from; each attempt is a round trip.
const MAX_MOUNTS: usize = 3;

/// How a blob came to be in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pushed {
    /// It was there already.
    Existed,
    /// The registry took it from another repository of its own.
    Mounted {
        /// That repository, without the registry.
        from: String,
    },
    /// It was sent.
    Uploaded,
}

/// Told how many bytes of a blob have been sent; the number falls when a broken upload goes back.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// One upload session of a registry.
struct Session {
    location: Url,
}

impl Client {
    /// Makes a repository hold a blob: finds it there, has it mounted from one of `mount_from` (those
    /// of the same registry count), or sends it. Waits for one of the client's transfers before it
    /// sends.
    pub async fn push_blob(
        &self,
        to: &Reference,
        descriptor: &Descriptor,
        mount_from: &[Reference],
        source: Arc<dyn BlobSource>,
        progress: Progress,
    ) -> Result<Pushed> {
        let endpoint = self.inner.push_endpoint(to.registry())?;
        if self.blob_exists(&endpoint, to, &descriptor.digest).await? {
            return Ok(Pushed::Existed);
        }
        let upload = Sender::new(Arc::clone(&self.inner), endpoint, to, Some(&descriptor.digest));
        let mut session = None;
        for from in mount_candidates(to, mount_from) {
            match upload.mount(from, &descriptor.digest).await {
                Ok(None) => return Ok(Pushed::Mounted { from: from.to_owned() }),
                Ok(Some(opened)) => session = Some(opened),
                // Not allowed to read there, or a registry that knows no mounts: send it.
                Err(error) if error.is_passing() => return Err(error),
                Err(_) => {}
            }
        }
        let _permit = Arc::clone(&self.inner.transfers).acquire_owned().await.ok();
        upload.send_source(session, descriptor, &source, &progress).await?;
        Ok(Pushed::Uploaded)
    }

    /// Begins to send a blob of unknown digest and length. Holds one of the client's transfers until
    /// it is dropped.
    pub async fn upload(&self, to: &Reference) -> Result<Upload> {
        let permit = Arc::clone(&self.inner.transfers).acquire_owned().await.ok();
        let endpoint = self.inner.push_endpoint(to.registry())?;
        let sender = Sender::new(Arc::clone(&self.inner), endpoint, to, None);
        let session = sender.start().await?;
        let chunk = self.inner.options.upload.chunk.max(1);
        let backoff = Backoff::new(self.inner.options.retry);
        Ok(Upload {
            sender,
            session,
            chunk,
            buffer: BytesMut::new(),
            acknowledged: 0,
            backoff,
            _permit: permit,
        })
    }
}

/// The repositories that a mount may be asked from: of the same registry, and another one.
fn mount_candidates<'a>(to: &Reference, from: &'a [Reference]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for candidate in from {
        let name = candidate.repository();
        if candidate.registry() == to.registry() && name != to.repository() && !names.contains(&name) {
            names.push(name);
        }
    }
    names.truncate(MAX_MOUNTS);
    names
}

/// An upload in chunks, of a blob that is still being made.
pub struct Upload {
    sender: Sender,
    session: Session,
    chunk: usize,
    /// Bytes that the registry has not acknowledged.
    buffer: BytesMut,
    acknowledged: u64,
    backoff: Backoff,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Upload {
    /// Takes the next bytes, and sends what fills a chunk.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = rest.len().min(self.chunk - self.buffer.len());
            self.buffer.extend_from_slice(&rest[..part]);
            rest.advance(part);
            if self.buffer.len() == self.chunk {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Bytes the registry has.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Sends the rest and names the whole by its digest, which the registry compares.
    pub async fn finish(mut self, digest: &Digest) -> Result<()> {
        if self.acknowledged > 0 {
            self.flush().await?;
        }
        // A blob of one chunk goes in one request; else the body is empty by now.
        loop {
            let body = Bytes::copy_from_slice(&self.buffer);
            match self.sender.commit(&self.session, digest, body).await {
                Ok(()) => return Ok(()),
                Err(error) if self.sender.endpoint.is_worth_repeating(&error) => {
                    if self.sender.exists(digest).await {
                        return Ok(());
                    }
                    self.take_up(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the session up, so that the registry need not keep what it has.
    pub async fn cancel(self) -> Result<()> {
        self.sender.cancel(&self.session).await
    }

    async fn flush(&mut self) -> Result<()> {
        while !self.buffer.is_empty() {
            let body = Bytes::copy_from_slice(&self.buffer);
            match self.sender.patch(&mut self.session, self.acknowledged, body).await {
                Ok(offset) => {
                    self.backoff.progressed();
                    self.advance_to(offset)?;
                }
                Err(error) if self.sender.endpoint.is_worth_repeating(&error) => self.take_up(error).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// After a failure: waits, and asks the session what it has.
    async fn take_up(&mut self, error: Error) -> Result<()> {
        loop {
            if !self.backoff.wait(None).await {
                return Err(error);
            }
            match self.sender.status(&mut self.session).await {
                Ok(offset) => return self.advance_to(offset),
                Err(again) if self.sender.endpoint.is_worth_repeating(&again) => {}
                // The session is lost, and with it what was sent: the first failure says why.
                Err(_) => return Err(error),
            }
        }
    }

    fn advance_to(&mut self, offset: u64) -> Result<()> {
        let taken = offset.checked_sub(self.acknowledged).and_then(|taken| usize::try_from(taken).ok());
        match taken.filter(|&taken| taken <= self.buffer.len()) {
            Some(taken) => {
                self.buffer.advance(taken);
                self.acknowledged = offset;
                Ok(())
            }
            None => Err(self.sender.protocol(format!("it claims to have {offset} bytes of the upload"))),
        }
    }
}

/// The requests of an upload.
struct Sender {
    inner: Arc<Inner>,
    endpoint: Arc<Endpoint>,
    repository: String,
    full_name: String,
    subject: Subject,
}

impl Sender {
    fn new(inner: Arc<Inner>, endpoint: Arc<Endpoint>, to: &Reference, digest: Option<&Digest>) -> Self {
        let full_name = repository_name(to);
        let subject = match digest {
            Some(digest) => Subject::Blob(digest.to_string(), full_name.clone()),
            None => Subject::Upload(format!("a blob of {full_name}")),
        };
        Self { inner, endpoint, repository: to.repository().to_owned(), full_name, subject }
    }

    fn call(&self, method: Method, target: Target) -> Call<'_> {
        let access = Access::push(&self.repository);
        let mut call = Call::new("push", &self.subject, method, target, &self.repository, access);
        call.timeout = Some(self.inner.options.timeouts.commit);
        call
    }

    fn protocol(&self, problem: String) -> Error {
        self.endpoint.problem(&self.call(Method::POST, Target::Path(String::new())), problem)
    }

    fn session(&self, response: &Response) -> Result<Session> {
        let location =
            location(response).ok_or_else(|| self.protocol("its answer names no session".to_owned()))?;
        // What was secure stays so.
        if response.url().scheme() == "https" && location.scheme() != "https" {
            return Err(self.protocol(format!("its session is not HTTPS but at {location}")));
        }
        Ok(Session { location })
    }

    async fn start(&self) -> Result<Session> {
        let mut call = self.call(Method::POST, Target::Path(format!("{}/blobs/uploads/", self.repository)));
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.endpoint.expect(&call, &[StatusCode::ACCEPTED]).await?;
        self.session(&response)
    }

    /// Asks for a mount; none if it was done, else the session that was opened in its place.
    async fn mount(&self, from: &str, digest: &Digest) -> Result<Option<Session>> {
        let path = format!("{}/blobs/uploads/?mount={digest}&from={}", self.repository, escape(from));
        let mut call = self.call(Method::POST, Target::Path(path));
        call.access = Access::mount(&self.repository, from);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.endpoint.expect(&call, &[StatusCode::CREATED, StatusCode::ACCEPTED]).await?;
        if response.status() == StatusCode::CREATED { Ok(None) } else { self.session(&response).map(Some) }
    }

    /// Sends a blob that can be read again from any byte.
    async fn send_source(
        &self,
        session: Option<Session>,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<()> {
        let mut backoff = Backoff::new(self.inner.options.retry);
        let mut present = session.map(|session| (session, 0));
        loop {
            let (mut session, offset) = match present.take() {
                Some(present) => present,
                None => (self.start().await?, 0),
            };
            let sent = self.send_rest(&mut session, offset, descriptor, source, progress).await;
            let error = match sent {
                Ok(()) => return Ok(()),
                Err(error) if self.endpoint.is_worth_repeating(&error) => error,
                Err(error) => return Err(error),
            };
            if !backoff.wait(None).await {
                return Err(error);
            }
            // The answer may be all that was lost.
            if self.exists(&descriptor.digest).await {
                return Ok(());
            }
            if let Ok(have) = self.status(&mut session).await
                && have <= descriptor.size
            {
                if have > offset {
                    backoff.progressed();
                }
                present = Some((session, have));
            }
        }
    }

    async fn send_rest(
        &self,
        session: &mut Session,
        offset: u64,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<()> {
        if offset == descriptor.size && offset > 0 {
            return self.commit(session, &descriptor.digest, Bytes::new()).await;
        }
        let feed = Feed::new(Arc::clone(source), offset, descriptor.size, Arc::clone(progress));
        if offset == 0 {
            let url = with_digest(&session.location, &descriptor.digest);
            let response = self.stream(Method::PUT, url, HeaderMap::new(), feed).await?;
            return self.judge(response, &[StatusCode::CREATED, StatusCode::NO_CONTENT]).await.map(drop);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_RANGE, self.range(offset, descriptor.size)?);
        let response = self.stream(Method::PATCH, session.location.clone(), headers, feed).await?;
        let response = self.judge(response, &[StatusCode::ACCEPTED, StatusCode::NO_CONTENT]).await?;
        *session = self.session(&response)?;
        self.commit(session, &descriptor.digest, Bytes::new()).await
    }

    /// Sends a body from a feed, and watches that it moves.
    async fn stream(&self, method: Method, url: Url, mut headers: HeaderMap, feed: Feed) -> Result<Response> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(feed.remaining()));
        let access = Access::push(&self.repository);
        if let Some(proof) = self.endpoint.proof_for(&url, &self.repository, &access).await? {
            headers.insert(reqwest::header::AUTHORIZATION, proof);
        }
        let tls = self.endpoint.tls_for(&url).await?;
        let client = self.inner.transport.client(&url, tls)?;
        let (body, watch) = feed.into_body();
        let request = client.request(method, url.clone()).headers(headers).body(body).send();
        tokio::pin!(request);
        let timeouts = self.inner.options.timeouts;
        let (mut before, mut quiet) = (watch.sent(), Duration::ZERO);
        loop {
            match tokio::time::timeout(timeouts.stall, &mut request).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => {
                    // The cause may be on our side.
                    if let Some(source) = watch.failure() {
                        return Err(Error::Source { object: self.subject.to_string(), source });
                    }
                    return Err(transport::classify(&error, &url, "push", &self.subject.to_string()));
                }
                Err(_) => {
                    let sent = watch.sent();
                    quiet = if sent > before { Duration::ZERO } else { quiet + timeouts.stall };
                    // Once everything is sent the registry may take its time.
                    let patience = if watch.is_done() { timeouts.commit } else { timeouts.stall };
                    if quiet >= patience {
                        return Err(Error::Stalled {
                            host: transport::authority(&url),
                            operation: "push",
                            object: self.subject.to_string(),
                            after: patience,
                        });
                    }
                    before = sent;
                }
            }
        }
    }

    /// Sends one chunk; gives the number of bytes that the registry then has.
    async fn patch(&self, session: &mut Session, offset: u64, body: Bytes) -> Result<u64> {
        let end = offset + body.len() as u64;
        let mut call = self.call(Method::PATCH, Target::Url(session.location.clone()));
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.headers.insert(CONTENT_RANGE, self.range(offset, end)?);
        call.body = Some(body);
        let response = self.endpoint.attempt(&call).await?;
        let response = self.judge(response, &[StatusCode::ACCEPTED, StatusCode::NO_CONTENT]).await?;
        *session = self.session(&response)?;
        Ok(acknowledged(response.headers()).unwrap_or(end))
    }

    async fn commit(&self, session: &Session, digest: &Digest, body: Bytes) -> Result<()> {
        let mut call = self.call(Method::PUT, Target::Url(with_digest(&session.location, digest)));
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.body = Some(body);
        let response = self.endpoint.attempt(&call).await?;
        self.judge(response, &[StatusCode::CREATED, StatusCode::NO_CONTENT]).await.map(drop)
    }

    /// The number of bytes that the session has.
    async fn status(&self, session: &mut Session) -> Result<u64> {
        let call = self.call(Method::GET, Target::Url(session.location.clone()));
        let response = self.endpoint.attempt(&call).await?;
        let response =
            self.judge(response, &[StatusCode::NO_CONTENT, StatusCode::ACCEPTED, StatusCode::OK]).await?;
        if let Ok(renewed) = self.session(&response) {
            *session = renewed;
        }
        Ok(acknowledged(response.headers()).unwrap_or(0))
    }

    async fn cancel(&self, session: &Session) -> Result<()> {
        let call = self.call(Method::DELETE, Target::Url(session.location.clone()));
        let response = self.endpoint.attempt(&call).await?;
        self.judge(response, &[StatusCode::NO_CONTENT, StatusCode::ACCEPTED, StatusCode::OK]).await.map(drop)
    }

    async fn exists(&self, digest: &Digest) -> bool {
        let subject = Subject::Blob(digest.to_string(), self.full_name.clone());
        let target = Target::Path(format!("{}/blobs/{digest}", self.repository));
        let access = Access::push(&self.repository);
        let call = Call::new("look up", &subject, Method::HEAD, target, &self.repository, access);
        self.endpoint.attempt(&call).await.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    async fn judge(&self, response: Response, expected: &[StatusCode]) -> Result<Response> {
        if expected.contains(&response.status()) {
            return Ok(response);
        }
        let call = self.call(Method::PUT, Target::Url(response.url().clone()));
        Err(self.endpoint.refusal(&call, response).await)
    }

    /// `Content-Range` of an upload: first and last byte, without a unit.
    fn range(&self, start: u64, end: u64) -> Result<HeaderValue> {
        HeaderValue::from_str(&format!("{start}-{}", end.saturating_sub(1)))
            .map_err(|_| self.protocol("the range makes no header".to_owned()))
    }
}

/// `Range: 0-N` of a session: it has N + 1 bytes. `0-0` is what servers say of an empty one.
fn acknowledged(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = text.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

fn with_digest(location: &Url, digest: &Digest) -> Url {
    let mut url = location.clone();
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    url
}

/// A repository name as part of a query; its characters need no escape but the slash, which may stay.
fn escape(repository: &str) -> String {
    repository.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-')).collect()
}
