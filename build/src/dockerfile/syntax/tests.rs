use super::*;

fn nodes(text: &str) -> Vec<Node> {
    parse(text).unwrap().nodes
}

fn arguments(line: &str) -> Vec<String> {
    nodes(line).remove(0).arguments
}

fn problem(text: &str) -> String {
    parse(text).unwrap_err().problem.to_string()
}

#[test]
fn lines_are_joined_without_comments() {
    let file = parse("\u{feff}FROM x\r\n# one\nRUN a \\\n  # no\n\n b \\  \r\n\\\n c\n").unwrap();
    assert_eq!(file.nodes[1].arguments, ["a  b  c"]);
    assert_eq!(file.nodes[1].lines, Lines { first: 3, last: 8 });
    assert_eq!(file.nodes[1].comments, ["one"]);
    assert_eq!(file.empty_continuations, [8]);
    assert_eq!(arguments("RUN a \\\\\n"), ["a \\\\"]);
    assert_eq!(arguments("RUN a \\"), ["a"]);
}

#[test]
fn directives_are_read_above_everything_else() {
    let file = parse("# syntax = x\n#ESCAPE=`\n# c\n# check=skip=all\nRUN a`\nb").unwrap();
    assert_eq!((file.escape, file.directives.len()), ('`', 2));
    assert_eq!(file.nodes[0].arguments, ["ab"]);
    assert_eq!(file.nodes[0].comments, ["c", "check=skip=all"]);
    assert_eq!(
        check_directive("#!x\n# syntax=a\n# check=skip=A;error=true b"),
        Some(("skip=A;error=true", 3))
    );
    assert_eq!(problem("# escape=x\nRUN a"), "invalid escape token 'x' does not match ` or \\");
    assert_eq!(problem("# escape=`\n# escape=\\\nRUN a"), "only one escape parser directive can be used");
}

#[test]
fn arguments_by_instruction() {
    assert_eq!(
        arguments(r#"ENV a="b c" d='e' f=\ g"#),
        ["a", "\"b c\"", "=", "d", "'e'", "=", "f", "\\ g", "="]
    );
    assert_eq!(arguments("ENV a b  c"), ["a", "b  c", ""]);
    assert_eq!(arguments("ARG a b=c"), ["a", "b=c"]);
    assert_eq!(arguments("COPY a\tb  c"), ["a", "b", "c"]);
    assert_eq!(arguments(r#"COPY ["a b", "c"]"#), ["a b", "c"]);
    assert_eq!(arguments("CMD [\"a\" b]"), ["[\"a\" b]"]);
    assert_eq!(arguments("HEALTHCHECK --x=y cmd  [\"a\"]"), ["cmd", "a"]);
    assert_eq!(arguments("ONBUILD  COPY a b"), ["COPY", "a", "b"]);
    assert!(nodes("CMD []")[0].json && arguments("CMD []").is_empty());
    assert_eq!(problem("CMD [1]"), Problem::JsonStrings.to_string());
    assert_eq!(problem("ENV a"), "ENV must have two arguments");
    assert_eq!(problem("ENV a=b c"), "Syntax error - can't find = in \"c\". Must be of the form: name=value");
}

#[test]
fn heredocs_follow_their_line() {
    let file = parse("RUN <<A cat <<-'B' \\\n && x\na $b\nA\n\tb\n\tB\nCMD x").unwrap();
    let node = &file.nodes[0];
    assert_eq!(
        node.heredocs[0],
        Heredoc { name: "A".into(), expand: true, chomp: false, content: "a $b\n".into() }
    );
    assert_eq!(
        node.heredocs[1],
        Heredoc { name: "B".into(), expand: false, chomp: true, content: "\tb\n".into() }
    );
    assert_eq!(node.lines, Lines { first: 1, last: 6 });
    assert_eq!(file.nodes[1].name, "CMD");
    assert_eq!(problem("RUN <<A\nb"), "unterminated heredoc");
    assert!(nodes("RUN cat <<<A\nCMD x")[0].heredocs.is_empty());
    assert!(nodes("CMD <<A\nRUN x")[0].heredocs.is_empty());
    assert_eq!(without_tabs("\t\ta\n\tb\tc\n"), "a\nb\tc\n");
}

#[test]
fn limits() {
    assert_eq!(problem("# only\n\n"), "file with no instructions");
    let fits = format!("RUN {}\n", "a".repeat(MAX_LINE - 4));
    assert_eq!(nodes(&fits).len(), 1);
    let long = format!("FROM x\nRUN {}\n", "a".repeat(MAX_LINE));
    assert_eq!(problem(&long), "dockerfile line greater than max allowed size of 65535");
    let chain = format!("FROM x\n{} RUN a", "ONBUILD ".repeat(8000));
    assert_eq!(nodes(&chain)[1].arguments, ["ONBUILD"]);
}

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "(?s)((FROM|RUN|COPY|ENV|ONBUILD|HEALTHCHECK|#) ?([-=\\\\`\"'<A\\[\\] \n\t]|.){0,20}\n?){0,5}") {
        let _ = parse(&text);
        check_directive(&text);
    }
}
