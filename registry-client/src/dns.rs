//! Names to addresses without the C library: a static glibc program would have to load NSS modules
//! of the machine's own glibc at run time. `/etc/hosts` and `/etc/resolv.conf` are honoured.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The resolver of one client. The system's configuration is read at the first look-up; a machine
/// without one can still use addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    resolver: Arc<OnceLock<TokioResolver>>,
}

/// A name that could not be resolved, as found in the chain of causes of a request's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unresolved(String);

impl Resolver {
    fn resolver(&self) -> Result<&TokioResolver, Unresolved> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let unusable =
            |error: &dyn std::fmt::Display| Unresolved(format!("/etc/resolv.conf is not usable: {error}"));
        let mut builder = TokioResolver::builder_tokio().map_err(|error| unusable(&error))?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build().map_err(|error| unusable(&error))?;
        Ok(self.resolver.get_or_init(|| resolver))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found = this.resolver()?.lookup_ip(name.as_str()).await;
            let found = found.map_err(|error| Unresolved(error.to_string()))?;
            let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
