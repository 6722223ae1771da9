use std::collections::BTreeMap;

use onggi_oci::{Digest, ErrorKind};

use super::*;
use crate::graph::{MountKind, Op};
use crate::images::ResolvedImage;

/// Images by name; all others are missing.
struct Fake(BTreeMap<&'static str, ImageConfig>);

impl Images for Fake {
    fn resolve(&self, image: &ImageSource, _: &Platform) -> crate::Result<ResolvedImage> {
        let name = image.reference.trim_start_matches("docker.io/library/").trim_end_matches(":latest");
        match self.0.get(name) {
            Some(config) => {
                Ok(ResolvedImage { manifest: Digest::sha256(name.as_bytes()), config: config.clone() })
            }
            None => Err(crate::Error::Caller {
                op: "resolve",
                object: image.reference.clone(),
                kind: ErrorKind::NotFound,
                source: "not found".into(),
            }),
        }
    }
}

fn images() -> Fake {
    let mut base = stage::empty_config(&linux());
    base.rootfs.diff_ids = vec![onggi_oci::DiffId(Digest::sha256(b"layer"))];
    base.config.cmd = Some(vec!["sh".to_owned()]);
    let mut trigger = base.clone();
    trigger.config.on_build = vec!["COPY --from=other /a /b".to_owned(), "ENV T=1".to_owned()];
    Fake([("busybox", base.clone()), ("other", base), ("trigger", trigger)].into())
}

fn linux() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn options() -> Options {
    Options { file: "Dockerfile".to_owned(), build_platform: Some(linux()), ..Options::default() }
}

fn planned_with(text: &str, options: &Options) -> (Plan, Graph) {
    let mut graph = Graph::default();
    let plan = plan(text, options, &images(), &mut graph).unwrap_or_else(|error| panic!("{error}"));
    (plan, graph)
}

fn planned(text: &str) -> (Plan, Graph) {
    planned_with(text, &options())
}

fn refusal(text: &str) -> String {
    plan(text, &options(), &images(), &mut Graph::default()).unwrap_err().to_string()
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect()
}

#[test]
fn only_needed_stages_are_planned() {
    let (plan, graph) = planned(
        "FROM missing AS unneeded\nRUN x\nFROM busybox AS build\nRUN make\nFROM scratch\nCOPY --from=build /a /b/",
    );
    assert_eq!(
        names(&graph),
        [
            &format!("[build 1/2] FROM docker.io/library/busybox:latest@{}", Digest::sha256(b"busybox")),
            "[build 2/2] RUN make",
            "[stage-2 1/1] COPY --from=build /a /b/",
        ]
    );
    assert_eq!(plan.target.vertex, Some(VertexId(2)));
    assert_eq!(graph.targets.len(), 1);
}

#[test]
fn config_and_history_are_buildkits() {
    let (plan, _) = planned(
        "FROM busybox\nARG A=1\nENV B=$A\nRUN [\"x\"]\nEXPOSE 80 1-2/udp\nHEALTHCHECK --interval=90s CMD x\nVOLUME a b\n\
         WORKDIR c\nUSER me\nSTOPSIGNAL 9\nSHELL [\"bash\",\"-c\"]\nCMD go\nENTRYPOINT [\"e\"]\nLABEL l=\"m n\"\nMAINTAINER me",
    );
    let history: Vec<_> =
        plan.target.config.history.iter().map(|entry| entry.created_by.clone().unwrap()).collect();
    assert_eq!(
        history,
        [
            "ARG A=1",
            "ENV B=1",
            "RUN |1 A=1 x # buildkit",
            "EXPOSE [1/udp 2/udp 80/tcp]",
            "HEALTHCHECK {Test:[CMD-SHELL x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "VOLUME [a b]",
            "WORKDIR /c",
            "USER me",
            "STOPSIGNAL 9",
            "SHELL [bash -c]",
            "CMD [\"bash\" \"-c\" \"go\"]",
            "ENTRYPOINT [\"e\"]",
            "LABEL l=m n",
            "MAINTAINER me",
        ]
    );
    let config = &plan.target.config.config;
    assert_eq!(config.cmd.as_ref().unwrap().len(), 3);
    assert!(config.env.contains(&"B=1".to_owned()) && !config.env.iter().any(|env| env.starts_with("A=")));
    assert_eq!(plan.target.config.author.as_deref(), Some("me"));
    // An entry point without a command of the stage's own takes away the base's.
    assert_eq!(planned("FROM busybox\nENTRYPOINT [\"e\"]").0.target.config.config.cmd, None);
}

#[test]
fn variables_come_from_where_they_should() {
    let mut options = options();
    options.build_args =
        [("V", "flag"), ("HTTP_PROXY", "http://p")].map(|(k, v)| (k.into(), v.into())).into();
    let (plan, graph) = planned_with(
        "ARG V=global\nARG W=$V-w\nFROM busybox AS a\nARG V\nARG W\nARG TARGETARCH\nFROM a\nRUN x",
        &options,
    );
    let Op::Exec(exec) = &graph.vertices[1].op else { panic!("a program") };
    for expected in ["V=flag", "W=flag-w", "TARGETARCH=amd64", "HTTP_PROXY=http://p"] {
        assert!(exec.env.iter().any(|env| env == expected), "{expected} in {:?}", exec.env);
    }
    assert_eq!(exec.unkeyed_env, ["HTTP_PROXY", "http_proxy"]);
    let run = plan.target.config.history.last().unwrap().created_by.clone().unwrap();
    assert_eq!(run, "RUN |3 V=flag W=flag-w TARGETARCH=amd64 /bin/sh -c x # buildkit");
    let used: Vec<_> = plan.outline.arguments.iter().map(|argument| argument.name.as_str()).collect();
    // An argument that was given counts as declared where the stage asks for it.
    assert_eq!(used, ["W", "V"]);
}

#[test]
fn triggers_run_first_and_may_need_images() {
    let (plan, graph) = planned("FROM trigger\nRUN x");
    assert!(names(&graph).iter().any(|name| name.ends_with("ONBUILD COPY --from=other /a /b")), "{graph:?}");
    assert!(plan.target.config.config.env.contains(&"T=1".to_owned()));
    assert!(plan.target.config.config.on_build.is_empty());
    let (plan, _) = planned("FROM busybox AS a\nONBUILD ENV X=1\nFROM a AS b\nFROM b");
    assert_eq!(plan.target.config.config.env.iter().filter(|env| *env == "X=1").count(), 1);
}

#[test]
fn mounts_and_heredocs() {
    let (plan, graph) = planned(
        "FROM busybox\nWORKDIR /w\nRUN --mount=type=cache,target=c --mount=type=secret,id=s,env=S --mount=type=ssh \
         --mount=from=other,target=/o <<E\n#!/bin/x\nE\nCOPY <<F <<'G' /d/\n$PATH\nF\n$PATH\nG",
    );
    let exec = graph.vertices.iter().find_map(|vertex| match &vertex.op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    });
    let exec = exec.unwrap();
    assert_eq!(exec.args, ["/bin/sh", "-c", "/dev/pipes/E"]);
    assert!(exec.env.contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned()));
    let targets: Vec<_> = exec.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/dev/pipes", "/w/c", "/run/secrets/s", "/run/buildkit/ssh_agent.0", "/o"]);
    assert!(matches!(&exec.mounts[1].kind, MountKind::Cache(cache) if cache.id == "c"));
    let contents: Vec<_> = graph
        .vertices
        .iter()
        .filter_map(|vertex| match &vertex.op {
            Op::File(file) => match file.actions.first() {
                Some(crate::graph::FileAction::Mkfile(file)) => Some(String::from_utf8_lossy(&file.content)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(contents[2], "$PATH\n");
    assert!(contents[1].starts_with("/usr/local/sbin"));
    assert_eq!(plan.outline.secrets[0].name, "s");
    assert_eq!(plan.outline.ssh[0].name, "default");
}

#[test]
fn links_do_not_depend_on_what_is_below() {
    let (_, graph) = planned("FROM busybox\nCOPY --link a b");
    let Op::Merge(inputs) = &graph.vertices.last().unwrap().op else { panic!("a merge") };
    assert_eq!(inputs.len(), 2);
    assert_eq!(graph.vertex(inputs[1]).name, "[2/2] COPY --link a b");
    assert_eq!(graph.vertices.last().unwrap().name, "[2/2] LINK COPY --link a b");
}

#[test]
fn contexts_replace_stages_and_images() {
    let mut options = options();
    options.contexts.insert("base".to_owned(), Context::Local { name: "base".to_owned(), ignore: vec![] });
    options.contexts.insert(
        "missing".to_owned(),
        Context::Image(ImageSource {
            reference: "docker.io/library/other:latest".to_owned(),
            place: crate::graph::ImagePlace::Registry,
            manifest: None,
        }),
    );
    let (_, graph) =
        planned_with("FROM nonsense AS base\nRUN x\nFROM missing\nCOPY --from=base . /", &options);
    assert!(names(&graph).contains(&"[internal] load context base"));
    assert!(names(&graph)[1].contains("FROM docker.io/library/other"), "{:?}", names(&graph));
}

#[test]
fn refusals_are_buildkits() {
    for (text, message) in [
        ("FROM $X", "base name ($X) should not be blank"),
        ("FROM Bad", "failed to parse stage name \"Bad\": "),
        ("FROM missing", "missing: "),
        ("FROM busybox\nCOPY --chmod=64a a b", "invalid chmod parameter: '64a'. it should be octal string"),
        (
            "FROM busybox AS a\nCOPY --from=b /x /\nFROM a AS b",
            "cannot copy from stage \"b\", it needs to be defined",
        ),
        (
            "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /",
            "circular dependency detected on stage: a",
        ),
        ("FROM busybox\nADD --checksum=x a b", "checksum requires HTTP(S) or Git sources"),
        ("FROM busybox\nCOPY https://x/y /", "source can't be a URL for COPY"),
        ("FROM busybox\nSTOPSIGNAL x", "invalid signal: x"),
        ("FROM busybox\nRUN --mount=target=/ x", "invalid mount target \"/\""),
        ("ARG SOURCE_DATE_EPOCH=x\nFROM scratch", "invalid SOURCE_DATE_EPOCH: x"),
        ("# check=error=true\nFROM scratch as a", "lint violation found for rules: FromAsCasing"),
    ] {
        let said = refusal(text);
        assert!(said.starts_with(message), "{text}: {said}");
    }
}

#[test]
fn what_grows_has_a_limit() {
    let many = |line: &str, count: usize| format!("FROM busybox\n{}", line.repeat(count));
    assert_eq!(
        refusal(&many("FROM busybox\n", MAX_STAGES)),
        "there are 2049 stages, more than the limit of 2048"
    );
    let variables: String = (0..2100).map(|n| format!("ENV v{n}=1\n")).collect();
    assert!(
        refusal(&format!("FROM busybox\n{variables}")).contains("variables, more than the limit of 2000")
    );
    let doubled = "ENV x=$x$x$x$x\n".repeat(12);
    assert!(
        refusal(&format!("FROM busybox\nENV x=0123456789\n{doubled}"))
            .contains("more than the limit of 4194304")
    );
    let long = format!("LABEL l={}\n", "a".repeat(60_000)).repeat(20);
    let stages: String = (1..300).map(|n| format!("FROM s{} AS s{n}\n", n - 1)).collect();
    let said = refusal(&format!("FROM busybox AS s0\n{long}{stages}"));
    assert_eq!(said, "what the stages take over from each other has more than 268435456 bytes");
    // Each image is asked for once, however often it is copied from.
    let (_, graph) = planned(&many("COPY --from=other /a /b\n", 500));
    assert_eq!(graph.vertices.iter().filter(|vertex| matches!(vertex.op, Op::Image(_))).count(), 2);
}

proptest::proptest! {
    #[test]
    fn nothing_panics(lines in proptest::collection::vec(
        "(FROM|COPY|ADD|RUN|ENV|ARG|WORKDIR|EXPOSE|ONBUILD|HEALTHCHECK|VOLUME|LABEL|CMD|STOPSIGNAL) (--[a-z]{2,5}=?)?(busybox|scratch|a|\\$\\{?A|[=:./\\\\ -]| ){0,8}", 0..8)) {
        let _ = plan(&format!("FROM busybox AS a\n{}", lines.join("\n")), &options(), &images(), &mut Graph::default());
    }
}
