//! `RUN`.

use super::stage::Command;
use super::{Planner, SCRATCH};
use crate::dockerfile::instruction::{Instruction, Mount, MountType, Run};
use crate::dockerfile::outline::Need;
use crate::dockerfile::problem::{Diagnostic, Problem};
use crate::dockerfile::syntax;
use crate::dockerfile::words::{Lexer, Variables};
use crate::graph::{
    CacheMount, Exec, File, FileAction, Mkfile, MountKind, Network, Op, SecretMount, SecretTarget, SshMount,
    TmpfsMount, VertexId,
};
use crate::lexical::{base, clean, join};

type Result<T> = std::result::Result<T, Diagnostic>;

/// Where a heredoc that is a program is mounted.
const PIPES: &str = "/dev/pipes/";
/// Arguments that every build takes without declaring them, and that change nothing about a result.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// The variable by which programs find an agent.
const AGENT: &str = "SSH_AUTH_SOCK";

impl Planner<'_> {
    pub(super) fn run(&mut self, index: usize, command: &Command, run: &Run) -> Result<()> {
        let instruction = &command.instruction;
        let lines = instruction.lines;
        let platform = self.platform(index);
        let mut code = instruction.code.clone();
        let mut mounts = Vec::new();

        let mut arguments = run.command.arguments.clone();
        if let Some(heredoc) = run.heredocs.first() {
            let [line] = arguments.as_slice() else {
                let problem = Problem::RunHeredoc { command: arguments.join(" ") };
                return Err(Diagnostic::at(problem, lines));
            };
            if syntax::mark(line).is_some() {
                // Nothing but a heredoc: what is in it is the script.
                let script = if heredoc.chomp {
                    syntax::without_tabs(&heredoc.content)
                } else {
                    heredoc.content.clone()
                };
                code.push_str(&format!(" ({})", summary(&heredoc.content)));
                if script.starts_with("#!") && platform.os != "windows" {
                    let (mount, program) = self.script(&heredoc.name, script, &platform);
                    mounts.push(mount);
                    arguments = vec![program];
                } else {
                    arguments = vec![script];
                }
            } else {
                // The shell reads heredocs among other things.
                let mut text = line.clone();
                for heredoc in &run.heredocs {
                    text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
                }
                arguments = vec![text];
            }
        }
        if run.command.shell {
            arguments = self.with_shell(index, &arguments);
        }

        let read = self.mounts(index, command, run)?;
        let mut masked = self.states[index].variables.clone();
        for mount in &read {
            if let (MountType::Secret, Some(name)) = (mount.kind, &mount.env) {
                masked.set(name, "****");
            }
        }
        let mut agents = 0;
        for (position, mount) in read.into_iter().enumerate() {
            let source = command.sources.get(position).copied().flatten();
            mounts.push(self.mount(index, instruction, mount, source, &mut agents)?);
        }

        let state = &self.states[index];
        let mut env = state.variables.to_env();
        if agents > 0 && state.variables.get(AGENT).is_none() {
            let first = mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh(_)));
            env.extend(first.map(|mount| format!("{AGENT}={}", mount.target)));
        }
        let unkeyed_env = self.proxies(&state.variables, &mut env);
        let lexer = Lexer { keep_quotes: true, keep_unset: true, ..self.lexer() };
        let text = self.shown(lexer, &code, &masked, command.triggered);
        let history = self.run_history(index, &arguments);

        let options = self.options;
        let exec = Exec {
            root: state.vertex,
            args: arguments,
            env,
            unkeyed_env,
            cwd: state.directory.clone(),
            user: state.user.clone(),
            stdin: None,
            mounts,
            network: if run.network == Network::Default { options.network } else { run.network },
            security: run.security,
            extra_hosts: options.extra_hosts.clone(),
            hostname: self
                .build_args
                .get("BUILDKIT_SANDBOX_HOSTNAME")
                .filter(|name| !name.is_empty())
                .cloned(),
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            devices: run.devices.clone(),
        };
        let name = self.step_name(index, &text, &platform);
        let vertex = self.vertex(index, Op::Exec(Box::new(exec)), name, lines, &platform);
        self.states[index].vertex = Some(vertex);
        self.history(index, history, true);
        Ok(())
    }

    /// The command with the arguments that it saw: `RUN |1 a=b /bin/sh -c … # buildkit`.
    fn run_history(&self, index: usize, arguments: &[String]) -> String {
        let state = &self.states[index];
        let mut seen: Vec<(&str, String)> = Vec::new();
        for argument in &state.arguments {
            let value = state.variables.get(&argument.name).or(argument.value.as_deref()).unwrap_or_default();
            let text = format!("{}={value}", argument.name);
            match seen.iter_mut().find(|(name, _)| *name == argument.name) {
                Some((_, known)) => *known = text,
                None => seen.push((&argument.name, text)),
            }
        }
        let mut words = Vec::new();
        if !seen.is_empty() {
            words.push(format!("|{}", seen.len()));
            words.extend(seen.into_iter().map(|(_, text)| text));
        }
        words.extend(arguments.iter().cloned());
        format!("RUN {} # buildkit", words.join(" "))
    }

    /// Adds proxies that were given as arguments, in both spellings, and says which variables they are.
    fn proxies(&self, variables: &Variables, env: &mut Vec<String>) -> Vec<String> {
        let mut names = Vec::new();
        for proxy in PROXIES {
            let given = self.build_args.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(proxy));
            let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) else { continue };
            for name in [proxy.to_owned(), proxy.to_lowercase()] {
                if variables.get(&name).is_none() {
                    env.push(format!("{name}={value}"));
                    names.push(name);
                }
            }
        }
        names
    }

    /// A heredoc that names its interpreter: a file that is mounted and run.
    fn script(
        &mut self,
        name: &str,
        content: String,
        platform: &onggi_oci::Platform,
    ) -> (crate::graph::Mount, String) {
        let name = base(name).to_owned();
        let file =
            Mkfile { path: format!("/{name}"), mode: 0o755, content: content.into_bytes(), owner: None };
        let file = File { base: None, actions: vec![FileAction::Mkfile(file)] };
        let vertex = self.internal(Op::File(file), "preparing inline document", platform);
        let kind = MountKind::Bind { from: Some(vertex), source: "/".to_owned(), writable: false };
        let target = PIPES.trim_end_matches('/').to_owned();
        (crate::graph::Mount { target, kind }, format!("{PIPES}{name}"))
    }

    /// The mounts with variables in place.
    fn mounts(&mut self, index: usize, command: &Command, run: &Run) -> Result<Vec<Mount>> {
        let lexer = self.lexer();
        let mut missing = Vec::new();
        let mut all = Vec::new();
        let variables = &self.states[index].variables;
        for text in &run.mounts {
            all.push(Mount::read(text, command.instruction.lines, |value| {
                let expanded = lexer.expand(value, variables)?;
                missing.extend(expanded.missing);
                Ok(expanded.text)
            })?);
        }
        let state = &self.states[index];
        super::checks::undefined(
            self.linter,
            &missing,
            &state.arguments,
            &state.variables,
            command.instruction.lines,
        );
        Ok(all)
    }

    fn mount(
        &mut self,
        index: usize,
        instruction: &Instruction,
        mount: Mount,
        source: Option<usize>,
        agents: &mut usize,
    ) -> Result<crate::graph::Mount> {
        let lines = instruction.lines;
        let owner = (mount.uid.unwrap_or_default(), mount.gid.unwrap_or_default());
        match mount.kind {
            MountType::Secret => return self.secret(index, instruction, mount),
            MountType::Ssh => {
                let id = mount.id.unwrap_or_else(|| "default".to_owned());
                let need = Need { name: id.clone(), required: mount.required, lines };
                self.states[index].capture.need_ssh(need);
                let target = mount.target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{agents}"));
                *agents += 1;
                let ssh =
                    SshMount { id, required: mount.required, mode: mount.mode, uid: owner.0, gid: owner.1 };
                return Ok(crate::graph::Mount { target, kind: MountKind::Ssh(ssh) });
            }
            _ => {}
        }
        let given = mount.target.unwrap_or_default();
        let target = if given.starts_with('/') {
            clean(&given)
        } else {
            join("/", &join(&self.states[index].directory, &given))
        };
        if target == "/" {
            let problem = Problem::MountTarget { target };
            return Err(Diagnostic::at(problem, lines).with_word("target"));
        }
        let from = match (&mount.from, source) {
            _ if mount.kind == MountType::Tmpfs => None,
            (None, _) if mount.kind == MountType::Cache => None,
            (None, _) => Some(self.main_context()),
            (Some(name), _) if name.eq_ignore_ascii_case(SCRATCH) => None,
            (Some(name), Some(source)) => {
                if !self.states[source].done {
                    let problem = Problem::LaterMount { from: name.clone(), target };
                    return Err(Diagnostic::at(problem, lines).with_word(name.as_str()));
                }
                self.states[source].vertex
            }
            (Some(_), None) => None,
        };
        let path = join("/", mount.source.as_deref().unwrap_or_default());
        let kind = match mount.kind {
            MountType::Tmpfs => MountKind::Tmpfs(TmpfsMount { size: mount.size }),
            MountType::Cache => MountKind::Cache(CacheMount {
                id: mount.id.unwrap_or_else(|| clean(&given)),
                sharing: mount.sharing.unwrap_or_default(),
                from,
                source: path,
                mode: mount.mode,
                uid: owner.0,
                gid: owner.1,
                read_only: mount.read_only,
            }),
            _ => MountKind::Bind { from, source: path, writable: !mount.read_only },
        };
        Ok(crate::graph::Mount { target, kind })
    }

    fn secret(
        &mut self,
        index: usize,
        instruction: &Instruction,
        mount: Mount,
    ) -> Result<crate::graph::Mount> {
        let id = match (mount.source.or(mount.id), &mount.target) {
            (Some(id), _) => id,
            (None, Some(target)) => base(target).to_owned(),
            (None, None) => return Err(Diagnostic::at(Problem::SecretNothing, instruction.lines)),
        };
        let need = Need { name: id.clone(), required: mount.required, lines: instruction.lines };
        self.states[index].capture.need_secret(need);
        let target = match (mount.env, &mount.target) {
            (None, _) => SecretTarget::File,
            (Some(name), None) => SecretTarget::Env(name),
            (Some(name), Some(_)) => SecretTarget::FileAndEnv(name),
        };
        let path = mount.target.unwrap_or_else(|| format!("/run/secrets/{}", base(&id)));
        let path = if path.starts_with('/') {
            clean(&path)
        } else {
            join("/", &join(&self.states[index].directory, &path))
        };
        let kind = MountKind::Secret(SecretMount {
            id,
            target,
            required: mount.required,
            mode: mount.mode,
            uid: mount.uid.unwrap_or_default(),
            gid: mount.gid.unwrap_or_default(),
        });
        Ok(crate::graph::Mount { target: path, kind })
    }

    /// The vertex of a stage that is read, also if there is nothing in it.
    pub(super) fn readable(&mut self, source: usize) -> VertexId {
        match self.states[source].vertex {
            Some(vertex) => vertex,
            None => self.nothing(),
        }
    }
}

/// The first line of a script, for the step's name.
fn summary(text: &str) -> String {
    let text = text.trim();
    match text.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => text.to_owned(),
    }
}
