//! Dockerfiles and ignore files: whatever they say, they are planned or refused, and each place that is named is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onggi_build::dockerfile::plan::{Options, plan};
use onggi_build::dockerfile::report;
use onggi_build::graph::{Graph, ImageSource};
use onggi_build::ignore::{Ignore, patterns};
use onggi_build::{Images, ResolvedImage};
use onggi_oci::{Digest, ImageConfig, Platform};

/// Every image there is, with a trigger.
struct All;

impl Images for All {
    fn resolve(&self, image: &ImageSource, platform: &Platform) -> onggi_build::Result<ResolvedImage> {
        let mut config = ImageConfig { os: platform.os.clone(), ..ImageConfig::default() };
        config.config.on_build = vec![image.reference.clone(), "ENV A=$B".to_owned()];
        if image.reference.contains("ubuntu") {
            config.config.on_build.clear();
        }
        Ok(ResolvedImage { manifest: Digest::sha256(image.reference.as_bytes()), config })
    }
}

fuzz_target!(|text: &str| {
    if let Ok(ignore) = Ignore::new(&patterns(text)) {
        for path in text.lines().take(8) {
            ignore.excludes(path);
        }
    }
    let options = Options { file: "Dockerfile".to_owned(), ..Options::default() };
    let mut graph = Graph::default();
    if let Err(problem) = plan(text, &options, &All, &mut graph) {
        problem.excerpt("Dockerfile", text);
        assert!(!problem.to_string().is_empty());
    }
    for vertex in &graph.vertices {
        if let Some(location) = &vertex.location {
            assert!(location.lines.0 >= 1 && location.lines.0 <= location.lines.1);
            assert!(location.lines.1 as usize <= text.split('\n').count());
        }
    }
    let _ = report::targets(text);
});
