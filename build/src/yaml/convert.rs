//! A Dockerfile as an `onggi.yaml`.

use serde_saphyr::{Location, Spanned};

use super::YamlError;
use super::model::{Argument, Command, Config, File, Health, Many, Mount, Pairs, Stage, Step, Text};
use crate::dockerfile::Lines;
use crate::dockerfile::instruction::{self as from, CommandLine, Document, Instruction, Kind};
use crate::graph::{Network, Security};

type Result<T> = std::result::Result<T, YamlError>;

/// Writes a Dockerfile as a build file. What comments say of stages and arguments is kept, other comments are not.
///
/// # Errors
/// [`YamlError`] with the line of the Dockerfile that can't be said otherwise: several heredocs in one instruction,
/// `MAINTAINER` with quotes that don't close.
pub fn from_dockerfile(document: &Document) -> Result<String> {
    let mut file = File::default();
    for instruction in &document.arguments {
        if let Kind::Arg(arguments) = &instruction.kind {
            file.args.0.extend(arguments.iter().map(argument));
        }
    }
    for (number, stage) in document.stages.iter().enumerate() {
        let name = stage_name(document, number);
        file.stages.0.push((spanned(name), self::stage(document, number, stage)?));
    }
    serde_saphyr::to_string(&file).map_err(|error| fail(error.to_string(), Lines::default()))
}

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Location::UNKNOWN, Location::UNKNOWN)
}

fn fail(problem: impl Into<String>, lines: Lines) -> YamlError {
    YamlError { problem: problem.into(), line: lines.first, column: 0 }
}

/// What a stage is called; those without a name get one.
fn stage_name(document: &Document, number: usize) -> String {
    let named = document.stages.get(number).and_then(|stage| stage.name.clone());
    named.unwrap_or_else(|| format!("stage-{number}"))
}

/// The stage that `from` names by its number, by its name.
fn named(document: &Document, stage: usize, text: &str) -> String {
    match text.parse::<usize>() {
        Ok(number) if number < stage => stage_name(document, number),
        _ => literal(text),
    }
}

fn argument(argument: &from::Argument) -> (Spanned<String>, Argument) {
    let value = Argument {
        default: argument.value.as_deref().map(literal),
        description: argument.description.clone(),
    };
    (spanned(argument.name.clone()), value)
}

/// A text without quotes and escapes, in which `$$` is a dollar that begins no variable.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut single, mut double) = (false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '$' if single => out.push_str("$$"),
            '\\' if !single => match chars.peek().copied() {
                // Within double quotes a backslash before anything else stays.
                Some(next) if double && !matches!(next, '"' | '$' | '\\') => out.push('\\'),
                Some('$') => {
                    chars.next();
                    out.push_str("$$");
                }
                Some(_) => out.extend(chars.next()),
                None => out.push('\\'),
            },
            _ => out.push(c),
        }
    }
    out
}

fn stage(document: &Document, number: usize, stage: &from::Stage) -> Result<Stage> {
    let mut out = Stage {
        description: stage.description.clone(),
        from: named(document, number, &stage.base),
        platform: stage.platform.clone(),
        ..Stage::default()
    };
    let mut config = Config::default();
    for instruction in &stage.instructions {
        if let Some(step) = step(document, number, instruction, &mut config)? {
            out.steps.push(spanned(step));
        }
    }
    let empty = Config::default();
    let same = serde_json::to_value(&config).ok() == serde_json::to_value(&empty).ok();
    out.config = (!same).then(|| spanned(config));
    Ok(out)
}

fn pairs(pairs: &[from::Pair]) -> Pairs<Text> {
    // Without `=` the rest of the line is the value, quotes and all that.
    Pairs(pairs.iter().map(|pair| (spanned(literal(&pair.key)), Text(literal(&pair.value)))).collect())
}

fn command(line: &CommandLine) -> Command {
    if line.shell { Command::Shell(line.arguments.concat()) } else { Command::Exec(line.arguments.clone()) }
}

/// The step that an instruction is; `None` for what belongs to the config.
fn step(
    document: &Document,
    stage: usize,
    instruction: &Instruction,
    config: &mut Config,
) -> Result<Option<Step>> {
    let mut step = Step::default();
    match &instruction.kind {
        Kind::Env(list) => step.env = Some(pairs(list)),
        Kind::Label(list) => step.labels = Some(pairs(list)),
        Kind::Arg(list) => step.args = Some(Pairs(list.iter().map(argument).collect())),
        Kind::Workdir(path) => step.workdir = Some(literal(path)),
        Kind::User(user) => step.user = Some(Text(literal(user))),
        Kind::Shell(words) => step.shell = Some(words.clone()),
        Kind::Run(run) => self::run(document, stage, instruction, run, &mut step)?,
        Kind::Copy(transfer) => self::transfer(document, stage, instruction, transfer, "copy", &mut step)?,
        Kind::Add(transfer) => self::transfer(document, stage, instruction, transfer, "add", &mut step)?,
        Kind::Maintainer(_) => {
            let problem = "MAINTAINER has no place in onggi.yaml: use a label";
            return Err(fail(problem, instruction.lines));
        }
        Kind::Cmd(line) => return Ok(set(&mut config.cmd, command(line))),
        Kind::Entrypoint(line) => {
            // A CMD of the same stage above it stays.
            return Ok(set(&mut config.entrypoint, command(line)));
        }
        Kind::Expose(ports) => {
            config.ports.0.extend(ports.iter().map(|port| literal(port)));
            return Ok(None);
        }
        Kind::Volume(paths) => {
            config.volumes.0.extend(paths.iter().map(|path| literal(path)));
            return Ok(None);
        }
        Kind::StopSignal(signal) => return Ok(set(&mut config.stop_signal, Text(signal.clone()))),
        Kind::Healthcheck(check) => return Ok(set(&mut config.health, health(check))),
        Kind::Onbuild(text) if text.contains('\n') => {
            return Err(fail("ONBUILD with a heredoc has no place in onggi.yaml", instruction.lines));
        }
        Kind::Onbuild(text) => {
            config.onbuild.0.push(text.clone());
            return Ok(None);
        }
    }
    Ok(Some(step))
}

fn set<T>(field: &mut Option<T>, value: T) -> Option<Step> {
    *field = Some(value);
    None
}

fn health(check: &onggi_oci::Healthcheck) -> Health {
    let time = |nanoseconds: i64| match nanoseconds {
        0 => None,
        whole if whole % 1_000_000_000 == 0 => Some(format!("{}s", whole / 1_000_000_000)),
        part => Some(format!("{}us", part / 1_000)),
    };
    let command = match check.test.split_first() {
        Some((kind, rest)) if kind == "CMD-SHELL" => Command::Shell(rest.concat()),
        Some((kind, rest)) if kind == "CMD" => Command::Exec(rest.to_vec()),
        _ => Command::Shell("none".into()),
    };
    Health {
        cmd: Some(command),
        interval: time(check.interval),
        timeout: time(check.timeout),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        retries: u32::try_from(check.retries).ok().filter(|retries| *retries != 0),
    }
}

fn run(
    document: &Document,
    stage: usize,
    instruction: &Instruction,
    run: &from::Run,
    step: &mut Step,
) -> Result<()> {
    step.run = Some(match &run.heredocs[..] {
        [] => command(&run.command),
        [one] => {
            let line = run.command.arguments.concat();
            let content = if one.chomp { without_tabs(&one.content) } else { one.content.clone() };
            let is_script = line.trim().starts_with("<<") && !line.trim().contains(char::is_whitespace);
            Command::Shell(if is_script { content } else { format!("{line}\n{}{}\n", one.content, one.name) })
        }
        _ => return Err(fail("several heredocs in one RUN have no place in onggi.yaml", instruction.lines)),
    });
    step.network = match run.network {
        Network::Default => None,
        Network::None => Some("none".into()),
        Network::Host => Some("host".into()),
    };
    step.security = matches!(run.security, Security::Insecure).then(|| "insecure".into());
    step.devices.0.extend(run.devices.iter().map(|device| {
        if device.optional { device.name.clone() } else { format!("{},required", device.name) }
    }));
    for text in &run.mounts {
        step.mounts.push(spanned(mount(document, stage, instruction, text)?));
    }
    Ok(())
}

fn without_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

fn mount(document: &Document, stage: usize, instruction: &Instruction, text: &str) -> Result<Mount> {
    let mut mount = Mount { kind: "bind".into(), ..Mount::default() };
    let fields =
        from::fields(text, "mount").map_err(|problem| fail(problem.to_string(), instruction.lines))?;
    for field in &fields {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let given = || value.unwrap_or_default().to_owned();
        let truth = || Some(matches!(value, None | Some("true" | "1")));
        match key.to_ascii_lowercase().as_str() {
            "type" => mount.kind = given(),
            "id" => mount.id = Some(Text(given())),
            "target" | "dst" | "destination" => mount.target = Some(given()),
            "source" | "src" => mount.source = Some(given()),
            "from" => mount.from = Some(named(document, stage, &given())),
            "env" => mount.env = Some(given()),
            "sharing" => mount.sharing = Some(given()),
            "size" => mount.size = Some(Text(given())),
            "mode" => mount.mode = Some(Text(given())),
            "uid" => mount.uid = Some(Text(given())),
            "gid" => mount.gid = Some(Text(given())),
            "ro" | "readonly" => mount.readonly = truth(),
            "rw" | "readwrite" => mount.readwrite = truth(),
            "required" => mount.required = truth(),
            _ => {
                let problem = format!("the mount {text:?} has no place in onggi.yaml");
                return Err(fail(problem, instruction.lines));
            }
        }
    }
    Ok(mount)
}

fn transfer(
    document: &Document,
    stage: usize,
    instruction: &Instruction,
    transfer: &from::Transfer,
    verb: &str,
    step: &mut Step,
) -> Result<()> {
    match (&transfer.contents[..], &transfer.sources[..]) {
        ([], sources) => {
            let sources = Many(sources.iter().map(|source| literal(source)).collect());
            *(if verb == "copy" { &mut step.copy } else { &mut step.add }) = Some(sources);
            step.to = Some(literal(&transfer.destination));
        }
        ([content], []) => {
            let to = literal(&transfer.destination);
            // In a directory the file has the mark's name.
            step.write = Some(if to.ends_with('/') { to + &content.name } else { to });
            step.content = Some(content.content.clone());
            step.expand = content.expand.then_some(true);
        }
        _ => {
            let problem = "heredocs beside other sources have no place in onggi.yaml";
            return Err(fail(problem, instruction.lines));
        }
    }
    step.from = transfer.from.as_deref().map(|from| named(document, stage, from));
    step.chown.clone_from(&transfer.chown);
    step.chmod.clone_from(&transfer.chmod);
    step.exclude = Many(transfer.exclude.clone());
    step.link = transfer.link.then_some(true);
    step.parents = transfer.parents.then_some(true);
    step.checksum.clone_from(&transfer.checksum);
    step.keep_git_dir = transfer.keep_git_dir;
    step.unpack = transfer.unpack;
    Ok(())
}
