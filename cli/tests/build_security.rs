//! Build files and contexts that attack the host or the user's secrets.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use support::{Done, Onggi};

/// What only the host may see.
const SECRET: &str = "b64c2a9f the secret of the host";

struct Workshop {
    onggi: Onggi,
    context: PathBuf,
    outside: PathBuf,
}

impl Workshop {
    fn new() -> Option<Self> {
        let onggi = Onggi::with_busybox("busybox:latest")?;
        let context = onggi.folder().join("context");
        let outside = onggi.folder().join("outside");
        for dir in [&context, &outside] {
            fs::create_dir(dir).expect("a folder");
        }
        fs::write(outside.join("secret"), SECRET).expect("a file");
        Some(Self { onggi, context, outside })
    }

    fn build(&self, dockerfile: &str, words: &[&str]) -> Done {
        fs::write(self.context.join("Dockerfile"), dockerfile).expect("a file");
        let context = self.context.to_str().expect("a path of ours");
        self.onggi.output(["build"].iter().chain(words).chain(&[context]))
    }

    /// Nothing outside changed, and nothing of it was shown.
    #[track_caller]
    fn assert_untouched(&self, done: &Done) {
        assert!(!done.stderr.contains(SECRET) && !done.stdout.contains(SECRET), "{}", done.stderr);
        let names: Vec<_> =
            fs::read_dir(&self.outside).expect("a folder").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.outside.join("secret")).expect("a file"), SECRET);
    }
}

/// CVE-2024-23651, CVE-2024-9675, CVE-2024-11218, CVE-2024-1753
#[test]
fn the_source_of_a_mount_stays_in_its_tree() {
    let Some(shop) = Workshop::new() else { return };
    let out = shop.outside.display();
    let dockerfile = format!(
        "FROM busybox AS evil\nRUN ln -s {out} /link && mkdir /d && ln -s ../../../../../../..{out} /d/up\n\
         FROM busybox\nRUN --mount=type=bind,from=evil,source=/link,target=/m,rw cat /m/secret; touch /m/x; true\n"
    );
    let done = shop.build(&dockerfile, &[]);
    shop.assert_untouched(&done);
    let dockerfile = format!(
        "FROM busybox AS evil\nRUN ln -s {out} /link\nFROM busybox\n\
         RUN --mount=type=cache,id=c,from=evil,source=/link,target=/m cat /m/secret; touch /m/x; true\n"
    );
    shop.assert_untouched(&shop.build(&dockerfile, &[]));
    // A link that a step leaves in a cache leads the next one nowhere.
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=cache,id=l,target=/k rm -rf /k/in; ln -s {out} /k/in\n\
         RUN --mount=type=cache,id=l,target=/k cat /k/in/secret; touch /k/in/x; true\n"
    );
    shop.assert_untouched(&shop.build(&dockerfile, &[]));
    symlink(&shop.outside, shop.context.join("out")).expect("a link");
    let dockerfile =
        "FROM busybox\nRUN --mount=type=bind,source=out,target=/m,rw cat /m/secret; touch /m/x; true\n";
    shop.assert_untouched(&shop.build(dockerfile, &[]));
}

/// CVE-2026-33748, and the like for what is copied to
#[test]
fn copies_stay_in_the_context_and_in_the_image() {
    let Some(shop) = Workshop::new() else { return };
    symlink(&shop.outside, shop.context.join("out")).expect("a link");
    symlink(shop.outside.join("secret"), shop.context.join("file")).expect("a link");
    for source in ["out/secret", "out/", "file", "../outside/secret", "./out/../out/secret"] {
        let done =
            shop.build(&format!("FROM busybox\nCOPY {source} /got\nRUN cat /got /got/secret; true\n"), &[]);
        shop.assert_untouched(&done);
    }
    let out = shop.outside.display();
    fs::write(shop.context.join("plain"), "x").expect("a file");
    let dockerfile = format!(
        "FROM busybox\nRUN ln -s {out} /t && ln -s {out}/secret /s\nCOPY plain /t/\nCOPY plain /s\nADD plain /t/secret\n"
    );
    let done = shop.build(&dockerfile, &[]);
    shop.assert_untouched(&done);
    // An archive is unpacked below its destination, whatever its entries say.
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "l", &shop.outside).expect("an entry");
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    archive.append_data(&mut header, "l/planted", &b"x"[..]).expect("an entry");
    fs::write(shop.context.join("evil.tar"), archive.into_inner().expect("an archive")).expect("a file");
    shop.assert_untouched(&shop.build("FROM busybox\nADD evil.tar /\n", &[]));
}

/// CVE-2024-23653
#[test]
fn nothing_is_privileged_without_the_entitlement() {
    let Some(shop) = Workshop::new() else { return };
    for (flag, entitlement) in
        [("--security=insecure", "security.insecure"), ("--network=host", "network.host")]
    {
        let dockerfile =
            format!("# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN {flag} echo it$((1+1))ran\n");
        let done = shop.build(&dockerfile, &[]);
        done.assert_failed_in_words();
        assert!(done.stderr.contains(entitlement) && !done.stderr.contains("it2ran"), "{}", done.stderr);
        let done = shop.build(&dockerfile, &["--allow", entitlement]);
        assert!(done.stderr.contains("it2ran"), "{}", done.stderr);
    }
    let done = shop.build(
        "FROM busybox\nRUN cat /proc/self/status | grep -E 'CapEff|Seccomp:'; cat /proc/self/uid_map\n",
        &[],
    );
    assert!(
        done.stderr.contains("00000000a80425fb") && done.stderr.contains("Seccomp:\t2"),
        "{}",
        done.stderr
    );
}

/// CVE-2024-23652
#[test]
fn mount_points_that_a_step_replaces_cost_the_host_nothing() {
    let Some(shop) = Workshop::new() else { return };
    let out = shop.outside.display();
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/a/b umount /a/b; rm -rf /a; ln -s {out} /a; true\n\
         RUN --mount=type=tmpfs,target=/a/b touch /a/b/x; true\n"
    );
    shop.assert_untouched(&shop.build(&dockerfile, &[]));
}

#[test]
fn secrets_reach_the_program_and_nothing_else() {
    let Some(shop) = Workshop::new() else { return };
    let secret = "5f0c7d1e-very-secret";
    let file = shop.onggi.folder().join("token");
    fs::write(&file, secret).expect("a file");
    let given = format!("id=t,src={}", file.display());
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=secret,id=t,uid=7,mode=0440 test \"$(wc -c < /run/secrets/t)\" = 20 && ls -ln /run/secrets/t\n\
        RUN --mount=type=secret,id=t,env=TOKEN test ${#TOKEN} = 20\nRUN test ! -e /run/secrets/t\n";
    let done = shop.build(dockerfile, &["-t", "app", "--secret", &given]);
    assert!(done.stderr.contains("-r--r-----    1 7        0"), "{}", done.stderr);
    done.ok();
    fs::remove_file(&file).expect("it is there");
    let mut seen = Vec::new();
    grep(&shop.onggi.root(), secret.as_bytes(), &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
    // Another value is no reason to build again: it is in no key.
    fs::write(&file, "another-secret-value").expect("a file");
    assert_eq!(shop.build(dockerfile, &["--secret", &given]).stderr.matches("CACHED").count(), 3);
    let done =
        shop.build("FROM busybox\nRUN --mount=type=secret,id=none,required cat /run/secrets/none\n", &[]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("none"), "{}", done.stderr);
}

fn grep(dir: &Path, wanted: &[u8], seen: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            grep(&path, wanted, seen);
        } else if kind.is_file()
            && fs::read(&path).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|part| part == wanted))
        {
            seen.push(path);
        }
    }
}

#[test]
fn an_ssh_agent_answers_in_a_step_that_asks_for_it_and_nowhere_else() {
    /// Asks the agent for its keys, and prints the comment of each.
    const ASK: &str = "import os, socket, struct\n\
        s = socket.socket(socket.AF_UNIX); s.connect(os.environ['SSH_AUTH_SOCK'])\n\
        s.sendall(struct.pack('>IB', 1, 11)); size, = struct.unpack('>I', s.recv(4, socket.MSG_WAITALL))\n\
        answer = s.recv(size, socket.MSG_WAITALL); assert answer[0] == 12; count, = struct.unpack('>I', answer[1:5]); at = 5\n\
        for _ in range(2 * count):\n    n, = struct.unpack('>I', answer[at:at+4]); text = answer[at+4:at+4+n]; at += 4 + n\n\
        print('keys:', count, 'last:', text.decode())\n";
    let programs = onggi_testkit::needs::programs(&["ssh-agent", "ssh-add", "ssh-keygen"]);
    if programs.is_missing() {
        return;
    }
    let Some(image) = support::fixture("debian-small") else { return };
    let onggi = Onggi::new();
    let archive = onggi.folder().join("debian.tar");
    support::tool(
        "tar",
        ["-C", image.to_str().expect("a path"), "-cf", archive.to_str().expect("a path"), "."],
    );
    let loaded = onggi.ok(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]);
    onggi.ok(["tag", loaded.rsplit(' ').next().expect("an ID"), "debian-small"]);
    let context = onggi.folder().join("context");
    fs::create_dir(&context).expect("a folder");
    fs::write(context.join("ask.py"), ASK).expect("a file");
    fs::write(
        context.join("Dockerfile"),
        "FROM debian-small\nRUN echo before: ${SSH_AUTH_SOCK:-none}\n\
         RUN --mount=type=ssh,required --mount=type=bind,target=/c python3 /c/ask.py\n\
         RUN --mount=type=ssh,uid=65534,mode=0600 --mount=type=bind,target=/c setpriv --reuid 65534 python3 /c/ask.py\n\
         RUN ls -d /run/buildkit 2>/dev/null || echo nothing left\n",
    )
    .expect("a file");
    let key = onggi.folder().join("key");
    let key = key.to_str().expect("a path");
    support::tool("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "key-of-the-test", "-f", key]);
    let socket = onggi.folder().join("agent");
    let socket = socket.to_str().expect("a path");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a", socket])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("an agent");
    while !Path::new(socket).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let added = std::process::Command::new("ssh-add")
        .arg(key)
        .env("SSH_AUTH_SOCK", socket)
        .output()
        .expect("ssh-add");
    let context = context.to_str().expect("a path");
    let ssh = format!("default={socket}");
    let built = onggi.output(["build", "--progress=plain", "--ssh", &ssh, context]);
    let without = onggi.output(["build", "--no-cache", context]);
    let _ = agent.kill();
    let _ = agent.wait();
    assert!(added.status.success(), "{added:?}");
    let said = built.stderr.clone();
    built.ok();
    assert_eq!(said.matches("keys: 1 last: key-of-the-test").count(), 2, "{said}");
    assert!(said.contains("before: none") && said.contains("nothing left"), "{said}");
    without.assert_failed_in_words();
    assert!(without.stderr.contains("--ssh default"), "{}", without.stderr);
}

#[test]
fn a_described_device_needs_a_word_and_reaches_its_step_alone() {
    let Some(onggi) = Onggi::with_busybox("busybox:latest") else { return };
    let (context, cdi) = (onggi.folder().join("context"), onggi.folder().join("cdi"));
    fs::create_dir(&context).expect("a folder");
    fs::create_dir(&cdi).expect("a folder");
    fs::write(
        cdi.join("vendor.yaml"),
        "cdiVersion: 0.6.0\nkind: vendor.com/zero\ndevices:\n- name: one\n  containerEdits:\n    env: [ONE=1]\n\
         \x20   deviceNodes:\n    - {path: /dev/one, hostPath: /dev/zero}\n",
    )
    .expect("a file");
    fs::write(
        context.join("Dockerfile"),
        "FROM busybox\nRUN --device=vendor.com/zero=one,required head -c 4 /dev/one | od -An -tx1; echo env $ONE\n\
         RUN --device=vendor.com/none ls /dev/one || echo gone ${ONE:-unset}\n",
    )
    .expect("a file");
    let build = |flags: &[&str]| {
        let words = ["build", "--no-cache", "--progress=plain"].iter().chain(flags).copied();
        let mut command = onggi.command(words.chain([context.to_str().expect("a path")]));
        Done::of(command.env("ONGGI_CDI_DIRS", &cdi))
    };
    for flags in [&[][..], &["--allow", "device=vendor.com/other"]] {
        let refused = build(flags);
        refused.assert_failed_in_words();
        assert!(refused.stderr.contains("--allow device"), "{}", refused.stderr);
    }
    let done = build(&["--allow", "device"]);
    let said = done.stderr.clone();
    done.ok();
    assert!(said.contains(" 00 00 00 00") && said.contains("env 1") && said.contains("gone unset"), "{said}");
    let file = context.join("Dockerfile");
    fs::write(&file, "FROM busybox\nRUN --device=vendor.com/zero=two,required true\n").expect("a file");
    let missing = build(&["--allow", "device"]);
    missing.assert_failed_in_words();
    assert!(missing.stderr.contains("vendor.com/zero=two"), "{}", missing.stderr);
}
