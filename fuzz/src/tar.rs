//! Archives, read by onggi and by Python's tarfile: what both accept has the same entries. An archive in which they see
//! different ones could show a scanner another layer than the one that runs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use onggi_image::layer::{Entries, Kind};

/// Answers each archive with one line: `type size name-in-hex` for each entry, or `refused`. tarfile takes what lies at
/// the place of a ustar prefix for one in every format; such archives it doesn't understand.
const PEER: &str = r#"
import io, struct, sys, tarfile
while True:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4: break
    data = sys.stdin.buffer.read(struct.unpack('<I', head)[0])
    try:
        entries = []
        with tarfile.open(fileobj=io.BytesIO(data), mode='r:', encoding='utf-8', errors='surrogateescape') as tar:
            for m in tar:
                head = data[m.offset_data - 512:m.offset_data]
                if head[257:263] != b'ustar\0' and head[345]: raise ValueError('a prefix where there is none')
                kind = 'f' if m.isreg() else 'd' if m.isdir() else 'l' if m.issym() else 'h' if m.islnk() else 'o'
                name = m.name.rstrip('/').encode('utf-8', 'surrogateescape').hex() or '-'
                entries.append(f'{kind} {m.size if kind == "f" else 0} {name}')
        print(';'.join(entries))
    except Exception:
        print('refused')
    sys.stdout.flush()
"#;

struct Peer {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", PEER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { _child: child, input, output }
    }

    fn ask(&mut self, archive: &[u8]) -> String {
        let length = u32::try_from(archive.len()).expect("a small archive");
        self.input.write_all(&length.to_le_bytes()).expect("the peer reads");
        self.input.write_all(archive).expect("the peer reads");
        self.input.flush().expect("the peer reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the peer answers");
        line.trim_end().to_owned()
    }
}

/// As the peer says it; `None` if the archive is refused.
fn ours(archive: &[u8]) -> Option<Vec<String>> {
    let mut entries = Entries::new(archive);
    let mut seen = Vec::new();
    while let Some(entry) = entries.next_entry().ok()? {
        let (kind, size) = match entry.kind {
            Kind::File { size, .. } => ('f', size),
            Kind::Directory => ('d', 0),
            Kind::Symlink(_) => ('l', 0),
            Kind::HardLink(_) => ('h', 0),
            _ => ('o', 0),
        };
        // Python takes the slashes off.
        let end = entry.path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let name: String = entry.path[..end].iter().map(|byte| format!("{byte:02x}")).collect();
        seen.push(format!("{kind} {size} {}", if name.is_empty() { "-" } else { &name }));
    }
    entries.drain().ok()?;
    Some(seen)
}

/// One input.
pub fn feed(bytes: &[u8]) {
    static PEER: OnceLock<Mutex<Peer>> = OnceLock::new();
    let archive = crate::sealed::sealed(bytes);
    let Some(ours) = ours(&archive) else { return };
    let peer = PEER.get_or_init(|| Mutex::new(Peer::start()));
    let theirs = peer.lock().expect("one at a time").ask(&archive);
    if theirs == "refused" {
        return;
    }
    // It ends at a damaged header without a word.
    let theirs: Vec<&str> = theirs.split(';').filter(|entry| !entry.is_empty()).collect();
    assert!(theirs.len() <= ours.len(), "Python sees more: {theirs:?}, {ours:?}");
    assert!(theirs.iter().zip(&ours).all(|(one, other)| one == other), "{theirs:?}, {ours:?}");
}

/// Archives of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    crate::sealed::seeds()
}
