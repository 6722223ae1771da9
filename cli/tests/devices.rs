//! Devices by the names that their descriptions give them (CDI), and GPUs, which are found so.

mod support;

use std::fs;

use support::{Done, Onggi};

const IMAGE: &str = "busybox:test";

#[test]
fn a_description_gives_a_container_what_it_says() {
    let Some(onggi) = Onggi::with_busybox(IMAGE) else { return };
    let dir = onggi.folder().join("cdi");
    fs::create_dir(&dir).expect("a folder");
    let (library, told) = (onggi.folder().join("library"), onggi.folder().join("told"));
    fs::write(&library, "of the vendor").expect("a file");
    let device = |name: &str| {
        serde_json::json!({
            "name": name,
            "containerEdits": {
                "deviceNodes": [{ "path": format!("/dev/card{name}"), "hostPath": "/dev/zero" }],
                "env": [format!("CARD={name}"), "PATH=/vendor:/bin"],
                "mounts": [{
                    "hostPath": library,
                    "containerPath": "/opt/vendor/library",
                    "options": ["ro", "nosuid", "bind"],
                }],
                "additionalGids": [44],
                "hooks": [{
                    "hookName": "createRuntime",
                    "path": "/bin/sh",
                    "args": ["sh", "-c", format!("cat > {}", told.display())],
                }],
            },
        })
    };
    let description = serde_json::json!({
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "containerEdits": { "env": ["ALL=yes"] },
        "devices": [device("0"), device("all")],
    });
    fs::write(dir.join("vendor.json"), description.to_string()).expect("a file");
    let run = |words: &[&str]| {
        let mut command = onggi.command(words);
        Done::of(command.env("ONGGI_CDI_DIRS", &dir))
    };
    let script = "head -c 3 /dev/card0 | od -An -tx1; echo $CARD $ALL $PATH; cat /opt/vendor/library; id -G; \
        echo x > /opt/vendor/library || echo read-only";
    let said = run(&["run", "--rm", "--device", "nvidia.com/gpu=0", IMAGE, "sh", "-c", script]).ok();
    assert_eq!(said, " 00 00 00\n0 yes /vendor:/bin\nof the vendor0 44\nread-only", "{said}");
    // The hook was told which container it is for.
    let state: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&told).expect("the hook ran")).expect("JSON");
    assert_eq!(state["status"], "creating");
    // GPUs are such devices; what a container was made with, it has at each start.
    run(&["create", "--name", "gpu", "--gpus", "all", IMAGE, "sh", "-c", "ls /dev | grep card; echo $CARD"])
        .ok();
    assert_eq!(onggi.ok(["start", "-a", "gpu"]), "cardall\nall");
    assert_eq!(
        onggi.ok(["inspect", "--format", "{{json .HostConfig.DeviceRequests}}", "gpu"]),
        r#"[{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}]"#
    );
    let missing = run(&["run", "--rm", "--gpus", "device=7", IMAGE, "true"]);
    assert_eq!(missing.code, Some(125));
    assert!(
        missing.stderr.contains("nvidia.com/gpu=7") && missing.stderr.contains("nvidia-ctk"),
        "{}",
        missing.stderr
    );
    for (words, part) in [
        (["--gpus", "capabilities=video"], "capabilities=video"),
        (["--runtime", "runc"], "--runtime=runc is not supported"),
        (["--storage-opt", "size=1G"], "--storage-opt is not supported"),
    ] {
        let refused = run(&["run", "--rm", words[0], words[1], IMAGE, "true"]);
        assert!(refused.code == Some(125) && refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert!(
        onggi.fails(["start", "--checkpoint", "c", "gpu"]).stderr.contains("--checkpoint is not supported")
    );
    onggi.ok(["rm", "gpu"]);
}

#[test]
fn real_time_scheduling_is_limited_where_the_kernel_can() {
    let Some(onggi) = Onggi::with_busybox(IMAGE) else { return };
    let flags = ["run", "-d", "--name", "rt", "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "20000"];
    let done = onggi.output(flags.iter().chain(&[IMAGE, "sleep", "600"]));
    if !std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        assert!(done.code == Some(125) && done.stderr.contains("--cpu-rt-runtime"), "{}", done.stderr);
        return;
    }
    let id = done.ok();
    let read =
        |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/cpu/onggi/{id}/{file}")).unwrap_or_default();
    assert_eq!((read("cpu.rt_period_us").trim(), read("cpu.rt_runtime_us").trim()), ("1000000", "20000"));
    onggi.ok(["update", "--cpu-rt-runtime", "30000", "rt"]);
    assert_eq!(read("cpu.rt_runtime_us").trim(), "30000");
    assert_eq!(
        onggi.ok([
            "inspect",
            "--format",
            "{{.HostConfig.CpuRealtimePeriod}} {{.HostConfig.CpuRealtimeRuntime}}",
            "rt"
        ]),
        "1000000 30000"
    );
    onggi.ok(["rm", "-f", "rt"]);
}
