//! Manifests and indexes: small documents that a tag or a digest names.
//!
//! ```text
//!   GET /v2/<repository>/manifests/<tag or digest>
//!   ──► 200  Content-Type: application/vnd.oci.image.index.v1+json
//!            Docker-Content-Digest: sha256:…
//!            {"schemaVersion":2,"manifests":[…]}
//! ```
//!
//! At most 4 MiB are read. The digest is computed, never taken from the header; a header that says
//! another one is an error. Media type and content must agree.

use bytes::Bytes;
use onggi_oci::{Algorithm, Descriptor, Digest, MAX_MANIFEST, Manifest, MediaType, Reference};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};

use crate::answer::Subject;
use crate::auth::Access;
use crate::client::{Client, Purpose, repository_name};
use crate::endpoint::{Call, Target};
use crate::error::{Error, Result};
use crate::transport;

/// What we can read, in the words of `Accept`.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or index with the bytes its digest names.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The bytes as the registry sent them.
    pub bytes: Bytes,
    /// Their media type.
    pub media_type: MediaType,
    /// Their digest: of the algorithm that the reference's digest has, else SHA-256.
    pub digest: Digest,
    /// What they mean.
    pub manifest: Manifest,
}

impl Resolved {
    /// The descriptor of these bytes.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }
}

impl Client {
    /// The manifest or index that a reference means. A reference with a digest is asked for by that
    /// digest; one with neither tag nor digest means `latest`.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let purpose = if reference.digest().is_some() { Purpose::Pull } else { Purpose::Resolve };
        let subject = Subject::Manifest(reference.to_string());
        let call = manifest_call("fetch", &subject, Method::GET, reference);
        let (endpoint, response) =
            self.inner.first(reference.registry(), purpose, &call, &[StatusCode::OK]).await?;
        let media_type = content_type(response.headers());
        let stated = stated_digest(response.headers());
        let object = format!("the manifest of {reference}");
        let body = self.inner.transport.read_bounded(response, MAX_MANIFEST, call.operation, &object).await?;
        let algorithm = reference.digest().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &body);
        if let Some(expected) = reference.digest() {
            check(&object, expected, &digest)?;
        }
        match stated {
            Some(Ok(stated)) => check(&object, &stated, &Digest::of(stated.algorithm(), &body))?,
            Some(Err(text)) => {
                return Err(endpoint.problem(&call, format!("its Docker-Content-Digest is {text:?}")));
            }
            None => {}
        }
        let manifest = Manifest::parse(&body, media_type.as_ref())
            .map_err(|source| Error::Manifest { reference: reference.to_string(), source })?;
        let media_type = manifest.media_type();
        Ok(Resolved { bytes: body.into(), media_type, digest, manifest })
    }

    /// The manifest that a descriptor of an index names, by its digest; its size is checked too.
    pub async fn manifest(&self, repository: &Reference, descriptor: &Descriptor) -> Result<Resolved> {
        if descriptor.size > MAX_MANIFEST {
            let object = format!("the manifest {} of {}", descriptor.digest, repository_name(repository));
            return Err(Error::TooLarge { object, limit: MAX_MANIFEST });
        }
        let reference = repository.without_tag().with_digest(descriptor.digest.clone());
        let resolved = self.resolve(&reference).await?;
        let actual = resolved.bytes.len() as u64;
        if actual != descriptor.size {
            let object = format!("the manifest of {reference}");
            return Err(Error::SizeMismatch { object, expected: descriptor.size, actual });
        }
        Ok(resolved)
    }

    /// What a tag means at this moment, as the registry says, without fetching it (Docker Hub does
    /// not count this as a pull); none if the registry has no such tag. The digest is a claim until
    /// the content has been fetched.
    pub async fn peek(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let subject = Subject::Manifest(reference.to_string());
        let call = manifest_call("look up", &subject, Method::HEAD, reference);
        let purpose = if reference.digest().is_some() { Purpose::Pull } else { Purpose::Resolve };
        let found = self.inner.first(reference.registry(), purpose, &call, &[StatusCode::OK]).await;
        let headers = match found {
            Ok((_, response)) => response.headers().clone(),
            Err(Error::ManifestNotFound { .. } | Error::RepositoryNotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let (Some(media_type), Some(Ok(digest)), Some(size)) =
            (content_type(&headers), stated_digest(&headers), transport::content_length(&headers))
        {
            return Ok(Some(Descriptor::new(media_type, digest, size)));
        }
        // The headers are optional; the document is not.
        self.resolve(reference).await.map(|resolved| Some(resolved.descriptor()))
    }

    /// Puts a manifest or index under the reference's tag, or under its digest if it has no tag.
    /// What it names must be in the repository already.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<Digest> {
        let digest = Digest::sha256(&bytes);
        if let Some(expected) = reference.digest() {
            check(&reference.to_string(), expected, &Digest::of(expected.algorithm(), &bytes))?;
        }
        let name = match reference.tag() {
            Some(tag) => tag.to_owned(),
            None => reference.digest().unwrap_or(&digest).to_string(),
        };
        let subject = Subject::Manifest(reference.to_string());
        let repository = reference.repository();
        let target = Target::Path(format!("{repository}/manifests/{name}"));
        let access = Access::push(repository);
        let mut call = Call::new("push", &subject, Method::PUT, target, repository, access);
        let value = HeaderValue::from_str(media_type.as_str()).map_err(|_| Error::Invalid {
            what: "media type",
            value: media_type.to_string(),
            problem: "it cannot be sent in an HTTP header".to_owned(),
        })?;
        call.headers.insert(CONTENT_TYPE, value);
        call.body = Some(bytes.clone());
        call.timeout = Some(self.inner.options.timeouts.commit);
        let endpoint = self.inner.push_endpoint(reference.registry())?;
        let expected = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let response = endpoint.expect(&call, &expected).await?;
        if let Some(Ok(stated)) = stated_digest(response.headers()) {
            check(
                &format!("the pushed manifest of {reference}"),
                &Digest::of(stated.algorithm(), &bytes),
                &stated,
            )?;
        }
        Ok(digest)
    }

    /// Removes a manifest by digest, or a tag where the registry can do that.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<()> {
        let subject = Subject::Manifest(reference.to_string());
        let mut call = manifest_call("delete", &subject, Method::DELETE, reference);
        call.access = Access::delete(reference.repository());
        let endpoint = self.inner.push_endpoint(reference.registry())?;
        endpoint
            .expect(&call, &[StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT])
            .await
            .map(drop)
    }
}

fn manifest_call<'a>(
    operation: &'static str,
    subject: &'a Subject,
    method: Method,
    reference: &'a Reference,
) -> Call<'a> {
    let repository = reference.repository();
    let name = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => onggi_oci::DEFAULT_TAG.to_owned(),
    };
    let target = Target::Path(format!("{repository}/manifests/{name}"));
    let mut call = Call::new(operation, subject, method, target, repository, Access::pull(repository));
    call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    call
}

/// The media type of an answer; none for those that servers give to any file.
fn content_type(headers: &HeaderMap) -> Option<MediaType> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let text = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match text.as_str() {
        "" | "application/json" | "application/octet-stream" | "text/plain" => None,
        _ => text.parse().ok(),
    }
}

/// `Docker-Content-Digest`, or its text if that is no digest.
fn stated_digest(headers: &HeaderMap) -> Option<Result<Digest, String>> {
    let value = headers.get("docker-content-digest")?;
    let text = value.to_str().unwrap_or_default().trim();
    Some(text.parse().map_err(|_| text.chars().take(100).collect()))
}

fn check(object: &str, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        object: object.to_owned(),
        expected: expected.clone(),
        actual: actual.clone(),
    })
}
