//! Searching a registry for repositories.
//!
//! Docker Hub answers `index.docker.io/v1/search`; other registries know at most `/v2/_catalog`, a list of all
//! names, which is searched here.

use onggi_oci::MAX_MANIFEST;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::answer::Subject;
use crate::auth::Access;
use crate::client::{Client, Purpose};
use crate::endpoint::{Call, Target};
use crate::error::{Error, Result};

/// Names that are asked for of a catalog.
const CATALOG: usize = 10_000;
const HUB: &str = "docker.io";

/// A repository that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// What it is, in its owner's words.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Whether Docker looks after it.
    pub official: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Client {
    /// Repositories of a registry whose name (on Docker Hub also whose description) has the term in it, at most `limit`.
    ///
    /// # Errors
    /// The registry can't be reached, or knows no way to search it.
    pub async fn search(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>> {
        if registry == HUB {
            self.search_hub(term, limit).await
        } else {
            self.search_catalog(registry, term, limit).await
        }
    }

    async fn search_hub(&self, term: &str, limit: usize) -> Result<Vec<Found>> {
        const SEARCH: &str = "https://index.docker.io/v1/search";
        let url = Url::parse_with_params(SEARCH, [("q", term), ("n", &limit.to_string())]);
        let invalid =
            |problem: String| Error::Invalid { what: "search for", value: term.to_owned(), problem };
        let url = url.map_err(|error| invalid(error.to_string()))?.to_string();
        let mut download = self.download(&url).await?;
        let mut body = Vec::new();
        while let Some(chunk) = download.chunk().await? {
            if (body.len() + chunk.len()) as u64 > MAX_MANIFEST {
                return Err(Error::TooLarge {
                    object: "the answer to the search".into(),
                    limit: MAX_MANIFEST,
                });
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| invalid(format!("the answer of Docker Hub is not valid: {error}")))?;
        let found = answer.results.into_iter().map(|hit| Found {
            name: hit.name,
            description: hit.description.unwrap_or_default(),
            stars: hit.star_count,
            official: hit.is_official,
        });
        Ok(found.take(limit).collect())
    }

    async fn search_catalog(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>> {
        let subject = Subject::Registry(registry.to_owned());
        let target = Target::Path(format!("_catalog?n={CATALOG}"));
        let call = Call::new("search", &subject, Method::GET, target, "", Access::login());
        let (endpoint, response) =
            self.inner.first(registry, Purpose::Resolve, &call, &[StatusCode::OK]).await?;
        let object = format!("the catalog of {registry}");
        let body = self.inner.transport.read_bounded(response, MAX_MANIFEST, call.operation, &object).await?;
        let catalog: Catalog = serde_json::from_slice(&body)
            .map_err(|error| endpoint.problem(&call, format!("its catalog is not valid: {error}")))?;
        let names = catalog.repositories.unwrap_or_default().into_iter().filter(|name| name.contains(term));
        let found = names.map(|name| Found {
            name: format!("{registry}/{name}"),
            description: String::new(),
            stars: 0,
            official: false,
        });
        Ok(found.take(limit).collect())
    }
}
