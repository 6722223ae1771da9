//! What a Dockerfile takes and makes: arguments, secrets, agents; stages.

use std::collections::BTreeMap;

use super::instruction::{Document, Stage};
use super::problem::Lines;

/// What a target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Arguments that change it.
    pub arguments: Vec<Argument>,
    /// Secrets that it uses.
    pub secrets: Vec<Need>,
    /// Agents that it uses.
    pub ssh: Vec<Need>,
}

/// An argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its value in this build.
    pub value: String,
    /// Where it is declared.
    pub lines: Lines,
}

/// A secret or agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Its ID.
    pub name: String,
    /// Whether it must be given.
    pub required: bool,
    /// Where it is used first.
    pub lines: Lines,
}

/// A stage as something that can be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetInfo {
    /// Its name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it is built if nobody says which.
    pub default: bool,
    /// What it is from, as written.
    pub base: String,
    /// For what platform, as written.
    pub platform: Option<String>,
    /// Where.
    pub lines: Lines,
}

/// The stages of a Dockerfile.
pub fn targets(document: &Document) -> Vec<TargetInfo> {
    let last = document.stages.len().saturating_sub(1);
    let info = |(index, stage): (usize, &Stage)| TargetInfo {
        name: stage.name.clone(),
        description: stage.description.clone(),
        default: index == last,
        base: stage.base.clone(),
        platform: stage.platform.clone(),
        lines: stage.lines,
    };
    document.stages.iter().enumerate().map(info).collect()
}

/// What is learned of one stage while it is planned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capture {
    /// Arguments that are declared in what the stage sees.
    pub(crate) defined: BTreeMap<String, Defined>,
    /// Those that it uses.
    pub(crate) used: Vec<String>,
    pub(crate) secrets: Vec<Need>,
    pub(crate) ssh: Vec<Need>,
}

/// A declared argument.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defined {
    pub(crate) value: String,
    pub(crate) description: Option<String>,
    /// Arguments that its default uses.
    pub(crate) needs: Vec<String>,
    pub(crate) lines: Lines,
}

impl Capture {
    /// How many bytes a copy of it has, about.
    pub(crate) fn size(&self) -> usize {
        /// A name, a place in the tree, lines.
        const ENTRY: usize = 160;
        let texts = self.defined.values().map(|defined| defined.value.len()).sum::<usize>();
        texts + ENTRY * (self.defined.len() + self.used.len())
    }

    pub(crate) fn mark_used(&mut self, name: &str) {
        if !self.used.iter().any(|known| known == name) {
            self.used.push(name.to_owned());
        }
    }

    pub(crate) fn need_secret(&mut self, need: Need) {
        if !self.secrets.iter().any(|known| known.name == need.name) {
            self.secrets.push(need);
        }
    }

    pub(crate) fn need_ssh(&mut self, need: Need) {
        if !self.ssh.iter().any(|known| known.name == need.name) {
            self.ssh.push(need);
        }
    }

    /// The arguments that are used, also through defaults of others.
    fn arguments(&self) -> Vec<Argument> {
        let mut names = self.used.clone();
        let mut next = 0;
        while let Some(name) = names.get(next) {
            let needs = self.defined.get(name).map(|defined| defined.needs.clone()).unwrap_or_default();
            for need in needs {
                if !names.contains(&need) {
                    names.push(need);
                }
            }
            next += 1;
        }
        names
            .into_iter()
            .filter_map(|name| {
                let defined = self.defined.get(&name)?;
                Some(Argument {
                    description: defined.description.clone(),
                    value: defined.value.clone(),
                    lines: defined.lines,
                    name,
                })
            })
            .collect()
    }
}

impl Outline {
    /// The outline of a target from what its stages took; the target's own come first.
    pub(crate) fn collect<'a>(target: &Stage, captures: impl IntoIterator<Item = &'a Capture>) -> Self {
        let mut outline =
            Self { name: target.name.clone(), description: target.description.clone(), ..Self::default() };
        for capture in captures {
            for argument in capture.arguments() {
                if !outline.arguments.iter().any(|known| known.name == argument.name) {
                    outline.arguments.push(argument);
                }
            }
            for (all, needs) in [(&mut outline.secrets, &capture.secrets), (&mut outline.ssh, &capture.ssh)] {
                for need in needs {
                    if !all.iter().any(|known| known.name == need.name) {
                        all.push(need.clone());
                    }
                }
            }
        }
        outline.arguments.sort_by_key(|argument| argument.lines.first);
        outline.secrets.sort_by_key(|need| need.lines.first);
        outline.ssh.sort_by_key(|need| need.lines.first);
        outline
    }
}
