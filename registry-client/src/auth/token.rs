//! Tokens, and the two ways to get one (distribution's token and OAuth2 specifications).

use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::transport::{Outgoing, Transport};

/// A token lives this long if its server does not say (the specification's default).
const DEFAULT_LIFE: Duration = Duration::from_mins(1);

/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(5);

/// A token server's answer: a token of a few kilobytes.
const MAX_ANSWER: u64 = 1 << 20;

/// The name of this program towards OAuth2 servers.
const CLIENT_ID: &str = "onggi";

pub(super) struct Token {
    pub(super) value: String,
    expires: Instant,
}

impl Token {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.expires
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Asks a realm for a token.
pub(super) async fn fetch(
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    credentials: Option<&Credentials>,
    transport: &Transport,
) -> Result<Token> {
    let host = realm.host_str().unwrap_or_default().to_owned();
    let request = match credentials {
        Some(Credentials::IdentityToken(token)) => refresh(realm, service, scopes, token),
        Some(Credentials::Password { username, password }) => {
            let mut request = query(realm, service, scopes);
            request.url.query_pairs_mut().append_pair("account", username);
            request.headers.insert(AUTHORIZATION, super::basic(username, password)?);
            request
        }
        _ => query(realm, service, scopes),
    };
    let given_up = |error: Error| match error.is_passing() {
        true => Error::NoToken { scopes: scopes.join(" "), source: Box::new(error) },
        false => error,
    };
    let sent = transport.send_with_retries(&request, "get a token from", &host).await;
    let response = sent.map_err(given_up)?;
    let status = response.status();
    let body = transport.read_bounded(response, MAX_ANSWER, "get a token from", &host).await?;
    if !status.is_success() {
        let message = crate::answer::message(&body);
        return Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST
                if credentials.is_some() =>
            {
                Error::LoginFailed { host, message }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied {
                operation: "give a token to",
                object: "an anonymous user".to_owned(),
                host,
                message,
                authenticated: false,
            },
            _ => given_up(Error::Registry {
                operation: "give",
                object: "a token".to_owned(),
                host,
                status: status.as_u16(),
                message,
            }),
        });
    }
    let problem = |problem: &str| Error::Protocol {
        host: host.clone(),
        operation: "get a token from",
        object: host.clone(),
        problem: problem.to_owned(),
    };
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| problem("its answer is not a token"))?;
    let value = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let value = value.ok_or_else(|| problem("its answer holds no token"))?;
    let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).max(DEFAULT_LIFE);
    // An absurd life is as good as a day.
    let life = life.min(Duration::from_hours(24)).saturating_sub(MARGIN);
    Ok(Token { value, expires: Instant::now() + life })
}

fn query(realm: &Url, service: Option<&str>, scopes: &[String]) -> Outgoing {
    let mut url = realm.clone();
    {
        let mut pairs = url.query_pairs_mut();
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        for scope in scopes {
            pairs.append_pair("scope", scope);
        }
    }
    Outgoing::new(Method::GET, url)
}

fn refresh(realm: &Url, service: Option<&str>, scopes: &[String], token: &str) -> Outgoing {
    let mut form = realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", token)
        .append_pair("client_id", CLIENT_ID)
        .append_pair("access_type", "offline")
        .append_pair("scope", &scopes.join(" "));
    if let Some(service) = service {
        form.query_pairs_mut().append_pair("service", service);
    }
    let mut request = Outgoing::new(Method::POST, realm.clone());
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    request.body = Some(form.query().unwrap_or_default().to_owned().into());
    request
}
