//! The `onggi` command: arguments in, words out.
//!
//! ```text
//!   main ──► arguments (clap)  ──► commands/<one per subcommand> ──► onggi-engine
//!              session (environment, engine)    │
//!              failure (hints, exit codes) ◄────┴──► output (tables, templates, progress)
//! ```
//!
//! This crate alone prints, exits and reads the environment and the terminal.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "a binary has no public interface")]

mod arguments;
mod attached;
mod commands;
mod failure;
mod oci;
mod output;
mod session;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A supervisor is small: nothing of the command line is for it.
    if let Some(status) = onggi_engine::containers::supervisor::supervise(std::env::args_os()) {
        return ExitCode::from(status);
    }
    if let Some(arguments) = oci::requested(std::env::args_os()) {
        return oci::main(arguments);
    }
    match arguments::parse(std::env::args_os()) {
        Ok((session, command)) => match command.run(&session) {
            Ok(code) => code,
            Err(failure) => failure.report(),
        },
        Err(usage) => usage.report(),
    }
}
