//! One HTTP exchange: connections, TLS, proxies, time-outs, and what a failure of the line means.
//!
//! Connections are pooled. Hosts that need nothing special share one pool (and over HTTP/2 one
//! connection each); a host with authorities or a certificate of its own has its own, so that the
//! certificate is shown to nobody else. Redirects are never followed here: only the caller knows
//! what may go along.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, NoProxy, Proxy, Response, StatusCode, Url};

use crate::dns::{Resolver, Unresolved};
use crate::error::{Error, Result};
use crate::hosts;
use crate::options::Options;
use crate::retry::Backoff;
use crate::tls::{Authorities, TlsSettings};

/// A request whose body, if any, can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

impl Outgoing {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: None }
    }
}

/// What a connection must be able to do; connections of the same kind share a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Pool {
    /// Plain HTTP: no authorities are loaded.
    Plain,
    Secure(TlsSettings),
}

pub(crate) struct Transport {
    pub(crate) options: Arc<Options>,
    authorities: Authorities,
    resolver: Resolver,
    pools: Mutex<HashMap<Pool, Client>>,
}

impl Transport {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        let authorities = Authorities::new(options.ca_file.clone());
        Self { options, authorities, resolver: Resolver::default(), pools: Mutex::default() }
    }

    /// The client for a URL; `tls` as configured for its host, else what `certs.d` has for it.
    pub(crate) fn client(&self, url: &Url, tls: Option<&TlsSettings>) -> Result<Client> {
        let pool = if url.scheme() == "http" {
            Pool::Plain
        } else {
            match tls {
                Some(settings) => Pool::Secure(settings.clone()),
                None => Pool::Secure(hosts::tls_of(&authority(url), &self.options)?),
            }
        };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = pools.get(&pool) {
            return Ok(client.clone());
        }
        let client = self.build(&pool)?;
        pools.insert(pool, client.clone());
        Ok(client)
    }

    fn build(&self, pool: &Pool) -> Result<Client> {
        let tls = match pool {
            // Never used; without it reqwest would look for a verifier of the platform.
            Pool::Plain => Authorities::none()?,
            Pool::Secure(settings) => self.authorities.client(settings)?,
        };
        let options = &self.options;
        let mut builder = Client::builder()
            .user_agent(&options.user_agent)
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.timeouts.connect)
            .dns_resolver(self.resolver.clone())
            .tcp_nodelay(true)
            .no_proxy();
        // Loopback is this machine, and a proxy would be another.
        let direct =
            ["localhost", "127.0.0.0/8", "::1", options.proxy.no_proxy.as_deref().unwrap_or("")].join(",");
        let proxies = [(&options.proxy.http, false), (&options.proxy.https, true)];
        for (address, secure) in proxies {
            let Some(address) = address.as_deref().filter(|address| !address.is_empty()) else { continue };
            let with_scheme =
                if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
            let proxy = if secure { Proxy::https(&with_scheme) } else { Proxy::http(&with_scheme) };
            let proxy = proxy.map_err(|error| Error::Invalid {
                what: "proxy",
                value: without_password(address),
                problem: chain(&error),
            })?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&direct)));
        }
        builder.build().map_err(|error| Error::Tls { host: "this program".to_owned(), cause: chain(&error) })
    }

    /// Sends a request and waits for the head of its answer, at most for `timeout`.
    pub(crate) async fn send(
        &self,
        request: &Outgoing,
        tls: Option<&TlsSettings>,
        timeout: Duration,
        operation: &'static str,
        object: &str,
    ) -> Result<Response> {
        let mut builder =
            self.client(&request.url, tls)?.request(request.method.clone(), request.url.clone());
        builder = builder.headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        match tokio::time::timeout(timeout, builder.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(classify(&error, &request.url, operation, object)),
            Err(_) => Err(Error::Stalled {
                host: authority(&request.url),
                operation,
                object: object.to_owned(),
                after: timeout,
            }),
        }
    }

    /// [`send`](Self::send), and again after a passing failure; for requests that change nothing.
    pub(crate) async fn send_with_retries(
        &self,
        request: &Outgoing,
        operation: &'static str,
        object: &str,
    ) -> Result<Response> {
        let mut backoff = Backoff::new(self.options.retry);
        loop {
            let sent = self.send(request, None, self.options.timeouts.response, operation, object).await;
            match sent {
                Ok(response) if is_passing(response.status()) => {
                    if !backoff.wait(retry_after(response.headers())).await {
                        return Ok(response);
                    }
                }
                Ok(response) => return Ok(response),
                Err(error) if error.is_passing() && !matches!(error, Error::Unreachable { .. }) => {
                    if !backoff.wait(None).await {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read_bounded(
        &self,
        mut response: Response,
        limit: u64,
        operation: &'static str,
        object: &str,
    ) -> Result<Vec<u8>> {
        let too_large = || Error::TooLarge { object: object.to_owned(), limit };
        if response.content_length().is_some_and(|length| length > limit) && !is_head(&response) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(bytes) = self.next_chunk(&mut response, operation, object).await? {
            if (body.len() + bytes.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    /// The next piece of a body, at most the stall time-out away.
    pub(crate) async fn next_chunk(
        &self,
        response: &mut Response,
        operation: &'static str,
        object: &str,
    ) -> Result<Option<Bytes>> {
        let stall = self.options.timeouts.stall;
        match tokio::time::timeout(stall, response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(classify(&error, response.url(), operation, object)),
            Err(_) => Err(Error::Stalled {
                host: authority(response.url()),
                operation,
                object: object.to_owned(),
                after: stall,
            }),
        }
    }
}

/// A `Content-Length` beside no body says nothing of what will come.
fn is_head(response: &Response) -> bool {
    response.status() == StatusCode::NO_CONTENT || response.status() == StatusCode::NOT_MODIFIED
}

/// `host` or `host:port` of a URL.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Statuses after which the same request may succeed.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` in seconds; the form with a date is rare and is answered by our own waiting.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// `Content-Length` as the server gave it, also for HEAD.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// The failure that an error of the HTTP library stands for.
pub(crate) fn classify(error: &reqwest::Error, url: &Url, operation: &'static str, object: &str) -> Error {
    let host = authority(url);
    let mut io = None;
    for cause in causes(error) {
        if let Some(unresolved) = cause.downcast_ref::<Unresolved>() {
            return Error::UnknownHost {
                host: url.host_str().unwrap_or_default().to_owned(),
                cause: unresolved.to_string(),
            };
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(problem) => {
                    Error::UntrustedCertificate { host, cause: certificate_problem(problem) }
                }
                rustls::Error::InvalidMessage(_) => Error::ServerSpeaksHttp { host },
                other => Error::Tls { host, cause: other.to_string() },
            };
        }
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            io = io.or(Some(error.to_string()));
        }
    }
    let cause = io.unwrap_or_else(|| {
        // The innermost cause says most; the outer ones repeat the URL.
        causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
    });
    if error.is_connect() {
        let cause = if error.is_timeout() { "the connection timed out".to_owned() } else { cause };
        return Error::Unreachable { host, cause };
    }
    if url.scheme() == "http" && cause.contains("invalid HTTP version") {
        return Error::ServerSpeaksHttps { host };
    }
    Error::Interrupted { host, operation, object: object.to_owned(), cause }
}

/// An error and its causes. What an `io::Error` wraps counts as a cause, which its `source` skips.
fn causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> Vec<&'a (dyn std::error::Error + 'static)> {
    let mut chain: Vec<&(dyn std::error::Error + 'static)> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        chain.push(error);
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    chain
}

fn chain(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn certificate_problem(problem: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Problem;
    match problem {
        Problem::UnknownIssuer => "it is signed by an authority that this machine does not know".to_owned(),
        Problem::Expired | Problem::ExpiredContext { .. } => "it has expired".to_owned(),
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        other => other.to_string(),
    }
}

fn without_password(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => address.to_owned(),
    }
}
