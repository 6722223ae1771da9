//! One node of the syntax to one instruction.

use super::flags::{Flags, Kind as Flag};
use super::{Argument, CommandLine, Instruction, Kind, Pair, Run, Stage, Transfer, health, mount};
use crate::dockerfile::lint::{Linter, Rule};
use crate::dockerfile::problem::{Diagnostic, Problem};
use crate::dockerfile::syntax::{self, Heredoc, Node};
use crate::graph::{Network, Security};

/// What instructions there are, for "did you mean".
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

type Result<T> = std::result::Result<T, Diagnostic>;

/// Reads `FROM`.
pub(super) fn stage(node: &Node, linter: &mut Linter) -> Result<Stage> {
    if let [_, keyword, name] = node.arguments.as_slice() {
        if *name != name.to_lowercase() {
            let detail = format!("Stage name '{name}' should be lowercase");
            linter.warn(Rule::StageNameCasing, node.lines, detail);
        }
        let (lower, upper) = (node.name.to_lowercase(), node.name.to_uppercase());
        let matches = if node.name == lower {
            *keyword == keyword.to_lowercase()
        } else {
            node.name != upper || *keyword == keyword.to_uppercase()
        };
        if !matches {
            let detail = format!("'{keyword}' and '{}' keywords' casing do not match", node.name);
            linter.warn(Rule::FromAsCasing, node.lines, detail);
        }
    }
    let name = match node.arguments.as_slice() {
        [_] => None,
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            if !is_stage_name(&lower) {
                return Err(fail(node, Problem::StageName { name: name.clone() }).with_word(name.as_str()));
            }
            Some(lower)
        }
        _ => return Err(fail(node, Problem::FromArguments)),
    };
    let flags = Flags::read(&node.flags, &[("platform", Flag::Text)], node.lines)?;
    if let Some(name) = &name {
        describes("FROM", &[name], node, linter);
    }
    Ok(Stage {
        base: node.arguments.first().cloned().unwrap_or_default(),
        description: name.as_deref().and_then(|name| description(node, name)),
        name,
        platform: flags.text("platform"),
        keyword: node.name.clone(),
        code: node.original.trim().to_owned(),
        lines: node.lines,
        comments: node.comments.clone(),
        instructions: Vec::new(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

/// Reads any other instruction.
pub(crate) fn instruction(node: &Node, linter: &mut Linter) -> Result<Instruction> {
    let kind = match node.name.to_ascii_lowercase().as_str() {
        "env" => {
            no_flags(node)?;
            Kind::Env(pairs(node, "ENV")?)
        }
        "label" => {
            no_flags(node)?;
            Kind::Label(pairs(node, "LABEL")?)
        }
        "arg" => arg(node, linter)?,
        "maintainer" => {
            let detail = "Maintainer instruction is deprecated in favor of using label";
            linter.warn(Rule::MaintainerDeprecated, node.lines, detail);
            Kind::Maintainer(single(node, "MAINTAINER")?)
        }
        "add" => Kind::Add(Box::new(transfer(node, "ADD")?)),
        "copy" => Kind::Copy(Box::new(transfer(node, "COPY")?)),
        "run" => run(node)?,
        "cmd" => {
            no_flags(node)?;
            Kind::Cmd(command_line(node))
        }
        "entrypoint" => {
            no_flags(node)?;
            Kind::Entrypoint(command_line(node))
        }
        "healthcheck" => Kind::Healthcheck(health::check(node)?),
        "expose" => {
            let mut ports = several(node, "EXPOSE")?;
            ports.sort();
            Kind::Expose(ports)
        }
        "user" => Kind::User(single(node, "USER")?),
        "volume" => {
            let paths: Vec<String> =
                several(node, "VOLUME")?.into_iter().map(|path| path.trim().to_owned()).collect();
            if paths.iter().any(String::is_empty) {
                return Err(fail(node, Problem::EmptyVolume));
            }
            Kind::Volume(paths)
        }
        "workdir" => Kind::Workdir(single(node, "WORKDIR")?),
        "stopsignal" => Kind::StopSignal(single(node, "STOPSIGNAL")?),
        "shell" => {
            no_flags(node)?;
            if node.arguments.is_empty() {
                return Err(fail(node, Problem::AtLeastOne { instruction: "SHELL" }));
            }
            if !node.json {
                return Err(fail(node, Problem::NotJson { instruction: "SHELL" }));
            }
            Kind::Shell(node.arguments.clone())
        }
        "onbuild" => onbuild(node)?,
        _ => {
            let problem = Problem::UnknownInstruction { name: node.name.clone() };
            return Err(fail(node, problem).suggest(&node.name, NAMES, true));
        }
    };
    Ok(Instruction {
        name: node.name.clone(),
        code: node.original.trim().to_owned(),
        lines: node.lines,
        comments: node.comments.clone(),
        kind,
    })
}

fn fail(node: &Node, problem: Problem) -> Diagnostic {
    Diagnostic::at(problem, node.lines).with_word(node.name.as_str())
}

fn no_flags(node: &Node) -> Result<()> {
    Flags::read(&node.flags, &[], node.lines).map(|_| ())
}

fn single(node: &Node, instruction: &'static str) -> Result<String> {
    let [argument] = node.arguments.as_slice() else {
        return Err(fail(node, Problem::ExactlyOne { instruction }));
    };
    no_flags(node)?;
    Ok(argument.clone())
}

fn several(node: &Node, instruction: &'static str) -> Result<Vec<String>> {
    if node.arguments.is_empty() {
        return Err(fail(node, Problem::AtLeastOne { instruction }));
    }
    no_flags(node)?;
    Ok(node.arguments.clone())
}

fn pairs(node: &Node, instruction: &'static str) -> Result<Vec<Pair>> {
    if node.arguments.is_empty() {
        return Err(fail(node, Problem::AtLeastOne { instruction }));
    }
    node.arguments
        .chunks(3)
        .map(|triple| match triple {
            [key, _, _] if key.is_empty() => Err(fail(node, Problem::BlankName { instruction })),
            [key, value, separator] => {
                Ok(Pair { key: key.clone(), value: value.clone(), legacy: separator.is_empty() })
            }
            _ => Err(fail(node, Problem::TwoArguments { instruction })),
        })
        .collect()
}

/// The comment above that begins with this name, without it.
fn description(node: &Node, name: &str) -> Option<String> {
    node.comments
        .iter()
        .find_map(|comment| comment.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')))
        .map(str::to_owned)
}

/// Warns if the comment above seems to describe something else.
fn describes(instruction: &str, names: &[&str], node: &Node, linter: &mut Linter) {
    let (Some(comment), Some(first)) = (node.comments.last(), names.first()) else { return };
    let word = comment.split(' ').next().unwrap_or_default();
    if names.contains(&word) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    let detail = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    linter.warn(Rule::InvalidDefinitionDescription, node.lines, detail);
}

fn arg(node: &Node, linter: &mut Linter) -> Result<Kind> {
    if node.arguments.is_empty() {
        return Err(fail(node, Problem::AtLeastOne { instruction: "ARG" }));
    }
    no_flags(node)?;
    let mut all = Vec::new();
    for argument in &node.arguments {
        let (name, value) = match argument.split_once('=') {
            Some(("", _)) => return Err(fail(node, Problem::BlankName { instruction: "ARG" })),
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        all.push(Argument { name: name.to_owned(), value, description: description(node, name) });
    }
    let names: Vec<&str> = all.iter().map(|argument| argument.name.as_str()).collect();
    describes("ARG", &names, node, linter);
    Ok(Kind::Arg(all))
}

/// `CMD`, `ENTRYPOINT`, `RUN`: a JSON list as it is, all else as one text.
fn command_line(node: &Node) -> CommandLine {
    let arguments = match node.arguments.as_slice() {
        arguments if node.json || arguments.is_empty() => arguments.to_vec(),
        arguments => vec![arguments.join(" ")],
    };
    CommandLine { arguments, shell: !node.json }
}

fn transfer(node: &Node, instruction: &'static str) -> Result<Transfer> {
    let [sources @ .., destination] = node.arguments.as_slice() else {
        return Err(fail(node, Problem::NoDestination { instruction }));
    };
    if sources.is_empty() {
        return Err(fail(node, Problem::NoDestination { instruction }));
    }
    let common =
        [("exclude", Flag::Texts), ("chown", Flag::Text), ("chmod", Flag::Text), ("link", Flag::Bool)];
    let own: &[_] = if instruction == "ADD" {
        &[("keep-git-dir", Flag::Bool), ("checksum", Flag::Text), ("unpack", Flag::Bool)]
    } else {
        &[("parents", Flag::Bool), ("from", Flag::Text)]
    };
    let flags = Flags::read(&node.flags, &[&common, own].concat(), node.lines)?;
    if syntax::mark(destination).is_some() {
        return Err(fail(node, Problem::HeredocDestination { instruction }).with_word(destination.as_str()));
    }
    let mut paths = Vec::new();
    let mut contents = Vec::new();
    for source in sources {
        match syntax::mark(source) {
            Some(mark) => {
                let content = node.heredocs.iter().rfind(|heredoc| heredoc.name == mark.name);
                let content = content.map(|heredoc| heredoc.content.as_str()).unwrap_or_default();
                let content = if mark.chomp { syntax::without_tabs(content) } else { content.to_owned() };
                contents.push(Heredoc { content, ..mark });
            }
            None => paths.push(source.clone()),
        }
    }
    Ok(Transfer {
        sources: paths,
        contents,
        destination: destination.clone(),
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        exclude: flags.texts("exclude"),
        link: flags.switch("link").unwrap_or_default(),
        parents: flags.switch("parents").unwrap_or_default(),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })
}

fn run(node: &Node) -> Result<Kind> {
    let known =
        [("mount", Flag::Texts), ("network", Flag::Text), ("security", Flag::Text), ("device", Flag::Texts)];
    let flags = Flags::read(&node.flags, &known, node.lines)?;
    let mounts = flags.texts("mount");
    for text in &mounts {
        mount::check_from(text).map_err(|problem| fail(node, problem).with_word("from"))?;
    }
    let network = match flags.text("network").as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(mode) => {
            return Err(fail(node, Problem::Network { mode: mode.to_owned() }).with_word(mode));
        }
    };
    let security = match flags.text("security").as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(mode) => {
            return Err(fail(node, Problem::Security { mode: mode.to_owned() }).with_word(mode));
        }
    };
    let devices =
        flags.texts("device").iter().map(|text| mount::device(text, node.lines)).collect::<Result<_>>()?;
    Ok(Kind::Run(Box::new(Run {
        command: command_line(node),
        heredocs: node.heredocs.clone(),
        mounts,
        network,
        security,
        devices,
    })))
}

fn onbuild(node: &Node) -> Result<Kind> {
    let Some(trigger) = node.arguments.first() else {
        return Err(fail(node, Problem::AtLeastOne { instruction: "ONBUILD" }));
    };
    no_flags(node)?;
    let trigger = trigger.trim().to_uppercase();
    match trigger.as_str() {
        "ONBUILD" => return Err(fail(node, Problem::OnbuildOnbuild)),
        "MAINTAINER" | "FROM" => {
            return Err(fail(node, Problem::OnbuildTrigger { instruction: trigger }));
        }
        _ => {}
    }
    // The name was read from the beginning of the line, and is ASCII.
    let original = node.original.trim_start();
    let mut expression = original.get("onbuild".len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &node.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(Kind::Onbuild(expression))
}
