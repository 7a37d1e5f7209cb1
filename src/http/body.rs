//! The body of a response: nothing, bytes, or a stream.

use super::scope::InProgress;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

/// A body that comes in pieces.
pub type BoxStream = Pin<Box<dyn HttpBody<Data = Bytes, Error = io::Error>>>;

/// The body of a response.
pub struct Body {
    kind: Kind,
    request: Option<InProgress>,
}

enum Kind {
    Empty,
    Whole(Bytes),
    Stream(BoxStream),
}

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self { kind: Kind::Empty, request: None }
    }

    /// Bytes at hand.
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Whole(bytes) }, request: None }
    }

    /// Bytes that come in pieces. An error breaks the response off.
    #[must_use]
    pub fn stream(stream: impl HttpBody<Data = Bytes, Error = io::Error> + 'static) -> Self {
        Self { kind: Kind::Stream(Box::pin(stream)), request: None }
    }

    /// The request is in progress until this body has been sent or given up.
    pub(crate) fn of(mut self, request: InProgress) -> Self {
        self.request = Some(request);
        self
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => {
                let polled = stream.as_mut().poll_frame(cx);
                if let (Poll::Ready(Some(Err(_))), Some(request)) = (&polled, &self.request) {
                    request.break_off();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Whole(_) => false,
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}
