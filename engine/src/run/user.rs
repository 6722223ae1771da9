//! Who the program runs as: `USER` of the image or `--user`, looked up in the image's own
//! `/etc/passwd` and `/etc/group`.
//!
//! ```text
//!   user[:group]   each a name or a number; nothing means 0:0
//!   passwd         name:password:uid:gid:gecos:home:shell
//!   group          name:password:gid:member,member…
//! ```
//!
//! The files belong to the image and are not trusted: they are opened inside the root, must be regular
//! files (CVE-2024-9676: a FIFO would hang us) and are read up to a limit. Numbers are checked, never
//! wrapped (CVE-2024-40635: a large `USER` that became 0).

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use onggi_image::snapshot::{Found, Snapshot};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// The most of a passwd or group file that is read; the largest real ones are far below.
const MAX_DATABASE: u64 = 4 << 20;
/// The largest ID: the kernel keeps the number above for "no ID".
const MAX_ID: u32 = u32::MAX - 1;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// User ID inside the container.
    pub uid: u32,
    /// Primary group ID.
    pub gid: u32,
    /// The groups that list the user as a member.
    pub additional_gids: Vec<u32>,
    /// The home directory, `/` if the image does not name one.
    pub home: String,
}

/// Finds the user `spec` in the tree `root`, with `--group-add` groups `extra` by name or number.
pub(crate) fn resolve(root: BorrowedFd<'_>, spec: &str, extra: &[String]) -> Result<User> {
    let passwd = read_database(root, PASSWD)?;
    let group = read_database(root, GROUP)?;
    resolve_in(&passwd, &group, spec, extra)
}

/// The same in an image, which is mounted for that only if it has to be.
pub(crate) fn resolve_in_image(image: &Snapshot, spec: &str, extra: &[String]) -> Result<User> {
    let [passwd, group] = databases(image)?;
    resolve_in(&passwd, &group, spec, extra)
}

/// The texts of an image's `/etc/passwd` and `/etc/group`; empty where there is none.
pub(crate) fn databases(image: &Snapshot) -> Result<[String; 2]> {
    let Some([passwd, group]) = image.files("etc", ["passwd", "group"])? else {
        let mounted = image.mount(None)?;
        return Ok([read_database(mounted.as_fd(), PASSWD)?, read_database(mounted.as_fd(), GROUP)?]);
    };
    let read = |found, path| match found {
        Found::File(file) => read_regular(file, path),
        Found::Nothing => Ok(String::new()),
    };
    Ok([read(passwd, PASSWD)?, read(group, GROUP)?])
}

/// The name of a user in a passwd file.
pub(crate) fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let mut entries = passwd.lines().filter_map(PasswdEntry::parse);
    entries.find(|entry| entry.uid == uid).map(|entry| entry.name.to_owned())
}

/// Whether a passwd file has a user of this name.
pub(crate) fn has_name(passwd: &str, name: &str) -> bool {
    passwd.lines().filter_map(PasswdEntry::parse).any(|entry| entry.name == name)
}

/// Whether a group file has a group of this number.
pub(crate) fn has_group(group: &str, gid: u32) -> bool {
    group.lines().filter_map(GroupEntry::parse).any(|entry| entry.gid == gid)
}

fn resolve_in(passwd: &str, group: &str, spec: &str, extra: &[String]) -> Result<User> {
    let (name, group_name) = match spec.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = number(name, "user")?;
    let entry = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| match number {
        Some(uid) => entry.uid == uid,
        None => entry.name == name,
    });
    let mut user = match (&entry, number) {
        (Some(entry), _) => User {
            uid: entry.uid,
            gid: entry.gid,
            additional_gids: Vec::new(),
            home: if entry.home.is_empty() { "/".into() } else { entry.home.into() },
        },
        (None, Some(uid)) => User { uid, home: "/".into(), ..User::default() },
        (None, None) => {
            return Err(Error::UnknownUser { kind: "user", name: name.into(), file: "/etc/passwd" });
        }
    };
    match group_name {
        Some(group_name) => user.gid = find_group(group, group_name)?,
        // An explicit group stands alone; otherwise the user's memberships come along.
        None => {
            if let Some(entry) = &entry {
                let member = group.lines().filter_map(GroupEntry::parse);
                let member = member.filter(|g| g.members.split(',').any(|m| m == entry.name));
                user.additional_gids = member.map(|g| g.gid).collect();
            }
        }
    }
    for name in extra {
        user.additional_gids.push(find_group(group, name)?);
    }
    user.additional_gids.sort_unstable();
    user.additional_gids.dedup();
    Ok(user)
}

fn find_group(group: &str, name: &str) -> Result<u32> {
    if let Some(gid) = number(name, "group")? {
        return Ok(gid);
    }
    let found = group.lines().filter_map(GroupEntry::parse).find(|entry| entry.name == name);
    found.map(|entry| entry.gid).ok_or_else(|| Error::UnknownUser {
        kind: "group",
        name: name.into(),
        file: "/etc/group",
    })
}

/// `None` if the text is a name.
fn number(text: &str, kind: &'static str) -> Result<Option<u32>> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(Error::IdOutOfRange { kind, text: text.into(), max: MAX_ID }),
    }
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// Lines that are not as they should be are passed over, as the C library does.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
        let gid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }
}

/// The text of a file of the image; empty if there is none.
fn read_database(root: BorrowedFd<'_>, path: &'static str) -> Result<String> {
    use rustix::io::Errno;

    let failed = |source: std::io::Error| Error::ImageFile { path, source };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // O_NONBLOCK: a FIFO in this place must not make us wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: OwnedFd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(failed(errno.into())),
    };
    read_regular(file, path)
}

fn read_regular(file: OwnedFd, path: &'static str) -> Result<String> {
    let failed = |source: std::io::Error| Error::ImageFile { path, source };
    let stat = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::ImageFileKind { path });
    }
    // One more than it has, to see its end in the same call.
    let size = u64::try_from(stat.st_size).unwrap_or_default().min(MAX_DATABASE);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    std::fs::File::from(file).take(MAX_DATABASE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_DATABASE {
        return Err(Error::ImageFileSize { path, limit: MAX_DATABASE });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nbig:x:4294967296:0::/:\n\
                          app:x:1000:1001:App:/home/app:/bin/sh\nnohome:x:7:7::\n";
    const GROUPS: &str = "root:x:0:\nadm:x:4:app,other\naudio:x:29:app\napps:x:1001:\n";

    fn user(spec: &str) -> Result<User> {
        resolve_in(USERS, GROUPS, spec, &[])
    }

    #[test]
    fn names_and_numbers_are_found() {
        let root = user("").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        let app = user("app").unwrap();
        assert_eq!((app.uid, app.gid, app.home.as_str()), (1000, 1001, "/home/app"));
        assert_eq!(app.additional_gids, [4, 29]);
        assert_eq!(user("1000").unwrap(), app);
        let grouped = user("app:adm").unwrap();
        assert_eq!((grouped.gid, grouped.additional_gids), (4, vec![]));
        assert_eq!(user("5:6").unwrap(), User { uid: 5, gid: 6, additional_gids: vec![], home: "/".into() });
        assert_eq!(user("nohome").unwrap().home, "/");
        assert_eq!(
            resolve_in(USERS, GROUPS, "app", &["apps".into(), "77".into()]).unwrap().additional_gids,
            [4, 29, 77, 1001]
        );
    }

    #[test]
    fn numbers_never_wrap_and_unknown_names_are_errors() {
        for bad in [
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "0:4294967296",
            "nobody",
            "app:nogroup",
            "big",
        ] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_passwd_that_is_no_file_is_refused_and_one_outside_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let fifo = etc.join("passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        assert!(matches!(resolve(root.as_fd(), "0", &[]), Err(Error::ImageFileKind { .. })));
        std::fs::remove_file(&fifo).unwrap();
        // An absolute link stays inside the root, where there is no such file.
        std::os::unix::fs::symlink("/etc/passwd", &fifo).unwrap();
        assert!(resolve(root.as_fd(), "daemon", &[]).is_err());
    }
}
