//! The rules.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident, $page:literal, $experimental:literal, $description:literal;)*) => {
        /// A rule of how a Dockerfile should be written.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What it says.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$name => $description,)*
                }
            }

            /// Whether it is only on if it is asked for.
            pub fn experimental(self) -> bool {
                match self {
                    $(Self::$name => $experimental,)*
                }
            }

            /// Where it is explained; empty if nowhere.
            pub fn url(self) -> String {
                let page = match self {
                    $(Self::$name => $page,)*
                };
                if page.is_empty() {
                    return String::new();
                }
                format!("https://docs.docker.com/go/dockerfile/rule/{page}/")
            }
        }
    };
}

rules! {
    /// `FROM x AS Name`
    StageNameCasing, "stage-name-casing", false, "Stage names should be lowercase";
    /// `FROM x as y`
    FromAsCasing, "from-as-casing", false, "The 'as' keyword should match the case of the 'from' keyword";
    /// An empty line inside of an instruction.
    NoEmptyContinuation, "no-empty-continuation", false,
        "Empty continuation lines will become errors in a future release";
    /// `RUN` here and `copy` there.
    ConsistentInstructionCasing, "consistent-instruction-casing", false,
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    /// Two stages of one name.
    DuplicateStageName, "duplicate-stage-name", false, "Stage names should be unique";
    /// A stage called `scratch` or `context`.
    ReservedStageName, "reserved-stage-name", false, "Reserved words should not be used as stage names";
    /// `CMD program`
    JSONArgsRecommended, "json-args-recommended", false,
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    /// `MAINTAINER me`
    MaintainerDeprecated, "maintainer-deprecated", false,
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    /// `FROM $nothing`
    UndefinedArgInFrom, "undefined-arg-in-from", false, "FROM command must use declared ARGs";
    /// `WORKDIR a` without one that is absolute before.
    WorkdirRelativePath, "workdir-relative-path", false,
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    /// `$nothing`
    UndefinedVar, "undefined-var", false, "Variables should be defined before their use";
    /// `CMD` twice in a stage.
    MultipleInstructionsDisallowed, "multiple-instructions-disallowed", false,
        "Multiple instructions of the same type should not be used in the same stage";
    /// `ENV a b`
    LegacyKeyValueFormat, "legacy-key-value-format", false,
        "Legacy key/value format with whitespace separator should not be used";
    /// The base is for another machine.
    InvalidBaseImagePlatform, "", false, "Base image platform does not match expected target platform";
    /// `FROM --platform=$TARGETPLATFORM`
    RedundantTargetPlatform, "redundant-target-platform", false,
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    /// `ARG PASSWORD`
    SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env", false,
        "Sensitive data should not be used in the ARG or ENV commands";
    /// `ARG x` and `FROM $x`
    InvalidDefaultArgInFrom, "invalid-default-arg-in-from", false,
        "Default value for global ARG results in an empty or invalid base image name";
    /// `FROM --platform=linux/amd64`
    FromPlatformFlagConstDisallowed, "from-platform-flag-const-disallowed", false,
        "FROM --platform flag should not use a constant value";
    /// A copy of what `.dockerignore` leaves out.
    CopyIgnoredFile, "copy-ignored-file", true, "Attempting to Copy file that is excluded by .dockerignore";
    /// A comment above `FROM` or `ARG` that describes something else.
    InvalidDefinitionDescription, "invalid-definition-description", true,
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
    /// `EXPOSE 80/TCP`
    ExposeProtoCasing, "expose-proto-casing", false, "Protocol in EXPOSE instruction should be lowercase";
    /// `EXPOSE 8080:80`
    ExposeInvalidFormat, "expose-invalid-format", false,
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}
