//! `--cache-from`: what other machines made, looked up by key and fetched when it is needed.

use std::cell::{Cell, OnceCell, RefCell};

use onggi_build::cache::shared::{Known, SharedStep, parse};
use onggi_image::store::{LayerSource, Lease};
use onggi_oci::{Descriptor, Digest, MAX_MANIFEST, Manifest, MediaType, Reference};
use onggi_registry_client::Client;

use super::{ARTIFACT, CONFIG, CacheFrom, INLINE, MAX_CONFIG};
use crate::Engine;
use crate::build::layout::Layout;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// How many images of an index are looked at for their steps: one for each platform.
const MAX_IMAGES: usize = 16;

/// The results of other machines. They are asked for when the first step is not known here: a build that is
/// wholly known opens no connection.
pub(in crate::build) struct Shared<'a> {
    engine: &'a Engine,
    places: &'a [CacheFrom],
    lease: Lease,
    progress: &'a (dyn Progress + Sync),
    sources: OnceCell<Vec<(&'a CacheFrom, Known)>>,
    warnings: RefCell<Vec<String>>,
    /// Whether a layer could not be fetched: then they are of no use.
    failed: Cell<bool>,
}

impl<'a> Shared<'a> {
    pub(in crate::build) fn new(
        engine: &'a Engine,
        places: &'a [CacheFrom],
        lease: Lease,
        progress: &'a (dyn Progress + Sync),
    ) -> Self {
        let (sources, warnings, failed) = (OnceCell::new(), RefCell::default(), Cell::default());
        Self { engine, places, lease, progress, sources, warnings, failed }
    }

    fn sources(&self) -> &[(&'a CacheFrom, Known)] {
        self.sources.get_or_init(|| {
            let mut all = Vec::new();
            for place in self.places {
                match self.read(place) {
                    Ok(known) => all.push((place, known)),
                    Err(error) => self.warn(format!("the build cache {place} is not used: {error}")),
                }
            }
            all
        })
    }

    /// Says something to the user, later.
    pub(in crate::build) fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// What went wrong without harm.
    pub(in crate::build) fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    fn read(&self, place: &CacheFrom) -> Result<Known> {
        match place {
            CacheFrom::Local { dir, tag, digest } => {
                let layout = Layout::open(dir)?;
                let entry = layout.entry(tag, digest.as_ref())?;
                let bytes = layout.document(&entry, MAX_MANIFEST)?;
                let Manifest::Image(manifest) = Manifest::parse(&bytes, Some(&entry.media_type))? else {
                    return Err(none(place));
                };
                if !is_config(&manifest.config) {
                    return Err(none(place));
                }
                let config = layout.document(&manifest.config, MAX_CONFIG)?;
                understood(place, &config, &manifest.layers)
            }
            CacheFrom::Registry(reference) => {
                let client = self.engine.client()?;
                crate::network_runtime()?.block_on(read_registry(&client, place, reference))
            }
        }
    }

    /// What was made under this key, and whether somebody has its layer.
    pub(in crate::build) fn step(&self, key: &Digest) -> Option<(SharedStep, bool)> {
        if self.places.is_empty() || self.failed.get() {
            return None;
        }
        let all = || self.sources().iter().filter_map(|(_, known)| known.steps.get(key));
        let found = all().find(|(_, blob)| blob.is_some()).or_else(|| all().next());
        found.map(|(step, blob)| (step.clone(), blob.is_some()))
    }

    /// What a copy out of a stack reads.
    pub(in crate::build) fn content(&self, key: &Digest) -> Option<Digest> {
        if self.places.is_empty() || self.failed.get() {
            return None;
        }
        self.sources().iter().find_map(|(_, known)| known.contents.get(key).cloned())
    }

    /// The blob of a step's layer, and where it is.
    pub(super) fn blob(&self, key: &Digest) -> Option<(&'a CacheFrom, &Descriptor)> {
        let sources = self.sources.get()?;
        sources.iter().find_map(|(place, known)| Some((*place, known.steps.get(key)?.1.as_ref()?)))
    }

    /// Brings layers into the store.
    pub(in crate::build) fn fetch(&self, steps: &[SharedStep]) -> Result<()> {
        let fetched = self.fetch_all(steps);
        if let Err(error) = &fetched {
            self.failed.set(true);
            self.warn(format!(
                "a result of another machine could not be fetched, so it is made here: {error}"
            ));
        }
        fetched
    }

    fn fetch_all(&self, steps: &[SharedStep]) -> Result<()> {
        for (place, known) in self.sources() {
            let mut wanted: Vec<LayerSource> = Vec::new();
            for step in steps {
                if let Some((_, blob)) = self.blob(&step.key)
                    && known.steps.get(&step.key).is_some_and(|(_, own)| own.as_ref() == Some(blob))
                    && self.engine.store()?.layer(&step.diff_id)?.is_none()
                {
                    wanted.push(LayerSource { blob: blob.clone(), diff_id: step.diff_id.clone() });
                }
            }
            if wanted.is_empty() {
                continue;
            }
            match place {
                CacheFrom::Registry(reference) => {
                    let network = crate::network_runtime()?;
                    let client = self.engine.client()?;
                    let reference = reference.clone().with_default_tag();
                    crate::pull::fetch_layers(
                        &network,
                        &client,
                        &self.lease,
                        &reference,
                        &wanted,
                        self.progress,
                    )?;
                    let store = self.engine.store()?;
                    wanted.iter().try_for_each(|one| store.add_origin(&one.blob.digest, &reference))?;
                }
                CacheFrom::Local { dir, .. } => {
                    let layout = Layout::open(dir)?;
                    wanted.into_iter().try_for_each(|one| layout.ingest(&self.lease, one))?;
                }
            }
        }
        Ok(())
    }
}

async fn read_registry(client: &Client, place: &CacheFrom, reference: &Reference) -> Result<Known> {
    let reference = reference.clone().with_default_tag();
    let top = client.resolve(&reference).await?;
    let manifests = match top.manifest {
        Manifest::Image(manifest) => {
            if is_config(&manifest.config) && manifest.artifact_type.as_deref() == Some(ARTIFACT) {
                let config = client.blob_bytes(&reference, &manifest.config, MAX_CONFIG).await?;
                return understood(place, &config, &manifest.layers);
            }
            vec![manifest]
        }
        Manifest::Index(index) => {
            let mut all = Vec::new();
            for entry in
                index.manifests.iter().filter(|entry| entry.media_type.is_manifest()).take(MAX_IMAGES)
            {
                if let Manifest::Image(manifest) = client.manifest(&reference, entry).await?.manifest {
                    all.push(manifest);
                }
            }
            all
        }
    };
    let mut known = Known::default();
    let mut found = false;
    for manifest in manifests {
        if let Some(text) = manifest.annotations.get(INLINE) {
            let own = understood(place, text.as_bytes(), &manifest.layers)?;
            known.steps.extend(own.steps);
            known.contents.extend(own.contents);
            found = true;
        }
    }
    if found { Ok(known) } else { Err(none(place)) }
}

fn is_config(config: &Descriptor) -> bool {
    config.media_type == MediaType::from(CONFIG)
}

fn understood(place: &CacheFrom, document: &[u8], layers: &[Descriptor]) -> Result<Known> {
    parse(document, layers)
        .map_err(|error| Error::SharedCache { place: place.to_string(), problem: error.to_string() })
}

fn none(place: &CacheFrom) -> Error {
    let problem = "it has no results of onggi (BuildKit's can't be used here: make one with --cache-to)";
    Error::SharedCache { place: place.to_string(), problem: problem.into() }
}
