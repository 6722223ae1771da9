//! Lines of a Dockerfile around a place, as people are shown them:
//!
//! ```text
//!   Dockerfile:2
//!   --------------------
//!      1 |     FROM scratch
//!      2 | >>> COPI a b
//!        |     ^^^^
//!   --------------------
//! ```

use super::problem::{Diagnostic, Lines};

/// How many lines are shown besides the ones in question.
const AROUND: u32 = 4;
/// The same if there are several in question.
const AROUND_SEVERAL: u32 = 2;
/// The most lines shown: an instruction can have hundreds.
const MAX_SHOWN: u32 = 40;
/// The longest line shown, in characters.
const MAX_WIDTH: usize = 400;
/// What frames the lines.
const RULE: &str = "--------------------";

impl Diagnostic {
    /// The lines in question with a caret below the word that is wrong; nothing if it has no place.
    pub fn excerpt(&self, file: &str, text: &str) -> String {
        excerpt(file, text, &self.lines, self.word.as_deref())
    }
}

/// The lines of a text around places in it. Each place is marked, and below its first line that has
/// the word is a caret.
pub fn excerpt(file: &str, text: &str, places: &[Lines], word: Option<&str>) -> String {
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let first = places.iter().map(|place| place.first).min().unwrap_or_default();
    let last = places.iter().map(|place| place.last).max().unwrap_or_default();
    if first == 0 || first > count {
        return String::new();
    }
    let last = last.clamp(first, count).min(first.saturating_add(MAX_SHOWN));
    let (mut from, mut to) = (first, last);
    let mut more = if first == last { AROUND } else { AROUND_SEVERAL };
    while more > 0 && (from > 1 || to < count) {
        if from > 1 {
            from -= 1;
            more -= 1;
        }
        if to < count && more > 0 {
            to += 1;
            more -= 1;
        }
    }

    let marked = |number: u32| places.iter().any(|place| (place.first..=place.last).contains(&number));
    let mut out = format!("{file}:{first}\n{RULE}\n");
    let mut word = word.filter(|word| !word.is_empty() && !word.contains('\n'));
    for (number, line) in (from..=to).zip(lines.iter().skip(from as usize - 1)) {
        let shown: String = line.chars().take(MAX_WIDTH).collect();
        let mark = if marked(number) { ">>>" } else { "   " };
        out.push_str(format!(" {number:>3} | {mark} {shown}").trim_end());
        out.push('\n');
        if !marked(number) {
            continue;
        }
        if let Some((at, length)) = word.and_then(|word| find(&shown, word)) {
            // Tabs stay, so that the caret stands below its word.
            let indent: String = shown.chars().take(at).map(|c| if c == '\t' { c } else { ' ' }).collect();
            out.push_str(&format!("     |     {indent}{}\n", "^".repeat(length)));
            word = None;
        }
    }
    out.push_str(RULE);
    out.push('\n');
    out
}

/// Where a word stands in a line, and how long it is, in characters.
fn find(line: &str, word: &str) -> Option<(usize, usize)> {
    let at = line.find(word)?;
    Some((line[..at].chars().count(), word.chars().count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_below_its_word() {
        let text = "FROM a\n\tCOPI x y\nRUN z\n";
        let shown = excerpt("Dockerfile", text, &[Lines { first: 2, last: 2 }], Some("COPI"));
        assert_eq!(
            shown,
            "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> \tCOPI x y\n     |     \t^^^^\n   3 |     RUN z\n   4 |\n--------------------\n"
        );
    }

    #[test]
    fn places_outside_are_not_shown() {
        assert_eq!(excerpt("f", "a", &[], Some("a")), "");
        assert_eq!(excerpt("f", "a", &[Lines { first: 9, last: 9 }], None), "");
        let long = "x\n".repeat(500);
        let shown = excerpt("f", &long, &[Lines { first: 1, last: 500 }], None);
        assert!(shown.lines().count() < 50);
    }
}
