//! Dockerfiles and ignore files: whatever they say, they are planned or refused, and each place that is named is there.

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

/// One text; what is none is nothing here.
pub fn feed(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
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
}

/// The examples' build files, and one with a bit of everything.
pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        include_str!("../../examples/c-autotools/Dockerfile"),
        include_str!("../../examples/go-service/Dockerfile"),
        include_str!("../../examples/python-app/Dockerfile"),
        include_str!("../../examples/rust-workspace/Dockerfile"),
        "# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=all;error=true\nARG A=1 B\nFROM --platform=$BUILDPLATFORM \
         ubuntu:${A:-x} AS base\nARG A\nENV X=${A:+y} Y='a b' Z=${X##*/}${Y%%b}${X/a/b}${X:?no}\nRUN --mount=type=cache,target=/c,\
         sharing=locked,id=$X --mount=type=secret,id=s,env=S --network=none <<EOF\necho $X\nEOF\nCOPY --from=base --chmod=u+x \
         --chown=1:1 --link --parents --exclude=*.o a/./b* /x/\nADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb924\
         27ae41e4649b934ca495991b7852b855 https://e.example/x.tar.gz /\nCOPY <<-'E' /f\n\ttext\n\tE\nFROM base\n",
        "FROM scratch\nLABEL a=b \"c d\"='e'\nEXPOSE 80/tcp 1000-1002/udp\nVOLUME [\"/d\"]\nUSER 1:2\nWORKDIR ../x\nCMD [\"a\",\
         \"b\"]\nENTRYPOINT exec x\nSHELL [\"/bin/sh\",\"-c\"]\nSTOPSIGNAL SIGTERM\nHEALTHCHECK --interval=1s --retries=2 CMD x\n\
         ONBUILD RUN x \\\n  # comment\n  y\nMAINTAINER z\n",
        "FROM alpine AS a\nFROM a AS b\nCOPY --from=a / /\nFROM b\nRUN --security=insecure --device=vendor.com/c=x true\n",
        "*.o\n!keep.o\n**/x/[a-c]?/\\*\n/abs\n# c\n..\n",
    ])
}
