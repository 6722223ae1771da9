//! Images in motion: what onggi says to registries, and what it believes of their answers.
//!
//! ```text
//!   Client ─┬─ resolve, peek ─────► manifest.rs    documents, bounded and checked
//!           ├─ blob ──────────────► blob.rs        a continuous stream, resumed and verified
//!           ├─ push_blob, upload ─► upload.rs      existence, mount, upload, resume
//!           ├─ login ─────────────► login.rs
//!           └─ download ──────────► download.rs    plain files of the web
//!                    │
//!              client.rs   hosts of a registry in order (hosts/: certs.d, hosts.toml, loopback)
//!              endpoint.rs one host: proof, redirects, repeats (auth/, credentials/, retry.rs)
//!              transport.rs one exchange (tls.rs, dns.rs)
//! ```
//!
//! # Why so little of `oci-client` is here
//!
//! `oci-client` gives the error envelope of the distribution specification and its codes
//! ([`answer`]), and its header parser (`http-auth`) is ours too. Its `Client` could not carry the
//! rest, and there is no way to give it another transport: manifests and refusals are read without
//! a bound; a token is asked for after an extra `GET /v2/` for each repository, by every request
//! that waits for it, and never by an identity token; one token cannot name two repositories, which
//! Docker Hub wants for a mount; a mount answered by 202 is an error, and its upload session is
//! lost; 429 and 5xx are final, and `Retry-After` is not read; there is no client certificate, no
//! per-host authority, no fallback between hosts; a transfer that breaks starts at its first byte
//! for whoever needs its digest; the URLs of foreign layers are followed.
//!
//! The library reads no environment, prints nothing, and needs a tokio runtime only for the network.
#![forbid(unsafe_code)]

mod answer;
mod auth;
mod blob;
mod client;
mod credentials;
mod dns;
mod download;
mod endpoint;
mod error;
mod hosts;
mod login;
mod manifest;
mod options;
mod retry;
mod search;
mod source;
mod tags;
mod tls;
mod transport;
mod upload;

pub use auth::Challenge;
pub use blob::BlobStream;
pub use client::Client;
pub use credentials::{CredentialStore, Credentials, DOCKER_HUB_KEY, Stored};
pub use download::{Download, Validators};
pub use error::{Error, Result};
pub use manifest::Resolved;
pub use options::{DEFAULT_TRANSFERS, Options, ProxyOptions, RetryPolicy, Timeouts, UploadOptions};
pub use search::Found;
pub use source::BlobSource;
pub use upload::{Progress, Pushed, Upload};
