//! What one call of the command has to work with: the global options, the environment, the engine,
//! and the standard streams.

use std::io::{BufRead, IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use onggi_engine::image::store::Storage;
use onggi_engine::registry::{Options as RegistryOptions, ProxyOptions};
use onggi_engine::{Engine, Settings};

use crate::failure::Failure;

/// Options that stand before or after any subcommand.
#[derive(Debug, Default, clap::Args)]
pub struct GlobalOptions {
    /// Directory of images and containers [default: /var/lib/onggi or $XDG_DATA_HOME/onggi]
    #[arg(long, value_name = "DIR", global = true, display_order = 1000)]
    root: Option<PathBuf>,
    /// Directory of what a reboot may lose [default: /run/onggi or $XDG_RUNTIME_DIR/onggi]
    #[arg(long, value_name = "DIR", global = true, display_order = 1000)]
    runroot: Option<PathBuf>,
    /// Directory of config.json with credentials [default: $DOCKER_CONFIG or ~/.docker]
    #[arg(long, value_name = "DIR", global = true, display_order = 1000)]
    config: Option<PathBuf>,
    /// How new layers lie on disk: erofs (a file each, for root), dir, or auto, the best that works here
    #[arg(long, value_name = "FORMAT", global = true, display_order = 1000, value_parser = storage)]
    storage: Option<Storage>,
    /// A registry that may be spoken to without verified TLS; several are separated by commas
    #[arg(long, value_name = "HOST[:PORT]", global = true, display_order = 1000, value_delimiter = ',')]
    insecure_registry: Vec<String>,
}

/// One call of the command.
#[derive(Debug)]
pub struct Session {
    global: GlobalOptions,
}

impl Session {
    /// A session with these options.
    pub fn new(global: GlobalOptions) -> Self {
        Self { global }
    }

    /// The engine. It opens its store when that is first needed.
    pub fn engine(&self) -> Result<Engine, Failure> {
        Ok(Engine::new(self.settings()?))
    }

    /// The network of containers that name none, where the environment names one.
    pub fn default_network(&self) -> Option<String> {
        text("ONGGI_NETWORK")
    }

    /// Where devices are described (Container Device Interface).
    pub fn cdi_dirs(&self) -> Vec<PathBuf> {
        match text("ONGGI_CDI_DIRS") {
            Some(list) => std::env::split_paths(&list).collect(),
            None => ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).into(),
        }
    }

    /// Everything that the environment says about where things are.
    fn settings(&self) -> Result<Settings, Failure> {
        let home = path("HOME");
        let root = self.global.root.clone().or_else(|| path("ONGGI_ROOT"));
        let runroot = self.global.runroot.clone().or_else(|| path("ONGGI_RUNROOT"));
        let (root, runroot) = if onggi_engine::is_rootless() {
            let data = path("XDG_DATA_HOME").or_else(|| Some(home.as_ref()?.join(".local/share")));
            let volatile = path("XDG_RUNTIME_DIR").map(|dir| dir.join("onggi"));
            // A store elsewhere has its volatile files beside it: two stores must not share them.
            let runroot = runroot.or_else(|| root.as_deref().map(beside)).or(volatile);
            let root = root.or_else(|| Some(data?.join("onggi"))).ok_or_else(|| {
                Failure::Input("no place for the store: set HOME, XDG_DATA_HOME, ONGGI_ROOT or --root".into())
            })?;
            let runroot = runroot.unwrap_or_else(|| beside(&root));
            (root, runroot)
        } else {
            let runroot = runroot.or_else(|| root.as_deref().map(beside));
            (root.unwrap_or_else(|| "/var/lib/onggi".into()), runroot.unwrap_or_else(|| "/run/onggi".into()))
        };
        let publish_address = match text("ONGGI_PUBLISH_ADDRESS") {
            Some(text) => text.parse().map_err(|_| {
                Failure::Input(format!("ONGGI_PUBLISH_ADDRESS is {text:?}, which is no IP address"))
            })?,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let storage = match (self.global.storage, text("ONGGI_STORAGE")) {
            (Some(storage), _) => storage,
            (None, Some(text)) => {
                storage(&text).map_err(|e| Failure::Input(format!("ONGGI_STORAGE: {e}")))?
            }
            (None, None) => Storage::Auto,
        };
        Ok(Settings { root, runroot, publish_address, storage, registry: self.registry(home.as_deref()) })
    }

    fn registry(&self, home: Option<&Path>) -> RegistryOptions {
        let config = self.global.config.clone().or_else(|| path("DOCKER_CONFIG"));
        let config = config.or_else(|| Some(home?.join(".docker")));
        let user_certs = path("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
        let mut certs_dirs: Vec<PathBuf> =
            user_certs.map(|dir| dir.join("onggi/certs.d")).into_iter().collect();
        certs_dirs.extend(
            ["/etc/onggi/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"].map(PathBuf::from),
        );
        let mut insecure = self.global.insecure_registry.clone();
        if let Some(listed) = text("ONGGI_INSECURE_REGISTRIES") {
            insecure
                .extend(listed.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()));
        }
        let either = |upper: &str, lower: &str| text(lower).or_else(|| text(upper));
        RegistryOptions {
            docker_config: config.map(|dir| dir.join("config.json")),
            auth_file: path("REGISTRY_AUTH_FILE"),
            certs_dirs,
            insecure,
            proxy: ProxyOptions {
                http: either("HTTP_PROXY", "http_proxy"),
                https: either("HTTPS_PROXY", "https_proxy"),
                no_proxy: either("NO_PROXY", "no_proxy"),
            },
            ca_file: path("SSL_CERT_FILE"),
            ..RegistryOptions::default()
        }
    }

    /// Tells once in a store's life that owners are lost, where they are.
    pub fn tell_of_squashing(&self, engine: &Engine) -> Result<(), Failure> {
        if let Some(notice) = engine.squash_notice()? {
            self.warn(&notice);
        }
        Ok(())
    }

    /// Prints a part of the answer.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        std::io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)
    }

    /// Tells something beside the answer.
    #[expect(clippy::print_stderr, reason = "warnings belong to the error stream")]
    pub fn warn(&self, text: &str) {
        eprintln!("onggi: warning: {text}");
    }

    /// Tells on the error stream what was done.
    #[expect(clippy::print_stderr, reason = "the output stream is for answers")]
    pub fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Asks a question with yes or no; no is the answer of a stream that ends.
    pub fn confirm(&self, question: &str) -> Result<bool, Failure> {
        self.print(&format!("{question}\nAre you sure you want to continue? [y/N] "))?;
        std::io::stdout().flush().map_err(Failure::Output)?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(Failure::local("read the answer"))?;
        if !std::io::stdin().is_terminal() {
            self.print("\n")?;
        }
        Ok(matches!(line.trim(), "y" | "Y" | "yes"))
    }
}

/// The directory for volatile files of a store that is not in its usual place.
fn beside(root: &Path) -> PathBuf {
    let mut name = root.as_os_str().to_owned();
    name.push(".run");
    name.into()
}

fn storage(text: &str) -> Result<Storage, String> {
    text.parse()
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
