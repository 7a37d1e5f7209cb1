//! UDP sockets of the links: bound to addresses that may come later, marked as network control.
//!
//! They are bound to an address and to no interface (`SO_BINDTODEVICE`). An address may come later, on an interface that
//! is not there yet, and may move to another (a bond, a bridge); a socket bound to an interface that is made anew is
//! deaf until it is bound again. A link may also lead through routers. The price: where the machine routes between the
//! networks of two links, the loss of one interface may be bridged by the other, and the link is told to carry. So it
//! does, and nothing about ownership rests on which way a datagram came; but a link that is to be redundant needs a
//! network of its own.

use crate::limits::DATAGRAM_BYTES_MAX;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, UdpSocket},
    task::{Context, Poll},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Differentiated services: network control (RFC 4594 §3.1), as the top six bits of the field.
const DSCP_CS6: u32 = 48 << 2;

/// Sockets that are read as one. Only reading is watched for: the runtime's own UDP socket would wake this thread each
/// time that something sent has left.
#[derive(Debug)]
pub struct Sockets {
    /// A place stays empty when its socket is not needed any more: others keep their numbers.
    sockets: Vec<Option<AsyncFd<UdpSocket>>>,
    first: usize,
}

/// Binds a UDP socket to an address that this machine may not have yet.
///
/// # Errors
/// If the address is taken, or may not be taken by this user.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
        socket.set_freebind_v6(true)?;
        // Best effort: the mark helps where switches look at it.
        let _marked = socket.set_tclass_v6(DSCP_CS6).is_ok();
    } else {
        socket.set_freebind_v4(true)?;
        let _marked = socket.set_tos_v4(DSCP_CS6).is_ok();
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

impl Sockets {
    /// Takes bound sockets into the runtime of the calling thread.
    ///
    /// # Errors
    /// If the runtime cannot watch them.
    pub fn new(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        let sockets = sockets.into_iter().map(|socket| watched(socket).map(Some)).collect::<Result<_, _>>()?;
        Ok(Self { sockets, first: 0 })
    }

    /// Takes one more; its number.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn add(&mut self, socket: UdpSocket) -> io::Result<usize> {
        let socket = Some(watched(socket)?);
        if let Some(at) = self.sockets.iter().position(Option::is_none) {
            self.sockets[at] = socket;
            return Ok(at);
        }
        self.sockets.push(socket);
        Ok(self.sockets.len() - 1)
    }

    /// Closes one. What waits on it is lost.
    pub fn remove(&mut self, at: usize) {
        if let Some(socket) = self.sockets.get_mut(at) {
            *socket = None;
        }
    }

    /// Waits for a datagram on any of them; which one, from where, and how long. Longer ones are cut and will not open.
    pub async fn receive(&mut self, buffer: &mut [u8; DATAGRAM_BYTES_MAX + 1]) -> (usize, SocketAddr, usize) {
        let count = self.sockets.len();
        poll_fn(|context| {
            for step in 0..count {
                let at = (self.first + step) % count;
                let Some(socket) = &self.sockets[at] else { continue };
                if let Poll::Ready((length, from)) = Self::poll_one(socket, context, buffer) {
                    self.first = at + 1;
                    return Poll::Ready((at, from, length));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn poll_one(
        socket: &AsyncFd<UdpSocket>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<(usize, SocketAddr)> {
        loop {
            let Poll::Ready(Ok(mut ready)) = socket.poll_read_ready(context) else { return Poll::Pending };
            // What the network says of an earlier send (ICMP) is no news: silence tells the same. Or nothing waits.
            if let Ok(Ok(arrived)) = ready.try_io(|socket| socket.get_ref().recv_from(buffer)) {
                return Poll::Ready(arrived);
            }
        }
    }

    /// Hands a datagram to the kernel. What cannot go out is lost, as any datagram may be; whether it went.
    pub fn send(&self, by: usize, to: SocketAddr, datagram: &[u8]) -> bool {
        let socket = self.sockets.get(by).and_then(Option::as_ref);
        socket.is_some_and(|socket| socket.get_ref().send_to(datagram, to).is_ok())
    }
}

fn watched(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    #[expect(unsafe_code, reason = "the runtime asks for a promise about the descriptor")]
    // SAFETY: the socket owns its descriptor, always gives the same one, and is owned by what is made here.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(watched?)
}
