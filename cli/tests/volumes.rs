//! Volumes through the binary: named, anonymous, filled from images, borrowed, in use, removed.

mod support;

use std::fs;

use onggi_testkit::{ImageMaker, TestImage, needs};
use support::hostile::Archive;
use support::user::User;
use support::{Done, Onggi, archive_of};

/// Busybox, with files of user 7 below `/data`, which is a VOLUME.
const IMAGE: &str = "app:1";

fn image() -> Option<TestImage> {
    if needs::root().is_missing() || needs::programs(&["busybox"]).is_missing() {
        return None;
    }
    let busybox = fs::read(needs::find_program("busybox")?).expect("busybox");
    let mut layer = Archive::new().directory("bin").file("bin/busybox", &busybox);
    for applet in ["sh", "cat", "ls", "stat", "echo", "mkdir", "touch", "id", "find", "readlink", "ln"] {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    let owned = |header: &mut tar::Header| {
        header.set_uid(7);
        header.set_gid(8);
    };
    let layer = layer
        .entry("data/", b"", |header| {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o751);
            owned(header);
        })
        .entry("data/first", b"from the image", owned);
    Some(ImageMaker::new().tar(layer.finish()).set("Volumes", serde_json::json!({ "/data": {} })).build())
}

fn setup() -> Option<Onggi> {
    let image = image()?;
    let onggi = Onggi::new();
    onggi.load(&image, IMAGE);
    Some(onggi)
}

fn run(onggi: &Onggi, flags: &[&str], script: &str) -> Done {
    onggi.output([&["run", "--rm"], flags, &[IMAGE, "sh", "-c", script]].concat())
}

#[track_caller]
fn says(onggi: &Onggi, flags: &[&str], script: &str) -> String {
    run(onggi, flags, script).ok().trim().to_owned()
}

fn names(onggi: &Onggi) -> Vec<String> {
    onggi.ok(["volume", "ls", "-q"]).lines().map(Into::into).collect()
}

#[test]
fn a_new_volume_gets_what_the_image_has_and_keeps_what_is_written() {
    let Some(onggi) = setup() else { return };
    let look =
        "cat /data/first; stat -c ' %a %u %g' /data; stat -c '%u %g' /data/first; echo more >/data/second";
    for ids in ["--userns=private", "--userns=host"] {
        let volume = format!("v{}", ids.len());
        let seen = says(&onggi, &[ids, "-v", &format!("{volume}:/data")], look);
        assert_eq!(seen, "from the image 751 7 8\n7 8", "{ids}");
        assert_eq!(says(&onggi, &[ids, "-v", &format!("{volume}:/other")], "cat /other/second"), "more");
        // What a volume has is not overwritten by another image's files.
        let again = "cat /data/second; echo changed >/data/first";
        assert_eq!(says(&onggi, &[ids, "-v", &format!("{volume}:/data")], again), "more");
        assert_eq!(says(&onggi, &[ids, "-v", &format!("{volume}:/data")], "cat /data/first"), "changed");
    }
    assert_eq!(says(&onggi, &["-v", "bare:/data:nocopy"], "ls -A /data"), "");
    assert_eq!(
        says(&onggi, &["--mount", "src=bare,dst=/data,ro"], "touch /data/x 2>/dev/null || echo no"),
        "no"
    );
}

#[test]
fn anonymous_volumes_come_and_go_with_their_container() {
    let Some(onggi) = setup() else { return };
    assert_eq!(says(&onggi, &[], "cat /data/first"), "from the image");
    assert_eq!(says(&onggi, &["-v", "/more"], "touch /more/x && echo made"), "made");
    assert_eq!(names(&onggi), [""; 0], "--rm takes them along");

    onggi.ok(["run", "--name", "one", IMAGE, "sh", "-c", "echo kept >/data/kept"]);
    let [volume] = &names(&onggi)[..] else { panic!("{:?}", names(&onggi)) };
    assert_eq!(volume.len(), 64);
    assert!(onggi.ok(["volume", "inspect", volume]).contains("com.docker.volume.anonymous"));
    assert_eq!(
        says(&onggi, &["--volumes-from", "one:ro"], "cat /data/kept; touch /data/x || echo no"),
        "kept\nno"
    );
    assert_eq!(names(&onggi).len(), 1, "a borrowed volume stays with its owner");

    let refused = onggi.fails(["volume", "rm", volume]);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    onggi.ok(["volume", "prune", "-f"]);
    assert_eq!(names(&onggi).len(), 1);
    onggi.ok(["rm", "one"]);
    assert_eq!(names(&onggi).len(), 1, "rm without -v leaves it");
    let pruned = onggi.ok(["volume", "prune", "-f"]);
    assert!(pruned.contains(volume.as_str()) && names(&onggi).is_empty(), "{pruned}");
    onggi.assert_store_is_clean();
}

#[test]
fn a_volume_is_made_listed_filtered_and_removed() {
    let Some(onggi) = setup() else { return };
    assert_eq!(onggi.ok(["volume", "create", "--label", "a=b", "db"]), "db");
    assert_eq!(onggi.ok(["volume", "create", "db"]), "db");
    onggi.ok(["volume", "create", "other"]);
    assert!(onggi.ok(["volume", "ls"]).starts_with("DRIVER    VOLUME NAME\nlocal     db\n"));
    assert_eq!(onggi.ok(["volume", "ls", "-q", "--filter", "label=a=b"]), "db");
    assert_eq!(
        onggi.ok(["volume", "ls", "--format", "{{.Name}}:{{.Driver}}", "-f", "name=oth"]),
        "other:local"
    );
    let place = onggi.ok(["volume", "inspect", "-f", "{{.Mountpoint}}", "db"]);
    assert!(fs::metadata(place.trim()).is_ok_and(|data| data.is_dir()), "{place}");
    assert_eq!(onggi.ok(["volume", "rm", "db", "other"]), "db\nother");
    assert!(onggi.fails(["volume", "rm", "db"]).stderr.contains("no such volume: db"));
    onggi.ok(["volume", "rm", "-f", "db"]);
    for (words, part) in [
        (&["volume", "create", "../x"][..], "../x"),
        (&["volume", "create", "-o", "size=1g", "x1"], "size"),
        (&["volume", "create", "-o", "type=tmpfs", "x1"], "device"),
        (&["volume", "ls", "-f", "color=red"], "color"),
        (&["volume", "inspect", "../../etc"], "../../etc"),
    ] {
        let failed = onggi.fails(words);
        assert!(failed.stderr.contains(part), "{words:?}: {}", failed.stderr);
    }
    assert_eq!(names(&onggi), [""; 0]);
}

#[test]
fn a_volume_may_be_a_filesystem_or_a_directory_of_the_host() {
    let Some(onggi) = setup() else { return };
    onggi.ok([
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,mode=750",
        "mem",
    ]);
    let look = "stat -f -c %T /m 2>/dev/null; stat -c %a /m";
    let seen = onggi.ok(["run", "--rm", "-v", "mem:/m", IMAGE, "sh", "-c", look]);
    assert!(seen.contains("tmpfs") && seen.contains("750"), "{seen}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let runroot = onggi.runroot().display().to_string();
    assert!(!mounts.contains(&runroot), "it is unmounted with its last container: {mounts}");

    let host = onggi.folder().join("host");
    fs::create_dir(&host).expect("a directory");
    fs::write(host.join("file"), "of the host").expect("a file");
    let device = format!("device={}", host.display());
    onggi.ok(["volume", "create", "-o", "o=bind", "-o", &device, "bound"]);
    assert_eq!(says(&onggi, &["-v", "bound:/b"], "cat /b/file"), "of the host");
    onggi.ok(["volume", "rm", "mem", "bound"]);
    assert!(host.join("file").exists());
}

#[test]
fn images_and_parts_of_volumes_are_mounted() {
    let Some(onggi) = setup() else { return };
    let image = format!("type=image,source={IMAGE},target=/i");
    let look = "cat /i/data/first; stat -c ' %u' /i/data/first; touch /i/x 2>/dev/null || echo no";
    for ids in ["--userns=private", "--userns=host"] {
        assert_eq!(says(&onggi, &[ids, "--mount", &image], look), "from the image 7\nno", "{ids}");
    }
    says(&onggi, &["-v", "v1:/v"], "mkdir /v/sub && echo below >/v/sub/x && ln -s /etc /v/out");
    let part = |path: &str| format!("type=volume,source=v1,target=/p,volume-subpath={path}");
    assert_eq!(says(&onggi, &["--mount", &part("sub")], "cat /p/x"), "below");
    // A link that a container made leads nowhere on the host.
    let out = run(&onggi, &["--mount", &part("out")], "ls /p");
    out.assert_failed_in_words();
    let up = run(&onggi, &["--mount", &part("../../..")], "ls /p; echo in");
    assert!(!up.stdout.contains("volumes"), "{}", up.stdout);
}

#[test]
fn u_gives_what_is_mounted_to_the_programs_user() {
    let Some(onggi) = setup() else { return };
    let host = onggi.folder().join("mine");
    fs::create_dir_all(host.join("below")).expect("a directory");
    std::os::unix::fs::symlink("/", host.join("link")).expect("a link");
    let bind = format!("{}:/m:U", host.display());
    assert_eq!(
        says(&onggi, &["-u", "12:34", "-v", &bind], "stat -c '%u:%g' /m /m/below; touch /m/x"),
        "12:34\n12:34"
    );
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata("/").expect("the root")), 0);
}

#[test]
fn an_ordinary_user_has_volumes_too() {
    let (Some(image), Some(user)) = (image(), User::new(true)) else { return };
    let archive = user.home().join("image.tar");
    fs::write(&archive, archive_of(image.layout(IMAGE))).expect("an archive");
    user.output(["load", "-q", "-i", &archive.to_string_lossy()]).ok();
    let run = |flags: &[&str], script: &str| {
        user.output([&["run", "--rm"], flags, &[IMAGE, "sh", "-c", script]].concat()).ok()
    };
    let look = "cat /data/first; stat -c ' %u %g' /data/first; echo more >/data/second";
    assert_eq!(run(&["-v", "v1:/data"], look), "from the image 7 8");
    assert_eq!(run(&["-v", "v1:/other"], "cat /other/second"), "more");
    let image = format!("type=image,source={IMAGE},target=/i");
    assert_eq!(run(&["--mount", &image], "cat /i/data/first"), "from the image");
    assert_eq!(user.output(["volume", "ls", "-q"]).ok(), "v1");
    assert_eq!(user.output(["volume", "rm", "v1"]).ok(), "v1");
    user.output(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]).ok();
    let refused = user.output(["run", "--rm", "-v", "mem:/m", IMAGE, "true"]);
    assert!(refused.stderr.contains("needs root"), "{}", refused.stderr);
}
