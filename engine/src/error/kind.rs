//! The class of each failure, by which callers decide what to do.

use onggi_oci::ErrorKind;

use super::Error;

impl Error {
    /// The class of this failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Build { source, .. } => source.kind(),
            Self::Builder(source) => source.kind(),
            Self::Dockerfile { .. } | Self::BuildFile { .. } => ErrorKind::Invalid,
            Self::Context { .. } | Self::Git { .. } | Self::NoBuild { .. } => ErrorKind::NotFound,
            Self::StepMount { .. } => ErrorKind::Io,
            Self::Oci(error) | Self::ImageConfig { source: error, .. } => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Registry(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Runtime(error) => error.kind(),
            Self::Limit { source, .. } => source.kind(),
            Self::Copy(fault) => fault.kind(),
            Self::ContainerFile { .. } => ErrorKind::Io,
            Self::NoContainer { .. } | Self::NoVolume { .. } | Self::MissingLayer { .. } => {
                ErrorKind::NotFound
            }
            Self::MountedReadOnly { .. } => ErrorKind::Denied,
            Self::VolumeInUse { .. } | Self::VolumeExists { .. } | Self::DuplicateMount { .. } => {
                ErrorKind::Conflict
            }
            Self::VolumeName { .. } | Self::VolumeOption { .. } | Self::MountInProc { .. } => {
                ErrorKind::Invalid
            }
            Self::VolumeMount { .. } => ErrorKind::Io,
            Self::FlagUnsupported { .. } | Self::NoLog { .. } => ErrorKind::Unsupported,
            Self::LinkedToNothing { .. }
            | Self::NotRunning { .. }
            | Self::NotShared { .. }
            | Self::StillRunning { .. }
            | Self::Busy { .. } => ErrorKind::Conflict,
            Self::IsPaused { .. }
            | Self::NotPaused { .. }
            | Self::InForeground { .. }
            | Self::Unattended { .. } => ErrorKind::Conflict,
            Self::Flag { .. } | Self::AmbiguousContainer { .. } => ErrorKind::Invalid,
            Self::NoPlatform { .. } | Self::UnknownUser { .. } | Self::NothingToPush { .. } => {
                ErrorKind::NotFound
            }
            Self::BindSource { .. } | Self::PullForbidden { .. } | Self::IncompleteIndex { .. } => {
                ErrorKind::NotFound
            }
            Self::Locked { .. } | Self::ListExists { .. } | Self::NoList { .. } => ErrorKind::Conflict,
            Self::NotListed { .. } | Self::NoSuchList { .. } => ErrorKind::NotFound,
            Self::LayerCount { .. } | Self::LayerType { .. } | Self::SharedCache { .. } => ErrorKind::Corrupt,
            Self::ImageFileKind { .. } | Self::ImageFileSize { .. } => ErrorKind::Corrupt,
            Self::NotAnImage { .. } | Self::ForeignPlatform { .. } | Self::IdsTooHigh { .. } => {
                ErrorKind::Unsupported
            }
            Self::NameInUse { .. } | Self::IdsExhausted { .. } => ErrorKind::Conflict,
            Self::TagWithDigest { .. }
            | Self::NoCommand
            | Self::WorkingDir { .. }
            | Self::IdOutOfRange { .. }
            | Self::Volume { .. }
            | Self::ContainerName { .. }
            | Self::Specification { .. }
            | Self::Hostname { .. } => ErrorKind::Invalid,
            Self::Interrupted
            | Self::Panicked
            | Self::NotStarted { .. }
            | Self::SupervisorGone
            | Self::ImageFile { .. }
            | Self::IdRange { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Process { .. } => ErrorKind::Io,
        }
    }

    /// What Docker's command line would exit with if this ended `run`.
    pub fn exit_status(&self) -> Option<u8> {
        match self {
            Self::Runtime(error) => Some(error.exit_code()),
            Self::NotStarted { status, .. } => Some(*status),
            _ => None,
        }
    }
}
