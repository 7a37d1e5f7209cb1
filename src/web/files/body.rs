//! The body of a response that is read from a file while it is sent: parts of the file, and text between them.

use crate::{
    http::{Connection, Parcel},
    limits::PARCEL_BYTES_MAX,
    web::open::File,
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    future::Future,
    io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::task::JoinHandle;

/// One after the other. They break off with an error if the file becomes shorter.
#[derive(Debug)]
pub(super) struct Pieces {
    file: File,
    rest: VecDeque<Segment>,
    length: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Where parts of the file may be sent as such.
    connection: Option<Arc<Connection>>,
}

/// What comes next.
#[derive(Debug, Clone)]
pub(super) enum Segment {
    /// Bytes at hand.
    Text(Bytes),
    /// Bytes of the file; not empty.
    Part(Range<u64>),
}

impl Segment {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Text(bytes) => bytes.len() as u64,
            Self::Part(part) => part.end - part.start,
        }
    }
}

impl Pieces {
    pub(super) fn new(file: File, rest: VecDeque<Segment>, connection: &Arc<Connection>) -> Self {
        let length = rest.iter().map(Segment::length).sum();
        let connection = connection.may_send_files().then(|| Arc::clone(connection));
        Self { file, rest, length, reading: None, connection }
    }
}

/// The next bytes of a part, if they need no waiting: to be sent from the page cache, or read.
fn at_once(file: &File, part: &Range<u64>, connection: Option<&Arc<Connection>>) -> Option<io::Result<Bytes>> {
    let Some(connection) = connection else { return file.read_cached(part.start, part.end) };
    let end = part.end.min(part.start + PARCEL_BYTES_MAX as u64);
    match file.is_cached(part.start, end) {
        Ok(true) => {
            let (parcel, stand_in) = Parcel::new(file.fd(), part.start, end - part.start);
            connection.parcels().push_back(parcel);
            Some(Ok(stand_in))
        }
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let read = match this.rest.front_mut() {
            None => return Poll::Ready(None),
            Some(Segment::Text(bytes)) => {
                let bytes = std::mem::take(bytes);
                this.rest.pop_front();
                Ok(bytes)
            }
            Some(Segment::Part(part)) => {
                let read = match &mut this.reading {
                    None => match at_once(&this.file, part, this.connection.as_ref()) {
                        Some(read) => read,
                        None => {
                            this.reading = Some(this.file.read_elsewhere(part.start, part.end));
                            return self.poll_frame(cx);
                        }
                    },
                    Some(reading) => {
                        let read = ready!(Pin::new(reading).poll(cx));
                        this.reading = None;
                        read.unwrap_or_else(|error| Err(io::Error::other(error)))
                    }
                };
                part.start += read.as_ref().map_or(0, |piece| piece.len() as u64);
                if part.is_empty() {
                    this.rest.pop_front();
                }
                read
            }
        };
        this.length -= read.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
