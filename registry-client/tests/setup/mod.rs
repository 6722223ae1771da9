//! What the tests of this crate share: impatient options and references.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::time::Duration;

use onggi_oci::{Descriptor, Reference};
use onggi_registry_client::{BlobStream, Client, Options, Result, RetryPolicy, Timeouts};
use onggi_testkit::Registry;

pub fn options() -> Options {
    Options {
        retry: RetryPolicy {
            retries: 3,
            base: Duration::from_millis(5),
            cap: Duration::from_millis(20),
            retry_after_cap: Duration::from_secs(3),
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(5),
            commit: Duration::from_secs(5),
            stall: Duration::from_millis(300),
        },
        ..Options::default()
    }
}

pub fn client() -> Client {
    Client::new(options()).unwrap()
}

pub fn reference(registry: &Registry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.address()).parse().unwrap()
}

pub async fn collect(stream: &mut BlobStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

pub async fn fetch(client: &Client, repository: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>> {
    collect(&mut client.blob(repository, descriptor).await?).await
}
