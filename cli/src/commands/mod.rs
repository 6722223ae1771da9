//! The subcommands, one file each: its options, and what it does with the engine.

mod attach;
mod build;
mod builder;
mod commit;
mod completion;
mod container;
mod cp;
mod create;
mod diff;
mod each;
mod environment;
mod events;
mod exec;
mod export;
mod filter;
mod history;
mod image;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod login;
mod logout;
mod logs;
mod man;
mod manifest;
mod network;
mod pause;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod search;
mod start;
mod stats;
mod stop;
mod system;
mod tag;
mod top;
mod unpause;
mod update;
mod version;
mod volume;
mod wait;

use std::process::ExitCode;

use crate::failure::Failure;
use crate::session::Session;

pub use run::Options as RunOptions;

/// What `onggi` can be told to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run a command in a new container
    Run(Box<run::Options>),
    /// Create a new container
    Create(Box<create::Options>),
    /// Run a command in a running container
    Exec(exec::Options),
    /// Show what a container's program wrote
    Logs(logs::Options),
    /// Copy files or directories between a container and the host
    Cp(cp::Options),
    /// Show what a container changed of its files
    Diff(diff::Options),
    /// Make an image of what a container changed
    Commit(commit::Options),
    /// Write all files of a container to a tar archive
    Export(export::Options),
    /// Make an image of the files in a tar archive
    Import(import::Options),
    /// List port mappings or a specific mapping for the container
    Port(port::Options),
    /// Show what happens to containers, images and volumes, as it happens
    Events(events::Options),
    /// Show what running containers use
    Stats(stats::Options),
    /// Show the processes of a container
    Top(top::Options),
    /// Start stopped containers
    Start(start::Options),
    /// Stop running containers
    Stop(stop::Options),
    /// Restart containers
    Restart(restart::Options),
    /// Kill running containers
    Kill(kill::Options),
    /// Pause all processes within containers
    Pause(pause::Options),
    /// Unpause all processes within containers
    Unpause(unpause::Options),
    /// Block until containers stop, then print their exit codes
    Wait(wait::Options),
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Options),
    /// Rename a container
    Rename(rename::Options),
    /// Update configuration of containers
    Update(update::Options),
    /// List containers
    Ps(ps::Options),
    /// Remove containers
    Rm(rm::Options),
    /// Build an image from a build file
    Build(Box<build::Options>),
    /// Manage builds
    #[command(subcommand)]
    Builder(builder::Command),
    /// Download an image from a registry
    Pull(pull::Options),
    /// Upload an image to a registry
    Push(push::Options),
    /// List images
    Images(images::Options),
    /// Remove images
    Rmi(rmi::Options),
    /// Give an image another name
    Tag(tag::Options),
    /// Show how an image came to be
    History(history::Options),
    /// Show everything about images
    Inspect(inspect::Options),
    /// Write images to an archive
    Save(save::Options),
    /// Read images from an archive
    Load(load::Options),
    /// Search a registry for repositories
    Search(search::Options),
    /// Log in to a registry
    Login(login::Options),
    /// Log out of a registry
    Logout(logout::Options),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Command),
    /// Manage manifest lists: one name for images of several platforms
    #[command(subcommand)]
    Manifest(manifest::Command),
    /// Manage images
    #[command(subcommand)]
    Image(image::Command),
    /// Manage containers
    #[command(subcommand)]
    Container(container::Command),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volume::Command),
    /// Look after the store
    #[command(subcommand)]
    System(system::Command),
    /// Show what onggi found on this machine
    Info(info::Options),
    /// Show the version
    Version(version::Options),
    /// Print a completion script for a shell
    Completion(completion::Options),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Options),
}

impl Command {
    /// Does it.
    pub fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::Run(options) => return options.run(session),
            Self::Exec(options) => return options.run(session),
            Self::Start(options) => return options.run(session),
            Self::Attach(options) => return options.run(session),
            Self::Container(command) => return command.run(session),
            Self::Stop(options) => options.run(session),
            Self::Restart(options) => options.run(session),
            Self::Kill(options) => options.run(session),
            Self::Pause(options) => options.run(session),
            Self::Unpause(options) => options.run(session),
            Self::Wait(options) => options.run(session),
            Self::Rename(options) => options.run(session),
            Self::Update(options) => options.run(session),
            Self::Create(options) => options.run(session),
            Self::Logs(options) => options.run(session),
            Self::Cp(options) => options.run(session),
            Self::Diff(options) => options.run(session),
            Self::Commit(options) => options.run(session),
            Self::Export(options) => options.run(session),
            Self::Import(options) => options.run(session),
            Self::Port(options) => options.run(session),
            Self::Events(options) => options.run(session),
            Self::Stats(options) => options.run(session),
            Self::Top(options) => options.run(session),
            Self::Ps(options) => options.run(session),
            Self::Rm(options) => options.run(session),
            Self::Build(options) => options.run(session),
            Self::Builder(command) => command.run(session),
            Self::Pull(options) => options.run(session),
            Self::Push(options) => options.run(session),
            Self::Images(options) => options.run(session),
            Self::Rmi(options) => options.run(session),
            Self::Tag(options) => options.run(session),
            Self::History(options) => options.run(session),
            Self::Inspect(options) => options.run(session),
            Self::Save(options) => options.run(session),
            Self::Load(options) => options.run(session),
            Self::Search(options) => options.run(session),
            Self::Login(options) => options.run(session),
            Self::Logout(options) => options.run(session),
            Self::Network(command) => command.run(session),
            Self::Image(command) => command.run(session),
            Self::Manifest(command) => command.run(session),
            Self::Volume(command) => command.run(session),
            Self::System(command) => command.run(session),
            Self::Info(options) => options.run(session),
            Self::Version(options) => options.run(session),
            Self::Completion(options) => options.run(session),
            Self::Man(options) => options.run(session),
        }
        .map(|()| ExitCode::SUCCESS)
    }
}
