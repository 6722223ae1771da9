//! Databases and lock files to packages.

use std::fs;
use std::os::fd::AsFd;

use super::*;

struct Image(tempfile::TempDir);

impl Image {
    fn of(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Self(dir)
    }

    fn urls(&self) -> Vec<String> {
        let root = fs::File::open(self.0.path()).unwrap();
        packages(root.as_fd()).iter().map(Package::url).collect()
    }
}

#[test]
fn each_kind_is_read() {
    let image = Image::of(&[
        ("etc/os-release", b"NAME=\"Debian\"\nID=debian\n"),
        (
            "var/lib/dpkg/status",
            b"Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2.15-2+b8\n\n\
              Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
        ),
        ("var/lib/dpkg/status.d/base", b"Package: base-files\nVersion: 12\n"),
        ("lib/apk/db/installed", b"C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\n"),
        ("app/Cargo.lock", b"version = 4\n[[package]]\nname = \"serde\"\nversion = \"1.0.2\"\n"),
        (
            "app/package-lock.json",
            br#"{"packages":{"":{"name":"me","version":"0"},"node_modules/@a/b":{"version":"2.0.0","license":"ISC"}}}"#,
        ),
        ("app/composer.lock", br#"{"packages":[{"name":"symfony/console","version":"v7.1"}]}"#),
        ("app/Gemfile.lock", b"GEM\n  remote: x\n  specs:\n    rack (3.0.0)\n      dep (>= 1)\n\nPLATFORMS\n"),
        ("src/go.sum", b"golang.org/x/net v0.1.0 h1:x\ngolang.org/x/old v0.0.1/go.mod h1:y\n"),
        ("usr/lib/python3/x.dist-info/METADATA", b"Metadata-Version: 2.1\nName: My_Lib\nVersion: 3.1\n\nVersion: 9\n"),
    ]);
    assert_eq!(
        image.urls(),
        [
            "pkg:apk/debian/musl@1.2.5-r0?arch=x86_64",
            "pkg:cargo/serde@1.0.2",
            "pkg:composer/symfony/console@v7.1",
            "pkg:deb/debian/base-files@12",
            "pkg:deb/debian/bash@5.2.15-2%2Bb8?arch=amd64",
            "pkg:gem/rack@3.0.0",
            "pkg:golang/golang.org/x/net@v0.1.0",
            "pkg:npm/%40a/b@2.0.0",
            "pkg:pypi/my-lib@3.1",
        ]
    );
}

#[test]
fn a_real_database_of_rpm_is_read() {
    // Made by SQLite itself, with a value that takes several pages.
    let Ok(python) = std::process::Command::new("python3").arg("--version").output() else { return };
    assert!(python.status.success());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let long = "x".repeat(20_000);
    let headers = [
        rpm::header(&[
            (1000, "bash"),
            (1001, "5.2"),
            (1002, "1.fc40"),
            (1014, "GPL-3.0-or-later"),
            (1022, "x86_64"),
        ]),
        rpm::header(&[(1000, "long"), (1001, "1"), (1002, "2"), (1004, &long)]),
        rpm::header(&[(1000, "gpg-pubkey"), (1001, "1"), (1002, "2")]),
    ];
    let hex: Vec<String> =
        headers.iter().map(|h| h.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    let script = "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1])\n\
        d.execute('CREATE TABLE Other (a INTEGER)')\n\
        d.execute('CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)')\n\
        for n in range(30):\n  for h in sys.argv[2:]: d.execute('INSERT INTO Packages (blob) VALUES (?)', (bytes.fromhex(h),))\n\
        d.commit()\n";
    let made =
        std::process::Command::new("python3").args(["-c", script]).arg(&path).args(&hex).status().unwrap();
    assert!(made.success());
    let database = fs::read(&path).unwrap();
    let image =
        Image::of(&[("usr/lib/sysimage/rpm/rpmdb.sqlite", &database), ("etc/os-release", b"ID=fedora\n")]);
    assert_eq!(image.urls(), ["pkg:rpm/fedora/bash@5.2-1.fc40?arch=x86_64", "pkg:rpm/fedora/long@1-2"]);
    // Damaged in any place it gives less, and never more than an answer.
    for at in (0..database.len()).step_by(4999) {
        let mut damaged = database.clone();
        damaged[at] = !damaged[at];
        sqlite::Database::open(&damaged).map(|database| database.blobs("Packages"));
    }
}

#[test]
fn what_an_image_puts_in_the_place_of_a_database_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("status"), "Package: secret\nVersion: 1\n").unwrap();
    let image = Image::of(&[("var/lib/dpkg/x", b"")]);
    std::os::unix::fs::symlink(outside.path().join("status"), image.0.path().join("var/lib/dpkg/status"))
        .unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        image.0.path().join("Cargo.lock"),
        FileType::Fifo,
        Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    assert_eq!(image.urls(), [""; 0]);
}

#[test]
fn the_document_describes_the_image_and_what_it_contains() {
    let digest = onggi_oci::Digest::sha256(b"manifest");
    let subject =
        Subject { name: "app:1", digest: &digest, created: "2026-01-01T00:00:00Z", tool: "onggi-0" };
    let package = Package { kind: "deb", name: "bash".into(), version: "5".into(), ..Package::default() };
    let document = document(&subject, &[package]);
    assert_eq!(document["packages"][1]["externalRefs"][0]["referenceLocator"], "pkg:deb/bash@5");
    assert_eq!(document["relationships"].as_array().unwrap().len(), 2);
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
}
