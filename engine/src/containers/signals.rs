//! Signals by name and number.

/// `SIGTERM`
pub(crate) const TERM: i32 = 15;
/// `SIGKILL`
pub(crate) const KILL: i32 = 9;

/// Names from 1 on, without SIG.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first and the last signal that mean what programs agree on, as the C library counts.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of a signal given by its number or its name, with or without SIG.
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=REAL_TIME.1).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|name| *name == bare) {
        return i32::try_from(at + 1).ok();
    }
    let offset = |rest: &str| match rest {
        "" => Some(0),
        rest => rest.get(1..)?.parse::<i32>().ok().filter(|offset| *offset >= 0),
    };
    let number = match bare {
        "CLD" => 17,
        "IOT" => 6,
        "POLL" => 29,
        _ => match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
            (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => {
                REAL_TIME.0.checked_add(offset(rest)?)?
            }
            (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => REAL_TIME.1 - offset(rest)?,
            _ => return None,
        },
    };
    (REAL_TIME.0..=REAL_TIME.1).contains(&number).then_some(number).or((number < 32).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMAX", Some(64)),
            ("CLD", Some(17)),
            ("RTMIN+40", None),
            ("RTMIN3", None),
            ("0", None),
            ("65", None),
            ("NOPE", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
