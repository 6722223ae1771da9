//! A device that answers with errors: the command says so, nothing is half visible, and nothing that can't be read for a
//! while is taken for garbage.

use std::process::Command;

use onggi_testkit::needs;

use super::power::{Mounted, boot, look, recorded};
use super::support::{Done, Onggi};
use super::syscalls::Ground;

/// What a program reads of a device that fails: the error itself, or that the file system gave up.
const SAYS: [&str; 3] = ["Input/output error", "Read-only file system", "Structure needs cleaning"];

fn assert_says(done: &Done, place: &str) {
    done.assert_failed_in_words();
    assert!(SAYS.iter().any(|text| done.stderr.contains(text)), "{place}: {}{}", done.stdout, done.stderr);
}

#[test]
fn writes_that_fail_are_an_error_and_nothing_else() {
    let onggi = Onggi::new();
    if needs::programs(&["e2fsck", "umount"]).is_missing() {
        return;
    }
    let Some((mut mounted, disk)) = recorded(&onggi) else { return };
    let Some(ground) = Ground::over(onggi) else { return };
    let onggi = &ground.onggi;
    let mut failed = 0;
    for deed in ground.deeds.iter().filter(|deed| !["run", "prune"].contains(&deed.name)) {
        for writes in [0, 4] {
            ground.ready(deed);
            Done::of(Command::new("sync").arg("-f").arg(onggi.root())).ok();
            let before = look(onggi);
            disk.fail_writes_after(Some(writes));
            let done = onggi.output(deed.words());
            let place = format!("{} after {writes} writes", deed.name);
            if done.code != Some(0) {
                failed += 1;
                assert_says(&done, &place);
            }
            boot(onggi);
            mounted.end();
            disk.fail_writes_after(None);
            // As a boot does. 1: it has mended something.
            let mended = Done::of(
                Command::new(needs::find_program("e2fsck").expect("it was found"))
                    .arg("-fy")
                    .arg(disk.path()),
            );
            assert!(matches!(mended.code, Some(0 | 1)), "{place}: {}", mended.stdout);
            mounted = Mounted::new(disk.path(), &onggi.root());
            let check = onggi.output(["system", "check"]);
            assert_eq!(check.code, Some(0), "{place}: {}{}", check.stdout, check.stderr);
            let now = look(onggi);
            // A failure after the name was written, or removed, leaves the store as after the command, and whole, as the
            // check has seen.
            let image = deed.image.as_deref().and_then(|image| ground.id(image));
            let finished = image.is_some() != (deed.name == "rmi");
            assert!(done.code == Some(0) || now == before || finished, "{place}: {now:?}, {before:?}");
            if done.code == Some(0) {
                assert!(finished, "{place}: it was reported");
            }
            // It works again.
            let again = onggi.output(deed.words());
            assert!(again.code == Some(0) || deed.name == "rmi", "{place}: {}", again.stderr);
        }
    }
    eprintln!("{failed} commands failed, {} requests", disk.errors());
    assert!(failed >= 6, "only {failed} commands failed");
    boot(onggi);
    mounted.end();
}

#[test]
fn what_cannot_be_read_for_a_while_is_not_garbage() {
    let onggi = Onggi::new();
    let Some((mounted, disk)) = recorded(&onggi) else { return };
    let Some(ground) = Ground::over(onggi) else { return };
    let onggi = &ground.onggi;
    for deed in ground.deeds.iter().filter(|deed| ["pull", "build"].contains(&deed.name)) {
        onggi.ok(deed.words());
    }
    let before = look(onggi);
    boot(onggi);
    mounted.end();
    let mut failed = 0;
    for line in [
        "images",
        "save -o /dev/null busybox:1",
        "run --rm --network none busybox:1 true",
        "tag busybox:1 other:1",
        "image prune -f",
        "system prune -f --volumes=false",
        "system check --repair",
        "rmi built:1",
        "build --no-cache -q --network none -t built:1 CONTEXT",
    ] {
        // Nothing is in memory, and then the device answers no more.
        let mounted = Mounted::new(disk.path(), &onggi.root());
        disk.fail_reads(true);
        let line = line.replace("CONTEXT", onggi.folder().join("context").to_str().expect("a path of ours"));
        let done = onggi.output(line.split(' '));
        disk.fail_reads(false);
        if done.code != Some(0) {
            failed += 1;
            assert!(!done.stderr.contains("panicked"), "{line}: {}", done.stderr);
            assert_says(&done, &line);
        }
        boot(onggi);
        mounted.end();
        let mounted = Mounted::new(disk.path(), &onggi.root());
        let check = onggi.output(["system", "check"]);
        assert_eq!(check.code, Some(0), "{line}: {}{}", check.stdout, check.stderr);
        assert_eq!(look(onggi), before, "{line}");
        boot(onggi);
        mounted.end();
    }
    assert!(failed >= 6, "only {failed} commands failed");
}
