//! What can be wrong with a Dockerfile, in BuildKit's words, and where.

use super::quote::quoted;
use super::syntax::MAX_LINE;
use super::words::ExpandError;
use super::{MAX_DOCKERFILE, MAX_STAGES};

/// Lines of a Dockerfile, from 1, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

/// A problem with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub problem: Box<Problem>,
    /// What was meant, probably.
    pub suggestion: Option<String>,
    /// The lines that say it; several places if instructions contradict each other.
    pub lines: Vec<Lines>,
    /// The word in them that is wrong, if it is one.
    pub word: Option<String>,
    /// Whether an instruction could not be read, as opposed to one that can't be done.
    pub unreadable: bool,
}

impl Diagnostic {
    /// At these lines.
    pub(crate) fn at(problem: impl Into<Problem>, lines: Lines) -> Self {
        Self {
            problem: Box::new(problem.into()),
            suggestion: None,
            lines: vec![lines],
            word: None,
            unreadable: false,
        }
    }

    /// Without a place.
    pub(crate) fn whole(problem: impl Into<Problem>) -> Self {
        Self { lines: Vec::new(), ..Self::at(problem, Lines::default()) }
    }

    /// This word is the one.
    pub(crate) fn with_word(mut self, word: impl Into<String>) -> Self {
        let word = word.into();
        self.word = (!word.is_empty()).then_some(word);
        self
    }

    /// One of `options` was meant instead of `given`, if one is like it.
    pub(crate) fn suggest<'a>(
        mut self,
        given: &str,
        options: impl IntoIterator<Item = &'a str>,
        any_case: bool,
    ) -> Self {
        self.suggestion = similar(given, options, any_case);
        self
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (true, Some(lines)) = (self.unreadable, self.lines.first()) {
            write!(f, "dockerfile parse error on line {}: ", lines.first)?;
        }
        write!(f, "{}", self.problem)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean {suggestion}?)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// How many letters may be wrong in what "did you mean" finds.
const MAX_DISTANCE: usize = 2;
/// Words longer than this are no typing errors, and comparing them takes long.
const MAX_COMPARED: usize = 256;

/// The option that is most like `given`, if one differs in at most two letters and none is the same.
pub(crate) fn similar<'a>(
    given: &str,
    options: impl IntoIterator<Item = &'a str>,
    any_case: bool,
) -> Option<String> {
    if given.len() > MAX_COMPARED {
        return None;
    }
    let fold = |text: &str| if any_case { text.to_lowercase() } else { text.to_owned() };
    let wanted = fold(given);
    let mut best = None;
    let mut distance = MAX_DISTANCE + 1;
    for option in options {
        let option = fold(option);
        if option == wanted {
            return None;
        }
        if option.len() > MAX_COMPARED {
            continue;
        }
        let found = strsim::levenshtein(&wanted, &option);
        if found < distance {
            distance = found;
            best = Some(option);
        }
    }
    best.map(|best| if any_case && given == given.to_uppercase() { best.to_uppercase() } else { best })
}

/// What is wrong. The texts are BuildKit's: people search for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    // The file.
    /// Nothing in it.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// More than [`MAX_DOCKERFILE`].
    #[error("the Dockerfile has {size} bytes, more than the limit of {MAX_DOCKERFILE}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// A line longer than [`MAX_LINE`].
    #[error("dockerfile line greater than max allowed size of {MAX_LINE}")]
    LineTooLong,
    /// Only comments.
    #[error("file with no instructions")]
    NoInstructions,
    /// Only `ARG`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// More than [`MAX_STAGES`].
    #[error("there are {count} stages, more than the limit of {MAX_STAGES}")]
    TooManyStages {
        /// How many.
        count: usize,
    },
    /// `# escape=x`
    #[error("invalid escape token '{token}' does not match ` or \\")]
    Escape {
        /// What was written.
        token: String,
    },
    /// The same directive twice.
    #[error("only one {name} parser directive can be used")]
    DirectiveTwice {
        /// Its name.
        name: String,
    },
    /// A part of `# check=` that is none.
    #[error("failed to parse check options: invalid check option {}", quoted(.option))]
    CheckOption {
        /// What was written.
        option: String,
    },
    /// `# check=error=x`
    #[error("failed to parse check options: failed to parse check option {}: invalid boolean", quoted(.option))]
    CheckBoolean {
        /// What was written.
        option: String,
    },
    /// Checks complained, and `error=true` makes that fail.
    #[error("lint violation found for rules: {}", .rules.join(", "))]
    Checks {
        /// Their names.
        rules: Vec<String>,
    },

    // Lines.
    /// A heredoc without its last line.
    #[error("unterminated heredoc")]
    Heredoc,
    /// A heredoc's name that reads differently with and without quotes.
    #[error("the name of the heredoc {name} can't be read")]
    HeredocName {
        /// What was written.
        name: String,
    },
    /// `COPY a <<EOF`
    #[error("{instruction} cannot accept a heredoc as a destination")]
    HeredocDestination {
        /// `COPY` or `ADD`.
        instruction: &'static str,
    },
    /// A list with something else than texts.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    JsonStrings,
    /// `ENV name`
    #[error("{instruction} must have two arguments")]
    TwoArguments {
        /// The instruction.
        instruction: &'static str,
    },
    /// `ENV a=b c`
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", quoted(.word))]
    NoEquals {
        /// The word without.
        word: String,
    },

    // Instructions.
    /// No such instruction.
    #[error("unknown instruction: {name}")]
    UnknownInstruction {
        /// As written.
        name: String,
    },
    /// Something before the first `FROM`.
    #[error("no build stage in current context")]
    NoStage,
    /// `CMD` where there must be one.
    #[error("{instruction} requires at least one argument")]
    AtLeastOne {
        /// The instruction.
        instruction: &'static str,
    },
    /// More or less than one.
    #[error("{instruction} requires exactly one argument")]
    ExactlyOne {
        /// The instruction.
        instruction: &'static str,
    },
    /// `COPY a`
    #[error(
        "{instruction} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination {
        /// The instruction.
        instruction: &'static str,
    },
    /// `ENV =x`
    #[error("{instruction} names can not be blank")]
    BlankName {
        /// The instruction.
        instruction: &'static str,
    },
    /// `SHELL sh`
    #[error("{instruction} requires the arguments to be in JSON form")]
    NotJson {
        /// The instruction.
        instruction: &'static str,
    },
    /// `FROM a b`
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// `FROM a AS 1`
    #[error("invalid name for build stage: {}, name can't start with a number or contain symbols", quoted(.name))]
    StageName {
        /// As written.
        name: String,
    },
    /// `ONBUILD ONBUILD`
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildOnbuild,
    /// `ONBUILD FROM`
    #[error("{instruction} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger {
        /// What was to be triggered.
        instruction: String,
    },
    /// A trigger of several lines.
    #[error("onbuild trigger should be a single expression")]
    OnbuildSingle,
    /// `HEALTHCHECK NONE x`
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD`
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    /// `HEALTHCHECK x`
    #[error("Unknown type {} in HEALTHCHECK (try CMD)", quoted(.kind))]
    HealthcheckType {
        /// As written, in capitals.
        kind: String,
    },
    /// `--interval=x`
    #[error("time: invalid duration {}", quoted(.text))]
    Duration {
        /// As written.
        text: String,
    },
    /// `--interval=1us`
    #[error("Interval {} cannot be less than 1ms", quoted(.flag))]
    ShortInterval {
        /// The flag.
        flag: &'static str,
    },
    /// `--retries=x`
    #[error("invalid value for --retries: {text}")]
    Retries {
        /// As written.
        text: String,
    },
    /// `--retries=-1`
    #[error("--retries cannot be negative ({count})")]
    NegativeRetries {
        /// The number.
        count: i64,
    },
    /// `VOLUME [""]`
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// A signal that Linux doesn't have.
    #[error("invalid signal: {signal}")]
    Signal {
        /// As written.
        signal: String,
    },

    // Flags.
    /// No such flag.
    #[error("unknown flag: --{name}")]
    UnknownFlag {
        /// Its name.
        name: String,
    },
    /// A flag that is allowed once, twice.
    #[error("duplicate flag specified: {name}")]
    DuplicateFlag {
        /// Its name.
        name: String,
    },
    /// `--chown`
    #[error("missing a value on flag: {name}")]
    FlagValue {
        /// Its name.
        name: String,
    },
    /// `--link=x`
    #[error("expecting boolean value for flag {name}, not: {value}")]
    FlagBoolean {
        /// Its name.
        name: String,
        /// The value.
        value: String,
    },
    /// Something that is no flag where only flags are.
    #[error("arg should start with -- : {text}")]
    NoFlag {
        /// As written.
        text: String,
    },
    /// Flags that can't be read as comma separated values.
    #[error("failed to parse csv {what}: {text}")]
    Csv {
        /// `mounts` or `devices`
        what: &'static str,
        /// As written.
        text: String,
    },
    /// `--network=x`
    #[error("invalid network mode {}", quoted(.mode))]
    Network {
        /// As written.
        mode: String,
    },
    /// `--security=x`
    #[error("security {} is not valid", quoted(.mode))]
    Security {
        /// As written.
        mode: String,
    },
    /// `--mount=x`
    #[error("invalid field '{field}' must be a key=value pair")]
    Field {
        /// As written.
        field: String,
    },
    /// `--mount=x=y`
    #[error("unexpected key '{key}' in '{field}'")]
    Key {
        /// The key.
        key: String,
        /// The whole field.
        field: String,
    },
    /// A key of another type of mount.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyOfType {
        /// The key.
        key: String,
        /// The type.
        kind: &'static str,
    },
    /// `--mount=type=x`
    #[error("unsupported mount type {}", quoted(.kind))]
    MountType {
        /// As written.
        kind: String,
    },
    /// `sharing=x`
    #[error("unsupported sharing value {}", quoted(.value))]
    Sharing {
        /// As written.
        value: String,
    },
    /// `ro=x`, `size=x`
    #[error("invalid value for {key}: {value}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// `uid=x`
    #[error("invalid value {value} for {key}")]
    Number {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// `from=$x`
    #[error("'{key}' doesn't support variable expansion, define alias stage instead")]
    FromVariable {
        /// The key.
        key: &'static str,
    },
    /// A key that mounts of this type do not have.
    #[error("{key} not allowed for {} type mounts", quoted(.kind))]
    NotAllowed {
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// `type=bind,sharing=…`
    #[error("invalid cache sharing set for {kind} mount")]
    SharingOfType {
        /// The type.
        kind: &'static str,
    },
    /// `type=secret,from=…`
    #[error("secret mount should not have a from")]
    SecretFrom,
    /// `type=secret,sharing=…`
    #[error("secret mount should not define sharing")]
    SecretSharing,
    /// `type=secret` alone
    #[error("invalid secret mount. one of source, target required")]
    SecretNothing,
    /// `type=secret,source=a,id=b`
    #[error("both source and id can't be set")]
    SecretBoth,
    /// A mount over the root.
    #[error("invalid mount target {}", quoted(.target))]
    MountTarget {
        /// Where.
        target: String,
    },
    /// A device's name twice.
    #[error("device name already set to {name}")]
    DeviceName {
        /// The first.
        name: String,
    },

    // What is to be done.
    /// A word can't be expanded.
    #[error(transparent)]
    Expand(Box<ExpandError>),
    /// A word of `--platform` can't be expanded.
    #[error("failed to process arguments for platform {text}: {source}")]
    ExpandPlatform {
        /// What came out.
        text: String,
        /// The reason.
        source: Box<ExpandError>,
    },
    /// `FROM $NOTHING`
    #[error("base name ({name}) should not be blank")]
    BlankBase {
        /// As written.
        name: String,
    },
    /// `FROM --platform=$NOTHING`
    #[error("empty platform value from expression {expression}")]
    EmptyPlatform {
        /// As written.
        expression: String,
    },
    /// `FROM --platform=x/y/z/w`
    #[error("failed to parse platform {expression}: {reason}")]
    Platform {
        /// As written.
        expression: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// `FROM Bad!`
    #[error("failed to parse stage name {}: {reason}", quoted(.name))]
    BaseName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `COPY --from=9`
    #[error("invalid stage index {index}")]
    StageIndex {
        /// As written.
        index: i64,
    },
    /// `COPY --from=$x`
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromExpansion,
    /// `--target=x`
    #[error("target stage {} could not be found", quoted(.name))]
    Target {
        /// As given.
        name: String,
    },
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {stage}")]
    Circle {
        /// One of them.
        stage: String,
    },
    /// A copy from a later stage.
    #[error("cannot copy from stage {}, it needs to be defined before current stage {}", quoted(.from), quoted(.stage))]
    LaterStage {
        /// From where.
        from: String,
        /// To where.
        stage: String,
    },
    /// A mount from a later stage.
    #[error("cannot mount from stage {} to {}, stage needs to be defined before current command", quoted(.from), quoted(.target))]
    LaterMount {
        /// From where.
        from: String,
        /// Where it was to be mounted.
        target: String,
    },
    /// `--chmod=9`
    #[error("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777")]
    Chmod {
        /// As written.
        mode: String,
    },
    /// `--checksum` with several sources
    #[error("checksum can't be specified for multiple sources")]
    ChecksumSources,
    /// `--checksum` with a local source
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumLocal,
    /// `--checksum=x`
    #[error("invalid checksum digest format: {text}")]
    ChecksumFormat {
        /// As written.
        text: String,
    },
    /// The flag and the URL name different checksums.
    #[error("checksum mismatch {} != {}", quoted(.flag), quoted(.url))]
    ChecksumTwice {
        /// By flag.
        flag: String,
        /// By URL.
        url: String,
    },
    /// The flag and the URL differ.
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
    /// `COPY https://…`
    #[error("source can't be a URL for COPY")]
    CopyUrl,
    /// `COPY git://…`
    #[error("source can't be a git ref for COPY")]
    CopyGit,
    /// An address of a repository that can't be read.
    #[error("invalid git reference {}: {reason}", quoted(.text))]
    GitReference {
        /// As written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--chown=:`
    #[error("invalid chown parameter: '{owner}'")]
    Chown {
        /// As written.
        owner: String,
    },
    /// `EXPOSE x`
    #[error("{reason}")]
    Port {
        /// What is wrong with it.
        reason: String,
    },
    /// More ports than there are.
    #[error("more than {limit} exposed ports")]
    TooManyPorts {
        /// The limit.
        limit: usize,
    },
    /// Variables that no program could be started with.
    #[error("the variables have {size} bytes, more than the limit of {limit}")]
    TooManyVariables {
        /// All of them.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// More variables than anybody sets, whose number makes each look-up slow.
    #[error("there are {count} variables, more than the limit of {limit}")]
    VariableCount {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Stages that take over more and more from each other.
    #[error("what the stages take over from each other has more than {limit} bytes")]
    Inherited {
        /// The limit.
        limit: usize,
    },
    /// A heredoc with an instruction that has none.
    #[error("parsing produced an invalid run command: {command}")]
    RunHeredoc {
        /// The command.
        command: String,
    },
    /// `SOURCE_DATE_EPOCH=x`
    #[error("invalid SOURCE_DATE_EPOCH: {value}")]
    Epoch {
        /// As given.
        value: String,
    },
    /// A stage that can't give the time.
    #[error("{reason}")]
    EpochStage {
        /// Why.
        reason: String,
    },
    /// A feature that onggi does not have.
    #[error("{what} is not supported: {remedy}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A pattern of `.dockerignore`.
    #[error("{0}")]
    Ignore(#[from] crate::ignore::PatternError),
    /// A base image could not be had.
    #[error("{name}: {reason}")]
    BaseImage {
        /// As written.
        name: String,
        /// Why.
        reason: String,
        /// The broad class of the failure.
        kind: onggi_oci::ErrorKind,
    },
}

impl From<ExpandError> for Problem {
    fn from(error: ExpandError) -> Self {
        Self::Expand(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_found() {
        assert_eq!(similar("RUNN", ["run", "from"], true).as_deref(), Some("RUN"));
        assert_eq!(similar("typ", ["type", "id"], false).as_deref(), Some("type"));
        assert_eq!(similar("type", ["type", "typ"], false), None);
        assert_eq!(similar("badcmd", ["cmd"], true), None);
    }
}
