//! Docker's own answers, recorded from `docker context inspect` of CLI 28.2.2 for the context below.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Template;

fn context() -> Value {
    json!({
        "Name": "default",
        "Metadata": {},
        // In Docker a map; `Networks` is one of the names that onggi knows as such.
        "Networks": {"docker": {"Host": "unix:///var/run/docker.sock", "SkipTLSVerify": false}},
        "Storage": {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}
    })
}

fn render(template: &str) -> String {
    let result = Template::parse(template).and_then(|template| template.render(&context()));
    result.unwrap_or_else(|error| error.to_string())
}

/// Docker names the Go type, which onggi has not: `object` stands for it.
fn check(cases: &[(&str, &str)]) {
    let wrong: Vec<_> = cases
        .iter()
        .map(|(template, want)| (template, (*want).to_owned(), render(template)))
        .filter(|(_, want, got)| {
            got.strip_prefix("template parsing error: template: ").unwrap_or(got) != want
        })
        .collect();
    assert!(wrong.is_empty(), "(template, Docker's, ours): {wrong:#?}");
}

#[test]
fn values() {
    check(&[
        ("{{.Name}}", "default"),
        ("{{$.Name}}", "default"),
        ("{{.Networks.nope}}", "<no value>"),
        ("{{index .Networks \"nope\"}}", "<no value>"),
        ("{{index .Networks \"docker\"}}", "{unix:///var/run/docker.sock false}"),
        ("{{.Networks}}", "map[docker:{unix:///var/run/docker.sock false}]"),
        ("{{.Networks.docker.Host}}", "unix:///var/run/docker.sock"),
        ("{{(index .Networks \"docker\").Host}}", "unix:///var/run/docker.sock"),
        ("{{index .Name 0}}", "100"),
        ("{{len .Networks}}{{len (split \"a b\" \" \")}}", "12"),
        (
            "{{true}} {{1.0}} {{1.50}} {{1e30}} {{-3}} {{+3}} {{0b11}} {{1_000}}",
            "true 1 1.5 1e+30 -3 3 3 1000",
        ),
        ("{{`raw`}} {{'a'}} {{0x10}} {{1e3}}", "raw 97 16 1000"),
        ("{{\"a\\tb\"}}", "a\tb"),
        ("a\\tb\\nc", "a\\tb\\nc"),
        ("{{.1}}", "0.1"),
        ("{{$x := 1}}{{$x = 2}}{{$x}}", "2"),
        (
            "{{json .Storage}} {{.Storage.MetadataPath}}",
            concat!(r#"{"MetadataPath":"<IN MEMORY>","TLSPath":"<IN MEMORY>"}"#, " <IN MEMORY>"),
        ),
        ("{{json \"<a>&\"}}", "\"<a>&\""),
    ]);
}

#[test]
fn blanks_and_comments() {
    check(&[
        ("{{- \"x\" -}}  y", "xy"),
        ("{{/* c */}}z", "z"),
        ("{{/* a */ -}} x", "x"),
        ("{{ .Name -}} z", "defaultz"),
        ("{{- 3}}", "3"),
        ("{{-3}}", "-3"),
        ("a \n {{- 1 -}} \n b", "a1b"),
    ]);
}

#[test]
fn functions() {
    check(&[
        ("{{print \"a\" 1 2 true \"b\" \"c\" nil}}", "a1 2 truebc<nil>"),
        ("{{println 1 2 \"a\" \"b\" 3.5}}", "1 2 a b 3.5\n"),
        ("{{print 1 2 \"a\" \"b\" 3.5}}", "1 2ab3.5"),
        ("{{upper .Name}} {{title .Name}} {{lower \"ABC\"}}", "DEFAULT Default abc"),
        ("{{title \"hello wOrld\"}}", "Hello WOrld"),
        ("{{split \"28.2.2\" \".\"}} {{join (split \"28.2.2\" \".\") \"-\"}}", "[28 2 2] 28-2-2"),
        ("{{join (split \"a b\" \" \") \"-\" | upper}}", "A-B"),
        ("{{pad \"linux\" 2 3}}|{{truncate \"linux\" 3}}", "  linux   |lin"),
        ("{{slice \"linux\" 1 3}}", "in"),
        ("{{index (split \"28.2.2\" \".\") 1}}", "2"),
        ("{{\"a\" | printf \"%s-%s\" \"b\"}}", "b-a"),
        ("{{html \"<a>\"}} {{js \"a\\\"b\"}} {{urlquery \"a b\"}}", "&lt;a&gt; a\\\"b a+b"),
        ("{{not true}} {{and 1 0}} {{or 0 \"x\"}}", "false 0 x"),
        ("{{eq nil nil}}", "true"),
        ("{{eq .Name \"a\" \"default\"}}", "true"),
        ("{{ne 1 2}} {{ge 2 2}} {{gt \"b\" \"a\"}} {{le 1 0}}", "true true true false"),
    ]);
}

#[test]
fn printf_verbs() {
    check(&[
        ("{{printf \"%-10s|%q|%v|%d\" \"28.2.2\" \"linux\" \"amd64\" 3}}", "28.2.2    |\"linux\"|amd64|3"),
        (
            "{{printf \"%d\" \"x\"}} {{printf \"%s\" 3}} {{printf \"%v %v\" 1}}",
            "%!d(string=x) %!s(int=3) 1 %!v(MISSING)",
        ),
        ("{{printf \"%x\" \"hi\"}}", "6869"),
        (
            "{{printf \"%5.2f|%-5d|%05d|%+d|%t|%c|%U|%e|%g\" 3.14159 3 3 3 true 65 65 1.5 1.5}}",
            " 3.14|3    |00003|+3|true|A|U+0041|1.500000e+00|1.5",
        ),
        ("{{printf \"%%\"}} {{printf \"%z\" 1}}", "% %!z(int=1)"),
        ("{{printf \"%s\" .Networks}}", "map[docker:{unix:///var/run/docker.sock %!s(bool=false)}]"),
        ("{{printf \"%q\" (split \"a b\" \" \")}}", "[\"a\" \"b\"]"),
        ("{{printf \"%99999999999d\" 1}}", "%!(BADWIDTH)1"),
    ]);
}

#[test]
fn control() {
    check(&[
        ("{{if eq .Name \"default\" \"x\"}}yes{{else if false}}b{{else}}no{{end}}", "yes"),
        ("{{if false}}a{{else if true}}b{{else}}c{{end}}", "b"),
        ("{{if and .Name (eq .Name \"default\")}}A{{end}}", "A"),
        ("{{with $x := .Storage}}{{$x.TLSPath}} {{$.Name}}{{end}}", "<IN MEMORY> default"),
        ("{{with .Networks.x}}x{{else}}y{{end}}", "y"),
        ("{{with .Networks.x}}x{{else with .Name}}y{{.}}{{end}}", "ydefault"),
        ("{{range $k,$v := .Networks}}{{$k}}={{$v}}{{end}}", "docker={unix:///var/run/docker.sock false}"),
        ("{{range .Networks}}{{.SkipTLSVerify}}{{end}}", "false"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range split \"a,b,c\" \",\"}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{else}}none{{end}}", "ac"),
        ("{{range $i, $e := split \"a,b,c\" \",\"}}{{if $i}}{{break}}{{end}}{{$e}}{{end}}", "a"),
        ("{{range .Networks.none}}x{{else}}none{{end}}", "none"),
    ]);
}

#[test]
fn errors_of_syntax() {
    check(&[
        ("{{foo}}", ":1: function \"foo\" not defined"),
        ("{{trim \"x\"}}", ":1: function \"trim\" not defined"),
        ("{{.Client.Os", ":1: unclosed action"),
        ("{{if}}", ":1: missing value for if"),
        ("{{range}}", ":1: missing value for range"),
        ("{{end}}", ":1: unexpected {{end}}"),
        ("{{else}}", ":1: unexpected {{else}}"),
        ("{{if true}}x", ":1: unexpected EOF"),
        ("{{true.x}}", ":1: unexpected . after term \"true\""),
        ("{{$x}}", ":1: undefined variable \"$x\""),
        ("{{.Name | 3}}", ":1: non executable command in pipeline stage 2"),
        ("{{\"abc", ":1: unterminated quoted string"),
        ("{{'ab'}}", ":1: malformed character constant: 'ab'"),
        ("{{.Name}", ":1: bad character U+007D '}'"),
        ("{{.Name;}}", ":1: bad character U+003B ';'"),
        ("{{(.Name}}", ":1: unclosed left paren"),
        ("{{.Name)}}", ":1: unexpected right paren"),
        ("{{99999999999999999999}}", ":1: integer overflow: \"99999999999999999999\""),
        ("{{ /* a */ }}", ":1: unexpected \"/\" in command"),
        ("{{break}}", ":1: {{break}} outside {{range}}"),
        ("{{.Name.}}", ":1: unexpected <.> in operand"),
        ("{{..Name}}", ":1: unexpected . after term \".\""),
        ("\n\n{{end}}", ":3: unexpected {{end}}"),
        ("{{define \"x\"}}{{end}}", ":1: {{define}} is not supported in a format string"),
    ]);
}

#[test]
fn errors_of_evaluation() {
    check(&[
        ("{{.Nope}}", ":1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type object"),
        (
            "{{.Networks.docker.Nope}}",
            ":1:11: executing \"\" at <.Networks.docker.Nope>: can't evaluate field Nope in type object",
        ),
        ("{{.Name.Foo}}", ":1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string"),
        (
            "{{eq 1 1.0}}",
            ":1:2: executing \"\" at <eq 1 1.0>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{eq .Name 1}}",
            ":1:2: executing \"\" at <eq .Name 1>: error calling eq: incompatible types for comparison",
        ),
        (
            "{{lt \"a\" 1}}",
            ":1:2: executing \"\" at <lt \"a\" 1>: error calling lt: incompatible types for comparison",
        ),
        ("{{len 3}}", ":1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        (
            "{{index (split .Name \"\") 9}}",
            ":1:2: executing \"\" at <index (split .Name \"\") 9>: error calling index: index out of range: 9",
        ),
        (
            "{{range 9000000000}}{{end}}",
            ":1:8: executing \"\" at <9000000000>: range over 9000000000 is longer than 1000000",
        ),
        ("{{range .Name}}{{end}}", ":1:8: executing \"\" at <.Name>: range can't iterate over default"),
        (
            "{{join .Name \",\"}}",
            ":1:7: executing \"\" at <.Name>: wrong type for value; expected []string; got string",
        ),
        ("{{not}}", ":1:2: executing \"\" at <not>: wrong number of args for not: want 1 got 0"),
        ("{{json 1 2}}", ":1:2: executing \"\" at <json>: wrong number of args for json: want 1 got 2"),
        ("{{and}}", ":1:2: executing \"\" at <and>: wrong number of args for and: want at least 1 got 0"),
        ("{{upper 1}}", ":1:8: executing \"\" at <1>: expected string; found 1"),
        ("{{call 1}}", ":1:2: executing \"\" at <call 1>: error calling call: non-function 1 of type int"),
        (
            "{{slice .Name 1 99}}",
            ":1:2: executing \"\" at <slice .Name 1 99>: error calling slice: index out of range: 99",
        ),
        ("{{1 2}}", ":1:2: executing \"\" at <1>: can't give argument to non-function 1"),
        ("{{nil}}", ":1:2: executing \"\" at <nil>: nil is not a command"),
        (
            "{{.Name -3}}",
            ":1:2: executing \"\" at <.Name>: Name has arguments but cannot be invoked as function",
        ),
    ]);
}

#[test]
fn absent_lists_and_maps_print_as_gos() {
    let image = json!({"Config": {"Labels": null, "Entrypoint": null, "Healthcheck": null, "Env": ["A=1"]}});
    let render = |template: &str| {
        let result = Template::parse(template).and_then(|template| template.render(&image));
        result.unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(render("{{.Config.Labels}} {{.Config.Entrypoint}} {{.Config.Healthcheck}}"), "map[] [] <nil>");
    assert_eq!(render("{{.Config.Labels.foo}}|{{index .Config.Labels \"foo\"}}"), "<no value>|");
    assert_eq!(render("{{range .Config.Entrypoint}}x{{else}}none{{end}}"), "none");
    assert_eq!(render("{{range $k, $v := .Config.Labels}}x{{else}}none{{end}}"), "none");
    assert_eq!(render("{{join .Config.Env \",\"}} {{len .Config.Labels}}"), "A=1 0");
}

#[test]
fn nesting_has_a_limit() {
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(render(&parens).contains("nested deeper than"));
    let blocks = "{{if true}}".repeat(100_000);
    assert!(render(&blocks).contains("nested deeper than"));
    let chain = format!("{{{{if false}}}}{}{{{{end}}}}", "{{else if false}}".repeat(100_000));
    assert!(render(&chain).contains("nested deeper than"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is written there, the answer is text or an error.
    #[test]
    fn no_template_panics(parts in prop::collection::vec(prop::sample::select(vec![
        "{{", "}}", "{{- ", " -}}", ".", ".Name", ".Networks", "$", "$x", ":=", "=", "|", "(", ")", ",", " ", "\n", "/*", "*/",
        "if", "else", "end", "with", "range", "break", "continue", "index", "slice", "printf", "join", "split", "eq", "lt",
        "len", "pad", "truncate", "json", "nil", "true", "1", "-1", "2.5", "0x", "9223372036854775807", "\"", "\"%*.*d\"",
        "\"%v%q%x%05d\"", "'", "`", "\\", "é", "\u{0}",
    ]), 0..24)) {
        let _ = render(&parts.concat());
    }

    #[test]
    fn no_format_of_printf_panics(format in "%[-+# 0]{0,3}[0-9*]{0,3}(\\.[0-9*]{0,3})?[a-zA-Z%é]?", value in any::<i64>()) {
        let data = json!([value, "text", 1.5e300, null, {"a": [1]}, true]);
        let format = serde_json::to_string(&format).expect("JSON");
        for index in 0..6 {
            let template = format!("{{{{printf {format} (index . {index}) 3 4}}}}");
            let _ = Template::parse(&template).and_then(|template| template.render(&data));
        }
    }
}
