//! An OCI layout in a directory, read without following anything out of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use onggi_oci::{Digest, MAX_MANIFEST};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2};

use super::blob_name;
use crate::error::{Error, Result};
use crate::store::{Lease, Pending};

/// The largest blob: a layer of 1 TiB, as [`crate::layer::MAX_CONTENT`].
const MAX_BLOB: u64 = 1 << 40;

/// An open layout.
pub(super) struct Layout {
    path: PathBuf,
    dir: OwnedFd,
}

impl Layout {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            openat(CWD, path, flags, Mode::empty()).map_err(|e| Error::io("open the layout", path, e))?;
        let layout = Self { path: path.to_owned(), dir };
        if layout.file("oci-layout")?.is_none() {
            let problem = "it has no file oci-layout: it is no OCI layout";
            return Err(Error::corrupt(path.display(), problem));
        }
        Ok(layout)
    }

    /// A regular file of the layout, `None` if there is none.
    fn file(&self, name: &str) -> Result<Option<(File, u64)>> {
        let failed = |e| Error::io("open", self.path.join(name), e);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = match openat2(&self.dir, name, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::corrupt(self.path.join(name).display(), "it is no regular file"));
        }
        Ok(Some((file.into(), u64::try_from(stat.st_size).unwrap_or_default())))
    }

    pub(super) fn index(&self) -> Result<Vec<u8>> {
        let path = self.path.join("index.json");
        let Some((file, _)) = self.file("index.json")? else {
            return Err(Error::corrupt(self.path.display(), "it has no index.json"));
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::io("read", path, e))?;
        Ok(bytes)
    }

    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.file(&blob_name(digest))?.map(|(_, size)| size))
    }

    /// Copies a blob into the ingest directory, verified.
    pub(super) fn take(&self, lease: &Lease, digest: &Digest) -> Result<Option<Pending>> {
        let name = blob_name(digest);
        let Some((mut file, size)) = self.file(&name)? else { return Ok(None) };
        if size > MAX_BLOB {
            return Err(Error::Limit { what: "the size in bytes of a blob", limit: MAX_BLOB });
        }
        // Only digest and size count here.
        let promised = onggi_oci::Descriptor::new(onggi_oci::MediaType::OciLayer, digest.clone(), size);
        let mut blob = lease.blob(&promised)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut buffer).map_err(|e| Error::io("read", self.path.join(&name), e))?;
            if count == 0 {
                return blob.finish(None).map(Some);
            }
            blob.put(&buffer[..count])?;
        }
    }
}
