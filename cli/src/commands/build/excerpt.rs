//! The lines of a build file around what went wrong.

use onggi_engine::Error;
use onggi_engine::build::builder::Error as BuildError;

use crate::output::human;

/// How many lines before and after are shown.
const AROUND: u32 = 4;

/// What is to be shown of an error: one excerpt for each place.
pub fn of(error: &Error) -> Vec<String> {
    match error {
        Error::Dockerfile { file, text, diagnostic } => diagnostic
            .lines
            .iter()
            .map(|lines| excerpt(file, text, (lines.first, lines.last), diagnostic.word.as_deref()))
            .collect(),
        Error::Build { source, file, text } => match &**source {
            BuildError::Step { location: Some(location), .. } => {
                vec![excerpt(file, text, location.lines, None)]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn excerpt(file: &str, text: &str, (first, last): (u32, u32), word: Option<&str>) -> String {
    let last = last.max(first);
    let from = first.saturating_sub(AROUND).max(1);
    let rule = "-".repeat(20);
    let place = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let mut out = format!("{}:{place}\n{rule}\n", human::visible(file));
    let mut pointed = false;
    for (number, line) in (1_u32..).zip(text.lines()).skip_while(|(number, _)| *number < from) {
        if number > last + AROUND {
            break;
        }
        let inside = (first..=last).contains(&number);
        let mark = if inside { ">>>" } else { "   " };
        out += &format!("{number:4} | {mark} {}\n", human::visible(line));
        let found = word.filter(|_| inside && !pointed).and_then(|word| Some((line.find(word)?, word)));
        if let Some((at, word)) = found {
            let before = line[..at].chars().count();
            out += &format!("     |     {}{}\n", " ".repeat(before), "^".repeat(word.chars().count()));
            pointed = true;
        }
    }
    out + &rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_gets_a_caret() {
        let text = "FROM a\nRUM x\nCMD y\n";
        let shown = excerpt("Dockerfile", text, (2, 2), Some("RUM"));
        assert!(shown.contains("   2 | >>> RUM x\n     |     ^^^\n   3 |     CMD y\n"), "{shown}");
    }
}
