//! What can go wrong between a command and its result.

mod kind;

use std::io;
use std::path::PathBuf;

/// The result of a use-case.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a use-case failed: the libraries' errors as they are, and those of bringing them together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that is not what it should be.
    #[error(transparent)]
    Oci(#[from] onggi_oci::Error),
    /// Something about images at rest.
    #[error(transparent)]
    Image(#[from] onggi_image::Error),
    /// Something about registries.
    #[error(transparent)]
    Registry(#[from] onggi_registry_client::Error),
    /// Something about networks.
    #[error(transparent)]
    Network(#[from] onggi_network::Error),
    /// Something about processes.
    #[error(transparent)]
    Runtime(#[from] onggi_runtime::Error),

    /// None of an index's manifests is for the platform.
    #[error("{reference} has no image for {wanted}, it has {offered}")]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform that was wanted.
        wanted: String,
        /// The platforms that it is for.
        offered: String,
    },
    /// What the reference names is an artifact of another kind.
    #[error("{reference} is no container image but an artifact of type {kind}")]
    NotAnImage {
        /// The name.
        reference: String,
        /// The artifact's type.
        kind: String,
    },
    /// A config that cannot be read.
    #[error("{reference} is damaged: its config {digest} cannot be used: {source}")]
    ImageConfig {
        /// The image.
        reference: String,
        /// The config's digest.
        digest: onggi_oci::Digest,
        /// What is wrong with it.
        source: onggi_oci::Error,
    },
    /// Manifest and config disagree.
    #[error("{reference} is damaged: its manifest lists {blobs} layers, its config {diff_ids}")]
    LayerCount {
        /// The image.
        reference: String,
        /// In the manifest.
        blobs: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// A layer that is no filesystem layer.
    #[error("{reference} has a layer of the type {media_type}, which is no filesystem layer")]
    LayerType {
        /// The image.
        reference: String,
        /// The layer's type.
        media_type: String,
    },
    /// Half of an operation noticed that the other half has gone.
    #[error("the operation was interrupted")]
    Interrupted,
    /// A thread panicked.
    #[error("a part of onggi ended unexpectedly, which is a bug of onggi")]
    Panicked,

    /// A manifest list whose name is taken.
    #[error("{name} exists already: add to it with --amend, or remove it with `onggi manifest rm`")]
    ListExists {
        /// The name.
        name: String,
    },
    /// No manifest list has this name.
    #[error("no such manifest list: {name}")]
    NoSuchList {
        /// The name.
        name: String,
    },
    /// A name of an image that is no manifest list.
    #[error("{name} is no manifest list but an image for one platform")]
    NoList {
        /// The name.
        name: String,
    },
    /// Something that is not in a manifest list.
    #[error("no such manifest: {list} has no image {member}")]
    NotListed {
        /// The list.
        list: String,
        /// What was looked for.
        member: String,
    },
    /// Something that is not what the lock file says.
    #[error(
        "{what} is not what onggi.lock says ({locked}): {problem}; if the change is right, renew the file with --lock=update"
    )]
    Locked {
        /// The image, URL or repository.
        what: String,
        /// Its digest or commit in the lock file.
        locked: String,
        /// What it is now, or why it can't be had.
        problem: String,
    },
    /// A build cache of other machines that can't be used.
    #[error("{place}: {problem}")]
    SharedCache {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tag that names a digest.
    #[error("cannot tag {target}: a name with a digest can't be given to an image")]
    TagWithDigest {
        /// The name.
        target: String,
    },
    /// A push of a name that the store does not have.
    #[error("no image of the repository {repository} is in the store")]
    NothingToPush {
        /// The repository.
        repository: String,
    },
    /// An index some of whose images are not here.
    #[error("{reference} lists images that are not in the store: {missing}")]
    IncompleteIndex {
        /// The name.
        reference: String,
        /// The platforms or digests.
        missing: String,
    },

    /// Nothing says what to run.
    #[error("no command specified, and the image has none")]
    NoCommand,
    /// A relative working directory.
    #[error("the working directory {dir:?} is invalid, it needs to be an absolute path")]
    WorkingDir {
        /// As given.
        dir: String,
    },
    /// A user or group name that the image does not have.
    #[error("unable to find {kind} {name}: no matching entry in the image's {file}")]
    UnknownUser {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// An ID that does not exist.
    #[error("the {kind} ID {text} is out of range (0 to {max})")]
    IdOutOfRange {
        /// `user` or `group`.
        kind: &'static str,
        /// As given.
        text: String,
        /// The highest ID.
        max: u32,
    },
    /// A file of the image cannot be read.
    #[error("cannot read /{path} of the image: {source}")]
    ImageFile {
        /// Below the image's root.
        path: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// A file of the image is something else.
    #[error("/{path} of the image is no regular file, so it is not read")]
    ImageFileKind {
        /// Below the image's root.
        path: &'static str,
    },
    /// A file of the image is too large.
    #[error("/{path} of the image is larger than the limit of {limit} bytes")]
    ImageFileSize {
        /// Below the image's root.
        path: &'static str,
        /// In bytes.
        limit: u64,
    },
    /// A volume that makes no sense.
    #[error("invalid volume specification {text:?}: {problem}")]
    Volume {
        /// As given.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// A bind source that is not there.
    #[error("cannot mount {}: {source}", path.display())]
    BindSource {
        /// The path on the host.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Two mounts at one place.
    #[error("Duplicate mount point: {target}")]
    DuplicateMount {
        /// The path in the container.
        target: String,
    },
    /// A copy to where the container can't write.
    #[error("mounted volume is marked read-only: {target}")]
    MountedReadOnly {
        /// The path in the container.
        target: String,
    },
    /// A mount over the kernel's own files.
    #[error("cannot mount over {}: nothing may hide the files of /proc", target.display())]
    MountInProc {
        /// The path in the container.
        target: PathBuf,
    },
    /// A name that does not fit the rules for names of volumes.
    #[error(
        "{name:?} includes invalid characters for a local volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; a host directory is given by an absolute path"
    )]
    VolumeName {
        /// As given.
        name: String,
    },
    /// An option that the driver does not have.
    #[error("invalid volume option {option}: {problem}")]
    VolumeOption {
        /// As given.
        option: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A volume of this name that was made with other options.
    #[error("the volume {name} already exists with other options")]
    VolumeExists {
        /// Its name.
        name: String,
    },
    /// No volume has this name.
    #[error("no such volume: {name}")]
    NoVolume {
        /// As given.
        name: String,
    },
    /// A volume that containers have.
    #[error("volume {name} is in use by {}", list(users))]
    VolumeInUse {
        /// Its name.
        name: String,
        /// The containers.
        users: Vec<String>,
    },
    /// The filesystem of a volume can't be mounted.
    #[error("cannot mount the volume {name}: {source}")]
    VolumeMount {
        /// Its name.
        name: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A name that does not fit the rules for names of containers.
    #[error("invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    ContainerName {
        /// As given.
        name: String,
    },
    /// A name that another container has.
    #[error("the container name {name:?} is already in use by container {id}")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A hostname that the kernel or DNS would not take.
    #[error("invalid hostname {name:?}: {problem}")]
    Hostname {
        /// As given.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The image is for another machine.
    #[error(
        "the image {image} is for {platform}, this host is {host}, and no interpreter for it is registered"
    )]
    ForeignPlatform {
        /// The image.
        image: String,
        /// What it is for.
        platform: String,
        /// What this is.
        host: String,
    },
    /// A missing image that must not be pulled.
    #[error("the image {image} is not in the store, and --pull=never forbids to fetch it")]
    PullForbidden {
        /// The image.
        image: String,
    },
    /// An image that uses IDs which a container cannot have.
    #[error("the image uses the ID {highest}, above the {limit} that a container's range can hold")]
    IdsTooHigh {
        /// The highest ID.
        highest: u32,
        /// The highest that is possible.
        limit: u32,
    },
    /// All ranges of IDs are taken.
    #[error("all {slots} ranges of IDs are in use by containers")]
    IdsExhausted {
        /// How many there are.
        slots: u32,
    },
    /// The record of ranges in use does not work.
    #[error("cannot take a range of IDs in {}: {source}", dir.display())]
    IdRange {
        /// Where the locks are.
        dir: PathBuf,
        /// What the system answered.
        source: io::Error,
    },

    /// A value that a flag can't have.
    #[error("{flag}: {problem}")]
    Flag {
        /// As on the command line.
        flag: String,
        /// What is wrong.
        problem: String,
    },
    /// A wish that this host or this version can't fulfil.
    #[error("{flag} is not supported: {why}")]
    FlagUnsupported {
        /// As on the command line.
        flag: String,
        /// The reason.
        why: String,
    },
    /// A limit that can't be set.
    #[error("cannot set {flags}: {source}{hint}")]
    Limit {
        /// The flags that ask for it.
        flags: String,
        /// What the runtime answered.
        source: Box<onggi_runtime::Error>,
        /// What can be done about it.
        hint: &'static str,
    },
    /// No container has this name or ID.
    #[error("No such container: {name}")]
    NoContainer {
        /// As given.
        name: String,
    },
    /// The beginning of several IDs.
    #[error("the ID {name} is the beginning of those of several containers: give more of it")]
    AmbiguousContainer {
        /// As given.
        name: String,
    },
    /// A container that somebody else makes, starts or removes, for longer than is waited.
    #[error("container {id} is being worked on by another process: try again when that is done")]
    Busy {
        /// Its ID.
        id: String,
    },
    /// A container whose program is frozen.
    #[error("container {name} is paused: unpause it first")]
    IsPaused {
        /// Its name or ID.
        name: String,
    },
    /// A container whose program is not frozen.
    #[error("container {name} is not paused")]
    NotPaused {
        /// Its name or ID.
        name: String,
    },
    /// A container whose program has the streams of the command that started it.
    #[error(
        "container {id} belongs to the command that waits for it (run --rm without --name): its output goes straight there and is in no log; run it with --name or without --rm to see its logs, attach to it or restart it"
    )]
    InForeground {
        /// Its ID.
        id: String,
    },
    /// A container that runs without a supervisor.
    #[error(
        "container {id} has no supervisor to attach to: that was killed; stop and start the container to have a new one"
    )]
    Unattended {
        /// Its ID.
        id: String,
    },
    /// A supervisor that ended before its container.
    #[error("the container's supervisor ended unexpectedly; `onggi ps -a` shows how the container is doing")]
    SupervisorGone,
    /// A container that its supervisor could not start.
    #[error("{message}")]
    NotStarted {
        /// What Docker's command line would exit with.
        status: u8,
        /// Why.
        message: String,
    },
    /// A layer that a container needs is not there.
    #[error(
        "cannot start container {container}: the layer {diff_id} of its image {image} is not in the store"
    )]
    MissingLayer {
        /// The container's name.
        container: String,
        /// The image as it was named.
        image: String,
        /// The layer.
        diff_id: onggi_oci::DiffId,
    },
    /// A link to a container without an address.
    #[error("cannot link to a container that does not run or has no network: {linked} AS {name}/{alias}")]
    LinkedToNothing {
        /// Who is to be linked.
        name: String,
        /// To whom.
        linked: String,
        /// By what name.
        alias: String,
    },
    /// A container that does not run.
    #[error("container {id} is not running")]
    NotRunning {
        /// Its ID.
        id: String,
    },
    /// A container whose namespaces are to be shared does not run.
    #[error("{flag}: cannot join a namespace of container {name}, which is not running: start it first")]
    NotShared {
        /// The flag that asked for it.
        flag: &'static str,
        /// As given.
        name: String,
    },
    /// Files could not be copied into or out of a container.
    #[error(transparent)]
    Copy(#[from] crate::filesystem::CopyFault),
    /// A file of a container can't be looked at.
    #[error("cannot {op} {} of the container: {source}", path.display())]
    ContainerFile {
        /// What was tried.
        op: &'static str,
        /// In the container.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A container whose log driver keeps nothing.
    #[error("container {id} has the log driver none: nothing of its output was kept")]
    NoLog {
        /// Its ID.
        id: String,
    },
    /// A container that runs.
    #[error("cannot remove container {name}: container is running: stop it first, or remove it with --force")]
    StillRunning {
        /// Its name or ID.
        name: String,
    },

    /// The specification of the container could not be put together.
    #[error("cannot describe the container: {source}")]
    Specification {
        /// What is missing.
        source: oci_spec::OciSpecError,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Something about this process itself.
    #[error("cannot {op}: {source}")]
    Process {
        /// What was tried.
        op: &'static str,
        /// What the system answered.
        source: io::Error,
    },

    /// A build file that makes no sense.
    #[error("failed to solve: {diagnostic}")]
    Dockerfile {
        /// Its name.
        file: String,
        /// Its text.
        text: String,
        /// What is wrong, and where.
        diagnostic: Box<onggi_build::dockerfile::Diagnostic>,
    },
    /// A build that failed.
    #[error("failed to solve: {source}")]
    Build {
        /// The step and the reason.
        source: Box<onggi_build::Error>,
        /// The build file's name.
        file: String,
        /// The build file's text.
        text: String,
        /// What a program that failed began with.
        state: Option<crate::build::KeptState>,
    },
    /// Something about files of a build, outside of its steps.
    #[error(transparent)]
    Builder(#[from] onggi_build::Error),
    /// A build file that cannot be used.
    #[error("{file}: {problem}")]
    BuildFile {
        /// Its name.
        file: String,
        /// Why not.
        problem: String,
    },
    /// A context that cannot be used.
    #[error("unable to prepare context: path {path:?}: {source}")]
    Context {
        /// As given.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A repository that cannot be had.
    #[error("failed to get the repository {remote}: {words}")]
    Git {
        /// The repository.
        remote: String,
        /// What git said.
        words: String,
    },
    /// A mount of a build step.
    #[error("cannot mount {} for the step: {source}", target.display())]
    StepMount {
        /// Where.
        target: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A build without logs.
    #[error("No such build: {name}")]
    NoBuild {
        /// As given.
        name: String,
    },
}

/// IDs as people read them.
fn list(ids: &[String]) -> String {
    let short = |id: &String| id.chars().take(12).collect::<String>();
    ids.iter().map(short).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// A flag with a value that makes no sense.
    pub(crate) fn flag(flag: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Flag { flag: flag.into(), problem: problem.into() }
    }

    /// A flag that can't be had.
    pub(crate) fn flag_unsupported(flag: impl Into<String>, why: impl Into<String>) -> Self {
        Self::FlagUnsupported { flag: flag.into(), why: why.into() }
    }

    /// For `map_err`.
    pub(crate) fn specification(source: oci_spec::OciSpecError) -> Self {
        Self::Specification { source }
    }
}
