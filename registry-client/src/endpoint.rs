//! One host of a registry: requests with the right proof, repeated where that helps.
//!
//! ```text
//!   Call ──► URL, Authorization ──► Transport ─┬─ 401 ──► Authenticator ──► once more
//!                                              ├─ 30x ──► follow; another host gets no proof
//!                                              ├─ 408 429 5xx, line broken ──► wait, again
//!                                              └─ anything else: the caller's
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::{Mutex, OnceCell};

use crate::answer::{MAX_REFUSAL, Refusal, Subject};
use crate::auth::{Access, Authenticator};
use crate::credentials::{CredentialStore, Credentials};
use crate::error::{Error, Result};
use crate::hosts::{Host, Scheme};
use crate::retry::Backoff;
use crate::transport::{self, Outgoing, Transport};

/// Redirects followed for one request; content networks use one or two.
const MAX_REDIRECTS: usize = 5;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Below the host's base path: `library/alpine/manifests/latest`.
    Path(String),
    /// Where the registry told us to go: an upload session, the next page.
    Url(Url),
}

/// A request to a registry.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) operation: &'static str,
    pub(crate) subject: &'a Subject,
    pub(crate) method: Method,
    pub(crate) target: Target,
    /// The repository whose credentials count.
    pub(crate) repository: &'a str,
    pub(crate) access: Access,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) timeout: Option<Duration>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        operation: &'static str,
        subject: &'a Subject,
        method: Method,
        target: Target,
        repository: &'a str,
        access: Access,
    ) -> Self {
        let (headers, body, timeout) = (HeaderMap::new(), None, None);
        Self { operation, subject, method, target, repository, access, headers, body, timeout }
    }
}

pub(crate) struct Endpoint {
    pub(crate) host: Host,
    /// The name its credentials are kept under.
    credential_name: String,
    transport: Arc<Transport>,
    base: OnceCell<Url>,
    /// By repository; repositories with equal credentials share one.
    authenticators: Mutex<HashMap<String, Arc<Authenticator>>>,
    /// Whether it ever answered; one that did not is given up at once.
    answered: AtomicBool,
}

impl Endpoint {
    pub(crate) fn new(host: Host, credential_name: String, transport: Arc<Transport>) -> Self {
        Self {
            host,
            credential_name,
            transport,
            base: OnceCell::new(),
            authenticators: Mutex::default(),
            answered: AtomicBool::new(false),
        }
    }

    /// Sends a call, again while that may help. The answer is one that only the caller can judge:
    /// a success, or a refusal that will stay one.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response> {
        let mut backoff = Backoff::new(self.transport.options.retry);
        loop {
            match self.attempt(call).await {
                Ok(response) if transport::is_passing(response.status()) => {
                    let asked = transport::retry_after(response.headers());
                    if !backoff.wait(asked).await {
                        return Err(self.refusal(call, response).await);
                    }
                }
                Ok(response) => return Ok(response),
                Err(error) if self.is_worth_repeating(&error) => {
                    if !backoff.wait(None).await {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// [`send`](Self::send), and an error for every status but the ones the caller expects.
    pub(crate) async fn expect(&self, call: &Call<'_>, expected: &[StatusCode]) -> Result<Response> {
        let response = self.send(call).await?;
        if expected.contains(&response.status()) {
            return Ok(response);
        }
        Err(self.refusal(call, response).await)
    }

    /// Whether a failure may pass. A host that cannot be connected to is only waited for if it has
    /// answered before.
    pub(crate) fn is_worth_repeating(&self, error: &Error) -> bool {
        match error {
            Error::Unreachable { .. } => self.answered.load(Ordering::Relaxed),
            error => error.is_passing(),
        }
    }

    /// One attempt: authorised, redirected, but not repeated after a failure.
    pub(crate) async fn attempt(&self, call: &Call<'_>) -> Result<Response> {
        let authenticator = self.authenticator(call.repository).await?;
        let base = self.base().await?;
        let url = self.url(base, &call.target, call)?;
        let ours = same_origin(&url, base);
        let mut proof = if ours { authenticator.header(&call.access, &self.transport).await? } else { None };
        let mut renewed = false;
        loop {
            let response = self.exchange(call, &url, base, proof.as_ref()).await?;
            self.answered.store(true, Ordering::Relaxed);
            if response.status() != StatusCode::UNAUTHORIZED || renewed || !same_origin(response.url(), base)
            {
                return Ok(response);
            }
            let headers = response.headers();
            let again =
                authenticator.refused(&call.access, proof.as_ref(), headers, base, &self.transport).await?;
            if !again {
                return Ok(response);
            }
            // Read what is left, so that the connection can be used again.
            let _ = self.transport.read_bounded(response, MAX_REFUSAL, call.operation, "").await;
            renewed = true;
            proof = authenticator.proof(&call.access).await?;
        }
    }

    /// Sends once and follows redirects of requests that only read.
    async fn exchange(
        &self,
        call: &Call<'_>,
        url: &Url,
        base: &Url,
        proof: Option<&HeaderValue>,
    ) -> Result<Response> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let ours = same_origin(&url, base);
            let mut request = Outgoing::new(call.method.clone(), url.clone());
            request.headers.clone_from(&call.headers);
            request.body.clone_from(&call.body);
            if ours {
                for (name, value) in &self.host.headers {
                    request.headers.append(name, value.clone());
                }
                if let Some(proof) = proof {
                    request.headers.insert(AUTHORIZATION, proof.clone());
                }
            }
            let tls = ours.then_some(&self.host.tls);
            let timeout = call.timeout.unwrap_or(self.transport.options.timeouts.response);
            let object = call.subject.to_string();
            let response = self.transport.send(&request, tls, timeout, call.operation, &object).await?;
            let reads = call.method == Method::GET || call.method == Method::HEAD;
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved {
                return Ok(response);
            }
            if !reads {
                return Err(self.problem(call, "it redirects a request that changes something".to_owned()));
            }
            let location = location(&response)
                .ok_or_else(|| self.problem(call, "it redirects without a valid Location".to_owned()))?;
            if url.scheme() == "https" && location.scheme() != "https" {
                let problem = format!("it redirects from HTTPS to {}", transport::authority(&location));
                return Err(self.problem(call, problem));
            }
            url = location;
        }
        Err(self.problem(call, format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    /// The `Authorization` for a URL of an upload session; none for another host.
    pub(crate) async fn proof_for(
        &self,
        url: &Url,
        repository: &str,
        access: &Access,
    ) -> Result<Option<HeaderValue>> {
        if !same_origin(url, self.base().await?) {
            return Ok(None);
        }
        self.authenticator(repository).await?.header(access, &self.transport).await
    }

    /// The TLS settings for a URL, which only count for this host itself.
    pub(crate) async fn tls_for(&self, url: &Url) -> Result<Option<&crate::tls::TlsSettings>> {
        Ok(same_origin(url, self.base().await?).then_some(&self.host.tls))
    }

    fn url(&self, base: &Url, target: &Target, call: &Call<'_>) -> Result<Url> {
        match target {
            Target::Url(url) => Ok(url.clone()),
            Target::Path(path) => {
                let mut url = base
                    .join(&format!("{}/{path}", self.host.base_path))
                    .map_err(|error| self.problem(call, format!("{path:?} makes no URL: {error}")))?;
                if let Some(registry) = &self.host.mirror_of {
                    url.query_pairs_mut().append_pair("ns", registry);
                }
                Ok(url)
            }
        }
    }

    /// The scheme and authority, once it is known which scheme the host speaks.
    pub(crate) async fn base(&self) -> Result<&Url> {
        self.base.get_or_try_init(|| self.probe()).await
    }

    async fn probe(&self) -> Result<Url> {
        let make = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/", self.host.authority)).map_err(|error| Error::Invalid {
                what: "registry",
                value: self.host.authority.clone(),
                problem: error.to_string(),
            })
        };
        match self.host.scheme {
            Scheme::Https => make("https"),
            Scheme::Http => make("http"),
            Scheme::Either => {
                let secure = make("https")?;
                let mut request = Outgoing::new(Method::GET, secure.clone());
                request.url.set_path(&format!("{}/", self.host.base_path));
                let timeout = self.transport.options.timeouts.response;
                let host = &self.host.authority;
                let sent = self.transport.send(&request, Some(&self.host.tls), timeout, "reach", host).await;
                match sent {
                    // A certificate that nobody vouches for is no reason to talk in the open.
                    Ok(_) => Ok(secure),
                    Err(error @ (Error::UntrustedCertificate { .. } | Error::Configuration { .. })) => {
                        Err(error)
                    }
                    Err(Error::ServerSpeaksHttp { .. }) => make("http"),
                    Err(first) => {
                        // Perhaps a server that hangs up on what it cannot read.
                        let plain = make("http")?;
                        request.url = plain.clone();
                        request.url.set_path(&format!("{}/", self.host.base_path));
                        match self.transport.send(&request, None, timeout, "reach", host).await {
                            Ok(answer) if answer.status() != StatusCode::BAD_REQUEST => Ok(plain),
                            _ => Err(first),
                        }
                    }
                }
            }
        }
    }

    pub(crate) async fn authenticator(&self, repository: &str) -> Result<Arc<Authenticator>> {
        let mut known = self.authenticators.lock().await;
        if let Some(authenticator) = known.get(repository) {
            return Ok(Arc::clone(authenticator));
        }
        let credentials = self.credentials(repository).await?;
        let same = known.values().find(|other| other.credentials() == credentials.as_ref());
        let authenticator = same.cloned().unwrap_or_else(|| {
            let name = self.host.authority.clone();
            Arc::new(Authenticator::new(name, self.host.own_names, credentials))
        });
        known.insert(repository.to_owned(), Arc::clone(&authenticator));
        Ok(authenticator)
    }

    async fn credentials(&self, repository: &str) -> Result<Option<Credentials>> {
        let options = &self.transport.options;
        if let Some((registry, credentials)) = &options.credentials
            && *registry == self.credential_name
        {
            return Ok(Some(credentials.clone()));
        }
        if options.auth_file.is_none() && options.docker_config.is_none() {
            return Ok(None);
        }
        let store = CredentialStore {
            docker_config: options.docker_config.clone(),
            auth_file: options.auth_file.clone(),
        };
        let (name, repository) = (self.credential_name.clone(), repository.to_owned());
        // A helper may ask its user for a passphrase.
        let found = tokio::task::spawn_blocking(move || store.find(&name, &repository)).await;
        found.unwrap_or(Ok(None))
    }

    /// The error that an answer stands for.
    pub(crate) async fn refusal(&self, call: &Call<'_>, response: Response) -> Error {
        let (status, headers) = (response.status(), response.headers().clone());
        let host = transport::authority(response.url());
        let body =
            self.transport.read_bounded(response, MAX_REFUSAL, call.operation, "").await.unwrap_or_default();
        let authenticated = match self.authenticator(call.repository).await {
            Ok(authenticator) => authenticator.credentials().is_some(),
            Err(_) => false,
        };
        let (operation, subject) = (call.operation, call.subject);
        Refusal { host, operation, subject, authenticated, status, headers: &headers, body: &body }
            .into_error()
    }

    /// An error for a host that breaks the protocol.
    pub(crate) fn problem(&self, call: &Call<'_>, problem: String) -> Error {
        Error::Protocol {
            host: self.host.authority.clone(),
            operation: call.operation,
            object: call.subject.to_string(),
            problem,
        }
    }
}

/// The `Location` of an answer, which may be relative to what was asked.
pub(crate) fn location(response: &Response) -> Option<Url> {
    let text = response.headers().get(LOCATION)?.to_str().ok()?;
    let url = response.url().join(text).ok()?;
    matches!(url.scheme(), "http" | "https").then_some(url)
}

/// Whether what may go to one URL may go to the other: the same scheme, host and port.
fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}
