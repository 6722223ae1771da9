//! `onggi manifest`: one name for images of several platforms.

use std::sync::Arc;

use onggi_engine::oci::Reference;
use onggi_engine::progress::{Progress, Silent};
use onggi_engine::{Engine, ListedPlatform, PushRequest};

use crate::failure::Failure;
use crate::session::Session;

/// Commands about manifest lists.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a list of images for several platforms
    Create(CreateOptions),
    /// Add images to a list
    Add(AddOptions),
    /// Say for which platform an image of a list is
    Annotate(AnnotateOptions),
    /// Show a list or an image's manifest
    Inspect(InspectOptions),
    /// Upload a list and its images to a registry
    Push(PushOptions),
    /// Take an image out of a list
    Remove(RemoveOptions),
    /// Remove lists; their images stay
    Rm(RmOptions),
    /// Whether there is a list of this name: status 0 or 1
    Exists(ExistsOptions),
}

#[derive(Debug, clap::Args)]
pub struct CreateOptions {
    /// Add to a list that is there
    #[arg(short, long)]
    amend: bool,
    /// Speak to the registries of these images without verified TLS
    #[arg(long)]
    insecure: bool,
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: Reference,
    /// Images of the store, else of their registry
    #[arg(value_name = "MANIFEST")]
    members: Vec<Reference>,
}

/// The platform of an entry.
#[derive(Debug, clap::Args)]
pub struct PlatformOptions {
    /// Architecture
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<String>,
    /// Operating system
    #[arg(long, value_name = "SYSTEM")]
    os: Option<String>,
    /// Feature of the operating system
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
}

impl PlatformOptions {
    fn platform(self) -> ListedPlatform {
        ListedPlatform {
            os: self.os,
            architecture: self.arch,
            variant: self.variant,
            os_version: self.os_version,
            os_features: self.os_features,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct AddOptions {
    #[command(flatten)]
    platform: PlatformOptions,
    /// Speak to the registries of these images without verified TLS
    #[arg(long)]
    insecure: bool,
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: Reference,
    /// Images of the store, else of their registry
    #[arg(value_name = "MANIFEST", required = true)]
    members: Vec<Reference>,
}

#[derive(Debug, clap::Args)]
pub struct AnnotateOptions {
    #[command(flatten)]
    platform: PlatformOptions,
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: Reference,
    /// An image of the list: its name in the store, or its manifest's digest
    #[arg(value_name = "MANIFEST")]
    member: String,
}

#[derive(Debug, clap::Args)]
pub struct InspectOptions {
    /// Speak to the registry without verified TLS
    #[arg(long)]
    insecure: bool,
    /// Show each image's own manifest too
    #[arg(short, long)]
    verbose: bool,
    /// A list or an image, in the store or in its registry
    #[arg(value_name = "MANIFEST")]
    name: Reference,
}

#[derive(Debug, clap::Args)]
pub struct PushOptions {
    /// Speak to the registry without verified TLS
    #[arg(long)]
    insecure: bool,
    /// Remove the list after the push
    #[arg(short, long, alias = "rm")]
    purge: bool,
    /// Push all images of the list, which is always done
    #[arg(long)]
    all: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: Reference,
    /// Another name to push it to, possibly with docker://
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct RemoveOptions {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: Reference,
    /// An image of the list: its name in the store, or its manifest's digest
    #[arg(value_name = "MANIFEST")]
    member: String,
}

#[derive(Debug, clap::Args)]
pub struct RmOptions {
    /// Names of lists
    #[arg(value_name = "MANIFEST_LIST", required = true)]
    lists: Vec<Reference>,
}

#[derive(Debug, clap::Args)]
pub struct ExistsOptions {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    list: Reference,
}

/// The engine; with `insecure`, these registries may be spoken to without verified TLS.
fn engine(session: &Session, insecure: bool, names: &[&Reference]) -> Result<Engine, Failure> {
    let engine = session.engine()?;
    if !insecure {
        return Ok(engine);
    }
    let mut settings = engine.settings().clone();
    settings.registry.insecure.extend(names.iter().map(|name| name.registry().to_owned()));
    Ok(Engine::new(settings))
}

impl Command {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(options) => {
                let names: Vec<&Reference> = options.members.iter().collect();
                let engine = engine(session, options.insecure, &names)?;
                engine.create_manifest_list(&options.list, &options.members, options.amend, &Silent)?;
                session.print(&format!("Created manifest list {}\n", options.list.clone().with_default_tag()))
            }
            Self::Add(options) => {
                let names: Vec<&Reference> = options.members.iter().collect();
                let engine = engine(session, options.insecure, &names)?;
                let platform = options.platform.platform();
                let digest =
                    engine.add_to_manifest_list(&options.list, &options.members, &platform, &Silent)?;
                session.print(&format!("{digest}\n"))
            }
            Self::Annotate(options) => {
                let platform = options.platform.platform();
                session.engine()?.annotate_manifest_list(&options.list, &options.member, &platform)?;
                Ok(())
            }
            Self::Inspect(options) => {
                let engine = engine(session, options.insecure, &[&options.name])?;
                let value = engine.inspect_manifest(&options.name, options.verbose)?;
                session.print(&format!("{value:#}\n"))
            }
            Self::Push(options) => options.run(session),
            Self::Remove(options) => {
                let digest = session.engine()?.remove_from_manifest_list(&options.list, &options.member)?;
                session.print(&format!("{digest}\n"))
            }
            Self::Rm(options) => {
                let engine = session.engine()?;
                options.lists.iter().try_for_each(|list| Ok(engine.remove_manifest_list(list)?))
            }
            Self::Exists(options) => match session.engine()?.has_manifest_list(&options.list)? {
                true => Ok(()),
                false => Err(Failure::Silent(1)),
            },
        }
    }
}

impl PushOptions {
    fn run(self, session: &Session) -> Result<(), Failure> {
        let to = match &self.destination {
            Some(text) => {
                let text = text.strip_prefix("docker://").unwrap_or(text);
                Some(text.parse::<Reference>().map_err(|error| Failure::Input(error.to_string()))?)
            }
            None => None,
        };
        let engine = engine(session, self.insecure, &[to.as_ref().unwrap_or(&self.list)])?;
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let pushed =
            engine.push_manifest_list(&self.list, to.as_ref(), &PushRequest::default(), &progress)?;
        if self.purge {
            engine.remove_manifest_list(&self.list)?;
        }
        if self.quiet { Ok(()) } else { session.print(&format!("{}\n", pushed.digest)) }
    }
}
