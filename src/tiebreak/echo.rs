//! Asks addresses for an echo (ICMP: RFC 792, RFC 4443 §4.1), and hears which ones answer.

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const ECHO_BYTES: usize = 16;
/// Replies read at a time.
const REPLIES_MAX: usize = 256;

/// Asks some addresses.
#[derive(Debug)]
pub struct Echo {
    targets: Vec<Target>,
    id: u16,
    sequence: u16,
}

#[derive(Debug)]
struct Target {
    address: IpAddr,
    socket: Socket,
}

impl Echo {
    /// Opens a socket for each address: the kernel then hands over nothing but what comes from there. `id` tells our
    /// questions from those of other programs.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or if there is no way to an address; which one, in words.
    pub fn new(addresses: &[IpAddr], id: u16) -> Result<Self, String> {
        let open = |address: &IpAddr| {
            let (domain, protocol) = match address {
                IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
                IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
            };
            let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
            // A way to it may come later: without one it only does not answer.
            let _way = socket.connect(&SockAddr::from(SocketAddr::new(*address, 0))).is_ok();
            Ok(Target { address: *address, socket })
        };
        let targets: io::Result<_> = addresses.iter().map(open).collect();
        let targets = targets.map_err(|error| format!("cannot ask for an echo: {error}"))?;
        Ok(Self { targets, id, sequence: 0 })
    }

    /// Asks all of them, once. What cannot be sent is not answered.
    pub fn ask(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        for target in &self.targets {
            let to = SockAddr::from(SocketAddr::new(target.address, 0));
            let _sent = target.socket.send_to(&request(target.address, self.id, self.sequence), &to).is_ok();
        }
    }

    /// Which answered since the last time.
    #[must_use]
    pub fn heard(&self) -> Vec<IpAddr> {
        self.targets.iter().filter(|target| self.answered(target)).map(|target| target.address).collect()
    }

    fn answered(&self, target: &Target) -> bool {
        let mut packet = [0; 256];
        let mut answered = false;
        for _ in 0..REPLIES_MAX {
            match (&target.socket).read(&mut packet) {
                Ok(length) => {
                    answered |= is_reply(target.address, self.id, packet.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        answered
    }
}

fn request(to: IpAddr, id: u16, seq: u16) -> Vec<u8> {
    let payload = [0x68; ECHO_BYTES];
    let mut packet = match to {
        IpAddr::V4(_) => {
            let kind = Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq });
            Icmpv4Header::with_checksum(kind, &payload).to_bytes().to_vec()
        }
        // The kernel fills the checksum of ICMPv6 in (RFC 3542 §3.1).
        IpAddr::V6(_) => {
            let [[a, b], [c, d]] = [id.to_be_bytes(), seq.to_be_bytes()];
            vec![ECHO_REQUEST_V6, 0, 0, 0, a, b, c, d]
        }
    };
    packet.extend(payload);
    packet
}

/// Whether a packet is a reply to a question of ours. IPv4 comes with its header, IPv6 without (raw(7), ipv6(7)).
fn is_reply(from: IpAddr, id: u16, packet: &[u8]) -> bool {
    let (icmp, wanted) = match from {
        IpAddr::V4(from) => {
            let header = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
            if packet.get(12..16) != Some(&from.octets()) {
                return false;
            }
            (packet.get(header..).unwrap_or_default(), ECHO_REPLY_V4)
        }
        IpAddr::V6(_) => (packet, ECHO_REPLY_V6),
    };
    icmp.first() == Some(&wanted) && icmp.get(4..6) == Some(&id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn only_a_reply_of_the_asked_address_with_our_number_counts() {
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let mut packet = vec![0x45; 12];
        packet.extend(from.octets());
        packet.extend([192, 0, 2, 9]);
        packet.extend(request(from.into(), 77, 1));
        assert!(!is_reply(from.into(), 77, &packet), "a request is no reply");
        packet[20] = ECHO_REPLY_V4;
        assert!(is_reply(from.into(), 77, &packet));
        assert!(!is_reply(from.into(), 78, &packet));
        assert!(!is_reply(Ipv4Addr::new(192, 0, 2, 2).into(), 77, &packet));
        for length in 0..26 {
            assert!(!is_reply(from.into(), 77, &packet[..length]), "{length} bytes");
        }
    }
}
