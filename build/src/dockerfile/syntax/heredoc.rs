//! Marks of heredocs: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.

use super::super::problem::Problem;
use super::super::words::{Lexer, Variables};
use super::Heredoc;

/// The marks on an instruction's line, in their order.
pub(super) fn marks(line: &str) -> Result<Vec<Heredoc>, Problem> {
    let lexer = Lexer { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    // A line that can't be split has no heredocs: a shell will say what is wrong with it.
    let words = lexer.expand(line, &Variables::default()).map(|line| line.words).unwrap_or_default();
    let mut all = Vec::new();
    for word in words {
        all.extend(read(&word)?);
    }
    Ok(all)
}

/// The mark that this word is.
pub(crate) fn mark(word: &str) -> Option<Heredoc> {
    read(word).ok().flatten()
}

fn read(word: &str) -> Result<Option<Heredoc>, Problem> {
    let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let bad = || Problem::HeredocName { name: rest.to_owned() };
    let plain = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let raw = Lexer { keep_quotes: true, ..plain };
    let none = Variables::default();
    let words = plain.expand(rest, &none).map_err(|_| bad())?.words;
    let [name] = words.as_slice() else { return Ok(None) };
    let raw_words = raw.expand(rest, &none).map_err(|_| bad())?.words;
    let [raw_name] = raw_words.as_slice() else { return Err(bad()) };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    // A quote that is gone was one: some part of the word was quoted.
    let expand = quotes(name) == quotes(raw_name);
    Ok(Some(Heredoc { name: name.clone(), expand, chomp, content: String::new() }))
}

/// The text without tabs at the beginning of its lines.
pub(crate) fn without_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
