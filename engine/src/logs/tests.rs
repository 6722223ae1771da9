//! What is written is read again: across rotations, while it is written, and after crashes.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

fn options(driver: Driver, pairs: &[(&str, &str)]) -> LogOptions {
    let options = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let config = LogConfig::new(driver.name(), options).unwrap();
    let facts =
        Facts { id: "c", name: "web", image_id: "sha256:0", image: "app", labels: &[].into(), env: &[] };
    config.resolve(&facts).unwrap()
}

struct Collect {
    lines: Vec<Vec<u8>>,
    limit: usize,
}

impl LogSink for Collect {
    fn entry(&mut self, entry: &Entry) -> ControlFlow<()> {
        self.lines.push(entry.line.clone());
        if self.lines.len() >= self.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn read(dir: &Path, driver: Driver, query: &LogQuery) -> Vec<String> {
    let mut sink = Collect { lines: Vec::new(), limit: usize::MAX };
    LogReader::new(dir, "c", driver).unwrap().read(query, &mut || false, &mut sink).unwrap();
    sink.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

fn tail(lines: u64) -> LogQuery {
    LogQuery { tail: Some(lines), ..LogQuery::default() }
}

const BOTH: [Driver; 2] = [Driver::JsonFile, Driver::Local];

#[test]
fn bytes_come_back_in_whole_lines_however_they_were_cut() {
    for driver in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), "c", &options(driver, &[])).unwrap();
        writer.write(Stream::Stdout, b"on").unwrap();
        writer.write(Stream::Stderr, b"err\n").unwrap();
        assert_eq!(read(dir.path(), driver, &LogQuery::default()), ["err\n"]);
        writer.write(Stream::Stdout, b"e\ntwo\n\nlast").unwrap();
        writer.end(Stream::Stdout).unwrap();
        writer.end(Stream::Stderr).unwrap();
        assert_eq!(read(dir.path(), driver, &LogQuery::default()), ["err\n", "one\n", "two\n", "\n", "last"]);
        assert_eq!(read(dir.path(), driver, &tail(2)), ["\n", "last"]);
        assert_eq!(read(dir.path(), driver, &tail(0)), [""; 0]);
        assert_eq!(read(dir.path(), driver, &tail(99)).len(), 5);
    }
}

#[test]
fn a_long_line_is_cut_as_docker_cuts_it_and_counts_once() {
    for driver in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), "c", &options(driver, &[])).unwrap();
        let long = "x".repeat(40_000) + "\n";
        writer.write(Stream::Stdout, b"first\n").unwrap();
        for part in long.as_bytes().chunks(700) {
            writer.write(Stream::Stdout, part).unwrap();
        }
        let lengths: Vec<_> = read(dir.path(), driver, &tail(1)).iter().map(String::len).collect();
        assert_eq!(lengths, [16_384, 16_384, 7_233]);
        assert_eq!(read(dir.path(), driver, &tail(2)).len(), 4);
    }
}

#[test]
fn rotation_keeps_the_youngest_and_tail_reaches_across_files() {
    for (driver, compress) in BOTH.into_iter().flat_map(|d| [(d, "true"), (d, "false")]) {
        let dir = tempfile::tempdir().unwrap();
        let pairs = [("max-size", "4k"), ("max-file", "3"), ("compress", compress)];
        let mut writer = LogWriter::open(dir.path(), "c", &options(driver, &pairs)).unwrap();
        for number in 0..1000 {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
        }
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        for entry in fs::read_dir(dir.path()).unwrap().flatten() {
            assert!(entry.metadata().unwrap().len() < 4_200);
            let compressed = entry.path().extension().is_some_and(|e| e == "gz" || e == "zst");
            let rotated = !entry.file_name().to_string_lossy().ends_with(".log");
            assert_eq!(compressed, rotated && compress == "true", "{entry:?}");
        }
        let all = read(dir.path(), driver, &LogQuery::default());
        let count = all.len();
        let want: Vec<_> = (1000 - count..1000).map(|number| format!("line {number}\n")).collect();
        assert!(count > 60 && all == want, "{driver:?} {compress} {count}");
        for lines in [1, 5, 50, count - 1, count, count + 10] {
            let from = count.saturating_sub(lines);
            assert_eq!(
                read(dir.path(), driver, &tail(lines as u64)),
                want[from..],
                "{driver:?} {compress} {lines}"
            );
        }
    }
}

#[test]
fn a_single_file_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = [("max-size", "1k"), ("max-file", "1")];
    let mut writer = LogWriter::open(dir.path(), "c", &options(Driver::JsonFile, &pairs)).unwrap();
    for number in 0..100 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(read(dir.path(), Driver::JsonFile, &tail(1)), ["99\n"]);
}

#[test]
fn what_a_crash_tore_is_taken_off_and_the_log_goes_on() {
    for driver in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let options = options(driver, &[]);
        let mut writer = LogWriter::open(dir.path(), "c", &options).unwrap();
        writer.write(Stream::Stdout, b"one\ntwo\n").unwrap();
        drop(writer);
        let path = fs::read_dir(dir.path()).unwrap().flatten().next().unwrap().path();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut writer = LogWriter::open(dir.path(), "c", &options).unwrap();
            writer.write(Stream::Stdout, b"three\n").unwrap();
            let lines = read(dir.path(), driver, &LogQuery::default());
            assert_eq!(lines.last().unwrap(), "three\n");
            assert!(
                lines[..lines.len() - 1].iter().zip(["one\n", "two\n"]).all(|(a, b)| a == b),
                "{lines:?}"
            );
        }
    }
}

#[test]
fn a_follower_sees_every_line_once_while_files_rotate() {
    const LINES: usize = 3000;
    for (driver, compress) in BOTH.into_iter().flat_map(|d| [(d, "true"), (d, "false")]) {
        let dir = tempfile::tempdir().unwrap();
        // Enough files that none is removed before it was read.
        let pairs = [("max-size", "3k"), ("max-file", "500"), ("compress", compress)];
        let mut writer = LogWriter::open(dir.path(), "c", &options(driver, &pairs)).unwrap();
        let done = AtomicBool::new(false);
        let lines = std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..LINES {
                    writer.write(Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
                    if number % 100 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                done.store(true, Ordering::SeqCst);
            });
            let mut sink = Collect { lines: Vec::new(), limit: usize::MAX };
            let query = LogQuery { follow: true, ..LogQuery::default() };
            let reader = LogReader::new(dir.path(), "c", driver).unwrap();
            reader.read(&query, &mut || !done.load(Ordering::SeqCst), &mut sink).unwrap();
            sink.lines
        });
        let want: Vec<Vec<u8>> = (0..LINES).map(|number| format!("{number}\n").into_bytes()).collect();
        assert_eq!(lines.len(), LINES, "{driver:?} {compress}");
        assert_eq!(lines, want, "{driver:?} {compress}");
    }
}

#[test]
fn times_bound_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), "c", &LogOptions::default()).unwrap();
    writer.write(Stream::Stdout, b"early\n").unwrap();
    std::thread::sleep(Duration::from_millis(2));
    let middle = jiff::Timestamp::now();
    std::thread::sleep(Duration::from_millis(2));
    writer.write(Stream::Stdout, b"late\n").unwrap();
    let since = LogQuery { since: Some(middle), ..LogQuery::default() };
    assert_eq!(read(dir.path(), Driver::JsonFile, &since), ["late\n"]);
    let until = LogQuery { until: Some(middle), ..LogQuery::default() };
    assert_eq!(read(dir.path(), Driver::JsonFile, &until), ["early\n"]);
}

#[test]
fn nothing_is_kept_by_the_driver_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), "c", &options(Driver::None, &[])).unwrap();
    writer.write(Stream::Stdout, b"x\n").unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(LogReader::new(dir.path(), "c", Driver::None).is_err());
}

/// Docker's form of a coloured line and of one without an end, with its attributes.
#[test]
fn a_file_that_docker_wrote_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = concat!(
        r#"{"log":"\u001b[32mok\u001b[0m \u003ctag\u003e\r\n","stream":"stdout","time":"2024-11-05T10:11:12.123456789Z"}"#,
        "\n",
        r#"{"log":"part","stream":"stderr","attrs":{"tag":"x"},"time":"2024-11-05T10:11:13Z"}"#,
        "\n"
    );
    fs::write(dir.path().join("c-json.log"), text).unwrap();
    let lines = read(dir.path(), Driver::JsonFile, &LogQuery::default());
    assert_eq!(lines, ["\x1b[32mok\x1b[0m <tag>\r\n", "part"]);
}
