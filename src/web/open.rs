//! Opens and reads files below a root, without waiting for a disk on a web thread.
//!
//! No way out: the kernel itself resolves the name beneath an open root (`openat2` with `RESOLVE_BENEATH`): no `..`,
//! no absolute name and no symlink leads outside, whatever is renamed meanwhile. Only where the configuration says
//! `symlinks = "any"` a link may lead out; names still cannot, for they hold no `..` (`path`).
//!
//! No waiting: names are looked up in the kernel's caches (`RESOLVE_CACHED`) and bytes read from the page cache
//! (`RWF_NOWAIT`) right on the web thread, which costs a few microseconds. What is not cached is done by a reader
//! thread. So one cold file, or a disk that hangs, does not hold up the other connections. On file systems that cannot
//! say whether they would wait, memory (tmpfs) and overlays are read at once, all others by a reader.

use crate::{
    config::Symlinks,
    limits::{FILE_LOOK_BYTES, FILE_PIECE_BYTES, FILE_PIECES_SPARE_MAX},
};
use arrayvec::ArrayVec;
use bytes::Bytes;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2},
    io::{Errno, ReadWriteFlags, preadv2},
};
use std::{
    cell::RefCell,
    io::{self, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much an opening may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all: `AGAIN`, or `INVAL` from a kernel before 5.12, if it would have to.
    Never,
    /// For the disk.
    Disk,
}

impl Wait {
    const fn flags(self) -> ResolveFlags {
        match self {
            Self::Never => ResolveFlags::CACHED,
            Self::Disk => ResolveFlags::empty(),
        }
    }
}

/// A root that was opened. Opened anew for each look, so that a deployment that swaps a symlink (`current ->
/// release-42`) shows; all files of one look come from one root.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    resolve: ResolveFlags,
}

impl Root {
    /// Opens it.
    pub(super) fn open(path: &Path, symlinks: Symlinks, wait: Wait) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(CWD, path, flags, Mode::empty(), wait.flags())?;
        let links = match symlinks {
            Symlinks::None => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Symlinks::Inside => ResolveFlags::BENEATH,
            // The links of /proc lead to whatever a process holds open.
            Symlinks::Any => ResolveFlags::NO_MAGICLINKS,
        };
        Ok(Self { fd, resolve: links | wait.flags() })
    }

    /// Opens what `name` is below it.
    ///
    /// # Errors
    /// What the kernel says; `XDEV` when the name would lead out.
    pub(super) fn file(&self, name: &Path) -> Result<File, Errno> {
        let flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::RDONLY;
        let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
        let fd = openat2(&self.fd, name, flags, Mode::empty(), self.resolve)?;
        let stat = fstat(&fd)?;
        Ok(File {
            kind: FileType::from_raw_mode(stat.st_mode),
            stamp: Stamp {
                device: stat.st_dev,
                inode: stat.st_ino,
                size: u64::try_from(stat.st_size).unwrap_or(0),
                modified: moment(stat.st_mtime, stat.st_mtime_nsec),
                changed: moment(stat.st_ctime, stat.st_ctime_nsec),
            },
            fd: Arc::new(fd),
        })
    }
}

/// What was before 1970 counts as 1970.
fn moment(seconds: i64, nanos: u64) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(nanos)
}

/// What tells one state of one file from every other, on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    /// Of its bytes, or of what is known about it; nobody can set this one.
    pub(super) changed: SystemTime,
}

/// A file that was opened.
#[derive(Debug, Clone)]
pub(super) struct File {
    fd: Arc<OwnedFd>,
    pub(super) kind: FileType,
    pub(super) stamp: Stamp,
}

impl File {
    /// All bytes, at once. For small files.
    ///
    /// # Errors
    /// If it cannot be read, or has become shorter.
    pub(super) async fn read_all(&self) -> io::Result<Bytes> {
        let size = usize::try_from(self.stamp.size).map_err(io::Error::other)?;
        let (read, is_there) = self.read_into(vec![0; size]);
        match is_there {
            Some(whole) => whole.map(|()| read.into()),
            None => {
                let fd = Arc::clone(&self.fd);
                let reading = move || fill(&fd, read, ReadWriteFlags::empty());
                let (read, whole) = spawn_blocking(reading).await.map_err(io::Error::other)?;
                whole?;
                Ok(read.into())
            }
        }
    }

    /// Fills `buffer` from the start of the file if that needs no waiting; none if it does.
    fn read_into(&self, buffer: Vec<u8>) -> (Vec<u8>, Option<io::Result<()>>) {
        match fill(&self.fd, buffer, ReadWriteFlags::NOWAIT) {
            (buffer, Err(Errno::AGAIN)) => (buffer, None),
            (buffer, Err(Errno::OPNOTSUPP)) if in_memory(&self.fd) => {
                let (buffer, read) = fill(&self.fd, buffer, ReadWriteFlags::empty());
                (buffer, Some(read.map_err(io::Error::from)))
            }
            (buffer, Err(Errno::OPNOTSUPP)) => (buffer, None),
            (buffer, read) => (buffer, Some(read.map_err(io::Error::from))),
        }
    }

    /// Reads a piece of the bytes from `at` to `end` if that needs no waiting.
    pub(super) fn read_cached(&self, at: u64, end: u64) -> Option<io::Result<Bytes>> {
        match read_piece(&self.fd, at, end, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => None,
            Err(Errno::OPNOTSUPP) if in_memory(&self.fd) => {
                Some(whole_piece(read_piece(&self.fd, at, end, ReadWriteFlags::empty())))
            }
            Err(Errno::OPNOTSUPP) => None,
            read => Some(whole_piece(read)),
        }
    }

    /// Reads a piece on a reader's thread.
    pub(super) fn read_elsewhere(&self, at: u64, end: u64) -> JoinHandle<io::Result<Bytes>> {
        let fd = Arc::clone(&self.fd);
        spawn_blocking(move || whole_piece(read_piece(&fd, at, end, ReadWriteFlags::empty())))
    }

    /// Whether the bytes from `at` to `end` can be sent without waiting for the disk, as far as a look at some of them can
    /// tell. An error if the file has become shorter.
    pub(super) fn is_cached(&self, at: u64, end: u64) -> io::Result<bool> {
        let step = usize::try_from(FILE_LOOK_BYTES).unwrap_or(usize::MAX);
        for look in (at..end).step_by(step).chain([end - 1]) {
            match read_at(&self.fd, &mut [0], look, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(shorter()),
                Ok(_) => {}
                Err(Errno::OPNOTSUPP) => return Ok(in_memory(&self.fd)),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// For [`super::files`] to list a directory, or to send it.
    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

/// Fills the buffer with what the file begins with. `NODATA`: the file is shorter.
fn fill(fd: impl AsFd, mut buffer: Vec<u8>, flags: ReadWriteFlags) -> (Vec<u8>, Result<(), Errno>) {
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match read_at(&fd, rest, at as u64, flags) {
            Ok(0) => return (buffer, Err(Errno::NODATA)),
            Ok(length) => at += length,
            Err(error) => return (buffer, Err(error)),
        }
    }
    (buffer, Ok(()))
}

fn read_at(fd: impl AsFd, buffer: &mut [u8], at: u64, flags: ReadWriteFlags) -> Result<usize, Errno> {
    loop {
        match preadv2(&fd, &mut [IoSliceMut::new(buffer)], at, flags) {
            Err(Errno::INTR) => {}
            read => return read,
        }
    }
}

fn read_piece(fd: impl AsFd, at: u64, end: u64, flags: ReadWriteFlags) -> Result<Bytes, Errno> {
    let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(FILE_PIECE_BYTES);
    let mut piece = Piece::new();
    let buffer = piece.buffer.get_mut(..wanted).unwrap_or_default();
    piece.length = read_at(fd, buffer, at, flags)?;
    Ok(Bytes::from_owner(piece))
}

/// A buffer of [`FILE_PIECE_BYTES`] that is used again by the thread on which it was sent: a new one would be fetched
/// from the kernel and cleared each time, which costs as much as reading it.
struct Piece {
    buffer: Vec<u8>,
    length: usize,
}

thread_local! {
    static SPARE: RefCell<ArrayVec<Vec<u8>, FILE_PIECES_SPARE_MAX>> = const { RefCell::new(ArrayVec::new_const()) };
}

impl Piece {
    fn new() -> Self {
        let spare = SPARE.with_borrow_mut(ArrayVec::pop);
        Self { buffer: spare.unwrap_or_else(|| vec![0; FILE_PIECE_BYTES]), length: 0 }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // What does not fit, or comes while the thread ends, is freed.
        SPARE.try_with(|spare| spare.borrow_mut().try_push(buffer).ok()).ok();
    }
}

/// No bytes where there should be some: the file has become shorter.
fn whole_piece(read: Result<Bytes, Errno>) -> io::Result<Bytes> {
    let piece = read?;
    if piece.is_empty() {
        return Err(shorter());
    }
    Ok(piece)
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent")
}

/// Whether the file system is memory, or lies over one whose file it would not tell about.
fn in_memory(fd: impl AsFd) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    const OVERLAYFS: i64 = 0x794c_7630;
    #[expect(clippy::unnecessary_cast, reason = "the type differs between machines")]
    let kind = fstatfs(fd).map_or(0, |system| system.f_type as i64);
    matches!(kind, TMPFS | RAMFS | OVERLAYFS)
}
