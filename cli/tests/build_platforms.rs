//! Builds for other platforms, and OCI layouts as contexts.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use onggi_testkit::needs;
use support::{Done, Onggi};

fn context(onggi: &Onggi, build_file: &str) -> PathBuf {
    let context = onggi.folder().join("context");
    let _ = fs::create_dir(&context);
    fs::write(context.join("Dockerfile"), build_file).expect("a file");
    context
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

#[test]
fn a_layout_is_a_base_by_tag_digest_and_platform() {
    if needs::root().is_missing() {
        return;
    }
    let onggi = Onggi::new();
    let layout = onggi.folder().join("layout");
    let dir = context(&onggi, "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /one\n");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    onggi.ok(["build", "-t", "app:one", "--platform", "linux/amd64,linux/arm64", "-o", &output, text(&dir)]);
    // What the layout calls its images changes no name here.
    onggi.ok(["build", "-t", "app:one", text(&context(&onggi, "FROM scratch\nLABEL mine=1\n"))]);
    let mine = onggi.ok(["image", "inspect", "-f", "{{.Id}}", "app:one"]);
    let dir = context(&onggi, "FROM base\nCOPY Dockerfile /two\n");
    let build = |place: &str, platform: &str| {
        let named = format!("base=oci-layout://{}{place}", layout.display());
        onggi.output(["build", "-t", "got", "--platform", platform, "--build-context", &named, text(&dir)])
    };
    let index = fs::read_to_string(layout.join("index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    let digest = format!("@{}", index["manifests"][0]["digest"].as_str().expect("a digest"));
    for (place, arch) in [("", "amd64"), (":one", "arm64"), (&digest, "amd64")] {
        build(place, &format!("linux/{arch}")).ok();
        assert_eq!(onggi.ok(["image", "inspect", "-f", "{{.Config.Labels.arch}}", "got"]), arch);
    }
    assert_eq!(onggi.ok(["image", "inspect", "-f", "{{.Id}}", "app:one"]), mine);
    for (place, platform, part) in [
        (":two", "linux/amd64", "no image with the tag two"),
        (":one", "linux/s390x", "linux/s390x"),
        (&format!("@sha256:{}", "0".repeat(64)), "linux/amd64", "no image with the digest"),
    ] {
        let done = build(place, platform);
        done.assert_failed_in_words();
        assert!(done.stderr.contains(part), "no {part:?} in {}", done.stderr);
    }
    onggi.assert_store_is_clean();
}

/// A static program for arm64 that writes "by arm64\n" to /made, as the ELF and ARM manuals have it.
fn program() -> Vec<u8> {
    const CODE: [u32; 13] = [
        0x9280_0c60, // mov x0, #-100 (AT_FDCWD)
        0x1000_0181, // adr x1, path
        0xd280_0822, // mov x2, #0x41 (O_CREAT | O_WRONLY)
        0xd280_3483, // mov x3, #0644
        0xd280_0708, // mov x8, #56 (openat)
        0xd400_0001, // svc #0
        0x1000_0121, // adr x1, message
        0xd280_0122, // mov x2, #9
        0xd280_0808, // mov x8, #64 (write)
        0xd400_0001, // svc #0
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #93 (exit)
        0xd400_0001, // svc #0
    ];
    // After the code: the path with its zero and two bytes for the alignment, then the message.
    let mut text: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    text.extend(b"/made\0\0\0by arm64\n");
    let (base, headers) = (0x40_0000_u64, 64 + 56_u64);
    let size = headers + text.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2_u16, 183].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([base + headers, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([1_u32, 5].iter().flat_map(|half| half.to_le_bytes()));
    file.extend([0, base, base, size, size, 0x1000].iter().flat_map(|word: &u64| word.to_le_bytes()));
    file.extend(text);
    file
}

/// As the package qemu-user-static registers it, in a namespace of its own (Linux 6.7).
const REGISTER: &str = r#"mount -t binfmt_misc binfmt /proc/sys/fs/binfmt_misc || exit 77
printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' > /proc/sys/fs/binfmt_misc/register || exit 77
exec "$@""#;

#[test]
fn programs_of_other_machines_run_where_an_interpreter_is_registered() {
    if needs::root().is_missing() || needs::programs(&["unshare", "sh"]).is_missing() {
        return;
    }
    let onggi = Onggi::new();
    let dir = context(&onggi, "FROM scratch\nCOPY --chmod=755 tool /tool\nRUN --network=none [\"/tool\"]\n");
    fs::write(dir.join("tool"), program()).expect("a file");
    let words = ["build", "-o", "out", "--platform", "linux/arm64", "."];
    if !Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() && cfg!(target_arch = "x86_64") {
        let mut command = onggi.command(words);
        let done = Done::of(command.current_dir(&dir));
        done.assert_failed_in_words();
        assert!(done.stderr.contains("qemu-user-static"), "{}", done.stderr);
    }
    if !Path::new("/usr/bin/qemu-aarch64-static").exists() {
        let _ = needs::missing("qemu-user-static");
        return;
    }
    let own = onggi.command(words);
    let mut command = Command::new("unshare");
    command.args(["-U", "-m", "sh", "-c", &format!("read go; {REGISTER}"), "sh"]);
    command.arg(own.get_program()).args(own.get_args()).env_clear();
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = command.current_dir(&dir).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("it starts");
    // It is in its namespace when it is no longer in ours.
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).ok();
    while namespace(&child.id().to_string()) == namespace("self") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 0 1000000\n").expect("a map");
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("it ends");
    if output.status.code() == Some(77) {
        let _ = needs::missing("binfmt_misc in a user namespace (Linux 6.7)");
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(dir.join("out/made")).expect("a file"), "by arm64\n");
}
