use super::*;

fn variables() -> Variables {
    let mut variables = Variables::default();
    for (name, value) in [("HOME", "/root"), ("EMPTY", ""), ("V", "a/b/a.tar.gz"), ("한", "x"), ("S", "a b")]
    {
        variables.set(name, value);
    }
    variables
}

fn expand(text: &str) -> Result<String, String> {
    Lexer::new('\\')
        .expand(text, &variables())
        .map(|expanded| expanded.text)
        .map_err(|err| err.problem.to_string())
}

#[test]
fn values_and_defaults() {
    for (text, result) in [
        ("$HOME/x", "/root/x"),
        ("${HOME}x$NONE.", "/rootx."),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$한", "x"),
        ("$1x$$", "x"),
        ("${EMPTY:-d}${EMPTY-d}", "d"),
        ("${NONE:-${HOME:-y}}", "/root"),
        ("${HOME:+s}${EMPTY:+s}${EMPTY+t}${NONE+s}", "st"),
        ("${HOME:?no}", "/root"),
        ("'$HOME'\"$HOME\"\\$HOME", "$HOME/root$HOME"),
        ("\"a\\b\\\"\\$\\\\\"", "a\\b\"$\\"),
        ("a\\", "a"),
        ("${V#a*/}", "b/a.tar.gz"),
        ("${V##a*/}", "a.tar.gz"),
        ("${V%.*}", "a/b/a.tar"),
        ("${V%%.*}", "a/b/a"),
        ("${V/a/X}", "X/b/a.tar.gz"),
        ("${V//a/X}", "X/b/X.tXr.gz"),
        ("${V//\\//_}", "a_b_a.tar.gz"),
        ("${V/?\\/b*/X}", "X"),
        ("${NONE//a/b}", ""),
    ] {
        assert_eq!(expand(text).as_deref(), Ok(result), "{text}");
    }
}

#[test]
fn errors_say_what_is_missing() {
    for (text, message) in [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${HOME:-a", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${HOME!x}", "unsupported modifier (!) in substitution"),
        ("${HOME:x}", "unsupported modifier (:x) in substitution"),
        ("${HOME:%x}", "unsupported modifier (:%) in substitution"),
        ("${NONE?}", "NONE: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${NONE:?say why}", "NONE: say why"),
        ("${V/a}", "syntax error: missing '/' in ${}"),
        ("${V#\\q}", "invalid pattern (\\q) in substitution: invalid escape '\\q'"),
    ] {
        assert_eq!(expand(text).unwrap_err(), message, "{text}");
    }
    let error = Lexer::new('\\').expand("${", &variables()).unwrap_err();
    assert_eq!(error.to_string(), "failed to process \"${\": syntax error: missing '}'");
}

#[test]
fn words_split_at_bare_spaces() {
    let words = |text| Lexer::new('\\').expand(text, &variables()).unwrap().words;
    assert_eq!(words("a  'b c' d\\ e"), ["a", "b c", "d e"]);
    assert_eq!(words("$S \"$S\""), ["a", "b", "a b"]);
    assert!(words("  ''  ").is_empty());
}

#[test]
fn what_stays() {
    let raw = Lexer { keep_quotes: true, keep_unset: true, ..Lexer::new('\\') };
    let text = "echo \"$HOME\" '$HOME' ${NONE:-x} $NONE ${NONE} ${NONE//a/b}";
    let expected = "echo \"/root\" '$HOME' ${NONE:-x} $NONE ${NONE} ${NONE//a/b}";
    assert_eq!(raw.expand(text, &variables()).unwrap().text, expected);
    let heredoc = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
    assert_eq!(heredoc.expand("it's \"$HOME\"", &variables()).unwrap().text, "it's \"/root\"");
    let backtick = Lexer::new('`');
    assert_eq!(backtick.expand("C:\\a`$HOME", &variables()).unwrap().text, "C:\\a$HOME");
}

#[test]
fn names_are_reported_once() {
    let expanded = Lexer::new('\\').expand("$HOME $A ${B:-$HOME} $A", &variables()).unwrap();
    assert_eq!(expanded.used, ["HOME"]);
    assert_eq!(expanded.missing, ["A", "B"]);
}

#[test]
fn depth_and_size_have_limits() {
    let deep = "${A:-".repeat(100_000);
    assert_eq!(expand(&deep).unwrap_err(), WordProblem::TooDeep.to_string());
}

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "[ab$\\{\\}:'\"/#%?*\\\\+ -]*") {
        let _ = expand(&text);
    }
}
