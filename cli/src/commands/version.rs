//! `onggi version`.

use serde_json::json;

use crate::failure::Failure;
use crate::output::template::Template;
use crate::session::Session;

/// Show the version
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Format the output: `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let version = env!("CARGO_PKG_VERSION");
        let platform = onggi_engine::oci::Platform::host();
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let value = json!({
            "Client": {
                "Version": version,
                "Os": platform.os,
                "Arch": platform.architecture,
                "KernelVersion": kernel,
            },
        });
        session.print(&match self.format.as_deref() {
            Some("json") => format!("{value}\n"),
            Some(format) => {
                Template::parse(format).and_then(|t| t.render(&value)).map_err(Failure::template)? + "\n"
            }
            None => format!("onggi:\n Version:  {version}\n OS/Arch:  {platform}\n Kernel:   {kernel}\n"),
        })
    }
}
