//! Lines of a Dockerfile to instructions that are not yet understood.
//!
//! ```text
//!   # syntax=docker/dockerfile:1     directives: only above everything else
//!   # stage one                      a comment belongs to the instruction below it
//!   RUN --mount=type=tmpfs,target=/x one \
//!     # left out                     comments and empty lines inside of an instruction are skipped
//!     two <<EOF
//!   text                             heredocs follow in the order of their marks
//!   EOF
//! ```
//! No variable is looked at here. Limits, oddities and messages are those of BuildKit's parser.

mod arguments;
mod directive;
mod flags;
mod heredoc;

pub(crate) use directive::name_and_value as directive_in;
pub use directive::{Directive, check_directive};
pub(crate) use heredoc::{mark, without_tabs};

use super::problem::{Diagnostic, Lines, Problem};

/// The longest line in bytes with its end, BuildKit's limit.
pub const MAX_LINE: usize = 65535;

/// A Dockerfile as its lines say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The instructions in their order.
    pub nodes: Vec<Node>,
    /// The escape character.
    pub escape: char,
    /// Directives in their order.
    pub directives: Vec<Directive>,
    /// Lines at which an instruction ends that has an empty line inside, which is deprecated.
    pub empty_continuations: Vec<u32>,
}

/// An instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name as written.
    pub name: String,
    /// What follows name and flags. For `ENV` and `LABEL` triples of key, value, and `=` or nothing;
    /// for `ONBUILD` the other instruction's name and arguments.
    pub arguments: Vec<String>,
    /// Whether the arguments were a JSON list.
    pub json: bool,
    /// `--name=value` without quotes.
    pub flags: Vec<String>,
    /// All of it on one line.
    pub original: String,
    /// Heredocs in their order.
    pub heredocs: Vec<Heredoc>,
    /// Where it stands.
    pub lines: Lines,
    /// Comments right above it.
    pub comments: Vec<String>,
}

/// A document inside of a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Whether variables in it count: the word was not quoted.
    pub expand: bool,
    /// Whether tabs at the beginning of lines are left out: `<<-`.
    pub chomp: bool,
    /// The text, with the ends of its lines.
    pub content: String,
}

/// Reads a Dockerfile.
///
/// # Errors
/// A directive, heredoc, list or limit is not what it should be, or there is no instruction.
pub fn parse(text: &str) -> Result<File, Diagnostic> {
    let mut directives = directive::Reader::default();
    let mut escape = '\\';
    let mut file =
        File { nodes: Vec::new(), escape, directives: Vec::new(), empty_continuations: Vec::new() };
    let mut comments: Vec<String> = Vec::new();
    let mut number = 0;
    let mut too_long = false;
    let mut lines = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .split_inclusive('\n')
        .inspect(|line| too_long |= line.len() > MAX_LINE + 1)
        .take_while(|line| line.len() <= MAX_LINE + 1);

    while let Some(raw) = lines.next() {
        number += 1;
        let line = raw.trim_end_matches(['\r', '\n']).trim_start();
        if is_comment(line) {
            // The first character of the line, not of the comment, is the one that is left out.
            let comment = raw.get(1..).unwrap_or_default().trim();
            if comment.is_empty() {
                comments.clear();
            } else {
                comments.push(comment.to_owned());
            }
        }
        let at = |problem, first, last| Diagnostic::at(problem, Lines { first, last });
        if let Some(found) = directives.read(line, number).map_err(|problem| at(problem, number, number))? {
            comments.pop();
            if found.name == "escape" {
                escape = match found.value.as_str() {
                    "\\" => '\\',
                    "`" => '`',
                    token => return Err(at(Problem::Escape { token: token.to_owned() }, number, number)),
                };
                file.escape = escape;
            }
            file.directives.push(found);
        }
        let line = if is_comment(line) { "" } else { line };
        let (head, mut ended) = without_continuation(line, escape);
        if ended && head.is_empty() {
            continue;
        }

        let first = number;
        let mut logical = head.to_owned();
        let mut empty_inside = false;
        while !ended {
            let Some(raw) = lines.next() else { break };
            number += 1;
            let line = raw.trim_end_matches(['\r', '\n']);
            if is_comment(line) {
                continue;
            }
            if line.trim_start().is_empty() {
                empty_inside = true;
                continue;
            }
            let more;
            (more, ended) = without_continuation(line, escape);
            logical.push_str(more);
        }
        if empty_inside {
            file.empty_continuations.push(number);
        }

        let mut node = instruction(&logical, escape).map_err(|problem| at(problem, first, number))?;
        if can_have_heredocs(&node) && logical.contains("<<") {
            for mut heredoc in heredoc::marks(&logical).map_err(|problem| at(problem, first, number))? {
                let mut terminated = false;
                for raw in lines.by_ref() {
                    number += 1;
                    let line = raw.trim_end_matches(['\r', '\n']);
                    let line = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
                    if line == heredoc.name {
                        terminated = true;
                        break;
                    }
                    heredoc.content.push_str(raw);
                }
                if !terminated {
                    return Err(at(Problem::Heredoc, first, number).with_word(format!("<<{}", heredoc.name)));
                }
                node.heredocs.push(heredoc);
            }
        }
        node.lines = Lines { first, last: number };
        node.comments = std::mem::take(&mut comments);
        file.nodes.push(node);
    }
    drop(lines);

    if file.nodes.is_empty() && !too_long {
        return Err(Diagnostic::at(Problem::NoInstructions, Lines { first: number, last: number }));
    }
    if too_long {
        let line = number + 1;
        return Err(Diagnostic::at(Problem::LineTooLong, Lines { first: line, last: line }));
    }
    Ok(file)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The line without the escape character at its end, and whether the instruction ends with it. The
/// character twice is no continuation.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    let Some(rest) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
        return (line, true);
    };
    if rest.ends_with(escape) { (line, true) } else { (rest, false) }
}

/// Reads one logical line.
fn instruction(line: &str, escape: char) -> Result<Node, Problem> {
    let line_trimmed = line.trim();
    let (name, rest) = match line_trimmed.find(arguments::is_blank) {
        Some(at) => (&line_trimmed[..at], line_trimmed[at..].trim_start_matches(arguments::is_blank)),
        None => (line_trimmed, ""),
    };
    let (rest, flags) = flags::take(rest);
    let mut node = Node { name: name.to_owned(), flags, original: line.to_owned(), ..Node::default() };
    let rest = rest.trim();
    match name.to_ascii_lowercase().as_str() {
        "add" | "copy" | "volume" => (node.arguments, node.json) = arguments::list(rest)?,
        "run" | "cmd" | "entrypoint" | "shell" => (node.arguments, node.json) = arguments::command(rest)?,
        "env" => node.arguments = arguments::pairs(rest, "ENV", escape)?,
        "label" => node.arguments = arguments::pairs(rest, "LABEL", escape)?,
        "arg" => node.arguments = arguments::words(rest, escape),
        "expose" | "from" => node.arguments = arguments::blank_separated(rest),
        "healthcheck" => (node.arguments, node.json) = arguments::healthcheck(rest)?,
        "maintainer" | "stopsignal" | "user" | "workdir" => {
            node.arguments.extend((!rest.is_empty()).then(|| rest.to_owned()));
        }
        "onbuild" if !rest.is_empty() => {
            // `ONBUILD ONBUILD ONBUILD …` must not recurse: the second one is refused anyway.
            let inner = match rest.split(arguments::is_blank).next() {
                Some(second) if second.eq_ignore_ascii_case("onbuild") => {
                    Node { name: second.to_owned(), ..Node::default() }
                }
                _ => instruction(rest, escape)?,
            };
            node.arguments.push(inner.name);
            node.arguments.extend(inner.arguments);
            node.json = inner.json;
        }
        _ => {}
    }
    Ok(node)
}

/// Whether marks of heredocs on its line count.
fn can_have_heredocs(node: &Node) -> bool {
    let name = if node.name.eq_ignore_ascii_case("onbuild") {
        node.arguments.first().unwrap_or(&node.name)
    } else {
        &node.name
    };
    !node.json && ["add", "copy", "run"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests;
