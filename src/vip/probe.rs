//! Asks the neighbours of an interface who has an address, without having it: RFC 5227 §2.1.1 for IPv4, the question of
//! duplicate address detection (RFC 4862 §5.4.2) for IPv6.
//!
//! Not here: what is in a frame (`frames`), how often one asks and what follows (`cluster::arbiter`).

use super::{
    frames::{Mac, Overheard, overheard, question},
    packet::link_address,
};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::IpAddr,
    os::fd::AsRawFd,
};

/// `ETH_P_ARP` and `ETH_P_IPV6` (`linux/if_ether.h`).
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const FRAME_BYTES_MAX: usize = 256;
/// Frames read at a time: the rest is read next time.
const FRAMES_MAX: usize = 1024;
/// `PACKET_MR_ALLMULTI` (packet(7)): questions of others go to groups that this machine may not be in.
const ALL_MULTICAST: libc::c_ushort = 2;

/// Asks on some interfaces for some addresses.
#[derive(Debug)]
pub struct Asker {
    wires: Vec<Wire>,
}

/// One interface and family.
#[derive(Debug)]
struct Wire {
    socket: Socket,
    interface: u32,
    mac: Mac,
    addresses: Vec<IpAddr>,
}

/// What was heard of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// A machine has it.
    Taken(Mac),
    /// A machine asks for it as we do.
    Asked(Mac),
}

impl Asker {
    /// Opens what is needed to ask on each interface for its addresses.
    ///
    /// # Errors
    /// If an interface is not there, or without `CAP_NET_RAW`; which one, in words.
    pub fn new(targets: &[(String, IpAddr)]) -> Result<Self, String> {
        let mut grouped: BTreeMap<(&str, bool), Vec<IpAddr>> = BTreeMap::new();
        for (interface, address) in targets {
            grouped.entry((interface, address.is_ipv6())).or_default().push(*address);
        }
        let open = |((interface, v6), addresses)| {
            Wire::open(interface, v6, addresses).map_err(|error| format!("cannot ask on {interface}: {error}"))
        };
        Ok(Self { wires: grouped.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Asks for all addresses, once.
    ///
    /// # Errors
    /// If a question could not be sent: silence would say nothing then.
    pub fn ask(&self) -> Result<(), String> {
        for wire in &self.wires {
            for address in &wire.addresses {
                let frame = question(wire.mac, *address).ok_or("a question could not be written")?;
                wire.socket
                    .send_to(&frame, &link_address(wire.interface, 0))
                    .map_err(|error| format!("cannot ask for {address}: {error}"))?;
            }
        }
        Ok(())
    }

    /// What was heard since the last time.
    #[must_use]
    pub fn heard(&self) -> Vec<(IpAddr, Heard)> {
        let mut all = Vec::new();
        for wire in &self.wires {
            wire.read(&mut all);
        }
        all
    }
}

impl Wire {
    fn open(interface: &str, v6: bool, addresses: Vec<IpAddr>) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        if v6 {
            socket.attach_filter(&discovery_filter())?;
            hear_all_groups(&socket, index)?;
        }
        socket.bind(&link_address(index, if v6 { ETH_P_IPV6 } else { ETH_P_ARP }))?;
        let mac = mac_of(&socket.local_addr()?).ok_or_else(|| io::Error::other("it is no Ethernet interface"))?;
        Ok(Self { socket, interface: index, mac, addresses })
    }

    fn read(&self, all: &mut Vec<(IpAddr, Heard)>) {
        let mut frame = [0; FRAME_BYTES_MAX];
        for _ in 0..FRAMES_MAX {
            match (&self.socket).read(&mut frame) {
                Ok(length) => {
                    let Some(heard) = overheard(frame.get(..length).unwrap_or_default()) else { continue };
                    let (mac, address, heard) = match heard {
                        Overheard::Has(mac, address) => (mac, address, Heard::Taken(mac)),
                        Overheard::Asks(mac, address) => (mac, address, Heard::Asked(mac)),
                    };
                    if mac != self.mac && self.addresses.contains(&address) && !all.contains(&(address, heard)) {
                        all.push((address, heard));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Lets neighbour solicitations and advertisements pass: ICMPv6 types 135 and 136, right behind the IPv6 header.
fn discovery_filter() -> Vec<SockFilter> {
    let code = |bits: u32| u16::try_from(bits).unwrap_or(0);
    let load = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
    let jump = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let answer = code(libc::BPF_RET | libc::BPF_K);
    vec![
        SockFilter::new(load, 0, 0, 20),
        SockFilter::new(jump, 0, 4, 58),
        SockFilter::new(load, 0, 0, 54),
        SockFilter::new(jump, 1, 0, 135),
        SockFilter::new(jump, 0, 1, 136),
        SockFilter::new(answer, 0, 0, u32::MAX),
        SockFilter::new(answer, 0, 0, 0),
    ]
}

/// The address of the interface to which a packet socket is bound.
fn mac_of(bound: &SockAddr) -> Option<Mac> {
    #[expect(unsafe_code, reason = "no safe crate here reads a sockaddr_ll of Ethernet, which the kernel cuts short")]
    // SAFETY: what is pointed to is a sockaddr_storage, which is larger, aligned for all kinds, and initialized.
    let link = unsafe { &*bound.as_ptr().cast::<libc::sockaddr_ll>() };
    let ethernet = i32::from(link.sll_family) == libc::AF_PACKET && link.sll_halen == 6;
    link.sll_addr.first_chunk().copied().filter(|_| ethernet)
}

fn hear_all_groups(socket: &Socket, interface: u32) -> io::Result<()> {
    let wish = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        mr_type: ALL_MULTICAST,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::packet_mreq>()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no safe crate here sets this option")]
    // SAFETY: the descriptor is open, and the option is read from `wish`, whose size is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const wish).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
