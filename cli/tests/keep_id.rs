//! `--userns=keep-id`: an ordinary user has his own ID in a container, the image's files have the image's owners.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;

use support::user::User;
use support::{Done, Onggi, busybox_archive};

const BASE: &str = "example.com/base:1";
const IMAGE: &str = "localhost/owned:1";
/// Who `User` is.
const ID: &str = "65534";

/// A user with an image that has files of several owners.
fn setup() -> Option<User> {
    let user = User::new(true)?;
    let folder = tempfile::tempdir().unwrap();
    let archive = busybox_archive(folder.path(), BASE)?;
    let copy = user.copy(&archive, "busybox.tar");
    user.output(["load", "-i", &copy.to_string_lossy()]).ok();
    let context = user.home().join("context");
    std::fs::create_dir(&context).unwrap();
    let file = format!(
        "FROM {BASE}\nRUN mkdir -p /etc /data/sub && echo 'app:x:1000:1000::/home/app:/bin/sh' >/etc/passwd && \
         echo 'apps:x:1000:' >/etc/group && echo one >/data/one && ln /data/one /data/two && ln -s one /data/link && \
         chown 5:6 /data/one && chown -h 7:8 /data/link && chown {ID}:{ID} /data/sub && chmod 4755 /data/one\n\
         RUN rm -f /data/none; echo gone >/data/gone\nRUN rm /data/gone\nUSER app\n"
    );
    std::fs::write(context.join("Dockerfile"), file).unwrap();
    user.own(&context);
    user.output(["build", "-q", "-t", IMAGE, &context.to_string_lossy()]).ok();
    Some(user)
}

fn run(user: &User, flags: &[&str], script: &str) -> Done {
    let run = ["run", "--rm"].into_iter().chain(flags.iter().copied());
    user.output(run.chain([IMAGE, "sh", "-c", script]))
}

#[test]
fn the_user_keeps_his_id_and_files_keep_their_owners() {
    let Some(user) = setup() else { return };
    let keep = ["--userns=keep-id"];
    let owners = "cd /data && stat -c '%n %u:%g %a' one two link sub . && ls";
    let expected = format!(
        "one 5:6 4755\ntwo 5:6 4755\nlink 7:8 777\nsub {ID}:{ID} 755\n. 0:0 755\nlink\none\nsub\ntwo"
    );
    assert_eq!(run(&user, &["--userns=private"], owners).ok(), expected);
    assert_eq!(run(&user, &keep, owners).ok(), expected);
    // The second time from the same copies.
    assert_eq!(run(&user, &keep, owners).ok(), expected);
    assert_eq!(run(&user, &keep, "id -u; id -g; id -un").ok(), format!("{ID}\n{ID}\nnobody"));
    assert_eq!(
        run(&user, &["--userns=keep-id:uid=1000,gid=1000"], "id -u; id -un; id -gn").ok(),
        "1000\napp\napps"
    );
    assert_eq!(run(&user, &["--userns=keep-id:uid=77,gid=78"], "id -u; id -g").ok(), "77\n78");
    assert_eq!(
        run(&user, &["--userns=keep-id", "--user", "0"], "id -u; touch /etc/x; stat -c %u /etc/x").ok(),
        "0\n0"
    );
    assert_eq!(
        run(&user, &["--userns=keep-id", "--user", "app"], "id -u; echo $HOME").ok(),
        "1000\n/home/app"
    );
    let map = run(&user, &["--userns=keep-id:uid=3,gid=3,size=10", "--user", "3"], "cat /proc/self/uid_map");
    assert_eq!(map.code, Some(125), "the image has more: {}", map.stderr);
    assert!(map.stderr.contains("there is no such ID inside"), "{}", map.stderr);
    // What he binds is his on both sides.
    let shared = user.home().join("shared");
    std::fs::create_dir(&shared).unwrap();
    user.own(&shared);
    let bind = format!("{}:/shared", shared.display());
    let out = run(
        &user,
        &["--userns=keep-id", "-v", &bind],
        "stat -c %u:%g /shared; echo x >/shared/new; stat -c %u /shared/new",
    );
    assert_eq!(out.ok(), format!("{ID}:{ID}\n{ID}"));
    let new = std::fs::metadata(shared.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (65_534, 65_534));
    for (flag, words) in [
        ("keep-id:uid=x", "is not a number"),
        ("keep-id:name=3", "not \"name=3\""),
        ("keep-id:size=0", "leaves no ID"),
        ("keep-id:size=99999999", "you have 65537 IDs"),
    ] {
        let refused = run(&user, &["--userns", flag], "true");
        assert!(refused.code == Some(125) && refused.stderr.contains(words), "{flag}: {}", refused.stderr);
    }
}

#[test]
fn a_container_that_stays_can_be_copied_from_and_into_and_becomes_an_image() {
    let Some(user) = setup() else { return };
    let ok = |args: &[&str]| user.output(args).ok();
    ok(&[
        "run",
        "-d",
        "--name",
        "kept",
        "--userns=keep-id",
        IMAGE,
        "sh",
        "-c",
        "echo mine >/tmp/mine; sleep 600",
    ]);
    assert_eq!(ok(&["exec", "kept", "id", "-u"]), ID);
    assert_eq!(
        ok(&[
            "exec",
            "-u",
            "0",
            "kept",
            "sh",
            "-c",
            "echo 3 >/data/three; chown 3:3 /data/three; stat -c %u:%g /data/three"
        ]),
        "3:3"
    );
    assert!(ok(&["diff", "kept"]).lines().all(|line| !line.ends_with("/data/one")));
    let shares = user.output(["run", "--rm", "--pid=container:kept", IMAGE, "true"]);
    assert!(shares.code == Some(125) && shares.stderr.contains("keep-id"), "{}", shares.stderr);
    assert_eq!(ok(&["inspect", "-f", "{{.HostConfig.UsernsMode}}", "kept"]), "keep-id");
    for state in ["running", "stopped"] {
        let archive = user.home().join(format!("{state}.tar"));
        let file = user.home().join("file");
        std::fs::write(&file, state).unwrap();
        user.own(&file);
        ok(&["cp", &file.to_string_lossy(), &format!("kept:/data/{state}")]);
        ok(&["export", "-o", &archive.to_string_lossy(), "kept"]);
        let listed = std::process::Command::new("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(&archive)
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for (name, owner) in [("data/one", "5/6"), ("data/three", "3/3"), ("etc/passwd", "0/0")] {
            let line = listed
                .lines()
                .find(|line| line.ends_with(name))
                .unwrap_or_else(|| panic!("{name}: {listed}"));
            assert!(line.contains(owner), "{state}: {line}");
        }
        let line = listed.lines().find(|line| line.ends_with(&format!("data/{state}"))).unwrap();
        assert!(line.contains(" 0/0 "), "{line}");
        if state == "running" {
            ok(&["stop", "-t", "0", "kept"]);
        }
    }
    ok(&["commit", "kept", "localhost/kept:1"]);
    let owners = user.output([
        "run",
        "--rm",
        "-u",
        "0",
        "localhost/kept:1",
        "stat",
        "-c",
        "%u:%g",
        "/data/three",
        "/data/stopped",
        "/data/one",
    ]);
    assert_eq!(owners.ok(), "3:3\n0:0\n5:6");
    ok(&["start", "kept"]);
    assert_eq!(ok(&["exec", "kept", "stat", "-c", "%u:%g", "/data/three"]), "3:3");
    ok(&["rm", "-f", "kept"]);
}

#[test]
fn copies_of_layers_are_the_stores_and_go_with_the_image() {
    let Some(user) = setup() else { return };
    run(&user, &["--userns=keep-id"], "true").ok();
    let layers = user.home().join(".local/share/onggi/layers");
    let copies = || -> Vec<std::path::PathBuf> {
        let layers = std::fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path());
        let below = layers.flat_map(|dir| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()));
        below.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("shifted-")).collect()
    };
    assert!(copies().len() >= 2, "{:?}", copies());
    user.output(["system", "check"]).ok();
    // One that lost something is found, dropped and made again.
    let damaged = copies().into_iter().find(|path| path.join("data/one").exists()).unwrap();
    std::fs::remove_file(damaged.join("data/one")).unwrap();
    assert_ne!(user.output(["system", "check"]).code, Some(0));
    user.output(["system", "check", "--repair"]).ok();
    assert!(!damaged.exists());
    assert_eq!(run(&user, &["--userns=keep-id"], "cat /data/one").ok(), "one");
    user.output(["rmi", IMAGE, BASE]).ok();
    user.output(["system", "prune", "-af"]).ok();
    assert_eq!(copies(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn root_and_a_user_of_one_id_are_refused() {
    let Some(onggi) = Onggi::with_busybox(BASE) else { return };
    let archive = busybox_archive(onggi.folder(), BASE).unwrap();
    let refused = onggi.fails(["run", "--rm", "--userns=keep-id", BASE, "true"]);
    assert!(refused.stderr.contains("keep-id is only supported in rootless mode"), "{}", refused.stderr);
    let Some(user) = User::new(false) else { return };
    let copy = user.copy(&archive, "busybox.tar");
    user.output(["load", "-i", &copy.to_string_lossy()]).ok();
    let refused = user.output(["run", "--rm", "--userns=keep-id", BASE, "true"]);
    assert!(refused.stderr.contains("/etc/subuid"), "{}", refused.stderr);
}
