//! The command line as a whole: global options, the tree of subcommands, Docker's manners.
//!
//! Docker's flags differ from clap's in three ways that hands remember, and all are settled here for
//! all commands at once: a switch may be written `--rm=false`, of a flag that is given twice the last
//! counts, and a wrong flag ends with status 125.

use std::ffi::OsString;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Command as ClapCommand, CommandFactory, FromArgMatches, Parser};

use crate::attached;
use crate::commands::{Command, RunOptions};
use crate::failure::Failure;
use crate::session::{GlobalOptions, Session};

/// Daemonless container images: pull, build, run, push.
#[derive(Debug, Parser)]
#[command(name = "onggi", version, disable_version_flag = true, propagate_version = false)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    global: GlobalOptions,
    /// Print the version and exit
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    command: Command,
}

/// Reads the command line.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<(Session, Command), Failure> {
    let words: Vec<OsString> = words.into_iter().collect();
    // The whole tree takes longer to build than a container takes to start.
    if words.get(1).is_some_and(|word| word == "run") {
        return parse_run(words);
    }
    let command = command_line();
    let words = attached::detach(&command, words);
    let matches = command.try_get_matches_from(words)?;
    let arguments = Arguments::from_arg_matches(&matches)?;
    Ok((Session::new(arguments.global), arguments.command))
}

/// Reads the command line of `run`, with nothing of the tree but that command.
fn parse_run(words: Vec<OsString>) -> Result<(Session, Command), Failure> {
    let run = RunOptions::augment_args(ClapCommand::new("run"));
    let command = GlobalOptions::augment_args(ClapCommand::new("onggi")).subcommand(run);
    let command = with_docker_switches(command);
    let words = attached::detach(&command, words);
    let matches = command.try_get_matches_from(words)?;
    let global = GlobalOptions::from_arg_matches(&matches)?;
    let run = matches.subcommand_matches("run").map(RunOptions::from_arg_matches).transpose()?;
    // The caller saw the word, so clap saw it too.
    Ok((Session::new(global), Command::Run(Box::new(run.expect("the first word is the subcommand")))))
}

/// The whole tree of commands, also for completions and manual pages.
pub fn command_line() -> ClapCommand {
    with_docker_switches(Arguments::command())
}

/// Lets every switch take an optional `=true` or `=false`, as Go's flags do.
fn with_docker_switches(command: ClapCommand) -> ClapCommand {
    command
        .args_override_self(true)
        .mut_args(|arg| {
            if !matches!(arg.get_action(), ArgAction::SetTrue) {
                return arg;
            }
            arg.action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .value_parser(BoolishValueParser::new())
                .default_value("false")
                .default_missing_value("true")
                .hide_default_value(true)
                .hide_possible_values(true)
                .value_name("BOOL")
        })
        .mut_subcommands(with_docker_switches)
}

/// The exit status for a command line that makes no sense: 125 for a wrong flag, else 1, as Docker.
pub fn usage_status(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::InvalidSubcommand
        | ErrorKind::TooFewValues
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 1,
        _ => 125,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        command_line().debug_assert();
    }
}
