//! A file of the web: no registry, no credentials, no cookies.

use bytes::Bytes;
use reqwest::header::{ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::transport::Outgoing;

/// Redirects that are followed, as curl and Go do.
const MAX_REDIRECTS: usize = 10;
const OPERATION: &str = "download";

/// What a server said of a file when it was fetched last (RFC 9110, section 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub modified: Option<String>,
}

/// A body on its way.
pub struct Download {
    client: Client,
    response: Response,
    object: String,
}

impl Client {
    /// Begins to download what an http or https URL names; redirects are followed, but not from https to
    /// http.
    ///
    /// # Errors
    /// The URL is none; the host can't be reached; it answers with anything but 200.
    pub async fn download(&self, url: &str) -> Result<Download> {
        let download = self.download_unless(url, &Validators::default()).await?;
        download.ok_or_else(|| Error::Invalid {
            what: "URL",
            value: url.to_owned(),
            problem: "the server says that it did not change, which it was not asked".into(),
        })
    }

    /// The same, but nothing if the file is what it was when the server said this of it.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub async fn download_unless(&self, url: &str, known: &Validators) -> Result<Option<Download>> {
        let invalid = |problem: String| Error::Invalid { what: "URL", value: url.to_owned(), problem };
        let mut target = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        let mut redirects = 0;
        loop {
            if !matches!(target.scheme(), "http" | "https") {
                return Err(invalid(format!("{target} is neither http nor https")));
            }
            let mut outgoing = Outgoing::new(Method::GET, target.clone());
            for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.modified)] {
                if let Some(value) = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok()) {
                    outgoing.headers.insert(name, value);
                }
            }
            let response = self.inner.transport.send_with_retries(&outgoing, OPERATION, url).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(Some(Download { client: self.clone(), response, object: url.to_owned() }));
            }
            if status == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let Some(next) = location.filter(|_| status.is_redirection()) else {
                return Err(invalid(format!("the server answered {status}")));
            };
            let next =
                target.join(next).map_err(|error| invalid(format!("it redirects to {next:?}: {error}")))?;
            if target.scheme() == "https" && next.scheme() == "http" {
                return Err(invalid(format!("it redirects from https to {next}")));
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(invalid(format!("it redirects more than {MAX_REDIRECTS} times")));
            }
            target = next;
        }
    }
}

impl Download {
    /// When the file was last changed, as the server wrote it (RFC 9110, `Last-Modified`).
    pub fn modified(&self) -> Option<&str> {
        self.response.headers().get(LAST_MODIFIED)?.to_str().ok()
    }

    /// What to say the next time, to have it only if it changed.
    pub fn validators(&self) -> Validators {
        let header = |name| Some(self.response.headers().get(name)?.to_str().ok()?.to_owned());
        Validators { etag: header(ETAG), modified: header(LAST_MODIFIED) }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The transfer broke or stalled.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.client.inner.transport.next_chunk(&mut self.response, OPERATION, &self.object).await
    }
}
