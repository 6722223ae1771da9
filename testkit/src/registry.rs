//! A registry in memory that can be told to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onggi_oci::Digest;

use crate::http::{Answer, Pace, Record, Request, Server, Service, pairs};
use crate::image::TestImage;

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Everybody everything.
    #[default]
    Open,
    /// Basic, one user.
    Basic(String, String),
    /// Bearer with a token server at `/token`: anybody may pull, this user may push. The user's
    /// identity token is `refresh-<user>`.
    Token(String, String),
    /// Nobody: always 401 with a Bearer challenge, though the token server gives tokens.
    Never,
}

/// A way to misbehave.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another fault, but only of requests whose path contains the text.
    At(String, Box<Fault>),
    /// Closes the connection at this offset of a blob.
    CutBlob(usize),
    /// Falls silent at this offset of a blob.
    StallBlob(usize),
    /// Sends a blob so many bytes at a time, with a pause after each.
    DripBlob(usize, Duration),
    /// Flips the last byte of a blob.
    WrongBytes,
    /// Sends a blob with so many bytes added or, if negative, left out, and the fitting length.
    WrongLength(i64),
    /// Sends so many bytes less than announced.
    AnnounceMore(u64),
    /// Redirects blobs to the same path below this base URL.
    RedirectBlobs(String),
    /// Answers 200 with the whole blob to a Range request.
    IgnoreRange,
    /// Answers a Range request with another range.
    WrongContentRange,
    /// Answers every request whose path contains the text with this status, and `Retry-After` if any.
    Status(&'static str, u16, Option<u64>),
    /// Sends a manifest of so many bytes.
    HugeManifest(usize),
    /// Gives manifests this media type.
    ManifestType(&'static str),
    /// Gives manifests this `Docker-Content-Digest`, and keeps none that is pushed.
    DigestHeader(&'static str),
    /// Answers a mount with 202 and an upload session.
    DeclineMounts,
    /// Closes the connection after so many bytes of an upload's body; what came is kept.
    CutUpload(usize),
    /// Forgets upload sessions whose body broke off.
    ForgetBrokenUploads,
    /// Sends upload sessions to this base URL.
    UploadsAt(String),
    /// Names this realm in its challenge.
    Realm(String),
    /// Takes back all tokens given so far, once.
    RevokeTokens,
}

#[derive(Default)]
struct State {
    auth: Auth,
    blobs: HashMap<String, BTreeMap<String, Bytes>>,
    manifests: HashMap<String, BTreeMap<String, (String, Bytes)>>,
    uploads: HashMap<String, Vec<u8>>,
    tokens: HashMap<String, (bool, Vec<String>)>,
    faults: Vec<(Fault, Option<u32>)>,
    misbehaved: u64,
    /// The path of the request that is being answered.
    path: String,
    log: Vec<Record>,
    next: u64,
}

/// A registry in memory, on a port of loopback, by plain HTTP. Stops when dropped.
pub struct Registry {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    address: Mutex<String>,
}

impl Registry {
    /// Starts an empty registry.
    pub fn start(auth: Auth) -> Self {
        let state = Mutex::new(State { auth, ..State::default() });
        let shared = Arc::new(Shared { state, address: Mutex::default() });
        let server = Server::start(Arc::clone(&shared) as Arc<dyn Service>);
        *shared.address.lock().unwrap_or_else(PoisonError::into_inner) = server.address.to_string();
        Self { server, shared }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.server.address.to_string()
    }

    /// Misbehaves in this way from now on.
    pub fn always(&self, fault: Fault) {
        self.shared.state().faults.push((fault, None));
    }

    /// Misbehaves in this way for the next so many times that it matters.
    pub fn times(&self, fault: Fault, times: u32) {
        self.shared.state().faults.push((fault, Some(times)));
    }

    /// Behaves again.
    pub fn behave(&self) {
        self.shared.state().faults.clear();
    }

    /// How often a fault applied so far.
    pub fn misbehaved(&self) -> u64 {
        self.shared.state().misbehaved
    }

    /// Holds a blob.
    pub fn put_blob(&self, repository: &str, bytes: &Bytes) -> Digest {
        let digest = Digest::sha256(bytes);
        let mut state = self.shared.state();
        state.blobs.entry(repository.to_owned()).or_default().insert(digest.to_string(), bytes.clone());
        digest
    }

    /// Holds a manifest under its digest and, if given, a tag.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &Bytes,
    ) -> Digest {
        let digest = Digest::sha256(bytes);
        let mut state = self.shared.state();
        let manifests = state.manifests.entry(repository.to_owned()).or_default();
        for name in [Some(digest.to_string()), tag.map(str::to_owned)].into_iter().flatten() {
            manifests.insert(name, (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// Holds an image under a tag.
    pub fn put_image(&self, repository: &str, tag: &str, image: &TestImage) -> Digest {
        for (_, bytes) in image.blobs() {
            self.put_blob(repository, bytes);
        }
        self.put_manifest(repository, Some(tag), image.media_type.as_str(), &image.manifest)
    }

    /// A blob that it holds.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.shared.state().blobs.get(repository)?.get(&digest.to_string()).cloned()
    }

    /// A manifest that it holds, by tag or digest.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Bytes> {
        self.shared.state().manifests.get(repository)?.get(name).map(|(_, bytes)| bytes.clone())
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Record> {
        self.shared.state().log.clone()
    }

    /// Requests of a method whose path contains a text.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.requests().iter().filter(|record| record.method == method && record.path.contains(path)).count()
    }

    /// Requests to the token server for exactly these scopes.
    pub fn token_requests(&self, scopes: &[&str]) -> usize {
        let asked = |record: &&Record| {
            let given: Vec<&str> =
                record.query.iter().filter(|(key, _)| key == "scope").map(|(_, v)| v.as_str()).collect();
            record.path == "/token" && given == scopes
        };
        self.requests().iter().filter(asked).count()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.state().log.clear();
    }
}

impl State {
    /// Whether a fault applies, which counts as one of its times.
    fn fault<T>(&mut self, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let here = |fault: &Fault| match fault {
            Fault::At(path, fault) => self.path.contains(path).then(|| pick(fault)).flatten(),
            fault => pick(fault),
        };
        let mut numbered = self.faults.iter().enumerate();
        let (index, found) = numbered.find_map(|(index, (fault, _))| Some((index, here(fault)?)))?;
        self.misbehaved += 1;
        match &mut self.faults[index].1 {
            Some(times) if *times <= 1 => drop(self.faults.remove(index)),
            Some(times) => *times -= 1,
            None => {}
        }
        Some(found)
    }

    fn unique(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Service for Shared {
    fn cut_body(&self, record: &Record) -> Option<usize> {
        let uploads =
            record.path.contains("/blobs/uploads/") && matches!(record.method.as_str(), "PUT" | "PATCH");
        if !uploads {
            return None;
        }
        // A body that ends before the cut would use the fault up and meet nothing.
        let length = record.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let pick = |fault: &Fault| match fault {
            Fault::CutUpload(at) if *at < length => Some(*at),
            _ => None,
        };
        let mut state = self.state();
        state.path.clone_from(&record.path);
        state.fault(pick)
    }

    fn serve(&self, request: Request) -> Answer {
        let mut state = self.state();
        let record = request.record.clone();
        let mut logged = record.clone();
        if record.path == "/token" && record.method == "POST" {
            logged.query = pairs(&String::from_utf8_lossy(&request.body));
        }
        state.log.push(logged);
        state.path.clone_from(&record.path);
        if let Some((status, after)) = state.fault(|fault| match fault {
            Fault::Status(path, status, after) if record.path.contains(path) => Some((*status, *after)),
            _ => None,
        }) {
            let code = if status == 429 { "TOOMANYREQUESTS" } else { "UNKNOWN" };
            let answer = Answer::error(status, code, "as the test wants it");
            return match after {
                Some(seconds) => answer.header("retry-after", seconds.to_string()),
                None => answer,
            };
        }
        if record.path == "/token" {
            return self.token(&mut state, &request);
        }
        let Some(path) = record.path.strip_prefix("/v2/") else { return Answer::new(404) };
        if let Some(refusal) = self.check(&mut state, &record, path) {
            return refusal;
        }
        if path.is_empty() {
            return Answer::new(200).body("{}");
        }
        if let Some((repository, session)) = path.split_once("/blobs/uploads/") {
            return self.upload(&mut state, repository, session, &request);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            return blob(&mut state, repository, digest, &record);
        }
        if let Some((repository, name)) = path.split_once("/manifests/") {
            return manifest(&mut state, repository, name, request);
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return tags(&state, repository, &record);
        }
        Answer::error(404, "NOT_FOUND", "no such path")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base(&self) -> String {
        format!("http://{}", self.address.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The refusal of a request that is not allowed.
    fn check(&self, state: &mut State, record: &Record, path: &str) -> Option<Answer> {
        let given = record.headers.get("authorization").map_or("", String::as_str);
        if state.fault(|fault| matches!(fault, Fault::RevokeTokens).then_some(())).is_some() {
            state.tokens.clear();
        }
        let repository =
            ["/blobs/", "/manifests/", "/tags/"].iter().find_map(|part| Some(path.split_once(part)?.0));
        let action = if matches!(record.method.as_str(), "GET" | "HEAD") { "pull" } else { "push" };
        let allowed = match &state.auth {
            Auth::Open => true,
            Auth::Never => false,
            Auth::Basic(user, password) => {
                let right = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
                if given == right {
                    return None;
                }
                return Some(
                    Answer::error(401, "UNAUTHORIZED", "authentication required")
                        .header("www-authenticate", "Basic realm=\"test\""),
                );
            }
            Auth::Token(..) => given
                .strip_prefix("Bearer ")
                .and_then(|token| state.tokens.get(token))
                .is_some_and(|(_, scopes)| match repository {
                    None => true,
                    Some(repository) => scopes.iter().any(|scope| {
                        scope
                            .strip_prefix(&format!("repository:{repository}:"))
                            .is_some_and(|actions| actions.split(',').any(|granted| granted == action))
                    }),
                }),
        };
        if allowed {
            return None;
        }
        let realm =
            state.fault(|fault| if let Fault::Realm(realm) = fault { Some(realm.clone()) } else { None });
        let realm = realm.unwrap_or_else(|| format!("{}/token", self.base()));
        let scope = repository.map_or_else(String::new, |name| {
            let actions = if action == "pull" { "pull" } else { "pull,push" };
            format!(",scope=\"repository:{name}:{actions}\"")
        });
        let challenge = format!("Bearer realm=\"{realm}\",service=\"test\"{scope}");
        Some(
            Answer::error(401, "UNAUTHORIZED", "authentication required")
                .header("www-authenticate", challenge),
        )
    }

    fn token(&self, state: &mut State, request: &Request) -> Answer {
        let _ = self;
        let form = pairs(&String::from_utf8_lossy(&request.body));
        let is_post = request.record.method == "POST";
        let scopes = if is_post { &form } else { &request.record.query };
        let scopes: Vec<String> = scopes
            .iter()
            .filter(|(key, _)| key == "scope")
            .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let (user, password) = match &state.auth {
            Auth::Token(user, password) => (user.clone(), password.clone()),
            _ => ("nobody".to_owned(), "nothing".to_owned()),
        };
        let known = if is_post {
            let refresh = form.iter().find(|(key, _)| key == "refresh_token").map(|(_, value)| value.clone());
            if refresh != Some(format!("refresh-{user}")) {
                return Answer::new(401).body(r#"{"details":"unknown refresh token"}"#);
            }
            true
        } else if let Some(given) = request.record.headers.get("authorization") {
            if *given != format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))) {
                return Answer::new(401).body(r#"{"details":"incorrect username or password"}"#);
            }
            true
        } else {
            false
        };
        // Anonymous users get the right to pull only.
        let granted: Vec<String> =
            scopes
                .iter()
                .map(|scope| {
                    if known {
                        scope.clone()
                    } else {
                        scope.replace("pull,push", "pull").replace(":push", ":")
                    }
                })
                .collect();
        let token = format!("token-{}", state.unique());
        state.tokens.insert(token.clone(), (known, granted));
        let field = if is_post { "access_token" } else { "token" };
        Answer::new(200).body(serde_json::json!({ field: token, "expires_in": 300 }).to_string())
    }

    fn upload(&self, state: &mut State, repository: &str, session: &str, request: &Request) -> Answer {
        let elsewhere =
            state.fault(|fault| if let Fault::UploadsAt(base) = fault { Some(base.clone()) } else { None });
        let base = elsewhere.unwrap_or_else(|| self.base());
        let at = |session: &str| format!("{base}/v2/{repository}/blobs/uploads/{session}?_state=x");
        let range = |length: usize| format!("0-{}", length.saturating_sub(1));
        let record = &request.record;
        match record.method.as_str() {
            "POST" => {
                if let (Some(digest), Some(from)) = (record.parameter("mount"), record.parameter("from")) {
                    let declined =
                        state.fault(|fault| matches!(fault, Fault::DeclineMounts).then_some(())).is_some();
                    let held = state.blobs.get(from).and_then(|blobs| blobs.get(digest)).cloned();
                    if let (Some(bytes), false) = (held, declined) {
                        state
                            .blobs
                            .entry(repository.to_owned())
                            .or_default()
                            .insert(digest.to_owned(), bytes);
                        return Answer::new(201)
                            .header("location", format!("/v2/{repository}/blobs/{digest}"));
                    }
                }
                let session = format!("session-{}", state.unique());
                state.uploads.insert(session.clone(), Vec::new());
                Answer::new(202).header("location", at(&session)).header("range", "0-0")
            }
            "GET" => match state.uploads.get(session) {
                Some(bytes) => {
                    Answer::new(204).header("location", at(session)).header("range", range(bytes.len()))
                }
                None => Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "no such session"),
            },
            "DELETE" => {
                state.uploads.remove(session);
                Answer::new(204)
            }
            "PATCH" | "PUT" => {
                let Some(have) = state.uploads.get(session).map(Vec::len) else {
                    return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "no such session");
                };
                let start =
                    record.headers.get("content-range").and_then(|text| text.split('-').next()?.parse().ok());
                if start.is_some_and(|start: usize| start != have) {
                    return Answer::error(416, "RANGE_INVALID", "not the next byte")
                        .header("range", range(have));
                }
                if request.broken
                    && state
                        .fault(|fault| matches!(fault, Fault::ForgetBrokenUploads).then_some(()))
                        .is_some()
                {
                    state.uploads.remove(session);
                    return Answer::new(500);
                }
                let upload = state.uploads.entry(session.to_owned()).or_default();
                upload.extend_from_slice(&request.body);
                let length = upload.len();
                if request.broken || record.method == "PATCH" {
                    return Answer::new(202).header("location", at(session)).header("range", range(length));
                }
                let bytes = Bytes::from(state.uploads.remove(session).unwrap_or_default());
                let Some(expected) = record.parameter("digest") else { return Answer::new(400) };
                if Digest::sha256(&bytes).to_string() != expected {
                    return Answer::error(
                        400,
                        "DIGEST_INVALID",
                        "provided digest did not match uploaded content",
                    );
                }
                state.blobs.entry(repository.to_owned()).or_default().insert(expected.to_owned(), bytes);
                Answer::new(201).header("location", format!("/v2/{repository}/blobs/{expected}"))
            }
            _ => Answer::new(405),
        }
    }
}

fn blob(state: &mut State, repository: &str, digest: &str, record: &Record) -> Answer {
    let Some(bytes) = state.blobs.get(repository).and_then(|blobs| blobs.get(digest)).cloned() else {
        return Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    if record.method == "HEAD" {
        let mut answer = Answer::new(200).header("docker-content-digest", digest);
        answer.length = Some(bytes.len() as u64);
        return answer;
    }
    if let Some(base) =
        state.fault(|fault| if let Fault::RedirectBlobs(base) = fault { Some(base.clone()) } else { None })
    {
        return Answer::new(307).header("location", format!("{base}{}", record.path));
    }
    let mut bytes = bytes.to_vec();
    if state.fault(|fault| matches!(fault, Fault::WrongBytes).then_some(())).is_some()
        && let Some(last) = bytes.last_mut()
    {
        *last ^= 1;
    }
    if let Some(change) = state.fault(|fault| if let Fault::WrongLength(n) = fault { Some(*n) } else { None })
    {
        let length = usize::try_from(change)
            .map_or_else(|_| bytes.len() - usize::try_from(-change).unwrap_or(0), |more| bytes.len() + more);
        bytes.resize(length, b'!');
    }
    let total = bytes.len();
    let start = record
        .headers
        .get("range")
        .and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let ignored =
        start.is_some() && state.fault(|fault| matches!(fault, Fault::IgnoreRange).then_some(())).is_some();
    let start = if ignored { 0 } else { start.unwrap_or(0) };
    let mut answer = if start > 0 {
        if start >= total {
            return Answer::new(416).header("content-range", format!("bytes */{total}"));
        }
        let wrong = state.fault(|fault| matches!(fault, Fault::WrongContentRange).then_some(())).is_some();
        let shown = if wrong { start - 1 } else { start };
        let range = format!("bytes {shown}-{}/{total}", total - 1);
        Answer::new(206).header("content-range", range)
    } else {
        Answer::new(200)
    };
    answer.body = bytes.split_off(start);
    // Offsets are of the blob; what is behind us already does not break again.
    let at = |offset: usize| offset.checked_sub(start).filter(|&rest| rest > 0 || start == 0);
    let cut = state.fault(|fault| if let Fault::CutBlob(offset) = fault { at(*offset) } else { None });
    let stall = state.fault(|fault| if let Fault::StallBlob(offset) = fault { at(*offset) } else { None });
    let drip =
        state.fault(|fault| if let Fault::DripBlob(n, pause) = fault { Some((*n, *pause)) } else { None });
    answer.pace = Pace { cut, stall, drip };
    if let Some(more) = state.fault(|fault| if let Fault::AnnounceMore(n) = fault { Some(*n) } else { None })
    {
        answer.length = Some(answer.body.len() as u64);
        let keep = answer.body.len().saturating_sub(usize::try_from(more).unwrap_or(0));
        answer.body.truncate(keep);
    }
    answer
}

fn manifest(state: &mut State, repository: &str, name: &str, request: Request) -> Answer {
    let record = &request.record;
    match record.method.as_str() {
        "PUT" => {
            let media_type = record.headers.get("content-type").cloned().unwrap_or_default();
            let bytes = Bytes::from(request.body);
            let digest = Digest::sha256(&bytes).to_string();
            if let Some(missing) = missing_blob(state, repository, &bytes) {
                return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", &format!("{missing} is not here"));
            }
            let other =
                state.fault(|fault| if let Fault::DigestHeader(text) = fault { Some(*text) } else { None });
            if let Some(other) = other {
                return Answer::new(201).header("docker-content-digest", other);
            }
            let manifests = state.manifests.entry(repository.to_owned()).or_default();
            manifests.insert(digest.clone(), (media_type.clone(), bytes.clone()));
            manifests.insert(name.to_owned(), (media_type, bytes));
            return Answer::new(201).header("docker-content-digest", digest);
        }
        "DELETE" => {
            let manifests = state.manifests.entry(repository.to_owned()).or_default();
            return match manifests.remove(name) {
                Some(_) => Answer::new(202),
                None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            };
        }
        _ => {}
    }
    let Some((media_type, bytes)) = state.manifests.get(repository).and_then(|all| all.get(name)).cloned()
    else {
        return Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    if let Some(size) =
        state.fault(|fault| if let Fault::HugeManifest(size) = fault { Some(*size) } else { None })
    {
        return Answer::new(200).header("content-type", media_type).body(vec![b' '; size]);
    }
    let media_type = state
        .fault(|fault| if let Fault::ManifestType(name) = fault { Some((*name).to_owned()) } else { None })
        .unwrap_or(media_type);
    let digest = state
        .fault(|fault| if let Fault::DigestHeader(text) = fault { Some((*text).to_owned()) } else { None })
        .unwrap_or_else(|| Digest::sha256(&bytes).to_string());
    Answer::new(200)
        .header("content-type", media_type)
        .header("docker-content-digest", digest)
        .body(bytes.to_vec())
}

/// A config or layer that a pushed manifest names and the repository lacks.
fn missing_blob(state: &State, repository: &str, manifest: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    let layers = value.get("layers").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let named =
        value.get("config").into_iter().chain(&layers).filter_map(|part| part.get("digest")?.as_str());
    let blobs = state.blobs.get(repository);
    named.into_iter().find(|digest| blobs.is_none_or(|blobs| !blobs.contains_key(*digest))).map(str::to_owned)
}

/// Two tags a page, so that there are pages.
fn tags(state: &State, repository: &str, record: &Record) -> Answer {
    let Some(manifests) = state.manifests.get(repository) else {
        return Answer::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    let after = record.parameter("last").unwrap_or("");
    let all = manifests.keys().filter(|name| !name.contains(':') && name.as_str() > after);
    let mut page: Vec<&String> = all.take(3).collect();
    let more = page.len() == 3;
    page.truncate(2);
    let body = serde_json::json!({ "name": repository, "tags": page }).to_string();
    let answer = Answer::new(200).header("content-type", "application/json").body(body);
    match page.last() {
        Some(last) if more => {
            answer.header("link", format!("</v2/{repository}/tags/list?n=2&last={last}>; rel=\"next\""))
        }
        _ => answer,
    }
}
