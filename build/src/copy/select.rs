//! Which files of a source are meant: `.dockerignore`, `--exclude`, and the patterns of `--parents`.
//! A directory that is not meant itself can hold something that is.

use crate::error::{Error, Result};
use crate::ignore::{Ignore, Parent};

/// A list of patterns, as of `.dockerignore`.
#[derive(Clone, Debug)]
pub(crate) struct Matcher(Ignore);

impl Matcher {
    /// Reads patterns.
    pub(crate) fn new(patterns: &[String]) -> Result<Self> {
        let read = Ignore::new(patterns);
        read.map(Self).map_err(|error| Error::Invalid {
            what: "pattern",
            text: patterns.join(" "),
            problem: error.to_string(),
        })
    }

    /// Whether something below a matched directory can be taken back.
    pub(crate) fn may_return_below(&self, directory: &str) -> bool {
        self.0.may_return_below(directory)
    }

    /// Whether the path (without leading slash) matches, given what was seen of its directory.
    pub(crate) fn matches(&self, path: &str, parent: &Parent) -> (bool, Parent) {
        self.0.excludes_below(path, parent)
    }

    /// As [`Matcher::matches`], for a path of which nothing is known yet.
    pub(crate) fn matches_path(&self, path: &str) -> (bool, Parent) {
        let mut result = (false, Parent::default());
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            if end > 0 {
                result = self.matches(&path[..end], &result.1);
            }
        }
        result
    }
}

/// What of a source is meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// By paths from the source's root; what matches is not there.
    pub(crate) ignore: Option<Matcher>,
    /// By paths from the directory that is copied; only what matches.
    pub(crate) include: Option<Matcher>,
    /// By the same paths; not what matches.
    pub(crate) exclude: Option<Matcher>,
}

/// What is known of a directory when its entries are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    ignore: Parent,
    include: Parent,
    exclude: Parent,
}

impl Selection {
    /// Whether everything is meant.
    pub(crate) fn is_all(&self) -> bool {
        self.ignore.is_none() && self.include.is_none() && self.exclude.is_none()
    }

    /// The state at the directory (or file) that is copied itself.
    pub(crate) fn begin(&self, from_root: &str) -> State {
        let ignore = self.ignore.as_ref().map(|ignore| ignore.matches_path(from_root).1);
        State { ignore: ignore.unwrap_or_default(), ..State::default() }
    }

    /// Whether the entry is meant itself, whatever is below it.
    pub(crate) fn takes(&self, from_root: &str, below: &str, parent: &State) -> (bool, State) {
        let mut state = State::default();
        let mut taken = true;
        if let Some(ignore) = &self.ignore {
            let (matched, seen) = ignore.matches(from_root, &parent.ignore);
            taken &= !matched;
            state.ignore = seen;
        }
        if let Some(include) = &self.include {
            let (matched, seen) = include.matches(below, &parent.include);
            taken &= matched;
            state.include = seen;
        }
        if let Some(exclude) = &self.exclude {
            let (matched, seen) = exclude.matches(below, &parent.exclude);
            taken &= !matched;
            state.exclude = seen;
        }
        (taken, state)
    }

    /// Whether something below a directory that is not meant itself can be.
    pub(crate) fn may_take_below(&self, from_root: &str, below: &str) -> bool {
        let returns = |matcher: &Option<Matcher>, directory: &str| {
            matcher.as_ref().is_some_and(|matcher| matcher.may_return_below(directory))
        };
        self.include.is_some() || returns(&self.ignore, from_root) || returns(&self.exclude, below)
    }
}
