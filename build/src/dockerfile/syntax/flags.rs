//! `--name=value` between an instruction's name and its arguments.

/// Takes the flags: what is left, and the flags without their quotes. `--` alone ends them.
pub(super) fn take(line: &str) -> (&str, Vec<String>) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let mut word = String::new();
        let mut quoted = false;
        let mut quote = None;
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => {
                    end = at;
                    break;
                }
                (None, '\'' | '"') => {
                    quote = Some(c);
                    quoted = true;
                }
                (Some(open), c) if c == open => quote = None,
                // A backslash at the end is left out.
                (_, '\\') => word.extend(chars.next().map(|(_, next)| next)),
                (_, c) => word.push(c),
            }
        }
        rest = &rest[end..];
        if word == "--" {
            return (rest, flags);
        }
        if quoted || !word.is_empty() {
            flags.push(word);
        }
        rest = rest.trim_start();
    }
    (rest, flags)
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn flags_end_at_the_first_argument() {
        let (rest, flags) = take("--a=b --c='d e' --f=\\\"  x --y");
        assert_eq!((rest, flags), ("x --y", vec!["--a=b".to_owned(), "--c=d e".into(), "--f=\"".into()]));
        assert_eq!(take("-- --x").0.trim(), "--x");
        assert_eq!(take("-x").0, "-x");
        assert_eq!(take("--a"), ("", vec!["--a".to_owned()]));
    }
}
