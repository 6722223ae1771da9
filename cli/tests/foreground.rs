//! `run` in the foreground: what others can see of it and do with it, and what its caller has of it.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::{Onggi, until};

const IMAGE: &str = "busybox:test";

fn begin(onggi: &Onggi, args: &[&str]) -> Child {
    let mut command = onggi.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn kill(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it is ours");
}

#[test]
fn what_has_a_name_has_logs_and_can_be_attached_to() {
    let Some(onggi) = Onggi::with_busybox(IMAGE) else { return };
    let script = "trap 'echo bye; exit 3' TERM; echo one; echo two >&2; while :; do sleep 0.05; done";
    let mut child = begin(&onggi, &["run", "--rm", "--name", "fg", IMAGE, "sh", "-c", script]);
    until("its log has both lines", || {
        let done = onggi.output(["logs", "fg"]);
        done.stdout == "one\n" && done.stderr == "two\n"
    });
    assert_eq!(onggi.ok(["ps", "--format", "{{.Names}} {{.State}}"]), "fg running");
    // Somebody else is attached as well, and leaves without a trace.
    let attached = begin(&onggi, &["attach", "--no-stdin", "--sig-proxy=false", "fg"]);
    // Its caller is killed: the container goes on.
    kill(&child, Signal::KILL);
    child.wait().expect("it ends");
    assert_eq!(onggi.ok(["ps", "--format", "{{.Names}} {{.State}}"]), "fg running");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(onggi.ok(["stop", "fg"]), "fg");
    let output = attached.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"bye\n"[..]));
    until("it is removed", || onggi.ok(["ps", "-aq"]).is_empty());

    // A signal to the caller is the program's; its status is the caller's.
    let mut child = begin(&onggi, &["run", "--rm", "--name", "fg", IMAGE, "sh", "-c", script]);
    let mut first = [0; 4];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("its first line");
    kill(&child, Signal::TERM);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"bye\n"[..]));

    // Without --rm its log is there afterwards too.
    assert_eq!(onggi.ok(["run", "--name", "kept", IMAGE, "echo", "said"]), "said");
    assert_eq!(onggi.ok(["logs", "kept"]), "said");
    assert_eq!(onggi.ok(["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "kept exited");
    onggi.ok(["rm", "kept"]);
}

#[test]
fn what_has_no_name_belongs_to_its_caller() {
    let Some(onggi) = Onggi::with_busybox(IMAGE) else { return };
    // Both streams are the caller's own: what is written comes in order.
    let path = onggi.folder().join("both");
    let file = File::create(&path).expect("a file");
    let script = "i=0; while [ $i -lt 200 ]; do echo $i; echo $i >&2; i=$((i+1)); done";
    let mut command = onggi.command(["run", "--rm", IMAGE, "sh", "-c", script]);
    command.stdout(file.try_clone().expect("the same file")).stderr(file);
    assert!(command.status().expect("it ends").success());
    let wanted: String = (0..200).map(|number| format!("{number}\n{number}\n")).collect();
    assert_eq!(fs::read_to_string(&path).expect("the file"), wanted);

    // So others are told that there is nothing to see, and how there would be.
    let mut child = begin(&onggi, &["run", "--rm", IMAGE, "sh", "-c", "echo ready; exec sleep 600"]);
    let mut first = [0; 6];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("its first line");
    let id = onggi.ok(["ps", "-q"]);
    for words in [&["logs", &id][..], &["attach", &id], &["restart", &id]] {
        let said = onggi.fails(words).stderr;
        assert!(said.contains("run it with --name"), "{words:?}: {said}");
    }
    // And it ends with its caller.
    kill(&child, Signal::KILL);
    child.wait().expect("it ends");
    until("it is gone", || onggi.ok(["ps", "-aq"]).is_empty());
}
