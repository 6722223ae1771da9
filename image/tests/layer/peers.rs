//! The same archive read by us and by GNU tar, and what we write read by GNU tar and Python.

use std::path::Path;
use std::process::{Command, Stdio};

use onggi_image::layer::Source;
use onggi_testkit::needs;

use crate::round_trip::everything;
use crate::tree::{assert_same, exact, look, pack_at, temporary, unpack_at};

/// All attributes; only for archives in the POSIX format.
const XATTRS: [&str; 2] = ["--xattrs", "--xattrs-include=*"];

/// GNU tar, keeping owners and permissions.
fn gnu_tar(arguments: &[&str], directory: &Path, archive: &Path) {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "-p", "-C"]).arg(directory).args(arguments);
    let output = tar.arg("-f").arg(archive).args(arguments.contains(&"-c").then_some(".")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A tree with everything, made by us; GNU tar archives it in each of its formats.
#[test]
fn archives_of_gnu_tar_in_every_format() {
    if needs::root().is_missing() || needs::programs(&["tar"]).is_missing() {
        return;
    }
    let home = temporary();
    let (tree, _) = unpack_at(home.path(), "tree", &everything()).unwrap();
    for sparse in
        [&["--sparse", "--sparse-version=0.0"][..], &["--sparse", "--sparse-version=0.1"], &["--sparse"], &[]]
    {
        let name = format!("pax{}", sparse.join(""));
        let archive = home.path().join(format!("{name}.tar"));
        gnu_tar(&[&["-c", "--format=pax"], sparse, &XATTRS].concat(), &tree, &archive);
        let (ours, _) = unpack_at(home.path(), &name, &std::fs::read(&archive).unwrap()).unwrap();
        assert_same(&tree, &ours);
    }
    for sparse in [&["--sparse"][..], &[]] {
        let name = format!("gnu{}", sparse.join(""));
        let archive = home.path().join(format!("{name}.tar"));
        gnu_tar(&[&["-c", "--format=gnu"], sparse].concat(), &tree, &archive);
        let (ours, _) = unpack_at(home.path(), &name, &std::fs::read(&archive).unwrap()).unwrap();
        let theirs = home.path().join(format!("{name}-theirs"));
        std::fs::create_dir(&theirs).unwrap();
        gnu_tar(&["-x", "--same-owner"], &theirs, &archive);
        assert_same(&theirs, &ours);
    }
}

#[test]
fn gnu_tar_and_python_read_what_we_write() {
    if needs::root().is_missing() || needs::programs(&["tar", "python3"]).is_missing() {
        return;
    }
    let home = temporary();
    let (tree, _) = unpack_at(home.path(), "tree", &everything()).unwrap();
    let (packed, report) = pack_at(&tree, &exact(Source::Tree)).unwrap();
    let archive = home.path().join("ours.tar");
    std::fs::write(&archive, &packed).unwrap();
    let theirs = home.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    gnu_tar(&[&["-x", "--same-owner"][..], &XATTRS].concat(), &theirs, &archive);
    assert_same(&tree, &theirs);

    let program = "import sys, tarfile\n\
        for m in tarfile.open(sys.argv[1], errors='surrogateescape'):\n\
        \x20   print(m.name.strip('/'), m.mode, m.uid, m.gid, m.type.decode(), m.uname + m.gname)";
    let output = Command::new("python3")
        .args(["-c", program])
        .arg(&archive)
        .env("PYTHONIOENCODING", ":surrogateescape")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let listed = output.stdout.split(|&b| b == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(listed as u64, report.entries);
    assert_eq!(listed, look(&tree).len());
}
