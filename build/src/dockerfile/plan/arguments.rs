//! Arguments: the predefined ones, those above the first stage, `SOURCE_DATE_EPOCH`.

use std::collections::BTreeMap;

use onggi_oci::Platform;

use super::{Epoch, Options, Planner, SCRATCH};
use crate::dockerfile::instruction::{Instruction, Kind, Stage};
use crate::dockerfile::outline::{Capture, Defined};
use crate::dockerfile::problem::{Diagnostic, Problem};
use crate::dockerfile::words::{ExpandError, Lexer, Variables};

/// The argument that sets all times.
pub(super) const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Arguments that steer scans of what is inside, and are no variables.
pub(super) const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Where it is built, and for where.
pub(super) struct Platforms {
    pub(super) build: Platform,
    pub(super) target: Platform,
    /// Whether nobody asked for the target's.
    pub(super) implicit: bool,
}

impl Platforms {
    pub(super) fn new(options: &Options) -> Self {
        let build = options.build_platform.clone().unwrap_or_else(Platform::host);
        let target = options.platform.clone().unwrap_or_else(|| build.clone());
        Self { build, target, implicit: options.platform.is_none() }
    }

    /// The predefined arguments.
    pub(super) fn arguments(&self, target: &str, overrides: &BTreeMap<String, String>) -> Variables {
        let version = |platform: &Platform| platform.os_version.clone().unwrap_or_default();
        let variant = |platform: &Platform| platform.variant.clone().unwrap_or_default();
        let (build, to) = (&self.build, &self.target);
        let all = [
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", version(build)),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", variant(build)),
            ("TARGETPLATFORM", to.to_string()),
            ("TARGETOS", to.os.clone()),
            ("TARGETOSVERSION", version(to)),
            ("TARGETARCH", to.architecture.clone()),
            ("TARGETVARIANT", variant(to)),
            ("TARGETSTAGE", if target.is_empty() { "default".to_owned() } else { target.to_owned() }),
        ];
        let mut variables = Variables::default();
        for (name, value) in all {
            variables.set(name, overrides.get(name).cloned().unwrap_or(value));
        }
        variables
    }
}

/// Adds the arguments above the first stage to the predefined ones. What is known of them goes to `capture`.
pub(super) fn global(
    mut variables: Variables,
    lexer: Lexer,
    instructions: &[Instruction],
    overrides: &BTreeMap<String, String>,
    capture: &mut Capture,
) -> Result<Variables, Diagnostic> {
    for instruction in instructions {
        let Kind::Arg(arguments) = &instruction.kind else { continue };
        for argument in arguments {
            let mut needs = Vec::new();
            let value = match (overrides.get(&argument.name), &argument.value) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => {
                    let expanded = lexer.expand(default, &variables).map_err(|error| {
                        Diagnostic::at(error, instruction.lines).with_word(default.as_str())
                    })?;
                    needs = expanded.used;
                    Some(expanded.text)
                }
                (None, None) => None,
            };
            if let Some(at) = needs.iter().position(|name| *name == argument.name) {
                needs.remove(at);
                if let Some(before) = capture.defined.get(&argument.name) {
                    needs.extend(before.needs.iter().cloned());
                }
            }
            if let Some(value) = &value {
                variables.set(&argument.name, value);
            }
            capture.defined.insert(
                argument.name.clone(),
                Defined {
                    value: value.unwrap_or_default(),
                    description: argument.description.clone(),
                    needs,
                    lines: instruction.lines,
                },
            );
        }
    }
    Ok(variables)
}

impl Planner<'_> {
    /// What `SOURCE_DATE_EPOCH` says, by flag or above the first stage. The argument is then a number,
    /// or gone if there is no time.
    pub(super) fn epoch(&mut self, stages: &[Stage]) -> Result<Option<Epoch>, Diagnostic> {
        let by_flag = self.build_args.get(SOURCE_DATE_EPOCH).cloned();
        let value = match by_flag.or_else(|| self.globals.get(SOURCE_DATE_EPOCH).map(str::to_owned)) {
            Some(value) if !value.is_empty() => value,
            _ => return Ok(None),
        };
        let epoch = if let Ok(seconds) = value.parse::<i64>() {
            Some(Epoch::Seconds(seconds))
        } else if value == "context" || self.options.contexts.contains_key(&value) {
            self.options.context_time.filter(|_| value == "context").map(Epoch::Seconds)
        } else if let Some(stage) = stages
            .iter()
            .find(|stage| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(&value)))
        {
            self.epoch_stage(stage)?;
            Some(Epoch::Stage(value))
        } else {
            return Err(Diagnostic::whole(Problem::Epoch { value }));
        };
        let number = match &epoch {
            Some(Epoch::Seconds(seconds)) => Some(seconds.to_string()),
            _ => None,
        };
        if let Some(argument) = self.build_args.get_mut(SOURCE_DATE_EPOCH) {
            match &number {
                Some(number) => argument.clone_from(number),
                None => {
                    self.build_args.remove(SOURCE_DATE_EPOCH);
                }
            }
        }
        if self.globals.get(SOURCE_DATE_EPOCH).is_some() {
            match number {
                Some(number) => self.globals.set(SOURCE_DATE_EPOCH, number),
                None => self.globals.unset(SOURCE_DATE_EPOCH),
            }
        }
        Ok(epoch)
    }

    /// Refuses a stage that has no single source whose time could count.
    fn epoch_stage(&self, stage: &Stage) -> Result<(), Diagnostic> {
        let fail = |reason: &str| {
            Err(Diagnostic::at(Problem::EpochStage { reason: reason.to_owned() }, stage.lines))
        };
        const ONE: &str = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD";
        let wrong = |error: ExpandError| Diagnostic::at(error, stage.lines);
        if self.lexer.expand(&stage.base, &self.globals).map_err(wrong)?.text != SCRATCH {
            return fail("SOURCE_DATE_EPOCH stage must use FROM scratch");
        }
        let mut sources = 0;
        for instruction in &stage.instructions {
            match &instruction.kind {
                Kind::Arg(_) => {}
                Kind::Add(add) => {
                    sources += 1;
                    let ([source], []) = (add.sources.as_slice(), add.contents.as_slice()) else {
                        return fail("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source");
                    };
                    let remote = source.contains('$') || source.contains("://") || source.contains('@');
                    if !remote {
                        return fail("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD");
                    }
                }
                _ => {
                    return fail(&format!(
                        "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {} instruction",
                        instruction.name
                    ));
                }
            }
        }
        if sources == 1 { Ok(()) } else { fail(ONE) }
    }
}
