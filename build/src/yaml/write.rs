//! A build file as a Dockerfile.

use serde_saphyr::{Location, Spanned};

use super::model::{Argument, Command, Config, File, Health, Many, Mount, Pairs, Stage, Step, Text};
use super::{BuildFile, Target, YamlError, quote};

type Result<T> = std::result::Result<T, YamlError>;

/// The Dockerfile, and where each of its lines comes from.
struct Writer {
    text: String,
    lines: Vec<u32>,
    /// Of what is being written.
    place: Location,
}

/// Translates a build file.
pub(super) fn translate(file: &File) -> Result<BuildFile> {
    let mut writer = Writer { text: String::new(), lines: Vec::new(), place: Location::UNKNOWN };
    writer.arguments(&file.args)?;
    if file.stages.is_empty() {
        return Err(error("the build file has no stages", Location::UNKNOWN));
    }
    for (name, stage) in &file.stages.0 {
        writer.place = name.referenced;
        writer.stage(&name.value, stage)?;
    }
    let targets = targets(file)?;
    Ok(BuildFile { dockerfile: writer.text, lines: writer.lines, targets })
}

fn targets(file: &File) -> Result<Vec<Target>> {
    let stages = || file.stages.0.iter().map(|(name, _)| name.value.as_str());
    let mut targets = Vec::new();
    for (name, target) in &file.targets.0 {
        let stage = target.stage.as_ref().unwrap_or(&name.value);
        if !stages().any(|known| known == stage) {
            return Err(error(
                format!("the target {:?} names no stage: {stage:?}", name.value),
                name.referenced,
            ));
        }
        let platforms = if target.platforms.is_empty() { &file.platforms } else { &target.platforms };
        targets.push(Target {
            name: name.value.clone(),
            stage: stage.clone(),
            images: target.image.0.clone(),
            platforms: platforms.0.clone(),
        });
    }
    match stages().next_back() {
        Some(last) if targets.is_empty() => targets.push(Target {
            name: last.to_owned(),
            stage: last.to_owned(),
            images: file.image.0.clone(),
            platforms: file.platforms.0.clone(),
        }),
        _ if !file.image.is_empty() => {
            let problem = "image is for the last stage and targets have their own: give one of the two";
            return Err(error(problem, Location::UNKNOWN));
        }
        _ => {}
    }
    Ok(targets)
}

fn error(problem: impl Into<String>, place: Location) -> YamlError {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    YamlError { problem: problem.into(), line: number(place.line()), column: number(place.column()) }
}

impl Writer {
    fn fail<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err(error(problem, self.place))
    }

    /// Adds lines, all from the place that is being written.
    fn line(&mut self, line: &str) {
        let origin = u32::try_from(self.place.line()).unwrap_or(u32::MAX);
        self.text.push_str(line);
        self.text.push('\n');
        self.lines.extend(line.split('\n').map(|_| origin));
    }

    /// Adds an instruction, which must be one line.
    fn instruction(&mut self, name: &str, rest: &str) -> Result<()> {
        if rest.contains(['\n', '\r', '\0']) {
            return self.fail(format!("a line break can't be in the value of {}", name.to_ascii_lowercase()));
        }
        self.line(&format!("{name} {rest}"));
        Ok(())
    }

    fn comment(&mut self, name: &str, description: Option<&String>) -> Result<()> {
        match description {
            Some(text) if text.contains('\n') => self.fail("a description is one line"),
            Some(text) => {
                self.line(&format!("# {name} {text}"));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn arguments(&mut self, arguments: &Pairs<Argument>) -> Result<()> {
        for (name, argument) in &arguments.0 {
            self.place = name.referenced;
            self.name(&name.value)?;
            self.comment(&name.value, argument.description.as_ref())?;
            match &argument.default {
                None => self.instruction("ARG", &name.value)?,
                Some(value) => self.instruction("ARG", &format!("{}={}", name.value, quote::word(value)))?,
            }
        }
        Ok(())
    }

    fn name(&self, name: &str) -> Result<()> {
        let good = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "=\"'\\$".contains(c));
        if good { Ok(()) } else { self.fail(format!("{name:?} can't be a name")) }
    }

    fn pairs(&mut self, instruction: &str, pairs: &Pairs<Text>) -> Result<()> {
        for (name, value) in &pairs.0 {
            self.place = name.referenced;
            if instruction == "ENV" {
                self.name(&name.value)?;
            }
            self.instruction(
                instruction,
                &format!("{}={}", quote::word(&name.value), quote::word(&value.0)),
            )?;
        }
        Ok(())
    }

    fn stage(&mut self, name: &str, stage: &Stage) -> Result<()> {
        if stage.from.is_empty() {
            return self
                .fail(format!("the stage {name:?} has no from: name an image, another stage or scratch"));
        }
        self.name(name)?;
        self.line("");
        self.comment(name, stage.description.as_ref())?;
        let platform = stage.platform.as_ref().map(|platform| quote::flag("platform", platform) + " ");
        let from = format!("{}{} AS {name}", platform.unwrap_or_default(), quote::escaped(&stage.from));
        self.instruction("FROM", &from)?;
        self.arguments(&stage.args)?;
        for step in &stage.steps {
            self.place = step.referenced;
            self.step(&step.value)?;
        }
        if let Some(config) = &stage.config {
            self.place = config.referenced;
            self.config(&config.value)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let place = self.place;
        let verbs = [
            ("run", step.run.is_some()),
            ("copy", step.copy.is_some()),
            ("add", step.add.is_some()),
            ("write", step.write.is_some()),
            ("env", step.env.is_some()),
            ("args", step.args.is_some()),
            ("workdir", step.workdir.is_some()),
            ("user", step.user.is_some()),
            ("shell", step.shell.is_some()),
            ("labels", step.labels.is_some()),
        ];
        let mut said = verbs.iter().filter(|(_, there)| *there).map(|(verb, _)| *verb);
        let verb = match (said.next(), said.next()) {
            (Some(verb), None) => verb,
            (None, _) => {
                let all: Vec<&str> = verbs.iter().map(|(verb, _)| *verb).collect();
                return self.fail(format!("a step needs one of {}", all.join(", ")));
            }
            (Some(first), Some(second)) => {
                return self.fail(format!("a step does one thing: {first} and {second} are two"));
            }
        };
        self.check_modifiers(step, verb)?;
        if let Some(command) = &step.run {
            self.run(step, command)?;
        } else if let Some(sources) = step.copy.as_ref().or(step.add.as_ref()) {
            self.transfer(step, &verb.to_ascii_uppercase(), sources)?;
        } else if let Some(path) = &step.write {
            self.write(step, path)?;
        } else if let Some(pairs) = &step.env {
            self.pairs("ENV", pairs)?;
        } else if let Some(arguments) = &step.args {
            self.arguments(arguments)?;
        } else if let Some(path) = &step.workdir {
            self.instruction("WORKDIR", &quote::escaped(path))?;
        } else if let Some(Text(user)) = &step.user {
            self.instruction("USER", &quote::escaped(user))?;
        } else if let Some(words) = &step.shell {
            self.instruction("SHELL", &quote::json(words))?;
        } else if let Some(pairs) = &step.labels {
            self.pairs("LABEL", pairs)?;
        }
        self.place = place;
        Ok(())
    }

    /// What goes with one verb makes no sense with another.
    fn check_modifiers(&self, step: &Step, verb: &str) -> Result<()> {
        const FILES: &[&str] = &["copy", "add", "write"];
        let modifiers: [(&str, bool, &[&str]); 16] = [
            ("to", step.to.is_some(), &["copy", "add"]),
            ("from", step.from.is_some(), &["copy"]),
            ("chown", step.chown.is_some(), FILES),
            ("chmod", step.chmod.is_some(), FILES),
            ("link", step.link.is_some(), FILES),
            ("parents", step.parents.is_some(), &["copy"]),
            ("exclude", !step.exclude.is_empty(), &["copy", "add"]),
            ("checksum", step.checksum.is_some(), &["add"]),
            ("keep_git_dir", step.keep_git_dir.is_some(), &["add"]),
            ("unpack", step.unpack.is_some(), &["add"]),
            ("content", step.content.is_some(), &["write"]),
            ("expand", step.expand.is_some(), &["write"]),
            ("mounts", !step.mounts.is_empty(), &["run"]),
            ("network", step.network.is_some(), &["run"]),
            ("security", step.security.is_some(), &["run"]),
            ("devices", !step.devices.is_empty(), &["run"]),
        ];
        match modifiers.iter().find(|(_, there, verbs)| *there && !verbs.contains(&verb)) {
            Some((modifier, _, verbs)) => {
                self.fail(format!("{modifier} does not go with {verb} (it goes with {})", verbs.join(", ")))
            }
            None => Ok(()),
        }
    }

    fn run(&mut self, step: &Step, command: &Command) -> Result<()> {
        let mut flags = Vec::new();
        for mount in &step.mounts {
            flags.push(quote::flag("mount", &mount_fields(mount)?));
        }
        for (name, value) in [("network", &step.network), ("security", &step.security)] {
            flags.extend(value.as_ref().map(|value| quote::flag(name, value)));
        }
        flags.extend(step.devices.0.iter().map(|device| quote::flag("device", device)));
        let flags: String = flags.into_iter().map(|flag| flag + " ").collect();
        match command {
            Command::Exec(words) if words.is_empty() => self.fail("run has nothing to run"),
            Command::Exec(words) => self.instruction("RUN", &(flags + &quote::json(words))),
            Command::Shell(text) if text.trim().is_empty() => self.fail("run has nothing to run"),
            Command::Shell(text) => {
                let text = text.trim_end_matches('\n');
                let one_line = !text.contains('\n')
                    && !text.ends_with('\\')
                    && !text.trim_start().starts_with(['[', '-', '#'])
                    && !text.contains("<<");
                if one_line {
                    return self.instruction("RUN", &(flags + text.trim_start()));
                }
                let mark = mark(text);
                self.line(&format!("RUN {flags}<<'{mark}'\n{text}\n{mark}"));
                Ok(())
            }
        }
    }

    fn transfer(&mut self, step: &Step, instruction: &str, sources: &Many) -> Result<()> {
        let Some(to) = &step.to else {
            return self.fail(format!("{} needs to: the destination", instruction.to_ascii_lowercase()));
        };
        if sources.is_empty() {
            return self.fail(format!("{} needs a source", instruction.to_ascii_lowercase()));
        }
        let flags = file_flags(step);
        let paths: Vec<String> = sources.0.iter().chain([to]).map(|path| quote::escaped(path)).collect();
        let plain = |path: &String| {
            !path.is_empty() && !path.contains(char::is_whitespace) && !path.starts_with(['[', '<', '-', '#'])
        };
        let paths = if paths.iter().all(plain) { paths.join(" ") } else { quote::json(&paths) };
        self.instruction(instruction, &(flags + &paths))
    }

    fn write(&mut self, step: &Step, path: &str) -> Result<()> {
        let content = step.content.as_deref().unwrap_or_default();
        if !content.is_empty() && !content.ends_with('\n') {
            return self
                .fail("the content of a file has to end with a line break: write it with | instead of |-");
        }
        let mark = mark(content);
        let quotes = if step.expand == Some(true) { "" } else { "'" };
        let path = quote::escaped(path);
        if path.contains(char::is_whitespace) {
            return self.fail("the path of a file with content can't have blanks");
        }
        self.line(&format!("COPY {}<<{quotes}{mark}{quotes} {path}\n{content}{mark}", file_flags(step)));
        Ok(())
    }

    fn config(&mut self, config: &Config) -> Result<()> {
        let place = self.place;
        self.pairs("ENV", &config.env)?;
        self.pairs("LABEL", &config.labels)?;
        self.place = place;
        for port in &config.ports.0 {
            self.instruction("EXPOSE", &quote::word(port))?;
        }
        if !config.volumes.is_empty() {
            self.instruction(
                "VOLUME",
                &quote::json(config.volumes.0.iter().map(|path| quote::escaped(path))),
            )?;
        }
        if let Some(path) = &config.workdir {
            self.instruction("WORKDIR", &quote::escaped(path))?;
        }
        if let Some(Text(user)) = &config.user {
            self.instruction("USER", &quote::escaped(user))?;
        }
        if let Some(Text(signal)) = &config.stop_signal {
            self.instruction("STOPSIGNAL", signal)?;
        }
        if let Some(health) = &config.health {
            self.health(health)?;
        }
        if let Some(command) = &config.entrypoint {
            self.command("ENTRYPOINT ", command)?;
        }
        if let Some(command) = &config.cmd {
            self.command("CMD ", command)?;
        }
        for line in &config.onbuild.0 {
            self.instruction("ONBUILD", line)?;
        }
        Ok(())
    }

    /// `prefix` is what stands before the words.
    fn command(&mut self, prefix: &str, command: &Command) -> Result<()> {
        let words = match command {
            Command::Exec(words) => quote::json(words),
            Command::Shell(text) => {
                let text = text.trim();
                if text.starts_with('[') || text.ends_with('\\') || text.contains('\n') {
                    return self.fail("this command can't be a text for the shell: write it as a list");
                }
                text.to_owned()
            }
        };
        self.line(&format!("{prefix}{words}"));
        Ok(())
    }

    fn health(&mut self, health: &Health) -> Result<()> {
        let Some(command) = &health.cmd else { return self.fail("health needs cmd: a command, or none") };
        if matches!(command, Command::Shell(text) if text.eq_ignore_ascii_case("none")) {
            return self.instruction("HEALTHCHECK", "NONE");
        }
        let mut flags = String::new();
        for (name, value) in [
            ("interval", &health.interval),
            ("timeout", &health.timeout),
            ("start-period", &health.start_period),
            ("start-interval", &health.start_interval),
        ] {
            flags.extend(value.as_ref().map(|value| quote::flag(name, value) + " "));
        }
        flags.extend(health.retries.map(|retries| format!("--retries={retries} ")));
        self.command(&format!("HEALTHCHECK {flags}CMD "), command)
    }
}

/// A word that no line of the text is.
fn mark(text: &str) -> String {
    let mut mark = "EOF".to_owned();
    while text.lines().any(|line| line == mark) {
        mark.push('_');
    }
    mark
}

fn file_flags(step: &Step) -> String {
    let mut flags = Vec::new();
    for (name, value) in
        [("from", &step.from), ("chown", &step.chown), ("chmod", &step.chmod), ("checksum", &step.checksum)]
    {
        flags.extend(value.as_ref().map(|value| quote::flag(name, value)));
    }
    for (name, value) in [
        ("link", step.link),
        ("parents", step.parents),
        ("keep-git-dir", step.keep_git_dir),
        ("unpack", step.unpack),
    ] {
        flags.extend(value.map(|value| format!("--{name}={value}")));
    }
    flags.extend(step.exclude.0.iter().map(|pattern| quote::flag("exclude", pattern)));
    flags.into_iter().map(|flag| flag + " ").collect()
}

fn mount_fields(mount: &Spanned<Mount>) -> Result<String> {
    let place = mount.referenced;
    let mount = &mount.value;
    if mount.kind.is_empty() {
        return Err(error("a mount needs type: bind, cache, tmpfs, secret or ssh", place));
    }
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.0.clone());
    let fields = [
        ("type", Some(mount.kind.clone())),
        ("id", text(&mount.id)),
        ("target", mount.target.clone()),
        ("source", mount.source.clone()),
        ("from", mount.from.clone()),
        ("env", mount.env.clone()),
        ("sharing", mount.sharing.clone()),
        ("size", text(&mount.size)),
        ("mode", text(&mount.mode)),
        ("uid", text(&mount.uid)),
        ("gid", text(&mount.gid)),
        ("readonly", mount.readonly.map(|truth| truth.to_string())),
        ("readwrite", mount.readwrite.map(|truth| truth.to_string())),
        ("required", mount.required.map(|truth| truth.to_string())),
    ];
    let fields: Vec<String> =
        fields.into_iter().filter_map(|(key, value)| value.map(|value| quote::field(key, &value))).collect();
    Ok(fields.join(","))
}
