//! The graph: what a build does, as BuildKit's LLB has it.
//!
//! ```text
//!   Graph ─┬─ vertices: [ Image, Local, Exec, File, Merge … ]   inputs always come first
//!          └─ targets:  [ (name, vertex, platform, config) … ]
//! ```
//!
//! Each vertex gives one filesystem: [`Op::Exec`] and [`Op::File`] are one layer over their base,
//! [`Op::Merge`] stacks its inputs' layers, sources are what they are. A vertex names its inputs by
//! their place in the list. Nothing here is resolved against a disk: names of users are looked up
//! and wildcards expanded when the vertex runs.

mod exec;
mod file;
mod source;

use onggi_oci::{ImageConfig, Platform};

pub use exec::{
    CacheMount, Device, Exec, ExtraHost, Mount, MountKind, Network, SecretMount, SecretTarget, Security,
    Sharing, SshMount, TmpfsMount, Ulimit,
};
pub use file::{Copy, File, FileAction, Mkdir, Mkfile, Mode, Owner, Principal, Rm};
pub use source::{Git, Http, ImagePlace, ImageSource, Local};

/// A vertex by its place in [`Graph::vertices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub usize);

/// All that a build may have to do.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Each after its inputs.
    pub vertices: Vec<Vertex>,
    /// What comes out, one for each platform and named target.
    pub targets: Vec<Target>,
}

impl Graph {
    /// Adds a vertex, whose inputs were added before.
    ///
    /// # Panics
    /// If an input comes later: a bug of the front end.
    pub fn add(&mut self, vertex: Vertex) -> VertexId {
        let id = VertexId(self.vertices.len());
        assert!(vertex.op.inputs().iter().all(|input| *input < id), "an input is added before what uses it");
        self.vertices.push(vertex);
        id
    }

    /// The vertex at this place.
    ///
    /// # Panics
    /// If the ID is of another graph.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0]
    }
}

/// One step.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// For what platform.
    pub platform: Platform,
    /// As shown to people: `[build 2/5] RUN make`.
    pub name: String,
    /// The stage that it belongs to, by name or number; for `--no-cache-filter` and pictures.
    pub stage: Option<String>,
    /// Where the build file asks for it.
    pub location: Option<Location>,
    /// Whether it runs even if its result is known.
    pub ignore_cache: bool,
}

/// Lines of a build file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The build file's name as given.
    pub file: String,
    /// First and last line, from 1.
    pub lines: (u32, u32),
}

/// What a vertex does.
#[derive(Clone, Debug)]
pub enum Op {
    /// The layers of an image.
    Image(ImageSource),
    /// A directory of the caller's: the build context and named contexts.
    Local(Local),
    /// A checkout of a repository.
    Git(Git),
    /// A file by URL.
    Http(Http),
    /// Runs a program.
    Exec(Box<Exec>),
    /// Copies, makes and removes files.
    File(File),
    /// The inputs' layers above each other, the first lowest. Each but the first is a stack that
    /// begins with nothing (`COPY --link`).
    Merge(Vec<VertexId>),
}

impl Op {
    /// The vertices that this one reads, without repetition, in a fixed order.
    pub fn inputs(&self) -> Vec<VertexId> {
        let mut all: Vec<VertexId> = match self {
            Self::Image(_) | Self::Local(_) | Self::Git(_) | Self::Http(_) => Vec::new(),
            Self::Exec(exec) => {
                exec.root.into_iter().chain(exec.mounts.iter().filter_map(Mount::input)).collect()
            }
            Self::File(file) => {
                let copied = file.actions.iter().filter_map(|action| match action {
                    FileAction::Copy(copy) => copy.from,
                    _ => None,
                });
                file.base.into_iter().chain(copied).collect()
            }
            Self::Merge(inputs) => inputs.clone(),
        };
        let mut seen = std::collections::HashSet::new();
        all.retain(|id| seen.insert(*id));
        all
    }
}

/// A result of the build.
#[derive(Clone, Debug)]
pub struct Target {
    /// The stage's name, if it has one.
    pub name: Option<String>,
    /// The filesystem; `None` is an empty one (`FROM scratch` and nothing more).
    pub vertex: Option<VertexId>,
    /// For what platform.
    pub platform: Platform,
    /// The image's config with its whole history; layers are filled in when they exist, and entries
    /// without a time get the build's.
    pub config: ImageConfig,
}
