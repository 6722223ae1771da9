//! Vertices and what people see of them: `[build 2/5] RUN make`.

use onggi_oci::Platform;

use super::{Context, Planner};
use crate::dockerfile::problem::Lines;
use crate::dockerfile::words::{Lexer, Variables};
use crate::graph::{Copy, File, FileAction, Local, Location, Op, Vertex, VertexId};

impl Planner<'_> {
    /// Adds a step of a stage.
    pub(super) fn vertex(
        &mut self,
        index: usize,
        op: Op,
        name: String,
        lines: Lines,
        platform: &Platform,
    ) -> VertexId {
        let state = &self.states[index];
        let source = matches!(op, Op::Image(_));
        let stage =
            state.stage.name.clone().or_else(|| (!state.label.is_empty()).then(|| state.label.clone()));
        let ignore_cache = state.no_cache && !source;
        self.graph.add(Vertex {
            op,
            platform: platform.clone(),
            name,
            stage,
            location: Some(Location { file: self.options.file.clone(), lines: (lines.first, lines.last) }),
            ignore_cache,
        })
    }

    /// Adds something that no line of the Dockerfile asks for.
    pub(super) fn internal(&mut self, op: Op, name: &str, platform: &Platform) -> VertexId {
        self.graph.add(Vertex {
            op,
            platform: platform.clone(),
            name: format!("[internal] {name}"),
            stage: None,
            location: None,
            ignore_cache: false,
        })
    }

    /// The name of the next step of a stage.
    pub(super) fn step_name(&mut self, index: usize, text: &str, platform: &Platform) -> String {
        let name_platform = self.options.name_platform;
        let state = &mut self.states[index];
        let (step, all) = &mut state.steps;
        if *all == 0 {
            return text.to_owned();
        }
        *step += 1;
        let mut prefix = String::new();
        if name_platform {
            prefix.push_str(&platform.to_string());
            if let Some(target) = target_platform(&state.variables) {
                prefix.push_str(&other_platform(platform, &target));
            }
            prefix.push(' ');
        }
        if !state.label.is_empty() {
            prefix.push_str(&state.label);
            prefix.push(' ');
        }
        let width = all.to_string().len();
        format!("[{prefix}{step:>width$}/{all}] {text}")
    }

    /// An instruction's line as people see it: variables in place, the keyword in capitals.
    pub(super) fn shown(&self, lexer: Lexer, code: &str, variables: &Variables, triggered: bool) -> String {
        let text = lexer.expand(code, variables).map_or_else(|_| code.to_owned(), |expanded| expanded.text);
        let (keyword, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let trigger = if triggered { "ONBUILD " } else { "" };
        format!("{trigger}{} {rest}", keyword.to_uppercase()).trim_end().to_owned()
    }

    /// The vertex of the build context.
    pub(super) fn main_context(&mut self) -> VertexId {
        if let Some(vertex) = self.context {
            return vertex;
        }
        let context = match self.options.context.clone() {
            Context::Local { name, .. } => Context::Local { name, ignore: self.options.ignore.clone() },
            other => other,
        };
        let platform = self.platforms.target.clone();
        let vertex = self.context_vertex(&context, &platform);
        self.context = Some(vertex);
        vertex
    }

    /// The vertex of a context; one for each.
    pub(super) fn context_vertex(&mut self, context: &Context, platform: &Platform) -> VertexId {
        let key = format!("{context:?} {platform}");
        if let Some(&vertex) = self.sources.get(&key) {
            return vertex;
        }
        let vertex = match context.clone() {
            Context::Local { name, ignore } => {
                let what = if name == "context" {
                    "load build context".to_owned()
                } else {
                    format!("load context {name}")
                };
                self.internal(Op::Local(Local { name, exclude: ignore }), &what, platform)
            }
            Context::Git(git) => {
                let what = format!("load git source {}", git.remote);
                self.internal(Op::Git(git), &what, platform)
            }
            Context::Http(http) => {
                let (what, filename) = (format!("load remote context {}", http.url), http.filename.clone());
                let archive = self.internal(Op::Http(http), &what, platform);
                let copy = Copy {
                    from: Some(archive),
                    source: format!("/{filename}"),
                    destination: "/".to_owned(),
                    unpack: true,
                    create_destination: true,
                    ..Copy::default()
                };
                let file = File { base: None, actions: vec![FileAction::Copy(Box::new(copy))] };
                self.internal(Op::File(file), "unpack the remote context", platform)
            }
            Context::Image(source) => {
                let what = format!("load image {}", source.reference);
                self.internal(Op::Image(source), &what, platform)
            }
        };
        self.sources.insert(key, vertex);
        vertex
    }

    /// A vertex that is an empty filesystem, for those that read a stage with nothing in it.
    pub(super) fn nothing(&mut self) -> VertexId {
        if let Some(vertex) = self.empty {
            return vertex;
        }
        let platform = self.platforms.target.clone();
        let vertex = self.internal(Op::File(File::default()), "an empty filesystem", &platform);
        self.empty = Some(vertex);
        vertex
    }
}

/// The platform that a stage's arguments say it builds for.
fn target_platform(variables: &Variables) -> Option<Platform> {
    if let Some(platform) = variables.get("TARGETPLATFORM").and_then(|text| text.parse().ok()) {
        return Some(platform);
    }
    let get = |name| variables.get(name).unwrap_or_default();
    let (os, architecture) = (get("TARGETOS"), get("TARGETARCH"));
    (!os.is_empty() || !architecture.is_empty())
        .then(|| Platform::new(os, architecture, Some(get("TARGETVARIANT"))))
}

/// `->arm64` where a stage builds for another platform than it runs on.
fn other_platform(base: &Platform, target: &Platform) -> String {
    let os = if target.os.is_empty() { &base.os } else { &target.os };
    let architecture = if target.architecture.is_empty() { &base.architecture } else { &target.architecture };
    let target = Platform::new(os, architecture, target.variant.as_deref());
    if target.os != base.os {
        format!("->{target}")
    } else if target.architecture == base.architecture {
        String::new()
    } else {
        match &target.variant {
            Some(variant) => format!("->{}/{variant}", target.architecture),
            None => format!("->{}", target.architecture),
        }
    }
}
