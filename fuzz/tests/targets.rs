//! Each target, fed with its seeds and with mutations of them.
//!
//! `ONGGI_FUZZ_SECONDS` sets for how long (10); `ONGGI_SEED` with which number to begin. An input that breaks a promise is
//! named by its number and kept as a file.

#![allow(clippy::print_stderr, reason = "how much was tried is part of the result")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use onggi_fuzz::{Mutator, TARGETS};
use onggi_testkit::needs;

/// How long one target is fed.
const SECONDS: u64 = 10;
/// How long one input may take, on a machine that is busy: what takes longer could keep a server from its work.
const PATIENCE: Duration = Duration::from_secs(20);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn search(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    if needs::programs(target.programs).is_missing() {
        return;
    }
    let mut seeds = (target.seeds)();
    // What libFuzzer has learned, if it ran here.
    let learned = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(learned).into_iter().flatten().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    seeds.extend(files.iter().filter_map(|file| std::fs::read(file.path()).ok()));
    let mutator = Mutator::new(seeds);
    let start = Instant::now();
    let end = start + Duration::from_secs(number("ONGGI_FUZZ_SECONDS", SECONDS));
    let first = number("ONGGI_SEED", 0);
    let mut fed = first;
    while Instant::now() < end {
        let (input, began) = (mutator.input(fed), Instant::now());
        let ended =
            catch_unwind(AssertUnwindSafe(|| (target.feed)(&input))).is_ok() && began.elapsed() < PATIENCE;
        if !ended {
            let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{fed}"));
            std::fs::write(&place, &input).expect("the input is kept");
            panic!("{name}, ONGGI_SEED={fed}, after {:?}: {}", began.elapsed(), place.display());
        }
        fed += 1;
    }
    eprintln!("{name}: {} inputs in {:?}", fed - first, start.elapsed());
}

/// Four at a time: the suite has other things to do, and the machine perhaps more cores.
fn search_all(names: [&str; 4]) {
    std::thread::scope(|scope| {
        for name in names {
            let named = std::thread::Builder::new().name(name.to_owned());
            named.spawn_scoped(scope, || search(name)).expect("a thread");
        }
    });
}

const TEXTS: [&str; 4] = ["reference", "document", "config", "challenge"];
const ARCHIVES: [&str; 4] = ["layer", "tar", "erofs", "load"];
const FILES: [&str; 4] = ["dockerfile", "yaml", "spec", "seccomp"];

#[test]
fn what_registries_say() {
    search_all(TEXTS);
}

#[test]
fn archives() {
    search_all(ARCHIVES);
}

#[test]
fn files_of_users() {
    search_all(FILES);
}

#[test]
fn every_target_is_searched() {
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(targets, [TEXTS, ARCHIVES, FILES].concat());
}
