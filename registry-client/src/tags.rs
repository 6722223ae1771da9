//! The tags of a repository, and what refers to a manifest of it.

use onggi_oci::{Descriptor, Digest, MAX_MANIFEST, Manifest, Reference};
use reqwest::header::LINK;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use crate::answer::Subject;
use crate::auth::Access;
use crate::client::{Client, Purpose, repository_name};
use crate::endpoint::{Call, Target};
use crate::error::{Error, Result};

/// Pages of tags that are read: at the usual hundred tags a page, far more than any repository has.
const MAX_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of a repository, in the registry's order.
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>> {
        let subject = Subject::Repository(repository_name(repository));
        let name = repository.repository();
        let mut call = Call::new(
            "list",
            &subject,
            Method::GET,
            Target::Path(format!("{name}/tags/list")),
            name,
            Access::pull(name),
        );
        let object = format!("the list of tags of {}", repository_name(repository));
        let mut tags = Vec::new();
        let (endpoint, mut response) =
            self.inner.first(repository.registry(), Purpose::Resolve, &call, &[StatusCode::OK]).await?;
        for _ in 0..MAX_PAGES {
            let next = next_page(&response);
            let body =
                self.inner.transport.read_bounded(response, MAX_MANIFEST, call.operation, &object).await?;
            let page: Page = serde_json::from_slice(&body).map_err(|error| {
                endpoint.problem(&call, format!("its list of tags is not valid: {error}"))
            })?;
            tags.extend(page.tags.unwrap_or_default());
            let Some(next) = next else { return Ok(tags) };
            call.target = Target::Url(next);
            response = endpoint.expect(&call, &[StatusCode::OK]).await?;
        }
        Err(endpoint.problem(&call, format!("its list of tags has more than {MAX_PAGES} pages")))
    }

    /// The manifests that name this one as their subject (signatures, SBOMs); none where the
    /// registry does not know the referrers API.
    pub async fn referrers(&self, repository: &Reference, digest: &Digest) -> Result<Vec<Descriptor>> {
        let subject = Subject::Manifest(format!("{}@{digest}", repository_name(repository)));
        let name = repository.repository();
        let target = Target::Path(format!("{name}/referrers/{digest}"));
        let call = Call::new("list what refers to", &subject, Method::GET, target, name, Access::pull(name));
        let found = self.inner.first(repository.registry(), Purpose::Pull, &call, &[StatusCode::OK]).await;
        let response = match found {
            Ok((_, response)) => response,
            Err(error) if error.kind() == onggi_oci::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let object = format!("the referrers of {digest}");
        let body = self.inner.transport.read_bounded(response, MAX_MANIFEST, call.operation, &object).await?;
        match Manifest::parse(&body, None)
            .map_err(|source| Error::Manifest { reference: subject.to_string(), source })?
        {
            Manifest::Index(index) => Ok(index.manifests),
            Manifest::Image(_) => Ok(Vec::new()),
        }
    }
}

/// `Link: </v2/x/tags/list?last=b&n=100>; rel="next"` (RFC 8288).
fn next_page(response: &Response) -> Option<Url> {
    let text = response.headers().get(LINK)?.to_str().ok()?;
    let (target, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| parameter.trim().replace('"', "") == "rel=next");
    is_next.then(|| response.url().join(target).ok()).flatten()
}
