//! `login`: credentials are tried at the registry before anybody keeps them.

use reqwest::{Method, StatusCode};

use crate::answer::Subject;
use crate::auth::Access;
use crate::client::Client;
use crate::credentials::Credentials;
use crate::endpoint::{Call, Endpoint, Target};
use crate::error::{Error, Result};
use crate::hosts::hosts_of;
use crate::options::Options;

impl Client {
    /// Tries credentials at a registry: `GET /v2/` with the proof it wants. Nothing is stored; see
    /// [`CredentialStore::save`](crate::CredentialStore::save).
    ///
    /// # Errors
    /// [`Error::LoginFailed`] if the registry or its token server does not accept them, and what
    /// else can go wrong on the way.
    pub async fn login(&self, registry: &str, credentials: &Credentials) -> Result<()> {
        let options = Options {
            credentials: Some((registry.to_owned(), credentials.clone())),
            ..self.options().clone()
        };
        // A client of its own: its tokens must not be mixed with those of the present credentials.
        let client = Self::new(options)?;
        let Some(host) = hosts_of(registry, client.options())?.pop() else { return Ok(()) };
        let endpoint = Endpoint::new(host, registry.to_owned(), client.inner.transport.clone());
        let subject = Subject::Registry(registry.to_owned());
        let target = Target::Path(String::new());
        let call = Call::new("log in to", &subject, Method::GET, target, "", Access::login());
        match endpoint.expect(&call, &[StatusCode::OK]).await {
            Ok(_) => Ok(()),
            Err(Error::Denied { host, message, .. }) => Err(Error::LoginFailed { host, message }),
            Err(error) => Err(error),
        }
    }
}
