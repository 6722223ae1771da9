//! Instructions with their meaning: flags, arguments and forms checked; variables not yet looked at.

mod flags;
mod health;
mod mount;
mod read;

use onggi_oci::Healthcheck;

use super::lint::Linter;
use super::problem::{Diagnostic, Lines, Problem};
use super::syntax::File;
use crate::graph::{Device, Network, Security};

pub(crate) use health::duration_text;
pub(crate) use mount::fields;
pub(crate) use mount::from as mount_from;
pub use mount::{Mount, MountType};
pub(crate) use read::instruction;

/// A Dockerfile's instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// `ARG`s above the first stage.
    pub arguments: Vec<Instruction>,
    /// The stages in their order.
    pub stages: Vec<Stage>,
}

/// `FROM` and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// An image or an earlier stage, as written.
    pub base: String,
    /// Its name, in small letters.
    pub name: Option<String>,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// `FROM` as written.
    pub keyword: String,
    /// The line.
    pub code: String,
    /// Where.
    pub lines: Lines,
    /// Comments above.
    pub comments: Vec<String>,
    /// The one that describes the stage: `# name does this`.
    pub description: Option<String>,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its name as written.
    pub name: String,
    /// All of it on one line, without heredocs.
    pub code: String,
    /// Where.
    pub lines: Lines,
    /// Comments above.
    pub comments: Vec<String>,
    /// What it is.
    pub kind: Kind,
}

/// What an instruction is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the instructions say it")]
pub enum Kind {
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Arg(Vec<Argument>),
    Maintainer(String),
    Add(Box<Transfer>),
    Copy(Box<Transfer>),
    Run(Box<Run>),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Healthcheck(Healthcheck),
    Expose(Vec<String>),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
    StopSignal(String),
    Shell(Vec<String>),
    /// What is to be done in images built from this one.
    Onbuild(String),
}

/// `key=value`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What is set.
    pub key: String,
    /// To what.
    pub value: String,
    /// Whether it was written without `=`.
    pub legacy: bool,
}

/// `ARG name=value`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its default.
    pub value: Option<String>,
    /// The comment that describes it: `# name sets this`.
    pub description: Option<String>,
}

/// The arguments of `CMD`, `ENTRYPOINT` and `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// A program and its arguments, or one text for the shell.
    pub arguments: Vec<String>,
    /// Whether a shell reads it: it was no JSON list.
    pub shell: bool,
}

/// `RUN`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Heredocs.
    pub heredocs: Vec<super::syntax::Heredoc>,
    /// `--mount` as written: variables in them count.
    pub mounts: Vec<String>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`
    pub devices: Vec<Device>,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Paths, URLs, repositories.
    pub sources: Vec<String>,
    /// Heredocs among the sources.
    pub contents: Vec<super::syntax::Heredoc>,
    /// Where to.
    pub destination: String,
    /// `--from`
    pub from: Option<String>,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--exclude`
    pub exclude: Vec<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--keep-git-dir`, if it was given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, if it was given.
    pub unpack: Option<bool>,
}

/// Understands a Dockerfile's instructions.
///
/// # Errors
/// The first instruction that makes no sense.
pub fn document(file: &File, linter: &mut Linter) -> Result<Document, Diagnostic> {
    let mut document = Document { arguments: Vec::new(), stages: Vec::new() };
    for node in &file.nodes {
        linter.enter(&node.comments);
        let unreadable = |problem: Diagnostic| Diagnostic { unreadable: true, ..problem };
        if node.name.eq_ignore_ascii_case("from") {
            document.stages.push(read::stage(node, linter).map_err(unreadable)?);
            continue;
        }
        let instruction = instruction(node, linter).map_err(unreadable)?;
        match document.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, Kind::Arg(_)) => document.arguments.push(instruction),
            None => return Err(Diagnostic::at(Problem::NoStage, node.lines).with_word(node.name.as_str())),
        }
    }
    linter.leave();
    Ok(document)
}

#[cfg(test)]
mod tests;
