//! Opens and reads files below a root, without waiting for a disk on a web thread.
//!
//! No way out: the kernel itself resolves the name beneath an open root (`openat2` with `RESOLVE_BENEATH`): no `..`,
//! no absolute name and no symlink leads outside, whatever is renamed meanwhile. The root is opened anew for each
//! request, so a deployment that swaps a symlink (`current -> release-42`) shows with the next request; one request
//! sees one root.
//!
//! No waiting: names are looked up in the kernel's caches (`RESOLVE_CACHED`) and bytes read from the page cache
//! (`RWF_NOWAIT`) right on the web thread, which costs a few microseconds. What is not cached is done by a reader
//! thread. So one cold file, or a disk that hangs, does not hold up the other connections. On file systems that cannot
//! say whether they would wait, memory (tmpfs) and overlays are read at once, all others by a reader.

use crate::limits::FILE_PIECE_BYTES;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2},
    io::{Errno, ReadWriteFlags, preadv2},
};
use std::{
    future::Future,
    io::{self, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// A file that was opened.
#[derive(Debug, Clone)]
pub(super) struct File {
    fd: Arc<OwnedFd>,
    pub(super) kind: FileType,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// Opens what `name` is below `root`.
///
/// # Errors
/// What the kernel says; `XDEV` when the name would lead out.
pub(super) async fn open(root: &Path, name: &Path) -> Result<File, Errno> {
    match open_beneath(root, name, ResolveFlags::CACHED) {
        // INVAL: a kernel before 5.12 does not know the flag.
        Err(Errno::AGAIN | Errno::INVAL) => {
            let (root, name) = (root.to_owned(), name.to_owned());
            let opened = spawn_blocking(move || open_beneath(&root, &name, ResolveFlags::empty())).await;
            opened.unwrap_or(Err(Errno::IO))
        }
        opened => opened,
    }
}

fn open_beneath(root: &Path, name: &Path, cached: ResolveFlags) -> Result<File, Errno> {
    let flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::RDONLY;
    let root = openat2(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), cached)?;
    let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
    let fd = openat2(root, name, flags, Mode::empty(), cached | ResolveFlags::BENEATH)?;
    let stat = fstat(&fd)?;
    let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    let nanos = Duration::from_nanos(stat.st_mtime_nsec);
    Ok(File {
        kind: FileType::from_raw_mode(stat.st_mode),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: SystemTime::UNIX_EPOCH + seconds + nanos,
        fd: Arc::new(fd),
    })
}

impl File {
    /// All bytes from `start` to `end`, at once. For small files.
    ///
    /// # Errors
    /// If it cannot be read, or has become shorter.
    pub(super) async fn read(&self, start: u64, end: u64) -> io::Result<Bytes> {
        let (mut collected, mut at) = (Vec::new(), start);
        while at < end {
            let piece = match self.read_cached(at, end) {
                Some(read) => read?,
                None => self.read_elsewhere(at, end).await.map_err(io::Error::other)??,
            };
            at += piece.len() as u64;
            if at == end && collected.is_empty() {
                return Ok(piece);
            }
            collected.extend_from_slice(&piece);
        }
        Ok(collected.into())
    }

    /// The bytes from `start` to `end` in pieces. They break off with an error if the file becomes shorter.
    pub(super) fn stream(self, start: u64, end: u64) -> Pieces {
        Pieces { file: self, at: start, end, reading: None }
    }

    /// Reads a piece if that needs no waiting.
    fn read_cached(&self, at: u64, end: u64) -> Option<io::Result<Bytes>> {
        match read_piece(&self.fd, at, end, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => None,
            Err(Errno::OPNOTSUPP) if in_memory(&self.fd) => {
                Some(whole_piece(read_piece(&self.fd, at, end, ReadWriteFlags::empty())))
            }
            Err(Errno::OPNOTSUPP) => None,
            read => Some(whole_piece(read)),
        }
    }

    fn read_elsewhere(&self, at: u64, end: u64) -> JoinHandle<io::Result<Bytes>> {
        let fd = Arc::clone(&self.fd);
        spawn_blocking(move || whole_piece(read_piece(&fd, at, end, ReadWriteFlags::empty())))
    }
}

fn read_piece(fd: impl AsFd, at: u64, end: u64, flags: ReadWriteFlags) -> Result<Bytes, Errno> {
    let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(FILE_PIECE_BYTES);
    let mut piece = vec![0; wanted];
    let length = loop {
        match preadv2(&fd, &mut [IoSliceMut::new(&mut piece)], at, flags) {
            Err(Errno::INTR) => {}
            read => break read?,
        }
    };
    piece.truncate(length);
    Ok(piece.into())
}

/// No bytes where there should be some: the file has become shorter.
fn whole_piece(read: Result<Bytes, Errno>) -> io::Result<Bytes> {
    let piece = read?;
    if piece.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
    }
    Ok(piece)
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

/// The bytes of a file, in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    file: File,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let (at, end) = (self.at, self.end);
        let read = match &mut self.reading {
            Some(reading) => {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                read.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            None => match self.file.read_cached(at, end) {
                Some(read) => read,
                None => {
                    self.reading = Some(self.file.read_elsewhere(at, end));
                    return self.poll_frame(cx);
                }
            },
        };
        if let Ok(piece) = &read {
            self.at += piece.len() as u64;
        }
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
