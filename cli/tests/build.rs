//! Builds, through the binary: what comes out, what is known the second time, and what is left after a kill.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use support::{Done, Onggi, busybox_archive, tool};

/// A store with busybox, and a context.
struct Workshop {
    onggi: Onggi,
    context: PathBuf,
}

impl Workshop {
    fn new() -> Option<Self> {
        let onggi = Onggi::with_busybox("busybox:latest")?;
        let context = onggi.folder().join("context");
        fs::create_dir(&context).expect("a folder");
        Some(Self { onggi, context })
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.context.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn build(&self, words: &[&str]) -> Done {
        let context = self.context.to_str().expect("a path of ours");
        self.onggi.output(["build"].iter().chain(words).chain(&[context]))
    }

    /// Builds and gives the ID.
    #[track_caller]
    fn id(&self, words: &[&str]) -> String {
        let words: Vec<&str> = ["-q"].iter().chain(words).copied().collect();
        self.build(&words).ok()
    }

    /// The files of the result that the base does not have, as `tar` lists them.
    fn files(&self, words: &[&str]) -> Vec<String> {
        let archive = self.onggi.folder().join("out.tar");
        let output = format!("type=tar,dest={}", archive.display());
        let words: Vec<&str> = ["-o", &output].iter().chain(words).copied().collect();
        self.build(&words).ok();
        let listed = tool("tar", ["-tf", archive.to_str().expect("a path of ours")]);
        listed.lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_second_time_everything_is_known_and_a_change_is_named() {
    let Some(shop) = Workshop::new() else { return };
    shop.write("Dockerfile", "FROM busybox\nRUN echo one > /one\nCOPY src /src\nRUN cat /src/a /one > /two\nCMD [\"cat\",\"/two\"]\n");
    shop.write("src/a", "A\n");
    shop.write("src/b", "B\n");
    let first = shop.id(&["-t", "app"]);
    assert_eq!(shop.onggi.ok(["run", "--rm", "app"]), "A\none");
    let second = shop.build(&["-t", "app"]);
    assert_eq!(second.stderr.matches("CACHED").count(), 3, "{}", second.stderr);
    assert_eq!(shop.id(&["-t", "app"]), first);

    shop.write("src/b", "changed\n");
    let third = shop.build(&["--explain", "-t", "app"]);
    assert_eq!(third.stderr.matches("CACHED").count(), 1, "{}", third.stderr);
    assert!(third.stderr.contains("file src/b"), "{}", third.stderr);
    // Touching changes nothing that counts.
    let file = fs::File::options().append(true).open(shop.context.join("src/a")).expect("a file");
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(100)).expect("a time");
    let fourth = shop.build(&["--no-cache-filter", "none", "-t", "app"]);
    assert_eq!(fourth.stderr.matches("CACHED").count(), 3, "{}", fourth.stderr);
    let explained = shop.build(&["--explain=json", "-q"]).ok();
    assert!(explained.contains("\"hit\": true"), "{explained}");
    shop.onggi.assert_store_is_clean();
    // What the cache remembers survives a prune, and goes with its own.
    shop.onggi.ok(["image", "prune", "-f"]);
    assert_eq!(shop.build(&[]).stderr.matches("CACHED").count(), 3);
    shop.onggi.ok(["builder", "prune", "-af"]);
    assert_eq!(shop.build(&[]).stderr.matches("CACHED").count(), 0);
}

#[test]
fn a_step_leaves_only_what_its_program_made() {
    let Some(shop) = Workshop::new() else { return };
    shop.write(
        "Dockerfile",
        "FROM busybox AS base\nFROM scratch\nCOPY --from=base /bin /bin\n\
         RUN --mount=type=cache,target=/var/cache/x --mount=type=tmpfs,target=/a/b/c true\n\
         RUN echo x > /made\n",
    );
    let files = shop.files(&[]);
    let outside: Vec<_> = files.iter().filter(|name| !name.starts_with("bin")).collect();
    assert_eq!(outside, ["made"], "{files:?}");
    assert_eq!(shop.onggi.unfinished(), Vec::<String>::new());
}

#[test]
fn mount_points_under_what_was_removed_leave_nothing() {
    let Some(shop) = Workshop::new() else { return };
    shop.write(
        "Dockerfile",
        "FROM busybox\nRUN mkdir -p /a/c /d && echo 1 > /a/c/f && echo 2 > /d/f\n\
         RUN rm -rf /a && mkdir /a && chmod 2750 /a && chown 7:8 /a && touch -d @1000 /a && rm /d/f\n\
         RUN --mount=type=tmpfs,target=/a/b/c --mount=type=bind,source=Dockerfile,target=/d/f \\\n\
         \x20 [ \"$(stat -c %a:%u:%g:%Y /a)\" = 2750:7:8:1000 ] && grep -q FROM /d/f && mount | grep -q ' /a/b/c '\n\
         RUN [ -z \"$(ls -A /a)\" ] && [ ! -e /d/f ]\n",
    );
    let files = shop.files(&[]);
    let of_test: Vec<_> =
        files.iter().filter(|name| name.starts_with("a/") || name.starts_with("d/")).collect();
    assert_eq!(of_test, ["a/", "d/"], "{files:?}");
}

#[test]
fn stages_mounts_and_arguments_work_together() {
    let Some(shop) = Workshop::new() else { return };
    shop.write("given", "from the context\n");
    shop.write(
        "Dockerfile",
        "ARG WHO=world\nFROM busybox AS one\nARG WHO\nRUN mkdir /d && echo hello $WHO > /d/f\n\
         FROM busybox AS unused\nRUN false\n\
         FROM busybox\nRUN --mount=type=bind,from=one,source=/d,target=/m cat /m/f > /copy\n\
         RUN --mount=type=bind,target=/c,rw cat /c/given >> /copy && touch /c/new\n\
         RUN --mount=type=cache,target=/k echo kept >> /k/f\nRUN --mount=type=cache,target=/k cat /k/f >> /copy\n\
         COPY --link --from=one /d/f /linked\nCMD cat /copy /linked\n",
    );
    shop.build(&["-t", "app", "--build-arg", "WHO=you"]).ok();
    assert_eq!(shop.onggi.ok(["run", "--rm", "app"]), "hello you\nfrom the context\nkept\nhello you");
    assert!(!shop.context.join("new").exists());
}

#[test]
fn a_failure_shows_the_lines_and_the_last_words() {
    let Some(shop) = Workshop::new() else { return };
    shop.write(
        "Dockerfile",
        "FROM busybox\nRUN echo before\nRUN echo last words && exit 3\nRUN echo after\n",
    );
    let done = shop.build(&[]);
    done.assert_failed_in_words();
    for part in ["last words", "exit code: 3", "   3 | >>> RUN echo last words && exit 3", "onggi build logs"]
    {
        assert!(done.stderr.contains(part), "no {part:?} in {}", done.stderr);
    }
    let logs = shop.onggi.ok(["build", "logs"]);
    assert!(logs.contains("last words") && logs.contains("FAILED"), "{logs}");
    // What succeeded is known, although the build failed.
    assert!(shop.build(&[]).stderr.contains("CACHED"));
    shop.write("Dockerfile", "FROM busybox\nRUM x\n");
    let done = shop.build(&[]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("did you mean RUN?") && done.stderr.contains("^^^"), "{}", done.stderr);
}

#[test]
fn the_same_input_gives_the_same_image_in_another_store() {
    let (Some(one), Some(two)) = (Workshop::new(), Workshop::new()) else { return };
    let mut ids = Vec::new();
    for shop in [&one, &two] {
        shop.write(
            "Dockerfile",
            "FROM busybox\nCOPY src /src\nRUN mkdir /d && date > /dev/null && echo x > /d/f\nWORKDIR /w\n",
        );
        shop.write("src/a", "A\n");
        let epoch = ["--timestamp", "1700000000"];
        ids.push(shop.id(&epoch));
        std::thread::sleep(Duration::from_millis(1100));
        let again: Vec<&str> = epoch.into_iter().chain(["--no-cache"]).collect();
        assert_eq!(shop.id(&again), ids[0]);
    }
    assert_eq!(ids[0], ids[1]);
    let created = one.onggi.ok(["image", "inspect", "-f", "{{.Created}}", &ids[0]]);
    assert_eq!(created, "2023-11-14T22:13:20Z");
    one.build(&["--verify", "--timestamp", "1700000000"]).ok();
    one.write("Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    let done = one.build(&["--verify"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stdout.contains("id: "), "{}", done.stdout);
}

#[test]
fn outputs_are_what_other_tools_read() {
    let Some(shop) = Workshop::new() else { return };
    shop.write("Dockerfile", "FROM scratch\nCOPY f /d/f\n");
    shop.write("f", "F\n");
    let folder = shop.onggi.folder();
    let local = folder.join("local");
    shop.build(&["-o", local.to_str().expect("a path")]).ok();
    assert_eq!(fs::read_to_string(local.join("d/f")).expect("a file"), "F\n");
    let archive = folder.join("image.tar");
    let iid = folder.join("iid");
    let metadata = folder.join("metadata.json");
    let output = format!("type=docker,dest={}", archive.display());
    shop.build(&[
        "-t",
        "app:1",
        "-o",
        &output,
        "--iidfile",
        iid.to_str().expect("a path"),
        "--metadata-file",
        metadata.to_str().expect("a path"),
    ])
    .ok();
    let id = fs::read_to_string(iid).expect("a file");
    assert!(fs::read_to_string(metadata).expect("a file").contains(&id));
    assert!(!shop.onggi.images().contains("app:1"));
    shop.onggi.ok(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
    assert_eq!(shop.onggi.ok(["image", "inspect", "-f", "{{.Id}}", "app:1"]), id);
    shop.onggi.assert_store_is_clean();
}

#[test]
fn a_context_may_come_as_an_archive_or_a_repository() {
    let Some(shop) = Workshop::new() else { return };
    shop.write("sub/Dockerfile", "FROM scratch\nCOPY f /\n");
    shop.write("sub/f", "F\n");
    let archive = shop.onggi.folder().join("context.tar.gz");
    tool(
        "tar",
        [
            "-C",
            shop.context.join("sub").to_str().expect("a path"),
            "-czf",
            archive.to_str().expect("a path"),
            ".",
        ],
    );
    let from_archive = shop.onggi.ok(["build", "-q", "--timestamp", "1", archive.to_str().expect("a path")]);
    let mut command = shop.onggi.command(["build", "-q", "--timestamp", "1", "-"]);
    command.stdin(fs::File::open(&archive).expect("an archive"));
    assert_eq!(Done::of(&mut command).ok(), from_archive);
    let only_file = shop.onggi.folder().join("only");
    fs::write(&only_file, "FROM scratch\nLABEL a=b\n").expect("a file");
    let mut command = shop.onggi.command(["build", "-q", "-"]);
    command.stdin(fs::File::open(&only_file).expect("a file"));
    Done::of(&mut command).ok();
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_half() {
    let Some(shop) = Workshop::new() else { return };
    shop.write(
        "Dockerfile",
        "FROM busybox AS a\nRUN echo a > /a\nRUN echo b > /b\nFROM busybox AS c\nRUN echo c > /c\nCOPY src /src\n\
         FROM busybox\nCOPY --from=a /a /b /\nCOPY --from=c /c /src /\nRUN cat /a /b /c /f > /all\nCMD cat /all\n",
    );
    shop.write("src/f", "f\n");
    let context = shop.context.to_str().expect("a path of ours");
    let begun = std::time::Instant::now();
    shop.build(&["-t", "warm"]).ok();
    let whole = u64::try_from(begun.elapsed().as_millis()).expect("a short time").max(1);
    let kills = std::env::var("ONGGI_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    // The same moments each time, as far as a machine allows it.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for kill in 0..kills {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let words =
            ["build", "-t", "app", if kill % 3 == 0 { "--no-cache" } else { "--no-cache-filter=c" }, context];
        let mut child = shop
            .onggi
            .command(words)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(Duration::from_millis((seed >> 33) % whole));
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    shop.onggi.assert_store_is_clean();
    shop.build(&["-t", "app"]).ok();
    assert_eq!(shop.onggi.ok(["run", "--rm", "app"]), "a\nb\nc\nf");
    assert_eq!(shop.onggi.unfinished(), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(shop.onggi.folder().to_str().expect("a path of ours")), "{mounts}");
}

#[test]
fn an_ordinary_user_builds_too() {
    let Some(user) = support::user::User::new(true) else { return };
    let Some(archive) = busybox_archive(user.home(), "busybox:latest") else { return };
    user.own(&archive);
    let context = user.home().join("context");
    fs::create_dir(&context).expect("a folder");
    fs::write(
        context.join("Dockerfile"),
        "FROM busybox\nRUN id -u > /id && chown 7:8 /id\nCOPY --chown=5:6 f /f\nRUN --mount=type=bind,target=/c cat /c/f\nCMD ls -ln /id /f\n",
    )
    .expect("a file");
    fs::write(context.join("f"), "F\n").expect("a file");
    for path in [context.join("Dockerfile"), context.join("f"), context.clone()] {
        user.own(&path);
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let archive = archive.to_str().expect("a path");
    Done::of(&mut user.command(["load", "-i", archive])).ok();
    Done::of(&mut user.command(["build", "-t", "app", context.to_str().expect("a path")])).ok();
    let listed = Done::of(&mut user.command(["run", "--rm", "--network", "none", "app"])).ok();
    assert!(listed.contains(" 7        8 ") && listed.contains(" 5        6 "), "{listed}");
}

#[test]
fn unknown_wishes_are_refused_by_name() {
    let onggi = Onggi::new();
    for words in [
        &["--cgroup-parent", "x"][..],
        &["--policy", "x"],
        &["--sbom=generator=x"],
        &["--provenance=mode=most"],
        &["--builder", "other"],
        &["--allow", "ssh"],
        &["--output", "type=zip,dest=x"],
    ] {
        let done = onggi.fails(["build"].iter().chain(words).chain(&["."]));
        assert!(
            done.stderr.contains(words[0].split('=').next().unwrap_or_default())
                || done.stderr.contains("invalid output"),
            "{}",
            done.stderr
        );
    }
    let done = onggi.fails(["build", "/no/such/context"]);
    assert!(done.stderr.contains("unable to prepare context"), "{}", done.stderr);
}

#[test]
fn a_shell_takes_the_place_of_what_failed() {
    use std::io::Write;
    let Some(shop) = Workshop::new() else { return };
    shop.write("Dockerfile", "FROM busybox\nRUN echo A > /a\nENV B=b\nRUN --mount=type=tmpfs,target=/t echo left > /left; exit 4\n");
    let context = shop.context.to_str().expect("a path of ours").to_owned();
    let session = |state: &str, script: &str| {
        let mut command = shop.onggi.command(["build", state, &context]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("the command");
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("a script");
        let output = child.wait_with_output().expect("an end");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said, told) = session("--debug-shell", "cat /a /left; echo $B; mount | grep -c ' /t '\n");
    assert_eq!((code, said.as_str()), (Some(1), "A\nleft\nb\n1\n"), "{told}");
    assert!(told.contains("a shell where the step failed") && told.contains("exit code: 4"), "{told}");
    let (code, said, told) = session("--debug-shell=before", "cat /a; ls /left\n");
    assert_eq!((code, said.as_str()), (Some(1), "A\n"), "{told}");
    // What a shell did is in no layer, and nothing is left.
    assert_eq!(shop.onggi.unfinished(), Vec::<String>::new());
    let plain = shop.build(&[]);
    assert!(plain.stderr.contains("with --debug-shell"), "{}", plain.stderr);
    // What it began with can be run, by the command that was named: without what is only for the build.
    let command = plain.stderr.lines().find_map(|line| line.strip_prefix("what it began with: onggi "));
    let words: Vec<&str> = command.expect("a command").split(' ').filter(|word| *word != "-it").collect();
    assert_eq!(words.last(), Some(&"/bin/sh"));
    let script = ["-c", "cat /a; ls /left 2>&1; echo $B"];
    let said = shop.onggi.ok(words.iter().chain(&script));
    assert!(said.starts_with("A\n") && said.contains("No such file") && said.ends_with('b'), "{said}");
    // Once for a state, and nobody keeps it.
    shop.build(&[]).assert_failed_in_words();
    assert_eq!(shop.onggi.ok(["images", "-q"]).lines().count(), 2);
    shop.onggi.ok(["image", "prune", "-f"]);
    assert_eq!(shop.onggi.ok(["images", "-q"]).lines().count(), 1);
    // On a terminal it has one, and the live tree makes room for it.
    if onggi_testkit::needs::programs(&["script"]).is_missing() {
        return;
    }
    let inner = shop.onggi.command(["build", "--debug-shell", &context]);
    let words: Vec<_> = inner.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!("{} {}", inner.get_program().to_string_lossy(), words.join(" "));
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the command");
    let mut input = child.stdin.take().expect("a pipe");
    // Typed once the shell is there; before, the terminal is the build's.
    std::thread::sleep(Duration::from_secs(3));
    input.write_all(b"test -t 0 && echo a-terminal-$((40+2)); cat /left\nexit\n").expect("a script");
    let output = child.wait_with_output().expect("an end");
    drop(input);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("a-terminal-42") && said.contains("left"), "{said}");
    assert!(said.contains("=> ERROR") || said.contains("ERROR"), "{said}");
}

#[test]
fn a_context_that_is_known_is_not_read() {
    if onggi_testkit::needs::programs(&["strace"]).is_missing() {
        return;
    }
    let Some(shop) = Workshop::new() else { return };
    const FILES: usize = 400;
    for number in 0..FILES {
        shop.write(&format!("files/{}/counted-{number}", number % 50), &format!("{number}\n"));
    }
    shop.write("Dockerfile", "FROM busybox\nCOPY files /files\n");
    // A file that changed just now may change again without another time, so it counts as unknown.
    std::thread::sleep(Duration::from_millis(2500));
    let first = shop.id(&[]);
    let trace = shop.onggi.folder().join("trace");
    let opened = || {
        let inner = shop.onggi.command(["build", "-q", shop.context.to_str().expect("a path of ours")]);
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-e", "trace=open,openat,openat2", "-o"]).arg(&trace);
        command.arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let id = Done::of(&mut command).ok();
        let text = fs::read_to_string(&trace).expect("a trace");
        (id, text.lines().filter(|line| line.contains("\"counted-")).count())
    };
    assert_eq!(opened(), (first.clone(), 0));
    // One that changed is read for its digest, and then they are copied.
    shop.write("files/7/counted-7", "changed\n");
    let (second, count) = opened();
    assert_ne!(second, first);
    assert!(count > FILES, "{count}");
}

/// Entries and format of every layer of the store.
fn layers(onggi: &Onggi) -> Vec<(u64, String)> {
    let records = fs::read_dir(onggi.root().join("layers")).expect("layers");
    let mut layers: Vec<_> = records
        .map(|layer| {
            let text = fs::read(layer.expect("a layer").path().join("layer.json")).expect("a record");
            let record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            (record["entries"].as_u64().expect("a number"), record["format"].as_str().expect("text").into())
        })
        .collect();
    layers.sort();
    layers
}

#[test]
fn many_files_become_one_and_few_or_large_ones_do_not() {
    let Some(shop) = Workshop::new() else { return };
    for number in 0..100 {
        shop.write(&format!("many/{}/{number}", number % 7), &format!("{number}\n"));
        shop.write(&format!("large/{number}"), "");
    }
    shop.write("few/one", "1\n");
    // More than a step may keep in memory.
    let large = fs::File::create(shop.context.join("large/file")).expect("a file");
    large.set_len(257 << 20).expect("a length");
    shop.write(
        "Dockerfile",
        "FROM busybox AS small\nCOPY many /many\nCOPY few /few\nRUN rm -r /many/3\nCOPY --chown=7:8 many/3 /many/5\n\
         FROM small\nCOPY large /large\nRUN test -s /large/file\n",
    );
    let small = shop.id(&["--timestamp", "1", "--target", "small"]);
    let id = shop.id(&[]);
    let as_files = layers(&shop.onggi);
    shop.onggi.assert_store_is_clean();
    let script = "cd /many; ls; stat -c %u 5/3; wc -c < /large/file";
    let said = shop.onggi.ok(["run", "--rm", "--network", "none", &id, "sh", "-c", script]);
    assert_eq!(said, "0\n1\n2\n4\n5\n6\n7\n269484032");
    // The same image where all layers are directories.
    let Some(other) = Workshop::new() else { return };
    let context = shop.context.to_str().expect("a path of ours");
    let words = ["--storage", "dir", "build", "-q", "--timestamp", "1", "--target", "small", context];
    assert_eq!(other.onggi.ok(words), small);
    if as_files.last().expect("a base").1 == "erofs" {
        // The one with the large file has 102 entries.
        let expected = |entries| if entries < 64 || entries == 102 { "dir" } else { "erofs" };
        assert!(as_files.iter().all(|(entries, format)| format == expected(*entries)), "{as_files:?}");
    }
}
