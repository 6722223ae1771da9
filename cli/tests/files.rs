//! A container's files from outside: `diff`, `export`, `import`, `commit` and `cp`, of containers that run and that don't.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Done, Onggi};

const IMAGE: &str = "busybox:test";

/// A store with busybox, and root's authority; `None` is a counted skip.
fn setup() -> Option<Onggi> {
    Onggi::with_busybox(IMAGE)
}

/// A container that runs a script until it is dropped.
struct Running<'a> {
    onggi: &'a Onggi,
    name: &'static str,
    child: Child,
}

impl<'a> Running<'a> {
    /// The script has done what it has to when it makes `/ready`.
    fn start(onggi: &'a Onggi, name: &'static str, flags: &[&str], script: &str) -> Self {
        let script = format!("{script}; touch /ready; sleep 300");
        let args = [&["run", "--rm", "--name", name], flags, &[IMAGE, "sh", "-c", &script]].concat();
        let child = onggi.command(args).stdout(Stdio::null()).spawn().expect("it starts");
        let running = Self { onggi, name, child };
        let start = Instant::now();
        while onggi.output(["exec", name, "test", "-e", "/ready"]).code != Some(0) {
            assert!(start.elapsed() < Duration::from_secs(30), "{name} takes too long");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.onggi.output(["rm", "-f", self.name]);
        let _ = self.child.wait();
    }
}

/// A container that ended, in which the script ran.
fn ended(onggi: &Onggi, name: &str, script: &str) {
    onggi.ok(["run", "--name", name, IMAGE, "sh", "-c", script]);
}

#[test]
fn diff_tells_what_changed_and_nothing_else() {
    let Some(onggi) = setup() else { return };
    onggi.ok(["create", "--name", "fresh", IMAGE, "true"]);
    assert_eq!(onggi.ok(["diff", "fresh"]), "");
    ended(&onggi, "idle", "cat /bin/busybox >/dev/null");
    assert_eq!(onggi.ok(["diff", "idle"]), "", "a start leaves nothing that counts");
    let script = "echo x >/new; mkdir -p /d/e; rm /bin/ls; chmod 700 /tmp; touch -c -d @0 /etc/group; \
                  rm -r /var; mkdir /var; echo y >/var/y; printf 'a\\nb' >\"$(printf '/esc\\033x')\"";
    ended(&onggi, "busy", script);
    let want = "C /bin\nD /bin/ls\nA /d\nA /d/e\nA /esc\\u{1b}x\nA /new\nC /tmp\nC /var\nA /var/y";
    let got = onggi.ok(["diff", "busy"]);
    assert_eq!(got.replace("C /etc\nC /etc/group\n", ""), want);
    assert_eq!(onggi.ok(["container", "diff", "busy"]), got);
}

#[test]
fn an_exported_container_is_imported_again() {
    let Some(onggi) = setup() else { return };
    ended(
        &onggi,
        "box",
        "echo content >/file; chown 7:8 /file; chmod 4755 /file; rm /bin/ls; ln /file /hard",
    );
    let archive = onggi.folder().join("root.tar");
    let path = archive.to_string_lossy();
    onggi.ok(["export", "-o", &path, "box"]);
    let mut entries = tar::Archive::new(fs::File::open(&archive).expect("the archive"));
    let mut seen = 0;
    for entry in entries.entries().expect("entries") {
        let entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        assert!(name != "bin/ls" && !name.contains(".wh."), "{name}");
        if name == "file" {
            let header = entry.header();
            assert_eq!(
                (header.uid().ok(), header.gid().ok(), header.mode().ok()),
                (Some(7), Some(8), Some(0o4755))
            );
            seen += 1;
        }
        if name == "hard" {
            assert_eq!(header_link(&entry), "file");
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
    let changes = ["-c", "CMD cat /file", "-c", "ENV A=1 B=two", "-m", "a remark"];
    let id = onggi.ok([&["import"][..], &changes, &[&path, "imported:1"]].concat());
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(onggi.ok(["run", "--rm", "imported:1"]), "content");
    assert_eq!(
        onggi.ok(["run", "--rm", "imported:1", "sh", "-c", "echo $A$B; stat -c %u:%g:%a /file"]),
        "1two\n7:8:4755"
    );
    assert_eq!(onggi.ok(["history", "--format", "{{.Comment}}", "imported:1"]), "a remark");
    assert_eq!(onggi.ok(["image", "inspect", "-f", "{{len .RootFS.Layers}}", "imported:1"]), "1");
    // From a pipe, compressed.
    let gzip = Done::of(Command::new("sh").arg("-c").arg(format!("gzip -c {path} >{path}.gz"))).ok();
    assert_eq!(gzip, "");
    let input = fs::File::open(format!("{path}.gz")).expect("the archive");
    let mut command = onggi.command(["import", "--platform", "linux/arm64", "-", "imported:2"]);
    Done::of(command.stdin(input)).ok();
    assert_eq!(onggi.ok(["image", "inspect", "-f", "{{.Architecture}}", "imported:2"]), "arm64");
    onggi.fails(["import", "/dev/null/x"]);
    let done = onggi.fails(["import", "-c", "RUN x", &path]);
    assert!(done.stderr.contains("RUN"), "{}", done.stderr);
    onggi.assert_store_is_clean();
}

fn header_link(entry: &tar::Entry<'_, fs::File>) -> String {
    entry.link_name().ok().flatten().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[test]
fn an_image_of_a_container_is_its_image_and_what_it_changed() {
    let Some(onggi) = setup() else { return };
    let script = "echo new >/new; rm /bin/ls; rm -r /etc; mkdir /etc; echo x >/etc/only";
    onggi.ok(["run", "--name", "box", "-e", "A=run", "-w", "/tmp", "-l", "k=v", IMAGE, "sh", "-c", script]);
    let changes = [
        "-c",
        "CMD [\"cat\", \"/new\"]",
        "-c",
        "ENV B=\"two words\"",
        "-c",
        "EXPOSE 80",
        "-c",
        "USER 5:6",
        "-c",
        "LABEL x=y",
        "-c",
        "WORKDIR /srv",
        "-c",
        "ENTRYPOINT []",
    ];
    let id = onggi.ok([&["commit", "-a", "Ann", "-m", "first"][..], &changes, &["box", "made:1"]].concat());
    let inspect = |format: &str| onggi.ok(["image", "inspect", "-f", format, "made:1"]);
    assert_eq!(inspect("{{.Id}}"), id);
    assert_eq!(inspect("{{.Author}} {{.Comment}}"), "Ann first");
    assert_eq!(inspect("{{json .Config.Cmd}} {{.Config.User}}"), "[\"cat\",\"/new\"] 5:6");
    assert_eq!(inspect("{{.Config.WorkingDir}} {{.Config.Labels}}"), "/srv map[k:v x:y]");
    let env = inspect("{{json .Config.Env}}");
    assert!(env.contains("A=run") && env.contains("B=two words"), "{env}");
    assert_eq!(onggi.ok(["run", "--rm", "made:1"]), "new");
    let look = "ls /etc | grep -v -e host -e resolv; test -e /bin/ls || echo gone";
    assert_eq!(onggi.ok(["run", "--rm", "-u", "0", "made:1", "busybox", "sh", "-c", look]), "only\ngone");
    // The layer has nothing that the container did not change, and the image can be saved and read by others.
    let layers = onggi.ok(["history", "--format", "{{.Size}}", "made:1"]);
    assert!(layers.starts_with("6B") || layers.starts_with("4B"), "{layers}");
    let saved = onggi.folder().join("made.tar");
    onggi.ok(["save", "-o", &saved.to_string_lossy(), "made:1"]);
    // Frozen meanwhile, and running afterwards; with a name that can't be, nothing is made.
    let live = Running::start(&onggi, "live", &[], "echo live >/live");
    onggi.ok(["commit", live.name, "made:2"]);
    assert_eq!(onggi.ok(["exec", live.name, "cat", "/live"]), "live");
    assert_eq!(onggi.ok(["run", "--rm", "made:2", "cat", "/live"]), "live");
    onggi.fails(["commit", live.name, "Made:2"]);
    let done = onggi.fails(["commit", "-c", "COPY a b", live.name]);
    assert!(done.stderr.contains("COPY"), "{}", done.stderr);
    drop(live);
    onggi.assert_store_is_clean();
}

/// The table of `docker cp`'s documentation, into a container that runs and into one that doesn't.
#[test]
fn copies_land_where_docker_puts_them() {
    let Some(onggi) = setup() else { return };
    let host = onggi.folder().join("host");
    fs::create_dir_all(host.join("dir/sub")).expect("a folder");
    fs::write(host.join("file"), "file").expect("a file");
    fs::write(host.join("dir/sub/deep"), "deep").expect("a file");
    fs::set_permissions(host.join("file"), fs::Permissions::from_mode(0o640)).expect("a mode");
    symlink("file", host.join("link")).expect("a link");
    let setup = "mkdir /d /d2; echo old >/f; ln -s /d /to-d; ln -s /f /to-f; ln -s /missing /dangling";
    ended(&onggi, "still", setup);
    let live = Running::start(&onggi, "live", &[], setup);
    let path = |name: &str| host.join(name).to_string_lossy().into_owned();
    for name in ["still", live.name] {
        let to = |target: &str| format!("{name}:{target}");
        let into = |source: &str, target: &str| onggi.ok(["cp", &path(source), &to(target)]);
        let refused = |source: &str, target: &str, words: &str| {
            let done = onggi.fails(["cp", &path(source), &to(target)]);
            assert!(done.stderr.contains(words), "{source} {target}: {}", done.stderr);
        };
        into("file", "/new");
        into("file", "/d");
        into("file", "/d/other");
        into("file", "f");
        into("file", "/to-d");
        into("file", "/to-f");
        into("file", "/dangling");
        into("link", "/d/link");
        onggi.ok(["cp", "-L", &path("link"), &to("/d/followed")]);
        into("dir", "/made");
        into("dir", "/d");
        into("dir/.", "/d2");
        into("dir/", "/slash");
        refused("file", "/nowhere/", "no such directory");
        refused("file", "/no/where", "no such directory");
        refused("file", "/f/", "not a directory");
        refused("dir", "/f", "over the file");
        refused("missing", "/d", "no such file");
        let out = onggi.folder().join(name);
        fs::create_dir(&out).expect("a folder");
        let place = |target: &str| out.join(target).to_string_lossy().into_owned();
        let out_of = |source: &str, target: &str| onggi.ok(["cp", &to(source), &place(target)]);
        out_of("/d", "copy");
        out_of("/d", "copy");
        out_of("/d/.", "contents");
        out_of("/missing", "");
        out_of("/f", "f");
        for (file, want) in [
            ("copy/file", "file"),
            ("copy/other", "file"),
            ("copy/dir/sub/deep", "deep"),
            ("copy/d/dir/sub/deep", "deep"),
            ("copy/followed", "file"),
            ("contents/file", "file"),
            ("missing", "file"),
            ("f", "file"),
        ] {
            assert_eq!(fs::read_to_string(out.join(file)).unwrap_or_default(), want, "{name} {file}");
        }
        assert_eq!(fs::read_link(out.join("copy/link")).expect("a link"), Path::new("file"));
        assert_eq!(fs::metadata(out.join("f")).expect("a file").mode() & 0o7777, 0o640);
        onggi.ok(["cp", &to("/made"), &place("made")]);
        onggi.ok(["cp", &to("/d2"), &place("d2")]);
        onggi.ok(["cp", &to("/slash"), &place("slash")]);
        for file in ["made/sub/deep", "d2/sub/deep", "slash/sub/deep"] {
            assert_eq!(fs::read_to_string(out.join(file)).unwrap_or_default(), "deep", "{name} {file}");
        }
        let done = onggi.fails(["cp", &to("/nothing"), &place("x")]);
        assert!(done.stderr.contains("/nothing"), "{}", done.stderr);
        onggi.fails(["cp", &to("/f"), &place("no/where")]);
        onggi.fails(["cp", &to("/f"), &to("/g")]);
        onggi.fails(["cp", &path("file"), &path("other")]);
    }
    onggi.fails(["cp", "nobody:/f", &path("x")]);
}

#[test]
fn archives_and_owners_go_both_ways() {
    let Some(onggi) = setup() else { return };
    let live =
        Running::start(&onggi, "live", &["-v", "/vol"], "echo x >/x; chown 5:6 /x; chmod 4755 /x; mkdir /in");
    ended(&onggi, "still", "echo x >/x; chown 5:6 /x; chmod 4755 /x; mkdir /in");
    for name in [live.name, "still"] {
        let archive = onggi.folder().join(format!("{name}.tar"));
        let out = fs::File::create(&archive).expect("a file");
        let mut command = onggi.command(["cp", &format!("{name}:/x"), "-"]);
        assert!(command.stdout(out).status().expect("it runs").success());
        let mut command = onggi.command(["cp", "-", &format!("{name}:/in")]);
        Done::of(command.stdin(fs::File::open(&archive).expect("a file"))).ok();
        let here = onggi.folder().join(name);
        onggi.ok(["cp", "-a", &format!("{name}:/in/x"), &here.to_string_lossy()]);
        let meta = fs::metadata(&here).expect("a file");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (5, 6, 0o4755), "{name}");
        // To the caller goes nothing that was given to somebody else.
        let plain = onggi.folder().join(format!("{name}-plain"));
        onggi.ok(["cp", &format!("{name}:/x"), &plain.to_string_lossy()]);
        let meta = fs::metadata(&plain).expect("a file");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 0, 0o755), "{name}");
        // Into the container without -a it is root's.
        onggi.ok(["cp", &here.to_string_lossy(), &format!("{name}:/mine")]);
        let again = onggi.folder().join(format!("{name}-again"));
        onggi.ok(["cp", "-a", &format!("{name}:/mine"), &again.to_string_lossy()]);
        assert_eq!(fs::metadata(&again).expect("a file").uid(), 0, "{name}");
        let mut command = onggi.command(["cp", "-", &format!("{name}:/mine")]);
        Done::of(command.stdin(fs::File::open(&archive).expect("a file"))).assert_failed_in_words();
    }
    // A volume is where the container has it; what is mounted can be replaced in its place.
    let file = onggi.folder().join("hosts");
    fs::write(&file, "1.2.3.4 box\n").expect("a file");
    onggi.ok(["cp", &file.to_string_lossy(), "live:/vol/hosts"]);
    assert_eq!(onggi.ok(["exec", "live", "cat", "/vol/hosts"]), "1.2.3.4 box");
    onggi.ok(["cp", &file.to_string_lossy(), "live:/etc/hosts"]);
    assert_eq!(onggi.ok(["exec", "live", "cat", "/etc/hosts"]), "1.2.3.4 box");
}

/// CVE-2018-15664: a container swaps a directory for a link to the host's while files are copied.
#[test]
fn a_link_that_appears_while_files_are_copied_leads_nowhere_else() {
    let Some(onggi) = setup() else { return };
    let outside = onggi.folder().join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("secret"), "of the host").expect("a file");
    let target = outside.to_string_lossy().into_owned();
    // Inside, the path is the container's own, if there is one.
    let swap = format!(
        "mkdir -p /real {target}; echo inside >/real/secret; \
         (while :; do ln -sfn /real /x; ln -sfn {target} /x; ln -sfn ../../../../../../../..{target} /x; done) & true"
    );
    let live = Running::start(&onggi, "live", &[], &swap);
    let file = onggi.folder().join("file");
    fs::write(&file, "copied").expect("a file");
    for round in 0..40 {
        let _ = onggi.output(["cp", &file.to_string_lossy(), &format!("{}:/x/file{round}", live.name)]);
        let here = onggi.folder().join(format!("secret{round}"));
        let _ = onggi.output(["cp", &format!("{}:/x/secret", live.name), &here.to_string_lossy()]);
        assert_ne!(fs::read_to_string(here).unwrap_or_default(), "of the host");
    }
    let found: Vec<_> =
        fs::read_dir(&outside).expect("the folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(found, ["secret"]);
}
