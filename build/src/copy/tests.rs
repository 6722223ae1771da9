use super::*;
use crate::graph::Copy;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn tree(dir: &Path) -> Tree {
    Tree::open_host(dir).unwrap()
}

/// Copies within two temporary directories and gives what is in the second.
fn copied(prepare: impl Fn(&Path, &Path), copy: Copy) -> Result<Vec<String>> {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prepare(from.path(), to.path());
    let (from_tree, to_tree) = (tree(from.path()), tree(to.path()));
    let source = Source { tree: &from_tree, ignore: None, owner: None };
    perform(&FileAction::Copy(Box::new(copy)), &to_tree, Some(&source), true)?;
    let mut found = Vec::new();
    collect(to.path(), "", &mut found);
    Ok(found)
}

fn collect(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let shown = format!("{prefix}{}", name.to_string_lossy());
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.push(format!("{shown}/"));
            collect(&path, &format!("{shown}/"), found);
        } else if meta.is_symlink() {
            found.push(format!("{shown} -> {}", fs::read_link(&path).unwrap().display()));
        } else {
            found.push(format!("{shown}={}", fs::read_to_string(&path).unwrap()));
        }
    }
}

fn copy(source: &str, destination: &str) -> Copy {
    Copy {
        source: source.into(),
        destination: destination.into(),
        wildcard: true,
        follow_links: true,
        contents_only: true,
        create_destination: true,
        ..Copy::default()
    }
}

fn sample(from: &Path, _: &Path) {
    fs::create_dir_all(from.join("d/e")).unwrap();
    fs::write(from.join("f"), "F").unwrap();
    fs::write(from.join("g.txt"), "G").unwrap();
    fs::write(from.join("d/x"), "X").unwrap();
    fs::write(from.join("d/e/y.txt"), "Y").unwrap();
    symlink("x", from.join("d/l")).unwrap();
}

#[test]
fn a_file_takes_the_destination_s_name_or_goes_into_it() {
    assert_eq!(copied(sample, copy("/f", "/new")).unwrap(), ["new=F"]);
    assert_eq!(copied(sample, copy("/f", "/a/b/")).unwrap(), ["a/", "a/b/", "a/b/f=F"]);
    let existing = |from: &Path, to: &Path| {
        sample(from, to);
        fs::create_dir(to.join("a")).unwrap();
    };
    assert_eq!(copied(existing, copy("/f", "/a")).unwrap(), ["a/", "a/f=F"]);
    assert!(matches!(copied(sample, copy("/none", "/a")), Err(Error::NotFound { .. })));
    assert!(matches!(copied(sample, copy("/*.zip", "/a")), Err(Error::NotFound { .. })));
}

#[test]
fn a_directory_gives_its_contents() {
    let expected = ["t/", "t/e/", "t/e/y.txt=Y", "t/l -> x", "t/x=X"];
    assert_eq!(copied(sample, copy("/d", "/t")).unwrap(), expected);
    assert_eq!(copied(sample, copy("/d/", "/t/")).unwrap(), expected);
    assert_eq!(copied(sample, copy("/*.txt", "/t/")).unwrap(), ["t/", "t/g.txt=G"]);
    let excluded = Copy { exclude: vec!["**/*.txt".into(), "l".into()], ..copy("/d", "/t") };
    assert_eq!(copied(sample, excluded).unwrap(), ["t/", "t/e/", "t/x=X"]);
    let included = Copy { include: vec!["d/e/*.txt".into()], ..copy("/", "/t") };
    assert_eq!(copied(sample, included).unwrap(), ["t/", "t/d/", "t/d/e/", "t/d/e/y.txt=Y"]);
}

#[test]
fn links_of_the_destination_are_followed_above_and_refused_below() {
    let linked = |from: &Path, to: &Path| {
        sample(from, to);
        fs::create_dir(to.join("real")).unwrap();
        symlink("/real", to.join("t")).unwrap();
    };
    assert_eq!(copied(linked, copy("/f", "/t/")).unwrap(), ["real/", "real/f=F", "t -> /real"]);
    let below = |from: &Path, to: &Path| {
        sample(from, to);
        fs::create_dir(to.join("t")).unwrap();
        symlink("/", to.join("t/e")).unwrap();
    };
    assert!(matches!(copied(below, copy("/d", "/t")), Err(Error::NotADirectory { .. })));
    let directory = |from: &Path, to: &Path| {
        sample(from, to);
        fs::create_dir_all(to.join("t/x")).unwrap();
    };
    assert!(matches!(copied(directory, copy("/d", "/t")), Err(Error::IsADirectory { .. })));
}

#[test]
fn nothing_is_read_or_written_outside() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "S").unwrap();
    let target = outside.path().to_owned();
    let hostile = move |from: &Path, to: &Path| {
        symlink(&target, from.join("out")).unwrap();
        symlink(&target, to.join("t")).unwrap();
        fs::write(from.join("f"), "F").unwrap();
    };
    assert!(copied(&hostile, copy("/out/secret", "/x")).is_err());
    copied(&hostile, copy("/f", "/t/")).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn modes_times_and_hard_links_are_kept() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("a");
    fs::write(&file, "A").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(&file, from.path().join("b")).unwrap();
    fs::File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let (from_tree, to_tree) = (tree(from.path()), tree(to.path()));
    let source = Source { tree: &from_tree, ignore: None, owner: None };
    perform(&FileAction::Copy(Box::new(copy("/", "/"))), &to_tree, Some(&source), true).unwrap();
    let (a, b) = (fs::metadata(to.path().join("a")).unwrap(), fs::metadata(to.path().join("b")).unwrap());
    assert_eq!((a.mode() & 0o7777, a.mtime(), a.ino()), (0o4751, 0, b.ino()));
}
