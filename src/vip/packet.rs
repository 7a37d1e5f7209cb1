//! Frames on the wire: `AF_PACKET` sockets (`packet(7)`).
//!
//! Not here: what is in a frame (`frames`).

use super::frames::{Mac, Overheard, overheard};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use std::{
    io::{self, Read},
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// `ETH_P_ARP` and `ETH_P_IPV6` (`linux/if_ether.h`).
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Longest frame that is read: one that claims an address, with room to spare.
const FRAME_BYTES_MAX: usize = 256;
/// Where an ARP frame has its sender's IPv4 address.
const SENDER_OFFSET: u32 = 28;
/// Where an IPv6 packet tells what is in it, and a neighbour advertisement its type and the end of its target.
const NEXT_HEADER_OFFSET: u32 = 20;
const ND_TYPE_OFFSET: u32 = 54;
const TARGET_END_OFFSET: u32 = 74;
const ICMPV6: u32 = 58;
const ADVERTISEMENT: u32 = 136;
/// Answers of a filter: no byte of the frame, or all of them.
const REFUSE: u32 = 0;
const ACCEPT: u32 = u32::MAX;
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

/// How machines say that they have an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speech {
    /// ARP, for IPv4.
    Arp,
    /// Neighbour discovery, for IPv6.
    Discovery,
}

impl Speech {
    /// The one in which an address is claimed.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Arp,
            IpAddr::V6(_) => Self::Discovery,
        }
    }

    const fn protocol(self) -> u16 {
        match self {
            Self::Arp => ARP,
            Self::Discovery => IPV6,
        }
    }
}

/// Hears which machine claims one of some addresses.
#[derive(Debug)]
pub struct ClaimWatch {
    socket: Socket,
    interface: u32,
    speech: Speech,
}

impl ClaimWatch {
    /// Hears what is said of `vips`, which are all of one family, on an interface. The kernel drops all else.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or if the interface is gone.
    pub fn new(interface: u32, speech: Speech, vips: &[IpAddr]) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        socket.attach_filter(&claim_filter(speech, vips))?;
        socket.bind(&link_address(interface, speech.protocol()))?;
        Ok(Self { socket, interface, speech })
    }

    /// Where it hears, and what.
    #[must_use]
    pub const fn place(&self) -> (u32, Speech) {
        (self.interface, self.speech)
    }

    /// The next claim, if there is one: perhaps of an address that is none of ours.
    #[must_use]
    pub fn next(&self) -> Option<(Mac, IpAddr)> {
        let mut frame = [0; FRAME_BYTES_MAX];
        loop {
            match (&self.socket).read(&mut frame) {
                Ok(got) => {
                    if let Some(Overheard::Has(mac, address)) = overheard(frame.get(..got).unwrap_or_default()) {
                        return Some((mac, address));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing more, or the interface is down, which the monitor of links tells.
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for ClaimWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Accepts what may claim one of `vips`: ARP frames by their sender, neighbour advertisements by the last four bytes of
/// their target. Of very many addresses all claims are accepted.
fn claim_filter(speech: Speech, vips: &[IpAddr]) -> Vec<SockFilter> {
    let code = |bits: u32| u16::try_from(bits).unwrap_or(0);
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let load_byte = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
    let jump = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let end = |answer| SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, answer);
    let mut program = Vec::new();
    if speech == Speech::Discovery {
        for (offset, wanted) in [(NEXT_HEADER_OFFSET, ICMPV6), (ND_TYPE_OFFSET, ADVERTISEMENT)] {
            program.extend([
                SockFilter::new(load_byte, 0, 0, offset),
                SockFilter::new(jump, 1, 0, wanted),
                end(REFUSE),
            ]);
        }
    }
    if vips.len() <= FILTER_ADDRESSES_MAX {
        let offset = match speech {
            Speech::Arp => SENDER_OFFSET,
            Speech::Discovery => TARGET_END_OFFSET,
        };
        program.push(SockFilter::new(load, 0, 0, offset));
        for (index, vip) in vips.iter().enumerate() {
            // Over the conditions that follow, and over the refusal behind them.
            let to_accept = u8::try_from(vips.len() - index).unwrap_or(u8::MAX);
            program.push(SockFilter::new(jump, to_accept, 0, last_bytes(*vip)));
        }
        program.push(end(REFUSE));
    }
    program.push(end(ACCEPT));
    program
}

fn last_bytes(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    }
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
