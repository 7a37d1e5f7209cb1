//! Frames on the wire: `AF_PACKET` sockets (`packet(7)`).
//!
//! Not here: what is in a frame (`frames`).

use super::frames::{Mac, claim};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use std::{
    io::{self, Read},
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd},
};

/// `ETH_P_ARP` (`linux/if_ether.h`).
const ARP: u16 = 0x0806;
/// Longest frame that is read: an ARP frame with room to spare.
const FRAME_BYTES_MAX: usize = 256;
/// Where an ARP frame has its sender's IPv4 address.
const SENDER_OFFSET: u32 = 28;
/// A filter's jumps reach 255 instructions.
const FILTER_ADDRESSES_MAX: usize = 250;

/// Sends whole Ethernet frames.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
}

impl Wire {
    /// A socket to send with; it receives nothing.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        Ok(Self { socket })
    }

    /// The descriptor, to be lent to the supervisor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// If the interface is down or gone, or its queue is full.
    pub fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &link_address(interface, 0)).map(drop)
    }
}

/// Hears which machine claims one of some addresses by ARP.
#[derive(Debug)]
pub struct ArpWatch {
    socket: Socket,
    interface: u32,
}

impl ArpWatch {
    /// Hears what is said of `vips` on an interface. The kernel drops all else.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or if the interface is gone.
    pub fn new(interface: u32, vips: &[Ipv4Addr]) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        if vips.len() <= FILTER_ADDRESSES_MAX {
            socket.attach_filter(&sender_filter(vips))?;
        }
        socket.bind(&link_address(interface, ARP))?;
        Ok(Self { socket, interface })
    }

    /// The interface.
    #[must_use]
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// The next claim, if there is one. Also those of this machine itself.
    #[must_use]
    pub fn next(&self) -> Option<(Mac, Ipv4Addr)> {
        let mut frame = [0; FRAME_BYTES_MAX];
        loop {
            match (&self.socket).read(&mut frame) {
                Ok(got) => {
                    if let Some(found) = claim(frame.get(..got).unwrap_or_default()) {
                        return Some(found);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing more, or the interface is down, which the monitor of links tells.
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for ArpWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Accepts ARP frames whose sender is one of `vips`.
fn sender_filter(vips: &[Ipv4Addr]) -> Vec<SockFilter> {
    let code = |bits: u32| u16::try_from(bits).unwrap_or(0);
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let jump = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let answer = code(libc::BPF_RET | libc::BPF_K);
    let mut program = vec![SockFilter::new(load, 0, 0, SENDER_OFFSET)];
    for (index, vip) in vips.iter().enumerate() {
        // Over the conditions that follow, and over the refusal behind them.
        let to_accept = u8::try_from(vips.len() - index).unwrap_or(u8::MAX);
        program.push(SockFilter::new(jump, to_accept, 0, u32::from(*vip)));
    }
    program.push(SockFilter::new(answer, 0, 0, 0));
    program.push(SockFilter::new(answer, 0, 0, u32::MAX));
    program
}

/// `struct sockaddr_ll` of an interface. A protocol of zero hears nothing.
#[must_use]
pub fn link_address(interface: u32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    #[expect(unsafe_code, reason = "no safe crate here makes a sockaddr_ll")]
    // SAFETY: sockaddr_ll is plain data that fits the storage, and all its fields that the kernel reads are set.
    unsafe {
        let address = storage.view_as::<libc::sockaddr_ll>();
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = i32::try_from(interface).unwrap_or(0);
        address.sll_halen = 6;
        SockAddr::new(storage, u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0))
    }
}
