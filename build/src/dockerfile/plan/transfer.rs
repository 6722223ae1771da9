//! `COPY` and `ADD`.

use onggi_oci::Digest;

use super::stage::Command;
use super::{Planner, git};
use crate::dockerfile::instruction::Transfer;
use crate::dockerfile::problem::{Diagnostic, Lines, Problem};
use crate::dockerfile::words::Lexer;
use crate::graph::{Copy, File, FileAction, Http, Mkfile, Mode, Op, Owner, Principal, VertexId};
use crate::lexical::{base, clean, join};

type Result<T> = std::result::Result<T, Diagnostic>;

/// The name of a file from a URL that has none.
const UNNAMED: &str = "__unnamed__";

/// A transfer with variables in place.
struct Resolved<'a> {
    transfer: &'a Transfer,
    lines: Lines,
    add: bool,
    /// What each copy has in common.
    common: Copy,
    checksum: Option<String>,
    /// As people see the step.
    step: String,
}

impl Resolved<'_> {
    fn fail(&self, problem: Problem, word: &str) -> Diagnostic {
        Diagnostic::at(problem, self.lines).with_word(word)
    }
}

impl Planner<'_> {
    pub(super) fn transfer(
        &mut self,
        index: usize,
        command: &Command,
        transfer: &Transfer,
        add: bool,
    ) -> Result<()> {
        let instruction = &command.instruction;
        let lines = instruction.lines;
        let platform = self.platform(index);
        let expand = |planner: &mut Self, word: &str| planner.expand(index, instruction, word);
        let chown = transfer.chown.as_deref().map(|word| expand(self, word)).transpose()?;
        let chown = chown.filter(|owner| !owner.is_empty());
        let chmod = transfer.chmod.as_deref().map(|word| expand(self, word)).transpose()?;
        let chmod = chmod.filter(|mode| !mode.is_empty());
        let checksum = transfer.checksum.as_deref().map(|word| expand(self, word)).transpose()?;
        let checksum = checksum.filter(|text| !text.is_empty());
        let mut sources = Vec::new();
        for source in &transfer.sources {
            sources.push(expand(self, source)?);
        }
        let destination_text = expand(self, &transfer.destination)?;
        let mut exclude = Vec::new();
        for pattern in &transfer.exclude {
            exclude.push(expand(self, pattern)?);
        }
        let heredoc = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
        let mut contents = Vec::new();
        for content in &transfer.contents {
            let text = if content.expand {
                self.expand_by(heredoc, index, instruction, &content.content)?
            } else {
                content.content.clone()
            };
            contents.push((content.name.clone(), text));
        }

        let fail = |problem: Problem, word: &str| Diagnostic::at(problem, lines).with_word(word);
        let destination = self.below_directory(index, &destination_text);
        let common = Copy {
            destination,
            owner: chown.as_deref().map(|text| owner(text, lines)).transpose()?,
            mode: chmod.as_deref().map(|text| mode(text, lines)).transpose()?,
            exclude,
            create_destination: true,
            ..Copy::default()
        };
        if checksum.is_some() {
            let [source] = sources.as_slice() else {
                return Err(fail(Problem::ChecksumSources, "--checksum"));
            };
            if !is_url(source) && !git::is_reference(source) {
                return Err(fail(Problem::ChecksumLocal, "--checksum"));
            }
        }
        let keyword = if add { "ADD" } else { "COPY" };
        let mut text = keyword.to_owned();
        if transfer.parents {
            text.push_str(" --parents");
        }
        if let Some(chown) = &chown {
            text.push_str(&format!(" --chown={chown}"));
        }
        if let Some(chmod) = &chmod {
            text.push_str(&format!(" --chmod={chmod}"));
        }

        let shown =
            self.shown(self.lexer(), &instruction.code, &self.states[index].variables, command.triggered);
        let step = self.step_name(index, &shown, &platform);
        let resolved = Resolved { transfer, lines, add, common, checksum, step };
        let mut actions = Vec::new();
        for source in &sources {
            text.push_str(&format!(" {source}"));
            let copy = if let Some(found) = git::reference(source) {
                self.git(index, &resolved, source, found)?
            } else if is_url(source) {
                self.url(index, &resolved, source)?
            } else {
                self.local(index, command, &resolved, source)?
            };
            actions.push(FileAction::Copy(Box::new(copy)));
        }
        for (name, content) in contents {
            text.push_str(&format!(" <<{name}"));
            actions.push(FileAction::Copy(Box::new(self.inline(&resolved, &name, content, &platform))));
        }
        text.push_str(&format!(" {destination_text} # buildkit"));

        let base = self.states[index].vertex;
        let link = transfer.link && chmod.is_none();
        let step = resolved.step;
        let vertex = if link {
            let file = Op::File(File { base: None, actions });
            let alone = self.vertex(index, file, step.clone(), lines, &platform);
            match base {
                None => alone,
                Some(base) => {
                    let name = match step.split_once("] ") {
                        Some((prefix, rest)) => format!("{prefix}] LINK {rest}"),
                        None => format!("LINK {step}"),
                    };
                    self.vertex(index, Op::Merge(vec![base, alone]), name, lines, &platform)
                }
            }
        } else {
            self.vertex(index, Op::File(File { base, actions }), step, lines, &platform)
        };
        self.states[index].vertex = Some(vertex);
        self.history(index, text, true);
        Ok(())
    }

    /// A path below the stage's directory. What ends with `/` or `/.` is a directory.
    fn below_directory(&self, index: usize, path: &str) -> String {
        let directory = self.states[index].directory.as_str();
        let mut full = match path {
            "" | "." => return format!("{}/", directory.trim_end_matches('/')),
            path if path.starts_with('/') => path.to_owned(),
            path => join(directory, path),
        };
        if path.starts_with('/') {
            full = clean(&full);
        }
        if path.ends_with('/') && !full.ends_with('/') {
            full.push('/');
        } else if path.ends_with("/.") {
            if full != "/" {
                full.push('/');
            }
            full.push('.');
        }
        full
    }

    /// From a directory of the caller's, a stage or an image.
    fn local(
        &mut self,
        index: usize,
        command: &Command,
        resolved: &Resolved<'_>,
        source: &str,
    ) -> Result<Copy> {
        let transfer = resolved.transfer;
        let from = if let Some(stage) = command.sources.first().copied().flatten() {
            if !self.states[stage].done {
                let from = transfer.from.clone().unwrap_or_default();
                let stage = self.states[index].label.clone();
                return Err(resolved.fail(Problem::LaterStage { from: from.clone(), stage }, &from));
            }
            self.readable(stage)
        } else {
            let keyword = if resolved.add { "Add" } else { "Copy" };
            self.check_ignored(source, keyword, resolved.lines);
            self.main_context()
        };
        let mut copy = Copy {
            from: Some(from),
            follow_links: true,
            contents_only: true,
            unpack: transfer.unpack.unwrap_or(resolved.add),
            wildcard: true,
            allow_empty_wildcard: true,
            ..resolved.common.clone()
        };
        let path = if transfer.parents {
            // Directories up to `/./` are not kept.
            let (pivot, pattern) = source.split_once("/./").unwrap_or(("/", source));
            let pattern = join("/", pattern).trim_start_matches('/').to_owned();
            if !has_wildcard(pivot) && !has_wildcard(&pattern) {
                copy.required = vec![pattern.clone()];
            }
            copy.include = vec![pattern];
            copy.parents = true;
            pivot
        } else {
            source
        };
        copy.source = if path.starts_with('/') { clean(path) } else { join("/", path) };
        Ok(copy)
    }

    fn url(&mut self, index: usize, resolved: &Resolved<'_>, url: &str) -> Result<Copy> {
        if !resolved.add {
            return Err(resolved.fail(Problem::CopyUrl, url));
        }
        let filename = filename(url);
        let checksum = match &resolved.checksum {
            None => None,
            Some(text) => Some(
                text.parse::<Digest>()
                    .map_err(|_| resolved.fail(Problem::ChecksumFormat { text: text.clone() }, text))?,
            ),
        };
        let http = Http { url: url.to_owned(), checksum, filename: filename.clone(), ..Http::default() };
        let vertex = self.source(index, Op::Http(http), resolved);
        Ok(Copy {
            from: Some(vertex),
            source: format!("/{filename}"),
            unpack: resolved.transfer.unpack.unwrap_or_default(),
            ..resolved.common.clone()
        })
    }

    fn git(
        &mut self,
        index: usize,
        resolved: &Resolved<'_>,
        text: &str,
        found: std::result::Result<git::Reference, String>,
    ) -> Result<Copy> {
        let reference = found
            .map_err(|reason| resolved.fail(Problem::GitReference { text: text.to_owned(), reason }, text))?;
        if !resolved.add {
            return Err(resolved.fail(Problem::CopyGit, text));
        }
        let mut git = reference.git;
        match (resolved.transfer.keep_git_dir, reference.keep_git_dir) {
            (Some(flag), Some(url)) if flag != url => {
                return Err(resolved.fail(Problem::KeepGitDir, "--keep-git-dir"));
            }
            (flag, url) => git.keep_git_dir = url.or(flag).unwrap_or_default(),
        }
        if let Some(flag) = &resolved.checksum {
            if let Some(url) = git.checksum.as_ref().filter(|url| *url != flag) {
                let problem = Problem::ChecksumTwice { flag: flag.clone(), url: url.clone() };
                return Err(resolved.fail(problem, flag));
            }
            git.checksum = Some(flag.clone());
        }
        let vertex = self.source(index, Op::Git(git), resolved);
        Ok(Copy {
            from: Some(vertex),
            source: "/".to_owned(),
            contents_only: true,
            ..resolved.common.clone()
        })
    }

    /// A source that a line of the Dockerfile names.
    fn source(&mut self, index: usize, op: Op, resolved: &Resolved<'_>) -> VertexId {
        let platform = self.platform(index);
        self.vertex(index, op, resolved.step.clone(), resolved.lines, &platform)
    }

    /// A heredoc: a file that is copied.
    fn inline(
        &mut self,
        resolved: &Resolved<'_>,
        name: &str,
        content: String,
        platform: &onggi_oci::Platform,
    ) -> Copy {
        let path = join("/", name);
        let file = Mkfile { path: path.clone(), mode: 0o644, content: content.into_bytes(), owner: None };
        let file = Op::File(File { base: None, actions: vec![FileAction::Mkfile(file)] });
        let vertex = self.internal(file, "preparing inline document", platform);
        Copy { from: Some(vertex), source: path, ..resolved.common.clone() }
    }
}

fn is_url(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && !git::is_reference(source)
}

/// The last part of a URL's path.
fn filename(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let path = path.find('/').map_or("", |at| &path[at..]);
    let decoded = git::decoded(path);
    match base(&decoded) {
        "." | "/" | ".." => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

fn has_wildcard(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// `user[:group]`, names or numbers.
pub(super) fn owner(text: &str, lines: Lines) -> Result<Owner> {
    let principal = |part: &str| -> Result<Option<Principal>> {
        if part.is_empty() {
            return Ok(None);
        }
        if part == "root" {
            return Ok(Some(Principal::Id(0)));
        }
        let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Some(Principal::Name(part.to_owned())));
        }
        // A number that wraps around could be root's.
        match part.parse::<u32>() {
            Ok(id) if i32::try_from(id).is_ok() => Ok(Some(Principal::Id(id))),
            _ => Err(Diagnostic::at(Problem::Chown { owner: text.to_owned() }, lines).with_word(text)),
        }
    };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    Ok(Owner { user: principal(user)?, group: principal(group)? })
}

/// Octal permissions, or changes as chmod(1) has them.
fn mode(text: &str, lines: Lines) -> Result<Mode> {
    let bad = || Diagnostic::at(Problem::Chmod { mode: text.to_owned() }, lines).with_word(text);
    match u32::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o7777 && !text.starts_with('+') => return Ok(Mode::Octal(bits)),
        Ok(_) if !text.starts_with('+') => return Err(bad()),
        _ => {}
    }
    if text.split(',').all(is_change) { Ok(Mode::Symbolic(text.to_owned())) } else { Err(bad()) }
}

/// Whether this is one of chmod(1)'s changes: `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`.
fn is_change(text: &str) -> bool {
    let rest = text.trim_start_matches(['u', 'g', 'o', 'a']);
    if !rest.starts_with(['+', '-', '=']) {
        return false;
    }
    rest[1..].split(['+', '-', '=']).all(|bits| {
        matches!(bits, "u" | "g" | "o")
            || bits.chars().all(|c| matches!(c, 'r' | 'w' | 'x' | 'X' | 's' | 't'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        let id = |n| Some(Principal::Id(n));
        let owner = |text| owner(text, Lines::default());
        assert_eq!(owner("1000:root").unwrap(), Owner { user: id(1000), group: id(0) });
        assert_eq!(owner("me").unwrap(), Owner { user: Some(Principal::Name("me".into())), group: None });
        for bad in ["4294967296", "-1", "1:99999999999"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes() {
        let mode = |text| mode(text, Lines::default());
        assert_eq!(mode("0755").unwrap(), Mode::Octal(0o755));
        assert_eq!(mode("u=rwX,go=rX").unwrap(), Mode::Symbolic("u=rwX,go=rX".into()));
        assert_eq!(mode("a+x").unwrap(), Mode::Symbolic("a+x".into()));
        for bad in ["64a", "10000", "u", "u+q", "", "x+r"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_downloads() {
        assert_eq!(filename("https://x/a/b.tar.gz?c=/d#e"), "b.tar.gz");
        assert_eq!(filename("https://x/a%20b/"), "a b");
        assert_eq!(filename("https://x"), UNNAMED);
        assert_eq!(filename("https://x/%2e%2e"), UNNAMED);
    }
}
