//! Checks: what works and is still not what one should write.
//!
//! ```text
//!   # check=skip=JSONArgsRecommended;error=true     for the file
//!   # check=skip=SecretsUsedInArgOrEnv              for the instruction below it
//! ```
//! The 22 rules with the names, texts and addresses that BuildKit has. Two are only on if they are asked for
//! (`experimental=`).

mod rule;

pub use rule::Rule;

use super::problem::{Diagnostic, Lines, Problem};
use super::syntax;

/// A warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule that was not kept.
    pub rule: Rule,
    /// What exactly is so.
    pub detail: String,
    /// Where.
    pub lines: Lines,
}

/// What `# check=` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    skip_all: bool,
    skip: Vec<String>,
    experimental_all: bool,
    experimental: Vec<String>,
    /// Whether warnings make the build fail.
    pub error: bool,
}

impl Config {
    /// Reads `skip=A,B;experimental=all;error=true`.
    ///
    /// # Errors
    /// A part is none of these.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| Problem::CheckOption { option: part.to_owned() })?;
            let (key, value) = (key.trim(), value.trim());
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key {
                "skip" if value == "all" => config.skip_all = true,
                "skip" => config.skip = names(),
                "experimental" if value == "all" => config.experimental_all = true,
                "experimental" => config.experimental = names(),
                "error" => {
                    config.error =
                        boolean(value).ok_or_else(|| Problem::CheckBoolean { option: part.to_owned() })?;
                }
                _ => return Err(Problem::CheckOption { option: key.to_owned() }),
            }
        }
        Ok(config)
    }

    /// What a file says of itself.
    pub(crate) fn of_file(text: &str) -> Result<Self, Diagnostic> {
        match syntax::check_directive(text) {
            None => Ok(Self::default()),
            Some((value, line)) => Self::parse(value).map_err(|problem| {
                Diagnostic::at(problem, Lines { first: line, last: line }).with_word(value)
            }),
        }
    }

    /// What the comments above an instruction say. One that can't be read changes nothing.
    fn of_comments(comments: &[String]) -> Option<Self> {
        let value = comments.iter().find_map(|comment| match syntax::directive_in(comment) {
            Some((name, value)) if name == "check" => value.split(' ').next().map(str::to_owned),
            _ => None,
        })?;
        Self::parse(&value).ok()
    }

    fn skips(&self, rule: Rule) -> bool {
        self.skip_all || self.skip.iter().any(|name| name == rule.name())
    }

    fn tries(&self, rule: Rule) -> bool {
        self.experimental_all || self.experimental.iter().any(|name| name == rule.name())
    }
}

/// A truth value as Go's `strconv.ParseBool` reads it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Collects warnings.
#[derive(Clone, Debug, Default)]
pub struct Linter {
    config: Config,
    local: Option<Config>,
    warnings: Vec<Warning>,
}

impl Linter {
    /// With what the file says.
    pub fn new(config: Config) -> Self {
        Self { config, local: None, warnings: Vec::new() }
    }

    /// From here on, what these comments say counts too; nothing else's.
    pub(crate) fn enter(&mut self, comments: &[String]) {
        self.local = Config::of_comments(comments);
    }

    /// From here on only what the file says counts.
    pub(crate) fn leave(&mut self) {
        self.local = None;
    }

    /// Warns, unless the rule is off.
    pub(crate) fn warn(&mut self, rule: Rule, lines: Lines, detail: impl Into<String>) {
        let mut configs = std::iter::once(&self.config).chain(&self.local);
        let on = if rule.experimental() {
            configs.any(|config| config.tries(rule))
        } else {
            !configs.any(|config| config.skips(rule))
        };
        if on {
            self.warnings.push(Warning { rule, detail: detail.into(), lines });
        }
    }

    /// What was found so far.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Fails if there are warnings and the file wants that.
    pub(crate) fn verdict(&self) -> Result<(), Diagnostic> {
        if !self.config.error || self.warnings.is_empty() {
            return Ok(());
        }
        let mut rules: Vec<String> = Vec::new();
        let mut lines = Vec::new();
        for warning in &self.warnings {
            let name = warning.rule.name();
            if !rules.iter().any(|known| known == name) {
                rules.push(name.to_owned());
            }
            lines.push(warning.lines);
        }
        Err(Diagnostic { lines, ..Diagnostic::whole(Problem::Checks { rules }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let config = Config::parse("skip=StageNameCasing, FromAsCasing;error=true").unwrap();
        assert!(config.error && config.skips(Rule::FromAsCasing) && !config.skips(Rule::UndefinedVar));
        assert!(Config::parse("experimental=all").unwrap().tries(Rule::CopyIgnoredFile));
        assert_eq!(
            Config::parse("skip").unwrap_err().to_string(),
            "failed to parse check options: invalid check option \"skip\""
        );
        assert!(Config::parse("error=maybe").is_err());
    }

    #[test]
    fn comments_count_for_one_instruction() {
        let mut linter = Linter::default();
        linter.enter(&["check=skip=UndefinedVar".to_owned()]);
        linter.warn(Rule::UndefinedVar, Lines::default(), "x");
        linter.leave();
        linter.warn(Rule::UndefinedVar, Lines::default(), "y");
        linter.warn(Rule::CopyIgnoredFile, Lines::default(), "off");
        assert_eq!(linter.warnings().len(), 1);
    }
}
