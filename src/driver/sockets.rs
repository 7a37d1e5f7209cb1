//! UDP sockets of the links: bound to addresses that may come later, marked as network control.

use crate::limits::DATAGRAM_BYTES_MAX;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, UdpSocket as StdUdpSocket},
    task::Poll,
};
use tokio::{io::ReadBuf, net::UdpSocket};

/// Differentiated services: network control (RFC 4594 §3.1), as the top six bits of the field.
const DSCP_CS6: u32 = 48 << 2;

/// Sockets that are read as one.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<UdpSocket>,
    first: usize,
}

/// Binds a UDP socket to an address that this machine may not have yet.
///
/// # Errors
/// If the address is taken, or may not be taken by this user.
pub fn bind(address: SocketAddr) -> io::Result<StdUdpSocket> {
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
    pub fn new(sockets: Vec<StdUdpSocket>) -> io::Result<Self> {
        let sockets = sockets.into_iter().map(UdpSocket::from_std).collect::<io::Result<_>>()?;
        Ok(Self { sockets, first: 0 })
    }

    /// Waits for a datagram on any of them; which one, from where, and how long. Longer ones are cut and will not open.
    pub async fn receive(&mut self, buffer: &mut [u8; DATAGRAM_BYTES_MAX + 1]) -> (usize, SocketAddr, usize) {
        let count = self.sockets.len();
        poll_fn(|context| {
            for step in 0..count {
                let at = (self.first + step) % count;
                let mut into = ReadBuf::new(buffer);
                loop {
                    match self.sockets[at].poll_recv_from(context, &mut into) {
                        Poll::Ready(Ok(from)) => {
                            self.first = at + 1;
                            return Poll::Ready((at, from, into.filled().len()));
                        }
                        // What the network says of an earlier send (ICMP) is no news: silence tells the same.
                        Poll::Ready(Err(_)) => {}
                        Poll::Pending => break,
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Hands a datagram to the kernel. What cannot go out is lost, as any datagram may be; whether it went.
    pub fn send(&self, by: usize, to: SocketAddr, datagram: &[u8]) -> bool {
        // Straight to the kernel: the runtime's idea of readiness begins only with its first turn.
        self.sockets.get(by).is_some_and(|socket| SockRef::from(socket).send_to(datagram, &to.into()).is_ok())
    }
}
