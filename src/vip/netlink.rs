//! Netlink without a runtime: requests that the kernel has answered when `send` returns.
//!
//! For the supervisor, for reading back (a dump that the kernel calls inconsistent is repeated), for `sockets` and `gate`.
//! Adding, renewing and watching addresses is `vip::addresses`, by rtnetlink.

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla, NlasIterator,
    Parseable,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::LinkMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use socket2::{SockFilter, SockRef};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Longest datagram that is read. The kernel builds dumps in pieces of at most 32 KiB.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// A dump that changes under the reader is repeated this often.
const DUMP_TRIES_MAX: usize = 10;

/// Where a header names the port of whoever caused it (`struct nlmsghdr`, `linux/netlink.h`).
const NLMSG_PID_OFFSET: u32 = 12;

/// One netlink socket.
pub struct Channel {
    socket: Socket,
    port: u32,
    sequence: u32,
    sent: Vec<u8>,
    datagram: Vec<u8>,
}

/// One message of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its type.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The sequence number of the request.
    pub sequence: u32,
    /// The port of the socket that caused it.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl Answer<'_> {
    /// The error that this message tells, if it is one. An acknowledgement is not.
    #[must_use]
    pub fn error(&self) -> Option<io::Error> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        (code < 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
    }
}

impl Channel {
    /// A socket of this netlink protocol.
    ///
    /// # Errors
    /// If the kernel lacks the protocol or there are no more descriptors.
    pub fn new(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, port, sequence: 0, sent: Vec::new(), datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX) })
    }

    /// Hears the messages of a multicast group from now on.
    ///
    /// # Errors
    /// If there is no such group.
    pub fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// No longer hears of what the socket with this port causes: the kernel drops that before it would wake anybody.
    ///
    /// # Errors
    /// If the kernel refuses the filter.
    pub fn ignore(&self, port: u32) -> io::Result<()> {
        let code = |bits: u32| u16::try_from(bits).unwrap_or(0);
        let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
        let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
        let answer = code(libc::BPF_RET | libc::BPF_K);
        let program = [
            SockFilter::new(load, 0, 0, NLMSG_PID_OFFSET),
            // A filter loads in network order what the header has in this machine's.
            SockFilter::new(equal, 0, 1, u32::from_be_bytes(port.to_ne_bytes())),
            SockFilter::new(answer, 0, 0, 0),
            SockFilter::new(answer, 0, 0, u32::MAX),
        ];
        SockRef::from(self).attach_filter(&program)
    }

    /// The port that names this socket in what it causes.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Sends messages in one datagram; the kernel has carried them out when this returns. The first sequence number.
    ///
    /// # Errors
    /// If the kernel does not take the datagram. Nothing has changed then.
    pub fn send<I: NetlinkSerializable>(&mut self, messages: Vec<NetlinkMessage<I>>) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        self.sent.clear();
        for mut message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.header.sequence_number = self.sequence;
            message.finalize();
            let at = self.sent.len();
            self.sent.resize(at + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut self.sent[at..]);
        }
        self.socket.send(&self.sent, 0)?;
        Ok(first)
    }

    /// Reads one datagram, if there is one, and shows each of its messages.
    ///
    /// # Errors
    /// `ENOBUFS` if messages were lost.
    pub fn read(&mut self, mut each: impl FnMut(Answer<'_>)) -> io::Result<bool> {
        self.datagram.clear();
        match self.socket.recv(&mut self.datagram, libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        each_message(&self.datagram, &mut each);
        Ok(true)
    }

    /// Sends messages and reads what the kernel says to them.
    ///
    /// # Errors
    /// The first error that the kernel told.
    pub fn request<I: NetlinkSerializable>(&mut self, messages: Vec<NetlinkMessage<I>>) -> io::Result<()> {
        let first = self.send(messages)?;
        let (mut acknowledged, mut failed) = (false, None);
        while self.read(|answer| {
            // What was left over of an earlier request has a lower number.
            if answer.kind == NLMSG_ERROR && answer.sequence.wrapping_sub(first) < u32::MAX / 2 {
                acknowledged = true;
                failed = failed.take().or(answer.error());
            }
        })? {}
        match failed {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(io::Error::other("the kernel did not answer")),
        }
    }

    /// Asks for a dump, and makes a value of each message that is one.
    ///
    /// # Errors
    /// If the kernel refuses, or the dump changed under the reader each time.
    pub fn dump<I: NetlinkSerializable + Clone, T>(
        &mut self,
        request: &NetlinkMessage<I>,
        make: impl Fn(Answer<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_TRIES_MAX {
            let first = self.send(vec![request.clone()])?;
            let (mut all, mut torn, mut done, mut failed) = (Vec::new(), false, false, None);
            while !done {
                let more = self.read(|answer| {
                    if answer.sequence != first {
                        return;
                    }
                    torn |= answer.flags & NLM_F_DUMP_INTR != 0 || answer.kind == NLMSG_OVERRUN;
                    done |= matches!(answer.kind, NLMSG_DONE | NLMSG_ERROR);
                    failed = failed.take().or(answer.error());
                    all.extend(make(answer));
                })?;
                if !more && !done {
                    return Err(io::Error::other("the kernel did not finish a dump"));
                }
            }
            match failed {
                Some(error) => return Err(error),
                None if torn => {}
                None => return Ok(all),
            }
        }
        Err(io::Error::other("a dump changed each time that it was read"))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[expect(unsafe_code, reason = "netlink-sys has no AsFd")]
        // SAFETY: the descriptor is open as long as the socket lives, and the borrow is not longer than that.
        unsafe {
            BorrowedFd::borrow_raw(self.socket.as_raw_fd())
        }
    }
}

/// Shows each message of a datagram, up to one that is not whole.
pub(super) fn each_message(datagram: &[u8], mut each: impl FnMut(Answer<'_>)) {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        each(Answer {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            port: message.port_number(),
            payload: message.payload(),
        });
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// A message whose bytes are made by hand.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The type.
    pub kind: u16,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Raw {
    /// The message with a header that carries these flags beside `NLM_F_REQUEST`.
    #[must_use]
    pub fn message(self, flags: u16) -> NetlinkMessage<Self> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(self));
        message.header.flags = NLM_F_REQUEST | flags;
        message
    }
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

/// An address as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Address and prefix length.
    pub address: IpNet,
    /// Index of its interface.
    pub interface: u32,
}

impl Present {
    /// What names it in a request.
    #[must_use]
    pub fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = if self.address.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.prefix_len = self.address.prefix_len();
        message.header.index = self.interface;
        message.attributes.push(AddressAttribute::Local(self.address.addr()));
        message.attributes.push(AddressAttribute::Address(self.address.addr()));
        message
    }

    /// Reads what the kernel says of an address. `IFA_LOCAL` is the address itself where both are there
    /// (`linux/if_addr.h`).
    #[must_use]
    pub fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut address) = (None, None);
        for attribute in &message.attributes {
            if let AddressAttribute::Local(ip) = attribute {
                local = Some(*ip);
            } else if let AddressAttribute::Address(ip) = attribute {
                address = Some(*ip);
            }
        }
        let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Self { address, interface: message.header.index })
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if that is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// Whether someone has switched it on.
    pub up: bool,
    /// Whether there is a carrier.
    pub carrier: bool,
    /// How often a carrier came: also what went and came between two looks is seen by it.
    pub carrier_ups: u32,
}

impl Link {
    const fn works(&self) -> bool {
        self.up && self.carrier
    }

    /// Whether the neighbours have to be told: it works, and did not before, lost its carrier in between, or is another
    /// interface or has another hardware address now.
    #[must_use]
    pub fn came_up_since(&self, before: Option<&Self>) -> bool {
        let same = |before: &Self| {
            before.works() && (before.index, before.mac, before.carrier_ups) == (self.index, self.mac, self.carrier_ups)
        };
        self.works() && !before.is_some_and(same)
    }
}

/// An address as the kernel has it, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasting {
    /// What it is, and where.
    pub present: Present,
    /// For so many seconds it may be picked as a source address; `u32::MAX` is for ever.
    pub preferred_secs: u32,
    /// For so many seconds it stays; `u32::MAX` is for ever.
    pub valid_secs: u32,
}

impl Lasting {
    /// Reads what the kernel says of an address. What it says nothing of lasts for ever.
    #[must_use]
    pub fn from_message(message: &AddressMessage) -> Option<Self> {
        let present = Present::from_message(message)?;
        let lifetime = message.attributes.iter().find_map(|attribute| {
            if let AddressAttribute::CacheInfo(info) = attribute {
                Some((info.ifa_preferred, info.ifa_valid))
            } else {
                None
            }
        });
        let (preferred_secs, valid_secs) = lifetime.unwrap_or((u32::MAX, u32::MAX));
        Some(Self { present, preferred_secs, valid_secs })
    }
}

/// Addresses and interfaces.
pub struct Routing {
    channel: Channel,
}

// linux/rtnetlink.h, linux/if_link.h, linux/if.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const IFINFOMSG_BYTES: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;

impl Routing {
    /// A socket for them.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { channel: Channel::new(NETLINK_ROUTE)? })
    }

    /// All addresses of this machine.
    ///
    /// # Errors
    /// If the dump fails.
    pub fn addresses(&mut self) -> io::Result<Vec<Lasting>> {
        let request = route_message(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP);
        self.channel.dump(&request, |answer| {
            let message = (answer.kind == RTM_NEWADDR).then(|| AddressMessage::parse(answer.payload))?;
            Lasting::from_message(&message.ok()?)
        })
    }

    /// Those of `wanted` that are on any interface of this machine.
    ///
    /// # Errors
    /// If the dump fails.
    pub fn present(&mut self, wanted: &[IpAddr]) -> io::Result<Vec<Present>> {
        let mut all: Vec<Present> = self.addresses()?.into_iter().map(|one| one.present).collect();
        all.retain(|present| wanted.contains(&present.address.addr()));
        Ok(all)
    }

    /// Deletes an address. One that is not there is no error.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete(&mut self, present: &Present) -> io::Result<()> {
        let request = route_message(RouteNetlinkMessage::DelAddress(present.message()), NLM_F_ACK);
        match self.channel.request(vec![request]) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Deletes those of `vips` that are on any interface; whether a dump afterwards shows none. Tries all, whatever fails.
    ///
    /// # Errors
    /// If a dump fails: it is not known then what is there.
    pub fn delete_all(&mut self, vips: &[IpAddr]) -> io::Result<bool> {
        let present = self.present(vips)?;
        if present.is_empty() {
            return Ok(true);
        }
        let mut refused = None;
        for one in present {
            refused = refused.or(self.delete(&one).err());
        }
        match (self.present(vips)?.is_empty(), refused) {
            (false, Some(error)) => Err(error),
            (gone, _) => Ok(gone),
        }
    }

    /// All interfaces of this machine.
    ///
    /// # Errors
    /// If the dump fails.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let request = route_message(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP);
        self.channel.dump(&request, |answer| (answer.kind == RTM_NEWLINK).then(|| parse_link(answer.payload))?)
    }
}

fn route_message(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

/// The few facts of an interface that matter here. The whole message holds dozens of nested attributes, and one that a
/// parser does not understand would hide the interface.
pub(super) fn parse_link(payload: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
    let flags = u32::from_ne_bytes(*payload.get(8..)?.first_chunk()?);
    let (mut name, mut mac, mut carrier_ups) = (None, None, 0);
    for attribute in NlasIterator::new(payload.get(IFINFOMSG_BYTES..)?) {
        let attribute = attribute.ok()?;
        if attribute.kind() == IFLA_IFNAME {
            let text = attribute.value().split(|byte| *byte == 0).next()?;
            name = Some(String::from_utf8_lossy(text).into_owned());
        } else if attribute.kind() == IFLA_ADDRESS {
            mac = <[u8; 6]>::try_from(attribute.value()).ok();
        } else if attribute.kind() == IFLA_CARRIER_UP_COUNT {
            carrier_ups = attribute.value().first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        }
    }
    Some(Link { index, name: name?, mac, up: flags & IFF_UP != 0, carrier: flags & IFF_LOWER_UP != 0, carrier_ups })
}

/// A message type that is only sent: the compiler wants to know how it would be read.
impl NetlinkDeserializable for Raw {
    type Error = netlink_packet_core::DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}

/// Appends one attribute by hand: length, type, value, padding (`struct nlattr`, `linux/netlink.h`).
pub fn push_attribute(buffer: &mut Vec<u8>, attribute: &impl Nla) {
    let at = buffer.len();
    buffer.resize(at + (4 + attribute.value_len()).next_multiple_of(4), 0);
    let length = u16::try_from(4 + attribute.value_len()).unwrap_or(u16::MAX);
    buffer[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    buffer[at + 2..at + 4].copy_from_slice(&attribute.kind().to_ne_bytes());
    let end = at + 4 + attribute.value_len();
    attribute.emit_value(&mut buffer[at + 4..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_come_up_when_its_neighbours_may_know_it_no_more() {
        let now = Link { index: 2, name: "eth0".into(), mac: Some([2; 6]), up: true, carrier: true, carrier_ups: 1 };
        assert!(!now.came_up_since(Some(&now)));
        assert!(now.came_up_since(None), "it was not there");
        for before in [
            Link { up: false, ..now.clone() },
            Link { carrier: false, ..now.clone() },
            Link { carrier_ups: 0, ..now.clone() },
            Link { mac: Some([4; 6]), ..now.clone() },
            Link { index: 3, ..now.clone() },
        ] {
            assert!(now.came_up_since(Some(&before)), "{before:?}");
        }
        let down = Link { carrier: false, ..now.clone() };
        assert!(!down.came_up_since(Some(&now)) && !down.came_up_since(None));
    }
}
