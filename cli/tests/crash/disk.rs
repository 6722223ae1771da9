//! Disks that are full, out of inodes, read-only or broken: an error that says so, nothing half there, the space given
//! back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use onggi_testkit::{ImageMaker, needs};

use super::support::{Done, Onggi, archive_of};
use super::syscalls::Ground;

/// A file system in a file, mounted for the test.
struct Disk {
    point: PathBuf,
}

impl Disk {
    /// `None` is a counted skip.
    fn new(folder: &Path, kind: &str, size: u64, options: &[&str]) -> Option<Self> {
        let program = format!("mkfs.{kind}");
        if needs::root().is_missing() || needs::programs(&[&program, "mount", "umount"]).is_missing() {
            return None;
        }
        let image = folder.join(format!("{kind}.img"));
        fs::File::create(&image).and_then(|file| file.set_len(size)).expect("a file");
        Done::of(
            Command::new(needs::find_program(&program).expect("it was found")).args(options).arg(&image),
        )
        .ok();
        let point = folder.join(format!("{kind}-disk"));
        fs::create_dir(&point).expect("a folder");
        let mounted = Done::of(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point));
        if mounted.code != Some(0) {
            let _ = needs::missing(&format!("a mounted {kind}: {}", mounted.stderr.trim()));
            return None;
        }
        Some(Self { point })
    }

    fn remount(&self, mode: &str) {
        Done::of(Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(&self.point)).ok();
    }

    /// btrfs counts what was written or removed only once that is on the disk.
    fn sync(&self) {
        Done::of(Command::new("sync").arg("-f").arg(&self.point)).ok();
    }

    /// Blocks in use, in bytes.
    fn used(&self) -> u64 {
        self.sync();
        let stat = rustix::fs::statvfs(&self.point).expect("a file system");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// Takes all but so many bytes.
    fn fill(&self, left: u64) -> PathBuf {
        self.sync();
        let stat = rustix::fs::statvfs(&self.point).expect("a file system");
        let filler = self.point.join("lost+found.filler");
        let size = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        let file = fs::File::create(&filler).expect("a file");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).expect("room for it");
        file.sync_all().expect("it is written");
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Runs the command with its store on the disk.
fn on(onggi: &Onggi, disk: &Disk, storage: &str, words: &[&str]) -> Done {
    let mut command = onggi.command(words);
    command.env("ONGGI_ROOT", disk.point.join("store")).env("ONGGI_STORAGE", storage);
    Done::of(&mut command)
}

fn archive(onggi: &Onggi, name: &str, image: &onggi_testkit::TestImage) -> String {
    let path = onggi.folder().join(format!("{name}.tar"));
    fs::write(&path, archive_of(image.layout(&format!("{name}:1")))).expect("an archive");
    path.to_str().expect("a path of ours").to_owned()
}

#[test]
fn a_full_disk_gets_its_space_back() {
    for (kind, size, options) in
        [("ext4", 96 << 20, &["-q"][..]), ("xfs", 320 << 20, &["-q"]), ("btrfs", 160 << 20, &["-q", "-M"])]
    {
        let onggi = Onggi::new();
        let Some(disk) = Disk::new(onggi.folder(), kind, size, options) else { continue };
        let large = ImageMaker::new().big_layer(1, 16 << 20).big_layer(2, 16 << 20).build();
        let large = archive(&onggi, "large", &large);
        for storage in ["auto", "dir"] {
            on(&onggi, &disk, storage, &["images"]).ok();
            let filler = disk.fill(8 << 20);
            let before = disk.used();
            let done = on(&onggi, &disk, storage, &["load", "-i", &large]);
            done.assert_failed_in_words();
            assert!(done.stderr.contains("No space left"), "{kind}, {storage}: {}", done.stderr);
            assert!(done.stderr.contains("onggi system prune"), "{kind}, {storage}: {}", done.stderr);
            // What is looked at works, also without room for one byte more.
            assert_eq!(on(&onggi, &disk, storage, &["images", "-q"]).ok(), "", "{kind}, {storage}");
            on(&onggi, &disk, storage, &["system", "prune", "-f"]).ok();
            on(&onggi, &disk, storage, &["system", "check"]).ok();
            let after = disk.used();
            assert!(after < before + (2 << 20), "{kind}, {storage}: {before} bytes before, {after} after");
            fs::remove_file(filler).expect("the filler");
            on(&onggi, &disk, storage, &["load", "-q", "-i", &large]).ok();
            on(&onggi, &disk, storage, &["system", "check"]).ok();
            on(&onggi, &disk, storage, &["rmi", "large:1"]).ok();
        }
        disk.remount("ro");
        let done = on(&onggi, &disk, "auto", &["load", "-i", &large]);
        done.assert_failed_in_words();
        assert!(done.stderr.contains("Read-only file system"), "{kind}: {}", done.stderr);
        on(&onggi, &disk, "auto", &["images"]).ok();
    }
}

#[test]
fn a_disk_without_inodes_says_so() {
    let onggi = Onggi::new();
    let Some(disk) = Disk::new(onggi.folder(), "ext4", 64 << 20, &["-q", "-N", "160"]) else { return };
    let files: Vec<(String, Vec<u8>)> = (0..300).map(|n| (format!("d/{n}"), vec![b'x'; 10])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    let many = archive(&onggi, "many", &ImageMaker::new().layer(&files).build());
    let done = on(&onggi, &disk, "dir", &["load", "-i", &many]);
    done.assert_failed_in_words();
    assert!(done.stderr.contains("No space left") && done.stderr.contains("df -i"), "{}", done.stderr);
    on(&onggi, &disk, "dir", &["system", "prune", "-f"]).ok();
    on(&onggi, &disk, "dir", &["system", "check"]).ok();
    let stat = rustix::fs::statvfs(&disk.point).expect("a file system");
    assert!(stat.f_ffree > 100, "{} inodes are free", stat.f_ffree);
}

/// A device that answers with an error: the calls that make things durable and give them their names fail.
#[test]
fn a_broken_disk_is_an_error_and_nothing_else() {
    let Some(ground) = Ground::new() else { return };
    let calls = "fsync,fdatasync,syncfs,rename,renameat,renameat2,mkdirat,ftruncate,sync_file_range";
    for deed in ground.deeds.iter().filter(|deed| ["pull", "load", "build", "tag"].contains(&deed.name)) {
        let mut failed = 0;
        for call in [1, 2, 3, 5, 8] {
            ground.ready(deed);
            let old = deed.image.as_deref().and_then(|image| ground.id(image));
            let mut arguments = ["-o", "/dev/null", "-e"].map(str::to_owned).to_vec();
            arguments.push(format!("inject={calls}:error=EIO:when={call}"));
            let done = Done::of(&mut ground.traced(deed, &arguments));
            let place = format!("{}, call {call}", deed.name);
            // A hint that can't be written is no reason to fail.
            if done.code != Some(0) {
                failed += 1;
                done.assert_failed_in_words();
                assert!(done.stderr.contains("Input/output error"), "{place}: {}", done.stderr);
                let now = deed.image.as_deref().and_then(|image| ground.id(image));
                // The last calls come after the name is there; then all of the image is, as the check sees.
                assert!(now == old || now.is_some(), "{place}: {now:?}");
            }
            let check = ground.onggi.output(["system", "check"]);
            assert_eq!(check.code, Some(0), "{place}: {}{}", check.stdout, check.stderr);
        }
        assert!(failed >= 2, "{} failed {failed} times only", deed.name);
    }
}
