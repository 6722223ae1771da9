use super::*;
use crate::dockerfile::syntax;
use crate::graph::Sharing;

fn document_of(text: &str) -> Result<Document, Diagnostic> {
    document(&syntax::parse(text).unwrap(), &mut Linter::default())
}

fn kind(line: &str) -> Kind {
    document_of(&format!("FROM x\n{line}")).unwrap().stages.remove(0).instructions.remove(0).kind
}

fn refusal(line: &str) -> String {
    document_of(&format!("FROM x\n{line}")).unwrap_err().to_string()
}

fn mount(text: &str) -> Result<Mount, String> {
    Mount::read(text, Lines::default(), |value| Ok(value.to_owned())).map_err(|problem| problem.to_string())
}

#[test]
fn stages_and_global_arguments() {
    let document =
        document_of("ARG A=1 B\n# build makes it\nfrom --platform=$P a as Build\nRUN x\nFROM b").unwrap();
    assert_eq!(document.arguments.len(), 1);
    let stage = &document.stages[0];
    assert_eq!(stage.name.as_deref(), Some("build"));
    assert_eq!(stage.platform.as_deref(), Some("$P"));
    assert_eq!(stage.description.as_deref(), Some("makes it"));
    assert_eq!(document_of("RUN x").unwrap_err().to_string(), "no build stage in current context");
}

#[test]
fn refusals_are_buildkits() {
    for (line, text) in [
        ("BADCMD", "dockerfile parse error on line 2: unknown instruction: BADCMD"),
        (
            "FNTRYPOINT x",
            "dockerfile parse error on line 2: unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)",
        ),
        ("COPY --foo a b", "dockerfile parse error on line 2: unknown flag: --foo (did you mean from?)"),
        ("RUN --mont=x y", "dockerfile parse error on line 2: unknown flag: --mont (did you mean mount?)"),
        (
            "COPY a",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. \
             Destination could not be determined",
        ),
        ("FROM a b", "dockerfile parse error on line 2: FROM requires either one or three arguments"),
        ("HEALTHCHECK", "dockerfile parse error on line 2: HEALTHCHECK requires at least one argument"),
        (
            "ONBUILD ONBUILD x",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "RUN --mount=from=$x,target=/a b",
            "dockerfile parse error on line 2: 'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("SHELL sh", "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form"),
        (
            "COPY --link=maybe a b",
            "dockerfile parse error on line 2: expecting boolean value for flag link, not: maybe",
        ),
        ("COPY --chown=a --chown=b c d", "dockerfile parse error on line 2: duplicate flag specified: chown"),
    ] {
        assert_eq!(refusal(line), text, "{line}");
    }
}

#[test]
fn copies_and_heredocs() {
    let Kind::Copy(copy) = kind("COPY --chown=1:2 --exclude=*.o --exclude=x --link a <<-E /d/\n\ta $b\n\tE")
    else {
        panic!("a copy");
    };
    assert_eq!((copy.sources.as_slice(), copy.destination.as_str()), (&["a".to_owned()][..], "/d/"));
    assert_eq!(copy.contents[0].content, "a $b\n");
    assert!(copy.link && copy.contents[0].expand);
    assert_eq!(copy.exclude, ["*.o", "x"]);
    let Kind::Onbuild(text) = kind("ONBUILD  RUN <<E\na\nE") else { panic!("a trigger") };
    assert_eq!(text, "RUN <<E\na\nE");
}

#[test]
fn health_checks() {
    let Kind::Healthcheck(check) = kind("HEALTHCHECK --interval=1m --retries=3 CMD curl  x") else {
        panic!("a check")
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl  x"]);
    assert_eq!((check.interval, check.retries), (60_000_000_000, 3));
    assert_eq!(
        refusal("HEALTHCHECK --interval=1us CMD x"),
        "dockerfile parse error on line 2: Interval \"interval\" cannot be less than 1ms"
    );
}

#[test]
fn mounts() {
    let cache = mount("type=cache,\"target=/a,b\",sharing=locked,uid=7,mode=0700").unwrap();
    assert_eq!((cache.kind, cache.target.as_deref()), (MountType::Cache, Some("/a,b")));
    assert_eq!((cache.sharing, cache.uid, cache.mode), (Some(Sharing::Locked), Some(7), Some(0o700)));
    assert!(!cache.read_only && mount("target=/a").unwrap().read_only);
    assert!(!mount("target=/a,rw").unwrap().read_only);
    assert_eq!(mount("type=tmpfs,target=/a,size=1.5m").unwrap().size, Some(3 << 19));
    assert_eq!(mount("type=secret,id=a,env=A,required").unwrap().env.as_deref(), Some("A"));
    for (text, message) in [
        ("typ=tmpfs", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
        ("type=tmp", "unsupported mount type \"tmp\" (did you mean tmpfs?)"),
        ("target=/a,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=bind,uid=0", "uid not allowed for \"bind\" type mounts"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=ssh,uid=4294967296", "invalid value 4294967296 for uid"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("a\"b", "failed to parse csv mounts: a\"b"),
    ] {
        assert_eq!(mount(text).unwrap_err(), message, "{text}");
    }
    assert_eq!(mount::from("type=bind,from=build"), Some("build".to_owned()));
}

#[test]
fn devices() {
    let Kind::Run(run) = kind("RUN --device=vendor/class=a,required --device=b x") else { panic!("a run") };
    assert_eq!(run.devices[0], Device { name: "vendor/class=a".into(), optional: false });
    assert!(run.devices[1].optional);
}
