//! The command line itself: versions, mistakes, completions, manual pages.

mod support;

use support::Onggi;

#[test]
fn the_version_is_the_packages() {
    let onggi = Onggi::new();
    let version = onggi.ok(["--version"]);
    assert_eq!(version, format!("onggi {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_end_with_dockers_status_and_name_what_is_wrong() {
    let onggi = Onggi::new();
    let flag = onggi.fails(["run", "--no-such-flag", "alpine"]);
    assert_eq!(flag.code, Some(125));
    assert!(flag.stderr.contains("--no-such-flag"), "{}", flag.stderr);
    let command = onggi.fails(["no-such-command"]);
    assert_eq!(command.code, Some(1));
    assert!(command.stderr.contains("no-such-command"), "{}", command.stderr);
}

#[test]
fn every_command_has_a_manual_page_and_completions_parse() {
    let onggi = Onggi::new();
    let pages = onggi.folder().join("man");
    std::fs::create_dir(&pages).expect("a folder");
    onggi.ok(["man".as_ref(), "--dir".as_ref(), pages.as_os_str()]);
    for name in ["onggi.1", "onggi-run.1", "onggi-pull.1", "onggi-push.1", "onggi-image-ls.1"] {
        let page =
            std::fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    let script = onggi.folder().join("completion.bash");
    std::fs::write(&script, onggi.ok(["completion", "bash"])).expect("a script");
    support::tool("bash", ["-n".as_ref(), script.as_os_str()]);
}

#[test]
fn no_command_opens_a_store_to_explain_itself() {
    let onggi = Onggi::new();
    for command in
        ["run", "pull", "push", "images", "rmi", "tag", "history", "inspect", "save", "load", "login"]
    {
        let help = onggi.ok([command, "--help"]);
        assert!(help.contains("Usage: onggi"), "{command}: {help}");
    }
    assert!(!onggi.root().exists(), "--help made a store");
}
