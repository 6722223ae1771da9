//! TLS by rustls with ring, and whose certificates are believed.
//!
//! The authorities are the system's bundle, read as a file (no platform verifier, nothing loaded at
//! run time: the program is static), and for one host those of its `certs.d` directory besides.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};

use crate::error::{Error, Result};

/// Where distributions keep the bundle of authorities: Debian, Red Hat, SUSE, Alpine.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is particular to the TLS of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsSettings {
    /// Files of PEM certificates to trust besides the system's.
    pub(crate) authorities: Vec<PathBuf>,
    /// Certificate and key to show (mutual TLS); the key may be in the certificate's file.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Believe any certificate.
    pub(crate) skip_verify: bool,
}

/// The system's authorities, read once, when the first secure connection is made.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    pub(crate) file: Option<PathBuf>,
    system: OnceLock<Arc<RootCertStore>>,
}

impl Authorities {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, system: OnceLock::new() }
    }

    fn system(&self) -> Arc<RootCertStore> {
        Arc::clone(self.system.get_or_init(|| {
            let bundle = match &self.file {
                Some(file) => Some(file.clone()),
                None => BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()),
            };
            let mut roots = RootCertStore::empty();
            // A bundle that cannot be read leaves no authority, and the first handshake says so.
            roots.add_parsable_certificates(
                rustls_native_certs::load_certs_from_paths(bundle.as_deref(), None).certs,
            );
            Arc::new(roots)
        }))
    }

    /// A configuration that trusts nobody.
    pub(crate) fn none() -> Result<ClientConfig> {
        Ok(versions(Arc::new(ring::default_provider()))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth())
    }

    /// The TLS configuration for a host with these settings.
    pub(crate) fn client(&self, settings: &TlsSettings) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = versions(Arc::clone(&provider))?;
        let builder = if settings.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(BelieveAnyone(provider)))
        } else if settings.authorities.is_empty() {
            builder.with_root_certificates(self.system())
        } else {
            let mut roots = (*self.system()).clone();
            for path in &settings.authorities {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
                }
            }
            builder.with_root_certificates(roots)
        };
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| unusable(certificate, &error.to_string()))?,
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// TLS 1.2 and 1.3.
fn versions(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls { host: "this program".to_owned(), cause: error.to_string() })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unusable(path, "it holds no certificate in PEM form")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, problem: &str) -> Error {
    Error::Configuration { path: path.to_owned(), problem: problem.to_owned() }
}

/// The verifier of registries that are configured as insecure: any certificate will do, though the
/// handshake's signature must still be made with its key.
#[derive(Debug)]
struct BelieveAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
