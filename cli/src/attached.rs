//! Values attached to short flags: `-v/a:/b`, `-e=A=1`, `-itw/tmp`.
//!
//! Behind flags of `run` stands a command that may look like anything, and so clap takes a short flag
//! with an attached value for the image's name. Here such words are taken apart before clap sees them:
//!
//! ```text
//!   run -itv/a:/b -e=A=1 image -x=1     ─►     run -it -v /a:/b -e A=1 image -x=1
//! ```

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, Command};

/// Takes attached values off, up to where a command's own words begin.
pub fn detach(root: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut out = Vec::with_capacity(words.len());
    let mut path = vec![root];
    let mut words = words.into_iter();
    out.extend(words.next());
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        let Some(command) = path.last().copied() else { break };
        if bytes == b"--" {
            out.push(word);
            break;
        }
        if bytes.starts_with(b"--") {
            let name = bytes[2..].split(|&byte| byte == b'=').next().unwrap_or_default();
            let wants = find(&path, |arg| has_long(arg, name)).is_some_and(takes_next);
            let alone = !bytes.contains(&b'=');
            out.push(word);
            if wants && alone {
                out.extend(words.next());
            }
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            let (flags, value) = split(&path, bytes);
            match value {
                Some((flag, value)) => {
                    if flags.len() > 1 {
                        out.push(OsString::from_vec(flags));
                    }
                    out.push(OsString::from_vec(vec![b'-', flag]));
                    if value.is_empty() {
                        out.extend(words.next());
                    } else {
                        let value = value.strip_prefix(b"=").unwrap_or(value);
                        out.push(OsString::from_vec(value.to_vec()));
                    }
                }
                None => out.push(word),
            }
        } else {
            let sub = word.to_str().and_then(|name| command.find_subcommand(name));
            out.push(word);
            match sub {
                Some(sub) => path.push(sub),
                // The words of a command that runs in a container.
                None if command.get_positionals().any(Arg::is_trailing_var_arg_set) => break,
                None => {}
            }
        }
    }
    out.extend(words);
    out
}

/// The switches at the beginning of a cluster, and the flag with a value that ends it.
fn split<'a>(path: &[&Command], word: &'a [u8]) -> (Vec<u8>, Option<(u8, &'a [u8])>) {
    let mut switches = vec![b'-'];
    for (at, &letter) in word.iter().enumerate().skip(1) {
        match find(path, |arg| arg.get_short() == Some(char::from(letter))) {
            Some(arg) if takes_next(arg) => return (switches, Some((letter, &word[at + 1..]))),
            Some(_) => switches.push(letter),
            // Not ours to understand.
            None => return (Vec::new(), None),
        }
    }
    (Vec::new(), None)
}

fn find<'a>(path: &[&'a Command], wanted: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
    let inherited = |command: &&'a Command| {
        let own = std::ptr::eq(*command, *path.last().unwrap_or(command));
        command.get_arguments().find(|arg| (own || arg.is_global_set()) && wanted(arg))
    };
    path.iter().rev().find_map(inherited)
}

fn has_long(arg: &Arg, name: &[u8]) -> bool {
    let is = |long: &str| long.as_bytes() == name;
    arg.get_long().is_some_and(is) || arg.get_all_aliases().unwrap_or_default().into_iter().any(is)
}

/// Whether the next word is its value.
fn takes_next(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detached(line: &str) -> String {
        let words = line.split_whitespace().map(OsString::from).collect();
        let words = detach(&crate::arguments::command_line(), words);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn attached_values_are_taken_off_up_to_the_containers_own_words() {
        for (line, want) in [
            ("onggi run -h=name image -h=name", "onggi run -h name image -h=name"),
            ("onggi run -itv/a:/b -e=A=1 image", "onggi run -it -v /a:/b -e A=1 image"),
            ("onggi run -e A=1 -w/tmp image", "onggi run -e A=1 -w /tmp image"),
            ("onggi run --name x -eA image -eA", "onggi run --name x -e A image -eA"),
            ("onggi create --rm=false -t=false image", "onggi create --rm=false -t=false image"),
            ("onggi --root /x exec -uroot c ls -la", "onggi --root /x exec -u root c ls -la"),
            ("onggi run -?x image", "onggi run -?x image"),
            ("onggi run -- -e=1", "onggi run -- -e=1"),
            ("onggi ps -an3", "onggi ps -a -n 3"),
        ] {
            assert_eq!(detached(line), want);
        }
    }
}
