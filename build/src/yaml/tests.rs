//! Build files to Dockerfiles, and back.

use super::*;
use crate::dockerfile::instruction::{self, Kind};
use crate::dockerfile::lint::Linter;
use crate::dockerfile::syntax;

const WHOLE: &str = r#"
image: example.org/app:1
platforms: [linux/amd64, linux/arm64]
args:
  VERSION: "1.20"
  FLAVOUR: {default: slim, description: which variant of the base image}
stages:
  build:
    description: compiles
    from: golang:${VERSION}-${FLAVOUR}
    platform: $BUILDPLATFORM
    args: {TARGETARCH: }
    steps:
      - workdir: /src
      - copy: [go.mod, go.sum]
        to: ./
      - run: go mod download
        mounts:
          - {type: cache, target: /root/.cache}
          - {type: secret, id: netrc, target: "/root/a,b"}
      - copy: "a file"
        to: ./
        exclude: "*.md"
      - run: |
          set -e
          GOARCH=$TARGETARCH go build -o /out ./cmd
      - env: {GREETING: "it's \"$USER\" for $$5 \\ more"}
  app:
    from: scratch
    steps:
      - copy: /out
        from: build
        to: /app
        chmod: 0755
        link: true
      - write: /etc/app.conf
        content: |
          price=$5
          EOF
    config:
      entrypoint: [/app, --serve]
      ports: [80, 53/udp]
      user: 1000
      health: {cmd: [/app, --probe], interval: 30s, retries: 3}
      labels: {org.example.note: two words}
"#;

const SAME: &str = r#"ARG VERSION=1.20
# FLAVOUR which variant of the base image
ARG FLAVOUR=slim

# build compiles
FROM --platform=$BUILDPLATFORM golang:${VERSION}-${FLAVOUR} AS build
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/root/.cache --mount="type=secret,id=netrc,\"target=/root/a,b\"" go mod download
COPY --exclude=*.md ["a file", "./"]
RUN <<'EOF'
set -e
GOARCH=$TARGETARCH go build -o /out ./cmd
EOF
ENV GREETING="it's \"$USER\" for \$5 \\ more"

FROM scratch AS app
COPY --from=build --chmod=0755 --link=true /out /app
COPY <<'EOF_' /etc/app.conf
price=$5
EOF
EOF_
LABEL org.example.note="two words"
EXPOSE 80
EXPOSE 53/udp
USER 1000
HEALTHCHECK --interval=30s --retries=3 CMD ["/app", "--probe"]
ENTRYPOINT ["/app", "--serve"]
"#;

fn document(dockerfile: &str) -> instruction::Document {
    let file = syntax::parse(dockerfile).unwrap();
    instruction::document(&file, &mut Linter::default()).unwrap()
}

#[test]
fn a_build_file_is_a_dockerfile() {
    let file = BuildFile::read(WHOLE).unwrap();
    assert_eq!(file.dockerfile, SAME);
    assert_eq!(file.lines.len(), SAME.lines().count());
    let target = &file.targets[0];
    assert_eq!((target.name.as_str(), &target.images[..]), ("app", &["example.org/app:1".to_owned()][..]));
    assert_eq!(target.platforms, ["linux/amd64", "linux/arm64"]);

    let document = document(&file.dockerfile);
    let stage = &document.stages[0];
    assert_eq!((stage.name.as_deref(), stage.description.as_deref()), (Some("build"), Some("compiles")));
    let Kind::Run(run) = &stage.instructions[3].kind else { panic!("{:?}", stage.instructions[3]) };
    assert_eq!(run.mounts[1], "type=secret,id=netrc,\"target=/root/a,b\"");
    // Where it comes from.
    let origin = file.origin(stage.instructions[3].lines);
    assert_eq!(WHOLE.lines().nth(origin.first as usize - 1).unwrap().trim(), "- run: go mod download");
}

#[test]
fn there_and_back_says_the_same() {
    let again = from_dockerfile(&document(SAME)).unwrap();
    let file = BuildFile::read(&again).unwrap_or_else(|error| panic!("{error}\n{again}"));
    let (one, two) = (document(SAME), document(&file.dockerfile));
    for (one, two) in one.stages.iter().zip(&two.stages) {
        let kinds = |stage: &instruction::Stage| -> Vec<String> {
            let mut kinds: Vec<String> = stage.instructions.iter().map(|i| format!("{:?}", i.kind)).collect();
            // What belongs to the config comes last.
            kinds.sort();
            kinds
        };
        assert_eq!(kinds(one), kinds(two), "{again}\n{}", file.dockerfile);
        assert_eq!((&one.base, &one.name, &one.platform), (&two.base, &two.name, &two.platform));
    }
}

#[test]
fn several_targets_share_stages() {
    let text = "stages:\n  base: {from: busybox}\n  one: {from: base}\n  two: {from: base}\n\
        targets:\n  one: {image: [\"a:1\", \"a:2\"]}\n  second: {stage: two, platforms: linux/arm64}\n";
    let file = BuildFile::read(text).unwrap();
    let told: Vec<_> =
        file.targets.iter().map(|t| (t.name.as_str(), t.stage.as_str(), t.images.len())).collect();
    assert_eq!(told, [("one", "one", 2), ("second", "two", 0)]);
}

#[test]
fn what_is_wrong_has_a_place_and_a_remedy() {
    for (text, line, part) in [
        ("stages:\n  a:\n    form: scratch\n", 3, "did you mean \"from\""),
        ("stages:\n  a:\n    from: scratch\n    steps:\n      - runn: x\n", 5, "did you mean \"run\""),
        ("stages:\n  a:\n    from: scratch\n    steps:\n      - run: x\n        copy: y\n", 5, "one thing"),
        ("stages:\n  a:\n    from: scratch\n    steps:\n      - chmod: \"1\"\n", 5, "needs one of"),
        (
            "stages:\n  a:\n    from: scratch\n    steps:\n      - run: x\n        to: y\n",
            5,
            "not go with run",
        ),
        ("stages:\n  a:\n    from: scratch\n    steps:\n      - copy: x\n", 5, "needs to"),
        ("stages:\n  a:\n    from: scratch\n  a:\n    from: b\n", 4, "twice"),
        ("stages:\n  a: {steps: []}\n", 2, "no from"),
        ("stages:\n  a:\n    from: scratch\n    config:\n      ports: 1.5\n", 5, "quotes"),
        ("stages: []\n", 1, "mapping"),
        ("image: x\n", 0, "no stages"),
        ("stages:\n  a:\n    from: scratch\n    steps:\n      - env: {X: \"a\\nb\"}\n", 5, "line break"),
        ("stages:\n  a: {from: scratch}\ntargets:\n  b: {}\n", 4, "names no stage"),
        ("image: x\nstages:\n  a: {from: scratch}\ntargets:\n  a: {}\n", 0, "give one of the two"),
    ] {
        let error = BuildFile::read(text).unwrap_err();
        assert!(error.problem.contains(part), "{text}: {error:?}");
        assert_eq!(error.line, line, "{text}: {error:?}");
    }
}

#[test]
fn bombs_and_oddities_end_in_an_error() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let below = format!("*a{}, ", n - 1).repeat(10);
        bomb += &format!("a{n}: &a{n} [{below}]\n");
    }
    BuildFile::read(&bomb).unwrap_err();
    BuildFile::read(&"[".repeat(100_000)).unwrap_err();
    BuildFile::read("image: [\n").unwrap_err();
    BuildFile::read(&" ".repeat(MAX_FILE + 1)).unwrap_err();
}

/// Every key of the model is in the schema, and the other way around: the model names what it knows.
#[test]
fn the_schema_has_the_keys_of_the_model() {
    let schema: serde_json::Value = serde_json::from_str(schema()).unwrap();
    for (definition, text) in [
        ("", "?: 1\n"),
        ("stage", "stages: {a: {?: 1}}\n"),
        ("target", "targets: {a: {?: 1}}\n"),
        ("step", "stages: {a: {steps: [{?: 1}]}}\n"),
        ("mount", "stages: {a: {steps: [{mounts: [{?: 1}]}]}}\n"),
        ("config", "stages: {a: {config: {?: 1}}}\n"),
        ("health", "stages: {a: {config: {health: {?: 1}}}}\n"),
    ] {
        let error = BuildFile::read(&text.replace('?', "zzzzzzzzzzzz")).unwrap_err().problem;
        let known = error.split("(known: ").nth(1).unwrap_or_else(|| panic!("{error}")).trim_end_matches(')');
        let mut known: Vec<&str> = known.split(", ").collect();
        known.sort_unstable();
        let object = if definition.is_empty() { &schema } else { &schema["$defs"][definition] };
        let mut told: Vec<&str> =
            object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        told.sort_unstable();
        assert_eq!(known, told, "{definition}");
    }
}

#[test]
fn the_examples_of_the_documentation_are_build_files() {
    let page = include_str!("../../../docs/build-file.md");
    let examples: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let file = BuildFile::read(example).unwrap_or_else(|error| panic!("{error:?}\n{example}"));
        assert!(!document(&file.dockerfile).stages.is_empty());
    }
}
