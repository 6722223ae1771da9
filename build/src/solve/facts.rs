//! The facts that a step depends on: what it does, its parents, and what it reads of its sources.

use std::path::{Path, PathBuf};

use onggi_image::snapshot::Snapshot;
use onggi_oci::Digest;

use super::{Known, Outcome, Solver};
use crate::cache::{Fact, key};
use crate::content::{Listing, Memo, Reader};
use crate::copy::select::Matcher;
use crate::copy::{Ids, Match, Source};
use crate::error::Result;
use crate::graph::{Copy, FileAction, MountKind, Op, Vertex, VertexId};
use crate::tree::Tree;

/// Sources of more files than this are not listed for explanations.
const MAX_LISTED: usize = 200_000;

/// The owner of everything in a context.
pub(super) const CONTEXT_OWNER: Ids = Ids { uid: 0, gid: 0 };

/// A tree that is read, opened.
pub(super) struct Opened {
    pub(super) tree: Tree,
    pub(super) ignore: Option<Matcher>,
    pub(super) owner: Option<Ids>,
}

impl Opened {
    pub(super) fn source(&self) -> Source<'_> {
        Source { tree: &self.tree, ignore: self.ignore.clone(), owner: self.owner }
    }
}

impl Solver<'_> {
    /// Opens what a vertex gave, for reading.
    pub(super) fn open(&self, outcome: &Outcome) -> Result<Opened> {
        match outcome {
            Outcome::Directory { path, exclude, context } => Ok(Opened {
                tree: Tree::open_host(path)?,
                ignore: if exclude.is_empty() { None } else { Some(Matcher::new(exclude)?) },
                owner: context.then_some(CONTEXT_OWNER),
            }),
            Outcome::Stack(stack) => {
                let layers: Vec<_> = stack.iter().map(|one| one.layer.clone()).collect();
                let mount = Snapshot::new(&layers, self.store.options().overlay_xattr).mount(None)?;
                Ok(Opened { tree: Tree::new(mount), ignore: None, owner: None })
            }
        }
    }

    pub(super) fn facts(&mut self, id: VertexId, vertex: &Vertex, list: bool) -> Result<Option<Known>> {
        let epoch = self.options.epoch.filter(|_| self.options.epoch_is_fact);
        let mut listings = list.then(Vec::new);
        let mut facts;
        match &vertex.op {
            Op::Exec(exec) => {
                let base = self.stack(exec.root)?;
                facts = key::common(&vertex.platform, Some(&base), epoch);
                facts.extend(key::exec(exec));
                for mount in &exec.mounts {
                    facts.push(Fact(format!("mount {}", mount.target), key::mount(mount)));
                    let (from, source) = match &mount.kind {
                        MountKind::Bind { from, source, .. } => (*from, source.as_str()),
                        MountKind::Cache(cache) => (cache.from, cache.source.as_str()),
                        _ => (None, ""),
                    };
                    if let Some(from) = from {
                        let copy = Copy { source: source.into(), follow_links: true, ..Copy::default() };
                        let label = format!("content of {}", mount.target);
                        let Some(content) = self.content(from, &copy, &mut listings)? else {
                            return Ok(None);
                        };
                        facts.push(Fact(label, content));
                    }
                }
            }
            Op::File(file) => {
                let base = self.stack(file.base)?;
                facts = key::common(&vertex.platform, Some(&base), epoch);
                for (number, action) in file.actions.iter().enumerate() {
                    facts.push(Fact(format!("action {number}"), key::action(action)));
                    if let FileAction::Copy(copy) = action
                        && let Some(from) = copy.from
                    {
                        let label = format!("content of {}", copy.source);
                        let Some(content) = self.content(from, copy, &mut listings)? else { return Ok(None) };
                        facts.push(Fact(label, content));
                    }
                }
            }
            _ => facts = Vec::new(),
        }
        let place = [
            self.options.identity.clone(),
            vertex.platform.to_string(),
            vertex.stage.clone().unwrap_or_default(),
            self.place_in_stage(id, vertex).to_string(),
        ];
        let line = Digest::sha256(place.join("\n").as_bytes());
        Ok(Some(Known { key: key::digest(&facts), facts, line, listings: listings.unwrap_or_default() }))
    }

    /// Which step of its stage it is.
    fn place_in_stage(&self, id: VertexId, vertex: &Vertex) -> usize {
        let same = |other: &&Vertex| other.stage == vertex.stage && other.platform == vertex.platform;
        self.graph.vertices[..id.0].iter().filter(same).count()
    }

    /// The digest of what a copy or a mount reads; `None` if that has to be made first.
    fn content(
        &mut self,
        from: VertexId,
        copy: &Copy,
        listings: &mut Option<Vec<(Digest, Listing)>>,
    ) -> Result<Option<String>> {
        let outcome = self.outcome(from)?.clone();
        // Of layers, which never change, it is found once and for all.
        let remembered = match &outcome {
            Outcome::Stack(stack) => {
                let facts = [
                    Fact("stack".into(), key::stack(stack)),
                    Fact(
                        "copy".into(),
                        key::action(&FileAction::Copy(Box::new(Copy {
                            destination: String::new(),
                            ..copy.clone()
                        }))),
                    ),
                ];
                let line = key::digest(&facts);
                let mut known = self.cache.last(&line);
                if known.is_none() {
                    known = self.host.shared_content(&line);
                    known.iter().try_for_each(|digest| self.cache.set_last(&line, digest))?;
                }
                if let Some(digest) = known {
                    self.steps.contents.insert(line, digest.clone());
                    return Ok(Some(digest.to_string()));
                }
                if !self.make_ready(&[from])? {
                    return Ok(None);
                }
                Some(line)
            }
            Outcome::Directory { .. } => None,
        };
        let outcome = self.outcome(from).cloned().unwrap_or(outcome);
        let opened = self.open(&outcome)?;
        let source = opened.source();
        let selection = source.selection(copy)?;
        let mut none = Memo::default();
        let is_stack = remembered.is_some();
        let memo = if is_stack { &mut none } else { &mut self.memo };
        let mut listing = Listing::new();
        let mut reader =
            Reader::new(&source, memo, (!is_stack && listings.is_some()).then_some(&mut listing));
        for one in source.matches(copy)? {
            reader.add(&one, &selection)?;
        }
        let digest = reader.finish();
        if let Some(listings) = listings
            && !listing.is_empty()
            && listing.len() <= MAX_LISTED
        {
            listings.push((digest.clone(), listing));
        }
        if let Some(line) = remembered {
            self.cache.set_last(&line, &digest)?;
            self.steps.contents.insert(line, digest.clone());
        }
        Ok(Some(digest.to_string()))
    }
}

/// The real path of a mount's source.
pub(super) fn locate(source: &Source<'_>, path: &str) -> Result<PathBuf> {
    let copy = Copy { source: path.into(), follow_links: true, ..Copy::default() };
    let found: Vec<Match> = source.matches(&copy)?;
    Ok(found.into_iter().next().map_or_else(|| Path::new("").into(), |one| one.real))
}
