//! The client: registries, their hosts in order, and the limits that all transfers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use onggi_oci::Reference;
use reqwest::{Method, Response, StatusCode};
use tokio::sync::Semaphore;

use crate::answer::Subject;
use crate::auth::Access;
use crate::endpoint::{Call, Endpoint, Target};
use crate::error::{Error, Result};
use crate::hosts::{self, Host};
use crate::options::Options;
use crate::transport::Transport;

/// Registries, as one user of one machine sees them. Clones share connections, tokens and limits.
///
/// All methods must be called inside a tokio runtime with its time and I/O drivers.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: Arc<Options>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) transfers: Arc<Semaphore>,
    registries: Mutex<HashMap<String, Arc<[Arc<Endpoint>]>>>,
}

/// What a host is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Content by digest.
    Pull,
    /// The meaning of a tag.
    Resolve,
    /// Uploads.
    Push,
}

impl Client {
    /// A client; it opens no connection and reads no file yet.
    pub fn new(options: Options) -> Result<Self> {
        if let Some(entry) = options.insecure.iter().find(|entry| entry.is_empty() || entry.contains('/')) {
            return Err(Error::Invalid {
                what: "insecure registry",
                value: entry.clone(),
                problem: "it is not a host with an optional port".to_owned(),
            });
        }
        let options = Arc::new(options);
        let transport = Arc::new(Transport::new(Arc::clone(&options)));
        let transfers = Arc::new(Semaphore::new(options.transfers.max(1)));
        let registries = Mutex::default();
        Ok(Self { inner: Arc::new(Inner { options, transport, transfers, registries }) })
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Whether the registry answers and lets us in, with the credentials that are configured.
    pub async fn ping(&self, registry: &str) -> Result<()> {
        let subject = Subject::Registry(registry.to_owned());
        let endpoints = self.inner.endpoints(registry)?;
        let Some(endpoint) = endpoints.last() else { return Err(no_host(registry, Purpose::Resolve)) };
        let call =
            Call::new("log in to", &subject, Method::GET, Target::Path(String::new()), "", Access::login());
        endpoint.expect(&call, &[StatusCode::OK]).await.map(drop)
    }
}

impl Inner {
    pub(crate) fn endpoints(&self, registry: &str) -> Result<Arc<[Arc<Endpoint>]>> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoints) = registries.get(registry) {
            return Ok(Arc::clone(endpoints));
        }
        let endpoint = |host: Host| {
            let own = host.mirror_of.is_none();
            let name = if own && (host.authority == registry || registry == "docker.io") {
                registry.to_owned()
            } else {
                host.authority.clone()
            };
            Arc::new(Endpoint::new(host, name, Arc::clone(&self.transport)))
        };
        let endpoints: Arc<[_]> =
            hosts::hosts_of(registry, &self.options)?.into_iter().map(endpoint).collect();
        registries.insert(registry.to_owned(), Arc::clone(&endpoints));
        Ok(endpoints)
    }

    /// The hosts of a registry that serve a purpose, in the order they are to be asked.
    pub(crate) fn endpoints_for(&self, registry: &str, purpose: Purpose) -> Result<Vec<Arc<Endpoint>>> {
        let serves = |endpoint: &&Arc<Endpoint>| {
            let capabilities = endpoint.host.capabilities;
            match purpose {
                Purpose::Pull => capabilities.pull,
                Purpose::Resolve => capabilities.resolve,
                Purpose::Push => capabilities.push,
            }
        };
        let endpoints: Vec<_> = self.endpoints(registry)?.iter().filter(serves).cloned().collect();
        if endpoints.is_empty() { Err(no_host(registry, purpose)) } else { Ok(endpoints) }
    }

    /// The host that uploads go to.
    pub(crate) fn push_endpoint(&self, registry: &str) -> Result<Arc<Endpoint>> {
        let endpoints = self.endpoints_for(registry, Purpose::Push)?;
        // The registry itself stands last.
        endpoints.last().cloned().ok_or_else(|| no_host(registry, Purpose::Push))
    }

    /// Asks the hosts in turn until one gives an expected status; the last one's failure counts,
    /// as the registry itself stands last.
    pub(crate) async fn first(
        &self,
        registry: &str,
        purpose: Purpose,
        call: &Call<'_>,
        expected: &[StatusCode],
    ) -> Result<(Arc<Endpoint>, Response)> {
        let mut failure = None;
        for endpoint in self.endpoints_for(registry, purpose)? {
            match endpoint.expect(call, expected).await {
                Ok(response) => return Ok((endpoint, response)),
                Err(error) if error.another_host_may_help() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| no_host(registry, purpose)))
    }
}

pub(crate) fn no_host(registry: &str, purpose: Purpose) -> Error {
    let what = match purpose {
        Purpose::Pull => "pull from",
        Purpose::Resolve => "resolve a tag at",
        Purpose::Push => "push to",
    };
    Error::Invalid {
        what: "registry",
        value: registry.to_owned(),
        problem: format!("its hosts.toml has no host to {what}"),
    }
}

/// `registry/repository`, for messages.
pub(crate) fn repository_name(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}
