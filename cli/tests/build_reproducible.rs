//! The same input gives the same digest, whatever differs besides: when and where the context's files were made, in which
//! order, under which mask, name of the host, time zone and language the build runs.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use onggi_testkit::needs;
use support::{Done, Onggi};

const BUILD_FILE: &str = "FROM busybox AS made\n\
    WORKDIR /srv\n\
    COPY . .\n\
    RUN date > /dev/null; mkdir -p out/sub; cat tree/* | sort > out/sum; ln -s sum out/link; ln out/sum out/hard; \
        touch -d @1000000000 out/old; umask > out/umask; echo $TZ $LANG $HOSTNAME > out/environment; hostname >> out/environment\n\
    FROM busybox\n\
    COPY --from=made --chown=7:8 /srv/out /out\n\
    COPY --chmod=640 tree /tree\n\
    RUN rm -r /out/sub && found=$(find / -xdev -newer /out/old -type f 2>/dev/null | sort) && echo \"$found\" > /found\n";

/// Files of a context, in the order in which they are made.
fn context(onggi: &Onggi, order: &[usize], age: Duration) {
    let dir = onggi.folder().join("context");
    fs::create_dir_all(dir.join("tree")).expect("a folder");
    fs::write(dir.join("Dockerfile"), BUILD_FILE).expect("a file");
    let time = SystemTime::now() - age;
    for number in order {
        let path = dir.join("tree").join(format!("file-{number}"));
        fs::write(&path, format!("content {number}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
        fs::File::open(&path).and_then(|file| file.set_modified(time)).expect("a time");
    }
    for path in [dir.clone(), dir.join("tree")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
}

/// Builds under these circumstances; the digest of the manifest.
fn build(onggi: &Onggi, before: &str, environment: &[(&str, &str)]) -> String {
    let file = onggi.folder().join("metadata.json");
    let context = onggi.folder().join("context");
    let words = [
        "build".as_ref(),
        "--timestamp=1700000000".as_ref(),
        "--metadata-file".as_ref(),
        file.as_os_str(),
        context.as_os_str(),
    ];
    let inner = onggi.command(words);
    let mut command = Command::new("unshare");
    let script = format!("{before} exec \"$@\"");
    command.args(["--uts", "sh", "-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.envs(environment.iter().copied()).stdin(Stdio::null());
    Done::of(&mut command).ok();
    let metadata: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("a file")).expect("JSON");
    metadata["containerimage.digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn circumstances_change_no_digest() {
    if needs::programs(&["unshare"]).is_missing() {
        return;
    }
    let (Some(first), Some(second)) = (Onggi::with_busybox("busybox"), Onggi::with_busybox("busybox")) else {
        return;
    };
    let up: Vec<usize> = (0..40).collect();
    let down: Vec<usize> = up.iter().rev().copied().collect();
    context(&first, &up, Duration::ZERO);
    context(&second, &down, Duration::from_secs(400 * 24 * 3600));
    let one = build(&first, "hostname here; umask 022;", &[("TZ", "UTC"), ("LANG", "C")]);
    // A second has passed, so that times that are no input would differ.
    std::thread::sleep(Duration::from_millis(1100));
    let other =
        [("TZ", "Asia/Seoul"), ("LANG", "ko_KR.UTF-8"), ("LC_ALL", "ko_KR.UTF-8"), ("USER", "somebody")];
    let two = build(&second, "hostname elsewhere; umask 077;", &other);
    assert_eq!(one, two);
    // And without what is known from before.
    first.ok(["builder", "prune", "-af"]);
    assert_eq!(build(&first, "umask 027;", &[("TZ", "America/Lima")]), one);
}
