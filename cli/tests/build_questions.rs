//! `onggi build --call`: checks, outlines and targets through the binary, and how a build file that makes no sense
//! is shown. Nothing is built and no registry is asked, so all of it works as any user.

mod support;

use std::fs;

use support::{Done, Onggi};

const TEXT: &str =
    "ARG V=1\n# app does it\nFROM nowhere.invalid/base:$V as app\nRUN --mount=type=secret,id=s true\n";

/// What `onggi build` says of a build file of this name and text.
fn build(name: &str, text: &str, words: &[&str]) -> Done {
    let onggi = Onggi::new();
    let context = onggi.folder().join("context");
    fs::create_dir(&context).expect("a folder");
    fs::write(context.join(name), text).expect("a file");
    let context = context.to_str().expect("a path of ours");
    onggi.output(["build"].iter().chain(words).chain(&[context]))
}

#[test]
fn checks_are_about_the_file_and_its_status_tells() {
    let done = build("Dockerfile", TEXT, &["--call=check"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stdout.starts_with("Check complete, 1 warning has been found!\n"), "{}", done.stdout);
    assert!(done.stdout.contains("WARNING: FromAsCasing"), "{}", done.stdout);
    assert!(done.stdout.contains("   3 | >>> FROM nowhere.invalid/base:$V as app\n"), "{}", done.stdout);

    let json = build("Dockerfile", TEXT, &["--check", "--call=check,format=json"]).stdout;
    assert!(json.contains("FromAsCasing"), "{json}");
    let clean = build("Dockerfile", &TEXT.replace(" as ", " AS "), &["--call=check"]);
    assert_eq!(clean.ok(), "Check complete, no warnings found.");
}

#[test]
fn outlines_and_targets() {
    let outline = build("Dockerfile", TEXT, &["--call=outline"]).ok();
    assert!(outline.contains("DESCRIPTION:   does it\n"), "{outline}");
    assert!(outline.contains("V           1"), "{outline}");
    assert!(outline.contains("SECRET   REQUIRED\ns"), "{outline}");
    let targets = build("Dockerfile", TEXT, &["--call=targets,format=json"]).ok();
    assert!(targets.contains("\"base\": \"nowhere.invalid/base:$V\""), "{targets}");
}

#[test]
fn a_wrong_word_gets_a_caret() {
    let done = build("Dockerfile", "FROM scratch\n\tCOPI a b\n", &[]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("   2 | >>> \tCOPI a b\n     |     \t^^^^\n"), "{}", done.stderr);
    let sentence = "dockerfile parse error on line 2: unknown instruction: COPI (did you mean COPY?)";
    assert!(done.stderr.contains(sentence), "{}", done.stderr);
}

#[test]
fn lines_are_those_of_the_yaml() {
    let text = "stages:\n  app:\n    from: scratch\n    steps:\n      - copy: x\n        to: y\n        chmod: 64a\n";
    let done = build("onggi.yaml", text, &["--call=outline"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("onggi.yaml:5\n"), "{}", done.stderr);
    assert!(done.stderr.contains("   5 | >>>       - copy: x\n"), "{}", done.stderr);
}
