//! The folder of what must survive: private, and used by one process at a time.
//!
//! The lock is a `flock(2)` on a file of its own that also holds the pid, so that a second daemon can name the first.
//! The kernel drops it when the process ends, however it ends.

use super::Error;
use crate::limits::{LOCK_RETRY, LOCK_TRIES};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
};

/// A folder that this process alone may use while the value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be (0700), takes away what others may do in it, and locks it.
    ///
    /// # Errors
    /// [`Error::Locked`] names the process that uses it; [`Error::Io`] if it cannot be made, made private, or is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        create(path)?;
        let at = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&at)
            .map_err(|e| Error::io("open", &at, &e))?;
        if let Err(e) = lock_exclusively(&lock) {
            if e != rustix::io::Errno::WOULDBLOCK {
                return Err(Error::io("lock", &at, &e.into()));
            }
            let mut text = String::new();
            let pid = (&mut lock).take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::Locked { folder: path.display().to_string(), pid });
        }
        let write = |mut file: &File| file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        write(&lock).map_err(|e| Error::io("write", &at, &e))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes the lock, at once or as soon as a holder that is on its way out is gone: a child that it forked last has a copy
/// of the lock until its `exec`.
fn lock_exclusively(file: &File) -> rustix::io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_RETRY),
            done => return done,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Creates a private folder, or makes an existing one private.
///
/// # Errors
/// [`Error::Io`] if it cannot be made, made private, or is no folder.
pub fn create(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::io("create folder", path, &e))?;
    let mode = fs::metadata(path).map_err(|e| Error::io("read", path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|e| Error::io("make private", path, &e))?;
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("sync folder", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_names_the_process_that_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let held = Folder::open(&path).unwrap();
        let refused = Folder::open(&path).unwrap_err();
        let pid = Some(std::process::id());
        assert_eq!(refused, Error::Locked { folder: path.display().to_string(), pid });
        assert!(refused.to_string().contains(&std::process::id().to_string()));
        drop(held);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_open_to_others_is_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let _held = Folder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(path.join("lock")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
