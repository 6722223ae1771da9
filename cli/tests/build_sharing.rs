//! Results of builds that go from one machine to another: `--cache-to` and `--cache-from`.

mod support;

use std::fs;
use std::path::PathBuf;

use onggi_testkit::{DockerRegistry, Security};
use support::{Done, Onggi};

/// Two stages; only the second is in the image. Each says by chance what it made, so that what was made
/// again shows.
const BUILD_FILE: &str = "FROM busybox AS tools\nRUN mkdir /made && cat /proc/sys/kernel/random/uuid > /made/tool\n\
     FROM busybox\nCOPY source /source\nRUN cat /proc/sys/kernel/random/uuid > /own\nCOPY --from=tools /made/tool /tool\n";

/// A machine: a store and a context.
struct Machine {
    onggi: Onggi,
    context: PathBuf,
}

impl Machine {
    fn new() -> Option<Self> {
        let onggi = Onggi::with_busybox("busybox")?;
        let context = onggi.folder().join("context");
        fs::create_dir(&context).expect("a folder");
        let machine = Self { onggi, context };
        machine.write("Dockerfile", BUILD_FILE);
        machine.write("source", "1\n");
        Some(machine)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.context.join(name), text).expect("a file");
    }

    fn build(&self, words: &[&str]) -> Done {
        let context = self.context.to_str().expect("a path of ours");
        self.onggi.output(["build", "--progress=plain"].iter().chain(words).chain(&[context]))
    }

    /// Builds `app`, and gives its manifest and how many steps were known.
    #[track_caller]
    fn app(&self, words: &[&str]) -> (String, usize) {
        let file = self.onggi.folder().join("metadata.json");
        let path = file.to_str().expect("a path of ours");
        let words: Vec<&str> = ["-t", "app", "--metadata-file", path].iter().chain(words).copied().collect();
        let done = self.build(&words);
        let known = done.stderr.matches("CACHED").count();
        done.ok();
        let text = fs::read_to_string(&file).expect("a file");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        (value["containerimage.digest"].as_str().expect("a digest").to_owned(), known)
    }

    fn layers(&self) -> usize {
        fs::read_dir(self.onggi.root().join("layers")).expect("a folder").count()
    }
}

#[test]
fn a_directory_carries_results_to_another_store() {
    let (Some(one), Some(two)) = (Machine::new(), Machine::new()) else { return };
    let dir = one.onggi.folder().join("cache");
    let (to, from) =
        (format!("type=local,dest={},mode=max", dir.display()), format!("type=local,src={}", dir.display()));
    let (image, known) = one.app(&["--cache-to", &to]);
    assert_eq!(known, 0);
    let before = two.layers();
    assert_eq!(two.app(&["--cache-from", &from]), (image.clone(), 4));
    // The stage that is not in the image was never needed.
    assert_eq!(two.layers() - before, 3);
    two.onggi.assert_store_is_clean();
    assert_eq!(two.onggi.ok(["run", "--rm", "app", "cat", "/source"]), "1");
    // By now it is known here.
    assert_eq!(two.app(&[]), (image, 4));

    // A change of what only the second stage reads leaves the first.
    let Some(three) = Machine::new() else { return };
    three.write("source", "2\n");
    let (other, known) = three.app(&["--cache-from", &from, "--cache-to", &to]);
    assert_eq!(known, 1, "{other}");
    let tool = |machine: &Machine| machine.onggi.ok(["run", "--rm", "app", "cat", "/tool"]);
    assert_eq!(tool(&three), tool(&one));
    // What nobody can reach any more is gone from the directory; what was carried over is there.
    let Some(four) = Machine::new() else { return };
    four.write("source", "2\n");
    assert_eq!(four.app(&["--cache-from", &from]), (other, 4));
    assert_eq!(fs::read_dir(dir.join("blobs/sha256")).expect("a folder").count(), 4 + 2);
}

#[test]
fn the_smaller_mode_has_the_layers_of_the_image_and_the_way_to_them() {
    let (Some(one), Some(two)) = (Machine::new(), Machine::new()) else { return };
    let dir = one.onggi.folder().join("cache");
    let (image, _) = one.app(&["--cache-to", &format!("type=local,dest={}", dir.display())]);
    assert_eq!(fs::read_dir(dir.join("blobs/sha256")).expect("a folder").count(), 3 + 2);
    assert_eq!(two.app(&["--cache-from", &format!("type=local,src={}", dir.display())]), (image, 4));
    // Who needs what only the first stage had makes it, and what stands on it again.
    two.write("Dockerfile", &format!("{BUILD_FILE}COPY --from=tools /made /made\nRUN test -s /made/tool\n"));
    two.app(&[]);
    let shown = |file: &str| two.onggi.ok(["run", "--rm", "app", "cat", file]);
    assert_eq!(shown("/made/tool").len(), 36);
    let (again, known) = two.app(&[]);
    assert_eq!((two.app(&[]).0, known), (again, 6));
    two.onggi.assert_store_is_clean();
}

#[test]
fn a_registry_carries_results_as_an_artifact_or_with_the_image() {
    let (Some(one), Some(two), Some(three)) = (Machine::new(), Machine::new(), Machine::new()) else {
        return;
    };
    let Some(registry) = DockerRegistry::start(Security::Plain) else { return };
    let cache = format!("{}/team/app:cache", registry.address());
    let (image, _) = one.app(&["--cache-to", &format!("type=registry,ref={cache},mode=max")]);
    // The first that has a result counts; one that can't be had is no failure.
    let missing = format!("{}/team/none:cache", registry.address());
    let done = two.build(&["-t", "app", "--cache-from", &missing, "--cache-from", &cache]);
    assert!(
        done.stderr.contains("warning: the build cache") && done.stderr.contains("none"),
        "{}",
        done.stderr
    );
    assert_eq!(done.stderr.matches("CACHED").count(), 4, "{}", done.stderr);
    done.ok();
    assert_eq!(two.app(&["--cache-from", &cache]), (image, 4));
    two.onggi.fails(["pull", &cache]);

    let name = format!("{}/team/app:1", registry.address());
    one.build(&["-t", &name, "--push", "--cache-to", "type=inline"]).ok();
    let (_, known) = three.app(&["--cache-from", &name]);
    assert_eq!(known, 4);
    assert_eq!(
        three.onggi.ok(["run", "--rm", "app", "cat", "/own"]),
        one.onggi.ok(["run", "--rm", "app", "cat", "/own"])
    );
}

#[test]
fn a_damaged_cache_is_no_harm() {
    let (Some(one), Some(two)) = (Machine::new(), Machine::new()) else { return };
    let dir = one.onggi.folder().join("cache");
    let from = format!("type=local,src={}", dir.display());
    one.app(&["--cache-to", &format!("type=local,dest={},mode=max", dir.display())]);
    let manifest = fs::read_to_string(dir.join("index.json")).expect("a file");
    let index: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest").replace("sha256:", "");
    let text = fs::read_to_string(dir.join("blobs/sha256").join(&digest)).expect("a file");
    let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for layer in manifest["layers"].as_array().expect("layers") {
        let digest = layer["digest"].as_str().expect("a digest").replace("sha256:", "");
        let path = dir.join("blobs/sha256").join(digest);
        let mut bytes = fs::read(&path).expect("a file");
        let last = bytes.len() - 1;
        bytes[last / 2] ^= 1;
        fs::write(&path, bytes).expect("a file");
    }
    let done = two.build(&["-t", "app", "--cache-from", &from]);
    assert!(done.stderr.contains("so it is made here"), "{}", done.stderr);
    done.ok();
    two.onggi.assert_store_is_clean();
    assert_eq!(two.onggi.ok(["run", "--rm", "app", "cat", "/source"]), "1");
    // A list of results that is another than the manifest says is not read at all.
    fs::write(dir.join("blobs/sha256").join(&digest), text.replace("layers", "Layers")).expect("a file");
    let Some(three) = Machine::new() else { return };
    let done = three.build(&["--cache-from", &from]);
    assert!(done.stderr.contains("is not used") && done.stderr.contains("damaged"), "{}", done.stderr);
    done.ok();
    for (words, part) in [
        (["--cache-from", "type=gha"], "type=gha is not supported"),
        (["--cache-to", "type=s3,bucket=b"], "type=s3 is not supported"),
        (["--cache-to", "type=local"], "dest is required"),
        (["--cache-to", "type=inline,mode=max"], "mode=max needs"),
    ] {
        let done = three.build(&words);
        done.assert_failed_in_words();
        assert!(done.stderr.contains(part), "no {part:?} in {}", done.stderr);
    }
}
