//! Permissions of `--chmod`: numbers, and words as chmod(1) has them.

use crate::error::{Error, Result};
use crate::graph::Mode;

impl Mode {
    /// The permissions of a file that has `old`.
    ///
    /// # Errors
    /// The words are none of chmod(1)'s.
    pub fn apply(&self, old: u32, directory: bool) -> Result<u32> {
        match self {
            Self::Octal(mode) => Ok(mode & 0o7777),
            Self::Symbolic(text) => symbolic(text, old & 0o7777, directory).ok_or_else(|| Error::Invalid {
                what: "mode",
                text: text.clone(),
                problem: "expected an octal number, or words such as u=rwX,go=rX".into(),
            }),
        }
    }
}

const ALL: u32 = 0o777;

fn symbolic(text: &str, old: u32, directory: bool) -> Option<u32> {
    text.split(',').try_fold(old, |mode, clause| apply_clause(clause, mode, directory))
}

/// One clause: `[ugoa]*` and then one or more of `[-+=]` with `[rwxXst]*` or one of `[ugo]`.
fn apply_clause(clause: &str, mut mode: u32, directory: bool) -> Option<u32> {
    let at = clause.find(['+', '-', '='])?;
    let mut who = 0;
    for c in clause[..at].chars() {
        who |= match c {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => ALL,
            _ => return None,
        };
    }
    let who = if who == 0 { ALL } else { who };
    let mut rest = &clause[at..];
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |end| end + 1);
        let (words, next) = (&rest[1..end], &rest[end..]);
        let bits = match words {
            "u" => spread(mode >> 6 & 7),
            "g" => spread(mode >> 3 & 7),
            "o" => spread(mode & 7),
            _ => permissions(words, mode, directory)?,
        };
        // Set-ID bits go with their class, the sticky bit with all of them.
        let special = u32::from(who & 0o700 != 0) * 0o4000
            + u32::from(who & 0o070 != 0) * 0o2000
            + u32::from(who == ALL || words.contains('t')) * 0o1000;
        let bits = bits & (who | special);
        mode = match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            // A directory keeps its set-ID bits, as with GNU chmod.
            _ if directory => mode & !who | bits,
            _ => mode & !(who | special) | bits,
        };
        rest = next;
    }
    Some(mode)
}

fn spread(bits: u32) -> u32 {
    bits << 6 | bits << 3 | bits
}

fn permissions(words: &str, mode: u32, directory: bool) -> Option<u32> {
    let mut bits = 0;
    for c in words.chars() {
        bits |= match c {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            'X' if directory || mode & 0o111 != 0 => 0o111,
            'X' => 0,
            's' => 0o6000,
            't' => 0o1000,
            _ => return None,
        };
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_chmod_s() {
        for (text, old, directory, expected) in [
            ("u=rwX,go=rX", 0o600, false, Some(0o644)),
            ("u=rwX,go=rX", 0o600, true, Some(0o755)),
            ("u=rwX,go=rX", 0o700, false, Some(0o755)),
            ("a+x", 0o644, false, Some(0o755)),
            ("+x", 0o644, false, Some(0o755)),
            ("g=u", 0o740, false, Some(0o770)),
            ("u+s", 0o755, false, Some(0o4755)),
            ("go-rwx", 0o4755, false, Some(0o4700)),
            ("o+t", 0o777, true, Some(0o1777)),
            ("u=rw,g=r,o=", 0o777, false, Some(0o640)),
            ("u+q", 0, false, None),
            ("", 0, false, None),
        ] {
            assert_eq!(symbolic(text, old, directory), expected, "{text}");
        }
    }
}
