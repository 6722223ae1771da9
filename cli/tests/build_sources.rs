//! Sources of builds that lie elsewhere: files by URL and repositories are fetched when they changed, `onggi.lock` holds
//! them, and the cache stays small.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use onggi_testkit::needs;
use support::{Done, Onggi, tool};

/// A store with busybox, and a context.
struct Workshop {
    onggi: Onggi,
    context: PathBuf,
}

impl Workshop {
    fn new() -> Option<Self> {
        let onggi = Onggi::with_busybox("busybox")?;
        let context = onggi.folder().join("context");
        fs::create_dir(&context).expect("a folder");
        Some(Self { onggi, context })
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.context.join(name), text).expect("a file");
    }

    fn build(&self, words: &[&str]) -> Done {
        let context = self.context.to_str().expect("a path of ours");
        self.onggi.output(["build", "-t", "app"].iter().chain(words).chain(&[context]))
    }

    fn lock(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.context.join("onggi.lock")).expect("a lock file");
        serde_json::from_str(&text).expect("JSON")
    }
}

/// A web server with one file, which it gives unless the client has it already.
struct Web {
    url: String,
    content: Arc<Mutex<String>>,
    /// The status of each answer.
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Web {
    fn start(content: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/file.txt", listener.local_addr().expect("an address"));
        let content = Arc::new(Mutex::new(content.to_owned()));
        let answers: Arc<Mutex<Vec<u16>>> = Arc::default();
        let (shown, noted) = (Arc::clone(&content), Arc::clone(&answers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = shown.lock().expect("a lock").clone();
                let etag = format!("\"{}-{}\"", content.len(), content.trim());
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let known = lines.take_while(|line| !line.is_empty()).any(|line| {
                    line.to_ascii_lowercase().starts_with("if-none-match") && line.contains(&etag)
                });
                let (status, body) =
                    if known { ("304 Not Modified", "") } else { ("200 OK", content.as_str()) };
                noted.lock().expect("a lock").push(if known { 304 } else { 200 });
                let _ = write!(
                    &stream,
                    "HTTP/1.1 {status}\r\nETag: {etag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { url, content, answers }
    }

    fn set(&self, content: &str) {
        content.clone_into(&mut self.content.lock().expect("a lock"));
    }

    fn answers(&self) -> Vec<u16> {
        std::mem::take(&mut self.answers.lock().expect("a lock"))
    }
}

#[test]
fn a_file_by_url_is_fetched_when_it_changed_and_held_by_the_lock_file() {
    let Some(shop) = Workshop::new() else { return };
    let web = Web::start("one\n");
    shop.write("Dockerfile", &format!("FROM busybox\nADD {} /f\nRUN cp /f /g\n", web.url));
    shop.build(&[]).ok();
    shop.build(&[]).ok();
    assert_eq!(web.answers(), [200, 304]);
    let shown = || shop.onggi.ok(["run", "--rm", "app", "cat", "/g"]);
    assert_eq!(shown(), "one");
    web.set("two\n");
    shop.build(&["--lock"]).ok();
    assert_eq!((web.answers(), shown()), (vec![200], "two".into()));
    let lock = shop.lock();
    assert!(lock["images"]["docker.io/library/busybox:latest"].as_str().is_some(), "{lock}");
    let digest = lock["urls"][&web.url].as_str().expect("a digest").to_owned();

    // What is held and here needs no question; what is held and another thing is an error.
    web.set("three\n");
    shop.build(&["--lock"]).ok();
    assert_eq!((web.answers(), shown()), (vec![], "two".into()));
    let Some(other) = Workshop::new() else { return };
    for name in ["Dockerfile", "onggi.lock"] {
        fs::copy(shop.context.join(name), other.context.join(name)).expect("a copy");
    }
    let done = other.build(&["--lock"]);
    done.assert_failed_in_words();
    for part in [web.url.as_str(), &digest, "--lock=update"] {
        assert!(done.stderr.contains(part), "no {part:?} in {}", done.stderr);
    }
    other.build(&["--lock=update"]).ok();
    assert_ne!(other.lock()["urls"][&web.url].as_str(), Some(digest.as_str()));

    // A checksum says the same in the build file.
    shop.write("Dockerfile", &format!("FROM busybox\nADD --checksum={digest} {} /f\n", web.url));
    web.answers();
    shop.build(&[]).ok();
    assert!(web.answers().is_empty());
    // Only `prune --all` forgets files with the rest.
    shop.onggi.ok(["build", "prune", "-af"]);
    shop.build(&[]).assert_failed_in_words();

    shop.write("onggi.lock", "{\"version\":1,\"imges\":{}}");
    let done = shop.build(&["--lock"]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("imges"), "{}", done.stderr);
    let done = shop.onggi.output(["build", "--lock", "-"]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("--lock"), "{}", done.stderr);
}

#[test]
fn an_image_is_held_by_the_lock_file() {
    let Some(shop) = Workshop::new() else { return };
    shop.write("Dockerfile", "FROM busybox\nRUN echo 1 > /one\n");
    shop.build(&["--lock"]).ok();
    let before = shop.lock();
    // The tag goes on.
    shop.onggi.ok(["tag", "app", "busybox"]);
    let done = shop.build(&["--lock"]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("onggi.lock") && done.stderr.contains("busybox"), "{}", done.stderr);
    shop.build(&["--lock=update"]).ok();
    assert_ne!(shop.lock(), before);
    shop.build(&["--lock"]).ok();
}

/// Serves the repositories of a folder; ended when dropped.
struct GitServer {
    port: u16,
    child: std::process::Child,
}

impl GitServer {
    fn start(folder: &std::path::Path) -> Option<Self> {
        let program = PathBuf::from(tool("git", ["--exec-path"])).join("git-daemon");
        if !program.exists() {
            let _ = needs::missing("git-daemon, a part of git");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port").port();
        let mut command = std::process::Command::new(program);
        command.args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"]).arg(format!("--port={port}"));
        let child = command.arg(format!("--base-path={}", folder.display())).arg(folder).spawn();
        let server = Self { port, child: child.expect("it starts") };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("the server does not answer");
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_repository_is_fetched_when_its_branch_moved() {
    if needs::programs(&["git"]).is_missing() {
        return;
    }
    let Some(shop) = Workshop::new() else { return };
    let remote = shop.onggi.folder().join("remote.git");
    let git = |words: &[&str]| {
        let dir = remote.to_str().expect("a path of ours");
        let all = ["-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"];
        tool("git", all.iter().chain(words).copied())
    };
    fs::create_dir(&remote).expect("a folder");
    git(&["init", "-q", "-b", "main", "."]);
    let commit = |text: &str| {
        fs::write(remote.join("file"), text).expect("a file");
        git(&["add", "-A"]);
        git(&["commit", "-q", "-m", text]);
        git(&["rev-parse", "HEAD"])
    };
    let first = commit("one\n");
    git(&["tag", "-a", "-m", "first", "v1"]);
    let Some(server) = GitServer::start(shop.onggi.folder()) else { return };
    let url = format!("git://127.0.0.1:{}/remote.git", server.port);
    let context = format!("source={url}#main");
    shop.write("Dockerfile", "FROM busybox\nCOPY --from=source file /f\n");
    let build = |words: &[&str]| {
        let words: Vec<&str> = ["--build-context", &context].iter().chain(words).copied().collect();
        shop.build(&words)
    };
    let shown = || shop.onggi.ok(["run", "--rm", "app", "cat", "/f"]);
    build(&["--lock"]).ok();
    assert_eq!(shown(), "one");
    let second = commit("two\n");
    build(&["--lock"]).ok();
    assert_eq!(shown(), "one");
    assert!(shop.lock()["git"].as_object().expect("a map").values().any(|held| held == first.as_str()));
    build(&["--lock=update"]).ok();
    assert_eq!(shown(), "two");
    assert!(shop.lock()["git"].as_object().expect("a map").values().any(|held| held == second.as_str()));
    // A tag, and a commit by its name; a commit that is here needs no server.
    for (reference, text) in [("v1", "one"), (first.as_str(), "one"), (second.as_str(), "two")] {
        shop.write(
            "Dockerfile",
            &format!("FROM busybox\nADD --keep-git-dir=true {url}#{reference} /r\nRUN cp /r/file /f\n"),
        );
        shop.build(&[]).ok();
        assert_eq!(shown(), text);
    }
    drop(server);
    shop.build(&[]).ok();
    shop.write("Dockerfile", &format!("FROM busybox\nADD {url}#main /r\n"));
    shop.build(&[]).assert_failed_in_words();
}

#[test]
fn the_cache_keeps_to_its_limit() {
    let Some(shop) = Workshop::new() else { return };
    let build = |name: &str, limit: &str| {
        shop.write("Dockerfile", &format!("FROM busybox\nRUN head -c 3000000 /dev/zero > /{name}\n"));
        let context = shop.context.to_str().expect("a path of ours");
        let mut command = shop.onggi.command(["build", "-q", context]);
        Done::of(command.env("ONGGI_BUILD_CACHE_LIMIT", limit)).ok();
    };
    let steps = || fs::read_dir(shop.onggi.root().join("cache/build/keys")).expect("a folder").count();
    build("a", "7MB");
    build("b", "7MB");
    assert_eq!(steps(), 2);
    build("c", "7MB");
    assert_eq!(steps(), 2);
    // The one that was not used for the longest time went, and its layer with it once no image has it.
    build("b", "7MB");
    build("c", "7MB");
    assert_eq!(steps(), 2);
    shop.onggi.assert_store_is_clean();
    shop.onggi.ok(["build", "prune", "-f", "--keep-storage", "4MB"]);
    assert_eq!(steps(), 1);
    // Cache mounts count, and go when it is their turn.
    let fill = "FROM busybox\nRUN --mount=type=cache,target=/c head -c 5000000 /dev/zero > /c/file\n";
    shop.write("Dockerfile", fill);
    shop.build(&[]).ok();
    let prune = |words: &[&str]| shop.onggi.ok(["build", "prune", "-f"].iter().chain(words));
    assert!(!prune(&["--max-used-space", "20MB"]).contains("cache mount"));
    assert!(!prune(&["--max-used-space", "1MB", "--reserved-space", "20MB"]).contains("cache mount"));
    assert!(!prune(&["--min-free-space", "1B"]).contains("cache mount"));
    let said = prune(&["--max-used-space", "4MB"]);
    assert!(said.contains("the cache mount /c") && said.contains("Total:\t5.0"), "{said}");
    shop.write("Dockerfile", "FROM busybox\nRUN --mount=type=cache,target=/c ls /c > /seen\n");
    shop.build(&["-t", "seen"]).ok();
    assert_eq!(shop.onggi.ok(["run", "--rm", "seen", "cat", "/seen"]), "");
    assert!(prune(&["--min-free-space", "1000TB"]).contains("RUN --mount"));
    let context = shop.context.to_str().expect("a path of ours");
    let mut command = shop.onggi.command(["build", "-q", context]);
    Done::of(command.env("ONGGI_BUILD_CACHE_LIMIT", "much")).assert_failed_in_words();
}
