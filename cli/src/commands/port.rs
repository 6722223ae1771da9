//! `onggi port`: the published ports of a container.

use onggi_engine::network::Protocol;

use super::network::of_container::{address, published_of};
use crate::failure::Failure;
use crate::session::Session;

/// List port mappings or a specific mapping for the container
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The container, by name or ID
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    port: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let engine = session.engine()?;
        let details = engine.container(&self.container)?;
        let published = published_of(&engine, &details)?;
        let Some(wanted) = self.port else {
            let line = |port: &onggi_engine::network::Published| {
                format!("{}/{} -> {}\n", port.container_port, port.protocol, address(port))
            };
            return session.print(&published.iter().map(line).collect::<String>());
        };
        let (number, protocol) = wanted.split_once('/').unwrap_or((&wanted, "tcp"));
        let bad = || Failure::Input(format!("invalid port {wanted:?}: expected PORT[/PROTOCOL]"));
        let number: u16 = number.parse().map_err(|_| bad())?;
        let protocol: Protocol = protocol.parse().map_err(|_| bad())?;
        let found =
            published.iter().filter(|port| port.container_port == number && port.protocol == protocol);
        let text: String = found.map(|port| address(port) + "\n").collect();
        if text.is_empty() {
            let sentence = format!("no public port '{number}/{protocol}' published for {}", self.container);
            return Err(Failure::Input(sentence));
        }
        session.print(&text)
    }
}
