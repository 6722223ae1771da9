//! Instructions that change the config, and the way to those that make layers.

use onggi_oci::History;

use super::Planner;
use super::arguments::NOT_VARIABLES;
use super::checks;
use super::stage::Command;
use crate::dockerfile::instruction::{Argument, CommandLine, Instruction, Kind, Pair, duration_text};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::outline::Defined;
use crate::dockerfile::problem::{Diagnostic, Problem};
use crate::dockerfile::quote::{quoted, quoted_list};
use crate::dockerfile::words::Lexer;
use crate::graph::{File, FileAction, Mkdir, Op};
use crate::lexical::{clean, join};

type Result<T> = std::result::Result<T, Diagnostic>;

/// What BuildKit puts into each entry of the history.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// The most bytes of variables in one stage: a config that holds them is refused beyond that.
const MAX_VARIABLES: usize = 4 << 20;
/// The most variables and arguments of one stage.
const MAX_VARIABLE_COUNT: usize = 2000;

/// Signals by name (signal(7), amd64), as `STOPSIGNAL` takes them.
const SIGNALS: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

impl Planner<'_> {
    /// Plans one instruction of a stage.
    pub(super) fn command_of(&mut self, index: usize, command: &Command) -> Result<()> {
        let instruction = &command.instruction;
        let lines = instruction.lines;
        let fail = |problem: Problem, word: &str| Diagnostic::at(problem, lines).with_word(word);
        match &instruction.kind {
            Kind::Env(pairs) => self.env(index, instruction, pairs)?,
            Kind::Label(pairs) => {
                let mut text = "LABEL".to_owned();
                for pair in pairs {
                    if pair.legacy {
                        checks::legacy(self.linter, &instruction.name, lines);
                    }
                    let key = self.expand(index, instruction, &pair.key)?;
                    let value = self.expand(index, instruction, &pair.value)?;
                    text.push_str(&format!(" {key}={value}"));
                    self.states[index].config.config.labels.insert(key, value);
                }
                self.history(index, text, false);
            }
            Kind::Arg(arguments) => self.arg(index, instruction, arguments)?,
            Kind::Maintainer(name) => {
                self.states[index].config.author = Some(name.clone());
                self.history(index, format!("MAINTAINER {name}"), false);
            }
            Kind::Add(add) => self.transfer(index, command, add, true)?,
            Kind::Copy(copy) => self.transfer(index, command, copy, false)?,
            Kind::Run(run) => self.run(index, command, run)?,
            Kind::Cmd(line) => {
                checks::once(self.linter, &instruction.name, &mut self.states[index].cmd, lines);
                let arguments = self.shell_form(index, instruction, line);
                self.history(index, format!("CMD {}", quoted_list(&arguments)), false);
                let config = &mut self.states[index].config.config;
                config.cmd = (!arguments.is_empty()).then_some(arguments);
                config.args_escaped = true;
            }
            Kind::Entrypoint(line) => {
                checks::once(self.linter, &instruction.name, &mut self.states[index].entrypoint, lines);
                let arguments = self.shell_form(index, instruction, line);
                self.history(index, format!("ENTRYPOINT {}", quoted_list(&arguments)), false);
                let state = &mut self.states[index];
                state.config.config.entrypoint = (!arguments.is_empty()).then_some(arguments);
                if state.cmd.is_none() {
                    state.config.config.cmd = None;
                }
            }
            Kind::Healthcheck(check) => {
                checks::once(self.linter, &instruction.name, &mut self.states[index].healthcheck, lines);
                let text = format!(
                    "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
                    check.test.join(" "),
                    duration_text(check.interval),
                    duration_text(check.timeout),
                    duration_text(check.start_period),
                    duration_text(check.start_interval),
                    check.retries
                );
                self.history(index, text, false);
                self.states[index].config.config.healthcheck = Some(check.clone());
            }
            Kind::Expose(ports) => self.expose(index, instruction, ports)?,
            Kind::User(user) => {
                let user = self.expand(index, instruction, user)?;
                self.history(index, format!("USER {user}"), false);
                let state = &mut self.states[index];
                state.config.config.user.clone_from(&user);
                state.user = user;
            }
            Kind::Volume(paths) => {
                let mut expanded = Vec::new();
                for path in paths {
                    let path = self.expand(index, instruction, path)?;
                    if path.is_empty() {
                        return Err(fail(Problem::EmptyVolume, &instruction.name));
                    }
                    expanded.push(path);
                }
                self.history(index, format!("VOLUME [{}]", expanded.join(" ")), false);
                self.states[index].config.config.volumes.extend(expanded);
            }
            Kind::Workdir(path) => self.workdir(index, command, path)?,
            Kind::StopSignal(signal) => {
                let signal = self.expand(index, instruction, signal)?;
                if !is_signal(&signal) {
                    return Err(fail(Problem::Signal { signal: signal.clone() }, &signal));
                }
                self.history(index, format!("STOPSIGNAL {signal}"), false);
                self.states[index].config.config.stop_signal = Some(signal);
            }
            Kind::Shell(shell) => {
                self.history(index, format!("SHELL [{}]", shell.join(" ")), false);
                self.states[index].config.config.shell = Some(shell.clone());
            }
            Kind::Onbuild(text) => self.states[index].config.config.on_build.push(text.clone()),
        }
        Ok(())
    }

    /// A word of an instruction with the stage's variables in place.
    pub(super) fn expand(&mut self, index: usize, instruction: &Instruction, word: &str) -> Result<String> {
        self.expand_by(self.lexer(), index, instruction, word)
    }

    /// The same, read in another way.
    pub(super) fn expand_by(
        &mut self,
        lexer: Lexer,
        index: usize,
        instruction: &Instruction,
        word: &str,
    ) -> Result<String> {
        let state = &self.states[index];
        let result = lexer.expand(word, &state.variables);
        let missing = match &result {
            Ok(expanded) => &expanded.missing,
            Err(error) => &error.missing,
        };
        checks::undefined(self.linter, missing, &state.arguments, &state.variables, instruction.lines);
        result
            .map(|expanded| expanded.text)
            .map_err(|error| Diagnostic::at(error, instruction.lines).with_word(word))
    }

    /// Adds an entry to the history.
    pub(super) fn history(&mut self, index: usize, text: String, layer: bool) {
        self.states[index].config.history.push(History {
            created_by: Some(text),
            comment: Some(COMMENT.to_owned()),
            empty_layer: !layer,
            ..History::default()
        });
    }

    fn env(&mut self, index: usize, instruction: &Instruction, pairs: &[Pair]) -> Result<()> {
        let mut text = "ENV".to_owned();
        // All are expanded with what was before the instruction.
        let mut expanded = Vec::new();
        for pair in pairs {
            let key = self.expand(index, instruction, &pair.key)?;
            let value = self.expand(index, instruction, &pair.value)?;
            expanded.push((key, value, pair.legacy));
        }
        for (key, value, legacy) in expanded {
            if legacy {
                checks::legacy(self.linter, &instruction.name, instruction.lines);
            }
            checks::secret(self.linter, "ENV", &key, instruction.lines);
            text.push_str(&format!(" {key}={value}"));
            let state = &mut self.states[index];
            state.variables.set(&key, &value);
            let env = &mut state.config.config.env;
            let variable = format!("{key}={value}");
            match env.iter_mut().find(|known| known.split('=').next() == Some(key.as_str())) {
                Some(known) => *known = variable,
                None => env.push(variable),
            }
        }
        self.refuse_too_many_variables(index, instruction)?;
        self.history(index, text, false);
        Ok(())
    }

    fn arg(&mut self, index: usize, instruction: &Instruction, arguments: &[Argument]) -> Result<()> {
        let lines = instruction.lines;
        let mut texts = Vec::new();
        for argument in arguments {
            let name = &argument.name;
            checks::secret(self.linter, "ARG", name, lines);
            let given = self.build_args.get(name).cloned();
            let inherited = given.is_none() && argument.value.is_none();
            let global = self.globals.get(name).filter(|_| inherited).map(str::to_owned);
            let from_above = global.is_some();
            let value = match (given, &argument.value) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(self.expand(index, instruction, default)?),
                (None, None) => global,
            };
            let state = &mut self.states[index];
            if let Some(value) = &value
                && !NOT_VARIABLES.contains(&name.as_str())
            {
                state.variables.set(name, value);
            }
            if !from_above {
                state.capture.defined.insert(
                    name.clone(),
                    Defined {
                        value: value.clone().unwrap_or_default(),
                        description: argument.description.clone(),
                        needs: Vec::new(),
                        lines,
                    },
                );
            }
            state.capture.mark_used(name);
            texts.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            state.arguments.push(Argument { value, ..argument.clone() });
        }
        self.refuse_too_many_variables(index, instruction)?;
        self.history(index, format!("ARG {}", texts.join(" ")), false);
        Ok(())
    }

    fn refuse_too_many_variables(&self, index: usize, instruction: &Instruction) -> Result<()> {
        let state = &self.states[index];
        let count = state.variables.names().count() + state.arguments.len();
        if count > MAX_VARIABLE_COUNT {
            let problem = Problem::VariableCount { count, limit: MAX_VARIABLE_COUNT };
            return Err(Diagnostic::at(problem, instruction.lines).with_word(instruction.name.as_str()));
        }
        let size = self.states[index].variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > MAX_VARIABLES {
            let problem = Problem::TooManyVariables { size, limit: MAX_VARIABLES };
            return Err(Diagnostic::at(problem, instruction.lines).with_word(instruction.name.as_str()));
        }
        Ok(())
    }

    /// A command line with the shell in front if it is a shell's.
    fn shell_form(&mut self, index: usize, instruction: &Instruction, line: &CommandLine) -> Vec<String> {
        if !line.shell {
            return line.arguments.clone();
        }
        if self.states[index].config.config.shell.as_ref().is_none_or(Vec::is_empty) {
            let detail = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                instruction.name
            );
            self.linter.warn(Rule::JSONArgsRecommended, instruction.lines, detail);
        }
        self.with_shell(index, &line.arguments)
    }

    /// The stage's shell and one text for it.
    pub(super) fn with_shell(&self, index: usize, arguments: &[String]) -> Vec<String> {
        let config = &self.states[index].config;
        let mut all = match &config.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ if config.os == "windows" => vec!["cmd".to_owned(), "/S".to_owned(), "/C".to_owned()],
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        all.push(arguments.join(" "));
        all
    }

    fn workdir(&mut self, index: usize, command: &Command, path: &str) -> Result<()> {
        let instruction = &command.instruction;
        let path = self.expand(index, instruction, path)?;
        if !self.states[index].workdir_seen && !path.starts_with('/') {
            let detail = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                quoted(&path)
            );
            self.linter.warn(Rule::WorkdirRelativePath, instruction.lines, detail);
        }
        let state = &mut self.states[index];
        state.workdir_seen = true;
        // An absolute path stays as written in the config.
        let directory = if path.starts_with('/') {
            path
        } else {
            join("/", &join(&state.config.config.working_dir, &path))
        };
        state.config.config.working_dir.clone_from(&directory);
        state.directory = clean(&directory);
        let layer = directory != "/";
        if layer {
            let owner = match state.user.as_str() {
                "" => None,
                user => Some(super::transfer::owner(user, instruction.lines)?),
            };
            let platform = self.platform(index);
            let state = &self.states[index];
            let text = self.shown(self.lexer(), &instruction.code, &state.variables, command.triggered);
            let mkdir = Mkdir { path: state.directory.clone(), mode: 0o755, parents: true, owner };
            let file = File { base: state.vertex, actions: vec![FileAction::Mkdir(mkdir)] };
            let name = self.step_name(index, &text, &platform);
            let vertex = self.vertex(index, Op::File(file), name, instruction.lines, &platform);
            self.states[index].vertex = Some(vertex);
        }
        self.history(index, format!("WORKDIR {directory}"), layer);
        Ok(())
    }

    /// The platform that a stage runs on.
    pub(super) fn platform(&self, index: usize) -> onggi_oci::Platform {
        self.states[index].platform.clone().unwrap_or_else(|| self.platforms.target.clone())
    }
}

/// Whether Linux has the signal: a number from 1 to 64, or a name with or without `SIG`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if SIGNALS.contains(&name) || name == "RTMAX" {
        return true;
    }
    let in_range = |prefix: &str, limit: u32| {
        name.strip_prefix(prefix)
            .and_then(|rest| rest.parse::<u32>().ok())
            .is_some_and(|n| (1..=limit).contains(&n))
    };
    in_range("RTMIN+", 15) || in_range("RTMAX-", 14)
}
