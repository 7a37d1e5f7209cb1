//! Frames on a stream: a length of four bytes, then a message.
//!
//! Hears: messages to send, from a bounded queue. Tells: messages received, one at a time, as they are taken.
//! A session on which nothing was heard for `limits::SESSION_IDLE_MAX` is over, and so is one that sends anything
//! beyond the limits. A receiver that does not take its messages holds the sender back (TCP does that).
//!
//! Not here: how the stream came to be (`link`), what messages mean (`protocol`).

use super::message::Message;
use crate::limits::{FRAME_BYTES_MAX, FRAMES_QUEUED_MAX, SESSION_IDLE_MAX, SESSION_PING};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

/// A session that is up. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Session {
    outgoing: mpsc::Sender<Message>,
    incoming: mpsc::Receiver<Message>,
    tasks: [JoinHandle<()>; 2],
}

/// When an idle session says so, and when a silent one is over.
#[derive(Debug, Clone, Copy)]
struct Pace {
    ping: Duration,
    idle: Duration,
}

impl Session {
    /// Starts on a stream whose other end is known to be the peer.
    pub(super) fn start<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::start_at(stream, Pace { ping: SESSION_PING, idle: SESSION_IDLE_MAX })
    }

    fn start_at<S>(stream: S, pace: Pace) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let (outgoing, to_send) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (received, incoming) = mpsc::channel(1);
        let reader = tokio::spawn(async move {
            let why = receive_all(read, received, pace).await;
            tracing::debug!(cause = %why, "replication session ended");
        });
        let writer = tokio::spawn(async move {
            if let Err(why) = send_all(write, to_send, pace).await {
                tracing::debug!(cause = %why, "replication session ended");
            }
        });
        Self { outgoing, incoming, tasks: [reader, writer] }
    }

    /// Queues a message. `false`: the peer is too slow, or the session is over.
    pub(super) fn send(&self, message: Message) -> bool {
        self.outgoing.try_send(message).is_ok()
    }

    /// The next message; `None` when the session is over.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        self.incoming.recv().await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Hands on what comes, until something is wrong. A ping has done its work by coming.
async fn receive_all<R: AsyncRead + Unpin>(mut read: R, received: mpsc::Sender<Message>, pace: Pace) -> io::Error {
    loop {
        match timeout(pace.idle, read_frame(&mut read)).await {
            Ok(Ok(Message::Ping)) => {}
            Ok(Ok(message)) => {
                if received.send(message).await.is_err() {
                    return io::Error::other("nobody listens");
                }
            }
            Ok(Err(e)) => return e,
            Err(_) => return io::ErrorKind::TimedOut.into(),
        }
    }
}

pub(super) async fn read_frame<R: AsyncRead + Unpin>(read: &mut R) -> io::Result<Message> {
    let length = read.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut frame = vec![0; length];
    read.read_exact(&mut frame).await?;
    Message::decode(&frame).map_err(io::Error::other)
}

async fn send_all<W: AsyncWrite + Unpin>(
    mut write: W,
    mut queue: mpsc::Receiver<Message>,
    pace: Pace,
) -> io::Result<()> {
    loop {
        let message = match timeout(pace.ping, queue.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(_) => Message::Ping,
        };
        let bytes = message.encode().map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let frame = [&length.to_be_bytes()[..], &bytes].concat();
        let written = async {
            write.write_all(&frame).await?;
            if queue.is_empty() { write.flush().await } else { Ok(()) }
        };
        timeout(pace.idle, written).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Term;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn messages_arrive_in_order() {
        runtime().block_on(async {
            let (a, b) = tokio::io::duplex(1000);
            let (a, mut b) = (Session::start(a), Session::start(b));
            for term in 1..200 {
                assert!(a.send(Message::Lead { term: Term(term) }));
            }
            for term in 1..200 {
                assert_eq!(b.receive().await, Some(Message::Lead { term: Term(term) }));
            }
            drop(a);
            assert_eq!(b.receive().await, None);
        });
    }

    #[test]
    fn a_frame_beyond_the_limit_or_of_garbage_ends_the_session() {
        for bad in [&[0xff; 8][..], &[0, 0, 0, 2, 0xff, 0xff], &[0, 1, 0, 1]] {
            runtime().block_on(async {
                let (mut a, b) = tokio::io::duplex(1000);
                let mut b = Session::start(b);
                a.write_all(bad).await.unwrap();
                assert_eq!(b.receive().await, None);
            });
        }
    }

    #[test]
    fn a_silent_peer_is_given_up_and_an_idle_one_is_not() {
        let pace = Pace { ping: Duration::from_millis(20), idle: Duration::from_secs(1) };
        runtime().block_on(async {
            let (_silent, b) = tokio::io::duplex(1000);
            let begun = std::time::Instant::now();
            assert_eq!(Session::start_at(b, pace).receive().await, None);
            assert!(begun.elapsed() >= pace.idle);
            let (a, b) = tokio::io::duplex(1000);
            let (_idle, mut b) = (Session::start_at(a, pace), Session::start_at(b, pace));
            assert!(timeout(pace.idle * 3 / 2, b.receive()).await.is_err(), "it is still up");
        });
    }
}
