//! `onggi login`: checks credentials against a registry and keeps them.

use std::io::{BufRead, IsTerminal, Read, Write};

use crate::failure::Failure;
use crate::session::Session;

/// The longest password that is read; tokens of cloud registries have a few kilobytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Password or access token (visible to others in the process list: prefer --password-stdin)
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Host and port of the registry; Docker Hub if none is named
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Options {
    #[expect(clippy::print_stderr, reason = "prompts and warnings are not the command's answer")]
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        let username = match (self.username, self.password_stdin) {
            (Some(name), _) => name,
            (None, true) => {
                return Err(Failure::Input("Must provide --username with --password-stdin".into()));
            }
            (None, false) => prompt("Username: ")?,
        };
        let password = match (self.password, self.password_stdin) {
            (Some(password), _) => {
                eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
                password
            }
            (None, true) => {
                let mut text = String::new();
                std::io::stdin()
                    .take(MAX_PASSWORD)
                    .read_to_string(&mut text)
                    .map_err(Failure::local("read the password from standard input"))?;
                text.trim_end_matches(['\n', '\r']).to_owned()
            }
            (None, false) => secret_prompt("Password: ")?,
        };
        let server = self.server.as_deref();
        let login = session.engine()?.login(server, &username, &password)?;
        if let Some(file) = login.stored_in_plain_text {
            eprintln!(
                "WARNING! Your credentials are stored unencrypted in '{}'.\n\
                 Configure a credential helper to remove this warning (\"credsStore\" in that file).",
                file.display()
            );
        }
        writeln!(std::io::stdout(), "Login Succeeded").map_err(Failure::Output)
    }
}

fn prompt(text: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Input(
            "cannot ask for credentials without a terminal: use --username and --password-stdin".into(),
        ));
    }
    let failed = "ask on the terminal";
    let mut out = std::io::stdout();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::local(failed))?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Failure::local(failed))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn secret_prompt(text: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    let terminal = std::io::stdin();
    let shown = tcgetattr(&terminal);
    if let Ok(shown) = &shown {
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(&terminal, OptionalActions::Flush, &hidden);
    }
    let answer = prompt(text);
    if let Ok(shown) = shown {
        let _ = tcsetattr(&terminal, OptionalActions::Flush, &shown);
        let _ = writeln!(std::io::stdout());
    }
    answer
}
