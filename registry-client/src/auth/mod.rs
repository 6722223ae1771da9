//! Proving to one host that we may do something.
//!
//! ```text
//!   GET /v2/x/manifests/t ──► 401 Www-Authenticate: Bearer realm="https://auth…",service="…"
//!        GET realm?service=…&scope=repository:x:pull   (Basic, if we have credentials)
//!        or POST realm grant_type=refresh_token…       (if we have an identity token)
//!                                       ──► {"token": "…", "expires_in": 300}
//!   GET /v2/x/manifests/t   Authorization: Bearer …  ──► 200
//! ```
//!
//! A token is kept for its host and its set of scopes and is asked for once, however many requests
//! wait for it. After the first challenge the host's realm is known, and later scopes are asked for
//! before the request instead of after its refusal.
//!
//! Where secrets go (compare CVE-2020-15157):
//! - to the registry's host, over the scheme chosen for it: the token, or Basic credentials;
//! - to the realm that this very host named in a 401 of its own: the user's credentials. The realm
//!   may be another host, as it is for Docker Hub (`auth.docker.io`); but it must be HTTPS, unless
//!   the registry itself is spoken to by plain HTTP, or the realm is on loopback;
//! - to nobody else: a challenge of a host that we were redirected to is not answered, and
//!   `Authorization` does not follow a redirect or an upload's `Location` to another host.

mod challenge;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::transport::Transport;
pub use challenge::Challenge;
use token::Token;

/// What a request needs to be allowed: `repository:library/alpine:pull`, …
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Access(Vec<String>);

impl Access {
    /// Reading a repository.
    pub(crate) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// Reading and writing a repository.
    pub(crate) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// Removing from a repository.
    pub(crate) fn delete(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:delete")])
    }

    /// Writing to one repository what another one holds: Docker Hub wants both in one token.
    pub(crate) fn mount(repository: &str, from: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push"), format!("repository:{from}:pull")])
    }

    /// Only who we are.
    pub(crate) fn login() -> Self {
        Self(Vec::new())
    }
}

/// The authorisation of one host.
pub(crate) struct Authenticator {
    /// Host and port, for messages.
    host: String,
    /// Whether scopes under the registry's own repository names are right there.
    own_names: bool,
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// One lock a scope set: who comes second waits for the first one's token.
    tokens: HashMap<Access, Arc<tokio::sync::Mutex<Option<Token>>>>,
}

impl Authenticator {
    pub(crate) fn new(host: String, own_names: bool, credentials: Option<Credentials>) -> Self {
        Self { host, own_names, credentials, state: Mutex::default() }
    }

    /// What there is to prove with.
    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The `Authorization` to send with a request, if the host wants any as far as we know.
    pub(crate) async fn header(&self, access: &Access, transport: &Transport) -> Result<Option<HeaderValue>> {
        if let Some(Credentials::RegistryToken(token)) = &self.credentials {
            return bearer(token, &self.host).map(Some);
        }
        let challenge = self.state().challenge.clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic().transpose(),
            Some(Challenge::Bearer { .. }) if !self.own_names => self.kept(access).await,
            Some(challenge) => self.token(access, &challenge, transport).await.map(Some),
        }
    }

    /// Takes note of a refusal: `used` is the `Authorization` that was refused. True if the request
    /// is worth sending again.
    pub(crate) async fn refused(
        &self,
        access: &Access,
        used: Option<&HeaderValue>,
        headers: &HeaderMap,
        origin: &Url,
        transport: &Transport,
    ) -> Result<bool> {
        if matches!(self.credentials, Some(Credentials::RegistryToken(_))) {
            return Ok(false);
        }
        let Some(challenge) = Challenge::choose(headers, origin, self.credentials.is_some())? else {
            return Ok(false);
        };
        self.state().challenge = Some(challenge.without_scope());
        if matches!(challenge, Challenge::Basic) {
            return Ok(used.is_none() && self.basic().is_some());
        }
        let slot = self.slot(access);
        let mut slot = slot.lock().await;
        // Another request may have fetched or renewed the token meanwhile.
        if let Some(token) = slot.as_ref().filter(|token| token.is_fresh())
            && Some(&bearer(&token.value, &self.host)?) != used
        {
            return Ok(true);
        }
        *slot = Some(self.fetch(access, &challenge, transport).await?);
        Ok(true)
    }

    /// The `Authorization` that [`refused`](Self::refused) provided for.
    pub(crate) async fn proof(&self, access: &Access) -> Result<Option<HeaderValue>> {
        let challenge = self.state().challenge.clone();
        match challenge {
            Some(Challenge::Basic) => self.basic().transpose(),
            _ => self.kept(access).await,
        }
    }

    async fn kept(&self, access: &Access) -> Result<Option<HeaderValue>> {
        let slot = self.slot(access);
        let slot = slot.lock().await;
        slot.as_ref()
            .filter(|token| token.is_fresh())
            .map(|token| bearer(&token.value, &self.host))
            .transpose()
    }

    async fn token(
        &self,
        access: &Access,
        challenge: &Challenge,
        transport: &Transport,
    ) -> Result<HeaderValue> {
        let slot = self.slot(access);
        let mut slot = slot.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| token.is_fresh()) {
            return bearer(&token.value, &self.host);
        }
        let token = self.fetch(access, challenge, transport).await?;
        let header = bearer(&token.value, &self.host);
        *slot = Some(token);
        header
    }

    async fn fetch(&self, access: &Access, challenge: &Challenge, transport: &Transport) -> Result<Token> {
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return Err(Error::Protocol {
                host: self.host.clone(),
                operation: "log in to",
                object: self.host.clone(),
                problem: "it gave no realm to ask for a token".to_owned(),
            });
        };
        let mut scopes = if self.own_names { access.0.clone() } else { Vec::new() };
        // Some registries want a scope of their own besides; what Docker's form covers is ours.
        for extra in scope.iter().filter(|extra| !covered(&scopes, extra)).cloned().collect::<Vec<_>>() {
            scopes.push(extra);
        }
        token::fetch(realm, service.as_deref(), &scopes, self.credentials.as_ref(), transport).await
    }

    fn basic(&self) -> Option<Result<HeaderValue>> {
        match &self.credentials {
            Some(Credentials::Password { username, password }) => Some(basic(username, password)),
            _ => None,
        }
    }

    fn slot(&self, access: &Access) -> Arc<tokio::sync::Mutex<Option<Token>>> {
        Arc::clone(self.state().tokens.entry(access.clone()).or_default())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a scope that a registry named is part of what we ask for anyway.
fn covered(ours: &[String], theirs: &str) -> bool {
    let Some((object, actions)) = theirs.rsplit_once(':') else { return true };
    ours.iter().filter_map(|scope| scope.rsplit_once(':')).any(|(our_object, our_actions)| {
        our_object == object
            && actions.split(',').all(|action| our_actions.split(',').any(|our| our == action))
    })
}

/// `Authorization: Basic …`
pub(crate) fn basic(username: &str, password: &str) -> Result<HeaderValue> {
    let text = STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).map_err(|_| Error::Invalid {
        what: "user name",
        value: username.to_owned(),
        problem: "it cannot be sent in an HTTP header".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(token: &str, host: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Protocol {
        host: host.to_owned(),
        operation: "log in to",
        object: host.to_owned(),
        problem: "its token is not valid in an HTTP header".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
