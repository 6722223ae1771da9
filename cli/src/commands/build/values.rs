//! The grammar of values of `onggi build`.

use std::path::PathBuf;
use std::str::FromStr;

use onggi_engine::build::builder::graph::{Network, Ulimit};
use onggi_engine::build::builder::solve::ShellState;
use onggi_engine::build::{LockMode, Output, Secret};
use onggi_engine::oci::Reference;

use crate::failure::Failure;

/// The largest secret, as in BuildKit.
const MAX_SECRET: u64 = 500 << 10;

/// `--progress`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressKind {
    /// A live tree on a terminal, else lines.
    Auto,
    /// Lines with the numbers of steps.
    Plain,
    /// A live tree.
    Tty,
    /// Nothing.
    Quiet,
    /// One JSON object a line.
    Rawjson,
    /// Nothing, also no errors of steps.
    None,
}

impl ProgressKind {
    /// What is meant, on a terminal or not.
    pub fn choose(wished: Option<Self>, quiet: bool, terminal: bool) -> Self {
        let wished = wished.or_else(|| {
            let text = std::env::var("BUILDKIT_PROGRESS").ok()?;
            <Self as clap::ValueEnum>::from_str(&text, true).ok()
        });
        match wished {
            _ if quiet => Self::Quiet,
            None | Some(Self::Auto) if terminal => Self::Tty,
            None | Some(Self::Auto) => Self::Plain,
            Some(kind) => kind,
        }
    }
}

/// `--network`: the mode, and the network's name if it is one.
pub fn network(text: &str) -> Result<(Network, Option<String>), Failure> {
    Ok(match text {
        "" | "default" | "bridge" => (Network::Default, None),
        "none" => (Network::None, None),
        "host" => (Network::Host, None),
        _ if text.starts_with("container:") => {
            return Err(Failure::Input(format!(
                "--network {text} is not supported by build: the steps of a build join no container (known are default, none, host and names of networks)"
            )));
        }
        name => (Network::Default, Some(name.to_owned())),
    })
}

/// `--debug-shell`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DebugShell {
    /// As the program left it.
    Failed,
    /// As it was before.
    Before,
}

impl DebugShell {
    pub fn state(self) -> ShellState {
        match self {
            Self::Failed => ShellState::Failed,
            Self::Before => ShellState::Before,
        }
    }
}

/// `--explain`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExplainFormat {
    /// Sentences beside the steps.
    Text,
    /// An array of JSON at the end.
    Json,
}

/// `--call`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallAs {
    pub method: String,
    pub json: bool,
    pub ignore_status: bool,
}

impl CallAs {
    pub fn check() -> Self {
        Self { method: "check".into(), json: false, ignore_status: false }
    }

    pub fn is_build(&self) -> bool {
        self.method == "build"
    }
}

impl FromStr for CallAs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let method = match parts.next().unwrap_or_default() {
            "" | "build" => "build",
            "check" | "lint" => "check",
            "outline" => "outline",
            "targets" => "targets",
            other => {
                return Err(format!("unknown method {other:?}: known are build, check, outline, targets"));
            }
        };
        let mut call = Self { method: method.into(), json: false, ignore_status: false };
        for part in parts {
            match part.split_once('=').unwrap_or((part, "true")) {
                ("format", "json") => call.json = true,
                ("format", "text") => call.json = false,
                ("ignorestatus", value) => call.ignore_status = value == "true",
                _ => {
                    return Err(format!(
                        "unknown option {part:?}: known are format=json|text, ignorestatus=true"
                    ));
                }
            }
        }
        Ok(call)
    }
}

/// `--secret`
#[derive(Clone, Debug)]
pub struct SecretSpec {
    id: String,
    file: Option<PathBuf>,
    variable: Option<String>,
}

impl FromStr for SecretSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("invalid field {part:?} must be a key=value pair"))?;
            match key.to_ascii_lowercase().as_str() {
                "id" => id = Some(value.to_owned()),
                "src" | "source" => file = Some(PathBuf::from(value)),
                "env" => variable = Some(value.to_owned()),
                "type" => kind = Some(value.to_owned()),
                other => return Err(format!("unexpected key {other:?} in {part:?}")),
            }
        }
        match kind.as_deref() {
            None | Some("file") => {}
            // With this type, `src` names a variable.
            Some("env") => {
                variable = variable.or_else(|| file.take().map(|name| name.to_string_lossy().into_owned()));
            }
            Some(other) => return Err(format!("unsupported secret type {other:?}")),
        }
        let id = id.or_else(|| variable.clone()).ok_or("id is missing")?;
        Ok(Self { id, file, variable })
    }
}

impl SecretSpec {
    /// Its value; `None` where the environment has none.
    pub fn read(&self) -> Result<Option<Secret>, Failure> {
        use std::io::Read;
        if let Some(file) = &self.file {
            let what = format!("read the secret {} from {}", self.id, file.display());
            let mut value = Vec::new();
            std::fs::File::open(file)
                .and_then(|opened| opened.take(MAX_SECRET + 1).read_to_end(&mut value))
                .map_err(Failure::local(what))?;
            if value.len() as u64 > MAX_SECRET {
                return Err(Failure::Input(format!("the secret {} is larger than 500 kB", self.id)));
            }
            return Ok(Some(Secret { id: self.id.clone(), value }));
        }
        let name = self.variable.as_ref().unwrap_or(&self.id);
        let value = std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec);
        if value.is_none() && self.variable.is_none() {
            // As a file in the working directory.
            let file = PathBuf::from(&self.id);
            if file.is_file() {
                return Self { file: Some(file), ..self.clone() }.read();
            }
        }
        Ok(value.map(|value| Secret { id: self.id.clone(), value }))
    }
}

/// `--ssh`
#[derive(Clone, Debug)]
pub struct SshSpec {
    id: String,
    socket: Option<PathBuf>,
}

impl FromStr for SshSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, socket) = match text.split_once('=') {
            Some((id, path)) => (id, Some(PathBuf::from(path))),
            None => (text, None),
        };
        if id.is_empty() {
            return Err("a name is missing".into());
        }
        Ok(Self { id: id.to_owned(), socket })
    }
}

impl SshSpec {
    pub fn resolve(&self) -> Result<(String, PathBuf), Failure> {
        use std::os::unix::fs::FileTypeExt;
        let socket = self.socket.clone().or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from));
        let Some(socket) = socket else {
            return Err(Failure::Input(format!(
                "invalid empty ssh agent socket for --ssh {}: set SSH_AUTH_SOCK",
                self.id
            )));
        };
        let meta = std::fs::metadata(&socket)
            .map_err(Failure::local(format!("use the ssh agent {}", socket.display())))?;
        if !meta.file_type().is_socket() {
            return Err(Failure::Input(format!(
                "--ssh {}={} is not supported: it is no socket of an agent (add keys to an agent with ssh-add)",
                self.id,
                socket.display()
            )));
        }
        Ok((self.id.clone(), socket))
    }
}

/// `[manifest:]KEY=VALUE`
pub fn annotation(text: &str) -> Result<(String, String), Failure> {
    let bad = || Failure::Input(format!("invalid annotation {text:?}: expected KEY=VALUE"));
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let key = match key.split_once(':') {
        Some(("manifest", key)) => key,
        Some(("index" | "manifest-descriptor" | "index-descriptor", _)) => {
            return Err(Failure::Input(format!(
                "--annotation {text} is not supported: only manifests get annotations"
            )));
        }
        _ => key,
    };
    if key.is_empty() { Err(bad()) } else { Ok((key.to_owned(), value.to_owned())) }
}

pub fn ulimit(limit: &onggi_engine::run::Ulimit) -> Ulimit {
    let number = |value: u64| i64::try_from(value).unwrap_or(-1);
    Ulimit { name: limit.name.clone(), soft: number(limit.soft), hard: number(limit.hard) }
}

/// `--lock`
pub fn lock_mode(text: &str) -> Result<LockMode, String> {
    match text {
        "use" | "true" => Ok(LockMode::Use),
        "update" => Ok(LockMode::Update),
        other => Err(format!("unknown mode {other:?}: known are use and update")),
    }
}

/// `ONGGI_BUILD_CACHE_LIMIT`: the most that the build cache may have.
pub fn cache_limit() -> Result<Option<u64>, Failure> {
    let Some(text) = std::env::var("ONGGI_BUILD_CACHE_LIMIT").ok().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let limit = crate::commands::run::values::positive_size(&text);
    limit.map(Some).map_err(|why| Failure::Input(format!("ONGGI_BUILD_CACHE_LIMIT is {text:?}: {why}")))
}

/// `key=value` of a list with commas; values in double quotes may have commas (CSV, as Go reads it).
pub fn fields(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => parts.push(String::new()),
            other => parts.last_mut().into_iter().for_each(|part| part.push(other)),
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    let split = |part: &String| {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is no key=value"))?;
        Ok((key.trim().to_ascii_lowercase(), value.to_owned()))
    };
    parts.iter().map(split).collect()
}

/// A truth value as Go's `strconv.ParseBool` reads it.
pub fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// `--output`, `--push` and `--load` together.
pub fn outputs(words: &[String], push: bool, load: bool) -> Result<Vec<Output>, Failure> {
    let mut outputs = words.iter().map(|text| output(text)).collect::<Result<Vec<_>, _>>()?;
    if load {
        outputs.push(Output::Image(Vec::new()));
    }
    if push {
        outputs.push(Output::Registry(Vec::new()));
    }
    if outputs.is_empty() {
        outputs.push(Output::Image(Vec::new()));
    }
    Ok(outputs)
}

fn output(text: &str) -> Result<Output, Failure> {
    let bad = |why: String| Failure::Input(format!("invalid output {text:?}: {why}"));
    if !text.contains('=') {
        return Ok(if text == "-" { Output::Tar(None) } else { Output::Local(text.into()) });
    }
    let (mut kind, mut dest, mut tar, mut push, mut names) = (String::new(), None, None, None, Vec::new());
    for (key, value) in fields(text).map_err(bad)? {
        match key.as_str() {
            "type" => kind = value,
            "dest" => dest = Some(value),
            "tar" => tar = Some(truth(&value).map_err(bad)?),
            "push" => push = Some(truth(&value).map_err(bad)?),
            "name" => {
                for name in value.split(',') {
                    let name = name.parse::<Reference>().map_err(|error| bad(error.to_string()))?;
                    if name.digest().is_some() {
                        return Err(bad(format!("{name} has a digest, which can't be given to an image")));
                    }
                    names.push(name);
                }
            }
            // So it is anyway.
            "oci-mediatypes" | "rewrite-timestamp" if truth(&value).map_err(bad)? => {}
            "oci-mediatypes" | "rewrite-timestamp" => {
                return Err(bad(format!("{key}={value} is not supported, only {key}=true")));
            }
            other => return Err(bad(format!("the option {other} is not supported"))),
        }
    }
    let of_images = matches!(kind.as_str(), "image" | "registry");
    for (key, given, fits) in [
        ("dest", dest.is_some(), !of_images),
        ("tar", tar.is_some(), kind == "oci"),
        ("push", push.is_some(), of_images),
        ("name", !names.is_empty(), of_images),
    ] {
        if given && !fits {
            return Err(bad(format!("the option {key} does not go with type={kind}")));
        }
    }
    let path = dest.filter(|dest| dest != "-").map(PathBuf::from);
    Ok(match kind.as_str() {
        "image" if push == Some(true) => Output::Registry(names),
        "registry" if push != Some(false) => Output::Registry(names),
        "image" | "registry" => Output::Image(names),
        "docker" => path.map_or(Output::Image(Vec::new()), |path| Output::Docker(Some(path))),
        "oci" => Output::Oci { path, tar: tar.unwrap_or(true) },
        "local" => Output::Local(path.ok_or_else(|| bad("dest is required for local output".into()))?),
        "tar" => Output::Tar(path),
        "" => return Err(bad("type is required for output".into())),
        other => return Err(bad(format!("unknown type {other:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_buildx_s() {
        let read = |text: &str| output(text).ok();
        assert_eq!(read("out"), Some(Output::Local("out".into())));
        assert_eq!(read("-"), Some(Output::Tar(None)));
        assert_eq!(read("type=docker"), Some(Output::Image(Vec::new())));
        assert_eq!(read("type=docker,dest=x.tar"), Some(Output::Docker(Some("x.tar".into()))));
        assert_eq!(
            read("type=oci,dest=d,tar=false"),
            Some(Output::Oci { path: Some("d".into()), tar: false })
        );
        assert_eq!(read("type=image,push=true"), Some(Output::Registry(Vec::new())));
        let names = ["a:1", "b"].map(|name| name.parse().unwrap()).to_vec();
        assert_eq!(read("type=image,push=true,\"name=a:1,b\""), Some(Output::Registry(names)));
        for bad in [
            "type=local",
            "type=zip",
            "dest=x",
            "type=tar,level=9",
            "type=local,dest=x,push=true",
            "type=image,dest=x",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_and_calls() {
        let spec: SecretSpec = "id=a,env=B".parse().unwrap();
        assert_eq!((spec.id.as_str(), spec.variable.as_deref()), ("a", Some("B")));
        let spec: SecretSpec = "type=env,src=B,id=a".parse().unwrap();
        assert_eq!((spec.file, spec.variable.as_deref()), (None, Some("B")));
        assert!("src".parse::<SecretSpec>().is_err() && "id=a,x=y".parse::<SecretSpec>().is_err());
        let call: CallAs = "lint,format=json".parse().unwrap();
        assert!(call.json && call.method == "check");
        assert!("cook".parse::<CallAs>().is_err());
    }
}
