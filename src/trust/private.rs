//! Reads and writes files that only their owner may see, and the error of this room.

use crate::cluster::Name;
use rustix::fs::{Mode, OFlags};
use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Longest file of certificates or keys, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why something of a node's identity cannot be used. Nothing has changed.
#[derive(Debug)]
pub enum TrustError {
    /// A file cannot be read or written.
    Io {
        /// What was tried: `read`, `write`, `make`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Others than the owner may read a secret.
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file does not hold what it should.
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Something is there already and is not overwritten.
    Exists(PathBuf),
    /// Two members have the same name.
    SameName(Name),
    /// The cryptographic library refused; not expected.
    Crypto(String),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { verb, path, cause } => write!(f, "cannot {verb} {}: {cause}", path.display()),
            Self::TooOpen { path, mode } => {
                let path = path.display();
                write!(f, "{path} can be read by others (mode {mode:04o}): chmod 600 {path}")
            }
            Self::Content { path, what } => write!(f, "{}: {what}", path.display()),
            Self::Exists(path) => write!(
                f,
                "{} is there already, and keys are never overwritten: move it away, or choose another folder with --out",
                path.display()
            ),
            Self::SameName(name) => {
                write!(f, "the name {name} is taken twice: give each member a name of its own, and none of them \"ca\"")
            }
            Self::Crypto(what) => write!(f, "cannot use the cryptographic library: {what}"),
        }
    }
}

impl std::error::Error for TrustError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::TooOpen { .. } | Self::Content { .. } | Self::Exists(_) | Self::SameName(_) | Self::Crypto(_) => None,
        }
    }
}

/// What is wrong with the content of `path`.
pub(super) fn bad(path: &Path, what: impl Into<String>) -> TrustError {
    TrustError::Content { path: path.to_owned(), what: what.into() }
}

fn failed(verb: &'static str, path: &Path, cause: io::Error) -> TrustError {
    TrustError::Io { verb, path: path.to_owned(), cause }
}

fn not_made(verb: &'static str, path: &Path, cause: io::Error) -> TrustError {
    if cause.kind() == io::ErrorKind::AlreadyExists {
        TrustError::Exists(path.to_owned())
    } else {
        failed(verb, path, cause)
    }
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    /// Everybody.
    All,
    /// Its owner and its group: keys of sites are often shared so.
    Group,
    /// Its owner alone.
    Owner,
}

/// The whole text of a small file; a secret one must not be readable by others.
pub(super) fn read(path: &Path, readers: Readers) -> Result<String, TrustError> {
    read_up_to(path, readers, FILE_BYTES_MAX)
}

/// The same, for files that may be longer or shorter.
pub(super) fn read_up_to(path: &Path, readers: Readers, bytes_max: u64) -> Result<String, TrustError> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(|e| failed("read", path, e.into()))?;
    let file = File::from(file);
    let facts = file.metadata().map_err(|e| failed("read", path, e))?;
    if !facts.is_file() {
        return Err(bad(path, "is not a file"));
    }
    let forbidden = match readers {
        Readers::All => 0,
        Readers::Group => 0o007,
        Readers::Owner => 0o077,
    };
    if facts.mode() & forbidden != 0 {
        return Err(TrustError::TooOpen { path: path.to_owned(), mode: facts.mode() & 0o7777 });
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|e| failed("read", path, e))?;
    if bytes.len() as u64 > bytes_max {
        return Err(bad(path, format!("is longer than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| bad(path, "is not text"))
}

/// Writes a new file and flushes it; never touches one that is there.
pub(super) fn write_new(path: &Path, readers: Readers, text: &str) -> Result<(), TrustError> {
    let mode = match readers {
        Readers::All => 0o644,
        Readers::Group => 0o640,
        Readers::Owner => 0o600,
    };
    let opened = File::options().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|e| not_made("write", path, e))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| failed("write", path, e))
}

/// Makes a new folder that only its owner can enter.
pub(super) fn make_dir(path: &Path) -> Result<(), TrustError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(|e| not_made("make", path, e))
}
