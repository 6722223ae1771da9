//! `.dockerignore`: which paths of a context do not exist for the build.
//!
//! ```text
//!   # comment                 only where `#` is the first character
//!   node_modules              that path and all below it
//!   **/*.o                    `**` is any number of directories, `*` and `?` never match `/`
//!   !keep/me.o                comes back; the last pattern that matches decides
//! ```
//! The rules are those of `moby/patternmatcher`, which BuildKit uses: patterns are cleaned as paths,
//! a pattern that matches a directory matches all below it, and a file that is not excluded counts even
//! if its directory is.

mod pattern;

use pattern::Pattern;

use crate::lexical::clean;

/// The largest ignore file that is read, in bytes. The largest in public use have some ten kilobytes.
pub const MAX_IGNORE_FILE: u64 = 4 << 20;
/// The most patterns in one file: each path is held against each of them.
pub const MAX_PATTERNS: usize = 100_000;

/// A pattern that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// `!` and nothing after it.
    #[error("illegal exclusion pattern: \"!\"")]
    BareNegation,
    /// An open bracket or a backslash at the end.
    #[error("syntax error in pattern {pattern:?}")]
    Syntax {
        /// The pattern as written.
        pattern: String,
    },
    /// More than [`MAX_PATTERNS`].
    #[error("there are {count} patterns, more than the limit of {MAX_PATTERNS}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// The patterns that the text of an ignore file has, in their order: comments and empty lines left out,
/// each cleaned, without a leading `/`.
pub fn patterns(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (negated, path) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if path.is_empty() {
            if negated {
                all.push("!".to_owned());
            }
            continue;
        }
        let path = clean(path);
        let path = if path.len() > 1 { path.strip_prefix('/').unwrap_or(&path) } else { &path };
        all.push(if negated { format!("!{path}") } else { path.to_owned() });
    }
    all
}

/// Patterns, ready to be held against paths.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// What is known of a directory when one walks down: which patterns match it or one above it.
#[derive(Clone, Debug, Default)]
pub struct Parent(Option<Vec<bool>>);

impl Ignore {
    /// Reads patterns as [`patterns`] gives them.
    ///
    /// # Errors
    /// A pattern makes no sense, or there are too many.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(PatternError::TooMany { count: patterns.len() });
        }
        let mut all = Vec::with_capacity(patterns.len());
        for text in patterns {
            all.extend(Pattern::new(text.as_ref())?);
        }
        Ok(Self { patterns: all })
    }

    /// Whether nothing is ever excluded.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the path, relative to the context and clean, is excluded.
    pub fn excludes(&self, path: &str) -> bool {
        self.excludes_below(path, &Parent::default()).0
    }

    /// The same for one who walks down: `parent` is what came back for the directory that holds
    /// `path` (for the topmost level [`Parent::default`]).
    pub fn excludes_below(&self, path: &str, parent: &Parent) -> (bool, Parent) {
        let mut excluded = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.0.as_ref().is_some_and(|parent| parent[index]);
            if !inherited && pattern.negated != excluded {
                continue;
            }
            let matches = inherited
                || pattern.matches(path)
                || parent.0.is_none() && parents(path).any(|above| pattern.matches(above));
            matched[index] = matches;
            if matches {
                excluded = !pattern.negated;
            }
        }
        (excluded, Parent(Some(matched)))
    }

    /// Whether something below this excluded directory may come back, so that one has to look into it.
    pub fn may_return_below(&self, directory: &str) -> bool {
        let directory = directory.trim_matches('/');
        self.patterns.iter().filter(|pattern| pattern.negated).any(|pattern| {
            let (literal, wildcard) = pattern.literal_prefix();
            below(literal, directory) || wildcard && below(directory, literal)
        })
    }

    /// Whether the root of the context as a whole is excluded (`*`, `**`): what `COPY .` copies is
    /// then empty but for what returns.
    pub(crate) fn excludes_root(&self) -> bool {
        self.patterns.iter().any(|pattern| !pattern.negated && matches!(pattern.text(), "*" | "**" | "**/*"))
    }
}

/// Whether `path` is `base` or below it. Everything is below the empty base.
fn below(path: &str, base: &str) -> bool {
    base.is_empty() || path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The directories above a path, topmost first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(list: &[&str], path: &str) -> bool {
        Ignore::new(list).unwrap().excludes(path)
    }

    #[test]
    fn lines_become_patterns() {
        let text = "\u{feff}# a comment\n  /a/../b/ \r\n\n #not a comment\n! /keep\n!\n/\n";
        assert_eq!(patterns(text), ["b", "#not a comment", "!keep", "!", "/"]);
    }

    #[test]
    fn directories_cover_what_is_below() {
        assert!(excludes(&["docs"], "docs/a/b"));
        assert!(!excludes(&["docs"], "docs2"));
        assert!(excludes(&["**/node_modules"], "a/b/node_modules/c"));
        assert!(excludes(&["**/*.o"], "x.o"));
        assert!(!excludes(&["*.o"], "a/x.o"));
        assert!(excludes(&["a/**"], "a/b/c"));
        assert!(!excludes(&["a/**"], "a"));
        assert!(excludes(&["a/*/c"], "a/b/c/d"));
        assert!(excludes(&["[a-c]?x"], "b1x"));
        assert!(excludes(&["a[[]b"], "a[b"));
        assert!(excludes(&[r"a\*b"], "a*b"));
        assert!(!excludes(&[r"a\*b"], "axb"));
    }

    #[test]
    fn the_last_match_decides() {
        let list = ["*", "!src", "src/*.tmp", "!src/keep.tmp"];
        assert!(excludes(&list, "README"));
        assert!(!excludes(&list, "src/main.rs"));
        assert!(excludes(&list, "src/x.tmp"));
        assert!(!excludes(&list, "src/keep.tmp"));
    }

    #[test]
    fn walking_down_says_the_same() {
        let ignore = Ignore::new(&["a", "!a/b", "a/b/*.x", "**/z"]).unwrap();
        for path in ["a", "a/b", "a/b/c", "a/b/c.x", "a/c", "q/z/y", "q"] {
            let mut parent = Parent::default();
            let mut excluded = false;
            for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
                (excluded, parent) = ignore.excludes_below(&path[..end], &parent);
            }
            assert_eq!(excluded, ignore.excludes(path), "{path}");
        }
        assert!(ignore.may_return_below("a"));
        assert!(!ignore.may_return_below("q"));
        assert!(Ignore::new(&["*", "!*/keep"]).unwrap().may_return_below("any"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Ignore::new(&["!"]).unwrap_err(), PatternError::BareNegation);
        for bad in ["[", "[a", "a\\", "[]", "[-]", "[a-"] {
            assert!(matches!(Ignore::new(&[bad]), Err(PatternError::Syntax { .. })), "{bad}");
        }
        assert!(Ignore::new(&["", "  "]).unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in ".*", path in "[a-z/*.\\[\\]\\\\]*") {
            if let Ok(ignore) = Ignore::new(&patterns(&text)) {
                ignore.excludes(&path);
                ignore.may_return_below(&path);
            }
            if let Ok(ignore) = Ignore::new(&[&path]) {
                ignore.excludes(&text);
            }
        }
    }
}
