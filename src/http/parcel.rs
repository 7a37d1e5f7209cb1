//! Parts of files that go from the page cache to a socket without a copy in this process (`sendfile`).
//!
//! hyper counts, frames and queues the bytes of a body, and knows nothing of files. So a body hands out a stand-in: bytes
//! of the right number at an address that nothing else has. [`Stream`](super::Stream), which writes what hyper has queued,
//! knows it by that address and sends the part of the file whose turn it is. Whoever is between the two must not look at the
//! bytes: only HTTP/1.1 over plain TCP is, where they are written as they are queued.

use crate::limits::PARCEL_BYTES_MAX;
use bytes::Bytes;
use std::{
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// Never read, so it costs no memory.
static STAND_IN: [u8; PARCEL_BYTES_MAX] = [0; PARCEL_BYTES_MAX];

/// A part of a file that waits for its turn.
#[derive(Debug)]
pub(crate) struct Parcel {
    file: Arc<OwnedFd>,
    pub(super) at: u64,
    pub(super) length: usize,
}

impl Parcel {
    /// A part of `file` of at most [`PARCEL_BYTES_MAX`] bytes, and what hyper is told in its place.
    pub(crate) fn new(file: &Arc<OwnedFd>, at: u64, length: u64) -> (Self, Bytes) {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(PARCEL_BYTES_MAX);
        let stand_in = STAND_IN.get(..length).unwrap_or_default();
        (Self { file: Arc::clone(file), at, length }, Bytes::from_static(stand_in))
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether these bytes stand for a part of a file.
pub(super) fn stands_in(bytes: &IoSlice<'_>) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}
