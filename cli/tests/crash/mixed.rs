//! Many commands of all kinds over one store at once, chosen by a seed: none disturbs another, and nothing that is in use
//! is removed.
//!
//! `ONGGI_MIXED_SECONDS` and `ONGGI_MIXED_AT_ONCE` set how long and how many; `make test-crash` runs 64 for two minutes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::syscalls::Ground;
use super::{Random, number};

/// What one command may say when another was faster.
const OVERTAKEN: [&str; 6] =
    ["no such image", "No such image", "is in use", "is being used", "is using", "is not in the store"];

#[test]
fn commands_of_all_kinds_at_once() {
    let Some(ground) = Ground::new() else { return };
    let (seconds, at_once) = (number("ONGGI_MIXED_SECONDS", 4), number("ONGGI_MIXED_AT_ONCE", 8));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut commands: Vec<Vec<String>> = ground.deeds.iter().map(|deed| deed.words().to_vec()).collect();
    for line in [
        "rmi -f loaded:1",
        "rmi -f built:1",
        "rmi -f committed:1",
        "image prune -a -f",
        "builder prune -af",
        "images",
        "system df",
        "image inspect busybox:1",
        "run --rm --network none busybox:1 cat /etc/passwd /bin/busybox",
        "create --name NAME busybox:1 true",
        "rm -f NAME",
    ] {
        commands.push(line.split(' ').map(str::to_owned).collect());
    }
    let (done, overtaken) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for worker in 0..at_once {
            let (ground, commands, done, overtaken) = (&ground, &commands, &done, &overtaken);
            scope.spawn(move || {
                let mut random = Random(1000 + worker);
                while Instant::now() < end {
                    let chosen = usize::try_from(random.below(commands.len() as u64)).expect("a few");
                    let words =
                        commands[chosen].iter().map(|word| word.replace("NAME", &format!("mixed-{worker}")));
                    let words: Vec<String> = words.collect();
                    let answer = ground.onggi.output(&words);
                    done.fetch_add(1, Ordering::Relaxed);
                    if answer.code == Some(0) {
                        continue;
                    }
                    overtaken.fetch_add(1, Ordering::Relaxed);
                    let said = &answer.stderr;
                    let own = words[0] == "create" && said.contains("already in use")
                        || words[0] == "rm" && said.contains("No such container");
                    // An image that this program runs or builds on is in use all the time.
                    let lost = said.contains("busybox:1");
                    let expected = own || !lost && OVERTAKEN.iter().any(|text| said.contains(text));
                    assert!(expected, "{words:?}: {:?} {said}", answer.code);
                }
            });
        }
    });
    let check = ground.onggi.output(["system", "check"]);
    assert_eq!(check.code, Some(0), "{}{}", check.stdout, check.stderr);
    assert_eq!(ground.onggi.unfinished(), [""; 0]);
    ground.onggi.ok(["start", "-a", "kept"]);
    eprintln!("{} commands, {} were overtaken by others", done.into_inner(), overtaken.into_inner());
}
