//! The frames that announce an address, and how a claim of another machine reads. Pure.
//!
//! IPv4: ARP in request form and in reply form, because some devices listen to one only (RFC 5227 §3, RFC 5944 §4.6).
//! IPv6: an unsolicited neighbour advertisement with the override flag (RFC 4861 §7.2.6).
//!
//! Also the question whether anybody has an address, and how the answers read.
//!
//! Not here: when they are sent (`announce`).

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, ArpPacketSlice, EtherType, Icmpv6Type, PacketBuilder,
    icmpv6::NeighborAdvertisementHeader,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// The group of all nodes, and its Ethernet address (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ETHERNET_HEADER_BYTES: usize = 14;
/// ND option: target link-layer address, one unit of eight bytes (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];
/// ND option: source link-layer address.
const SOURCE_LINK_LAYER_ADDRESS: [u8; 2] = [1, 1];
/// Hop limit of neighbour discovery: proof that no router forwarded it (RFC 4861 §7.1.2).
const HOP_LIMIT: u8 = 255;

/// The frames that say: `vip` is at `mac`.
#[must_use]
pub fn announcements(mac: Mac, vip: IpAddr) -> Vec<Vec<u8>> {
    let frames = match vip {
        IpAddr::V4(vip) => {
            vec![arp(mac, vip, ArpOperation::REQUEST, [0; 6]), arp(mac, vip, ArpOperation::REPLY, mac)]
        }
        IpAddr::V6(vip) => vec![neighbour_advertisement(mac, vip)],
    };
    frames.into_iter().flatten().collect()
}

fn arp(mac: Mac, vip: Ipv4Addr, operation: ArpOperation, target: Mac) -> Option<Vec<u8>> {
    let (ethernet, ipv4) = (ArpHardwareId::ETHERNET, EtherType::IPV4);
    let vip = vip.octets();
    let packet = ArpPacket::new(ethernet, ipv4, operation, &mac, &vip, &target, &vip).ok()?;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac, BROADCAST).arp(packet).write(&mut frame).ok()?;
    Some(frame)
}

fn neighbour_advertisement(mac: Mac, vip: Ipv6Addr) -> Option<Vec<u8>> {
    let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let mut body = vip.octets().to_vec();
    body.extend(TARGET_LINK_LAYER_ADDRESS);
    body.extend(mac);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac, ALL_NODES_MAC)
        .ipv6(vip.octets(), ALL_NODES.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header))
        .write(&mut frame, &body)
        .ok()?;
    Some(frame)
}

/// Who says in this ARP frame that it has which address. A probe has no sender address and claims nothing
/// (RFC 5227 §1.1).
#[must_use]
pub fn claim(frame: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let packet = ArpPacketSlice::from_slice(frame.get(ETHERNET_HEADER_BYTES..)?).ok()?;
    if packet.hw_addr_type() != ArpHardwareId::ETHERNET || packet.proto_addr_type() != EtherType::IPV4 {
        return None;
    }
    let mac = Mac::try_from(packet.sender_hw_addr()).ok()?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(packet.sender_protocol_addr()).ok()?);
    (!address.is_unspecified()).then_some((mac, address))
}

/// The frame that asks who has `address`, and claims nothing: an ARP probe (RFC 5227 §2.1.1), or the solicitation of
/// duplicate address detection (RFC 4862 §5.4.2).
#[must_use]
pub fn question(mac: Mac, address: IpAddr) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    match address {
        IpAddr::V4(address) => {
            let (ethernet, ipv4, operation) = (ArpHardwareId::ETHERNET, EtherType::IPV4, ArpOperation::REQUEST);
            let packet = ArpPacket::new(ethernet, ipv4, operation, &mac, &[0; 4], &[0; 6], &address.octets()).ok()?;
            PacketBuilder::ethernet2(mac, BROADCAST).arp(packet).write(&mut frame).ok()?;
        }
        IpAddr::V6(address) => {
            let [.., a, b, c] = address.octets();
            // The solicited-node group (RFC 4291 §2.7.1), and its Ethernet address.
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            PacketBuilder::ethernet2(mac, [0x33, 0x33, 0xff, a, b, c])
                .ipv6(Ipv6Addr::UNSPECIFIED.octets(), group.octets(), HOP_LIMIT)
                .icmpv6(Icmpv6Type::NeighborSolicitation)
                .write(&mut frame, &address.octets())
                .ok()?;
        }
    }
    Some(frame)
}

/// What a frame says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overheard {
    /// The machine has it.
    Has(Mac, IpAddr),
    /// The machine asks for it, and has none itself.
    Asks(Mac, IpAddr),
}

/// Where a neighbour discovery message without extension headers has its type, its target, and its sender's address
/// (RFC 8200 §3, RFC 4861 §4.3, §4.4).
const IPV6_NEXT_HEADER: usize = 20;
const IPV6_SOURCE: std::ops::Range<usize> = 22..38;
const IPV6_HOP_LIMIT: usize = 21;
const ND_TYPE: usize = 54;
const ND_TARGET: std::ops::Range<usize> = 62..78;
const ND_OPTIONS: usize = 78;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Reads an ARP or neighbour discovery frame.
#[must_use]
pub fn overheard(frame: &[u8]) -> Option<Overheard> {
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            if let Some((mac, address)) = claim(frame) {
                return Some(Overheard::Has(mac, address.into()));
            }
            let packet = ArpPacketSlice::from_slice(frame.get(ETHERNET_HEADER_BYTES..)?).ok()?;
            if packet.operation() != ArpOperation::REQUEST || packet.proto_addr_type() != EtherType::IPV4 {
                return None;
            }
            let mac = Mac::try_from(packet.sender_hw_addr()).ok()?;
            let target = <[u8; 4]>::try_from(packet.target_protocol_addr()).ok()?;
            Some(Overheard::Asks(mac, Ipv4Addr::from(target).into()))
        }
        [0x86, 0xdd] => {
            let station = Mac::try_from(frame.get(6..12)?).ok()?;
            if *frame.get(IPV6_NEXT_HEADER)? != ICMPV6 || *frame.get(IPV6_HOP_LIMIT)? != HOP_LIMIT {
                return None;
            }
            let address = |range| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(range)?).ok()?));
            let (source, target) = (address(IPV6_SOURCE)?, address(ND_TARGET)?);
            match *frame.get(ND_TYPE)? {
                ADVERTISEMENT => {
                    let mac = link_layer_address(frame, TARGET_LINK_LAYER_ADDRESS).unwrap_or(station);
                    Some(Overheard::Has(mac, target.into()))
                }
                SOLICITATION if source.is_unspecified() => Some(Overheard::Asks(station, target.into())),
                SOLICITATION => {
                    let mac = link_layer_address(frame, SOURCE_LINK_LAYER_ADDRESS).unwrap_or(station);
                    Some(Overheard::Has(mac, source.into()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The hardware address in an option of this type and length: neighbours believe it, and not the frame's own sender.
fn link_layer_address(frame: &[u8], wanted: [u8; 2]) -> Option<Mac> {
    let mut options = frame.get(ND_OPTIONS..)?;
    loop {
        let [kind, units] = *options.first_chunk()?;
        if [kind, units] == wanted {
            return options.get(2..)?.first_chunk().copied();
        }
        // An option without length makes the whole message void (RFC 4861 §4.6).
        options = options.get(8 * usize::from(units)..).filter(|_| units != 0)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_ipv4_address_is_announced_in_request_and_in_reply_form() {
        let vip = Ipv4Addr::new(192, 0, 2, 10);
        let frames = announcements(MAC, vip.into());
        let seen: Vec<_> = frames
            .iter()
            .map(|frame| {
                assert_eq!(frame[..6], BROADCAST);
                assert_eq!(claim(frame), Some((MAC, vip)));
                let packet = ArpPacketSlice::from_slice(&frame[14..]).unwrap();
                assert_eq!(packet.target_protocol_addr(), vip.octets());
                (packet.operation(), packet.target_hw_addr().to_vec())
            })
            .collect();
        assert_eq!(seen, [(ArpOperation::REQUEST, vec![0; 6]), (ArpOperation::REPLY, MAC.to_vec())]);
    }

    #[test]
    fn an_ipv6_address_is_announced_by_an_overriding_unsolicited_advertisement() {
        let vip: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let frames = announcements(MAC, vip.into());
        assert_eq!(frames.len(), 1);
        let packet = SlicedPacket::from_ethernet(&frames[0]).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("not IPv6") };
        assert_eq!((ip.header().hop_limit(), ip.header().source_addr()), (255, vip));
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
        assert!(icmp.is_checksum_valid(vip.octets(), ALL_NODES.octets()));
        let Icmpv6Type::NeighborAdvertisement(header) = icmp.icmp_type() else { panic!("not an advertisement") };
        assert!(header.r#override && !header.solicited && !header.router);
        assert_eq!(icmp.payload(), [&vip.octets()[..], &[2, 1], &MAC].concat());
    }

    #[test]
    fn a_question_claims_nothing_and_is_read_as_one() {
        for text in ["192.0.2.10", "2001:db8::10"] {
            let address: IpAddr = text.parse().unwrap();
            let frame = question(MAC, address).unwrap();
            assert_eq!(overheard(&frame), Some(Overheard::Asks(MAC, address)));
            for length in 0..frame.len().min(60) {
                let cut = overheard(&frame[..length]);
                assert!(cut.is_none() || length >= 42, "{length} bytes: {cut:?}");
            }
        }
    }

    #[test]
    fn an_announcement_is_read_as_the_word_of_who_has_the_address() {
        for text in ["192.0.2.10", "2001:db8::10"] {
            let address: IpAddr = text.parse().unwrap();
            for frame in announcements(MAC, address) {
                assert_eq!(overheard(&frame), Some(Overheard::Has(MAC, address)));
            }
        }
    }

    #[test]
    fn an_advertisement_names_the_machine_that_neighbours_will_believe_in() {
        let vip: IpAddr = "2001:db8::10".parse().unwrap();
        let has = |frame: &[u8], mac| assert_eq!(overheard(frame), Some(Overheard::Has(mac, vip)), "{frame:02x?}");
        let station = [2, 0, 0, 0, 0, 9];
        let mut frame = announcements(MAC, vip).remove(0);
        frame[6..12].copy_from_slice(&station);
        has(&frame, MAC);
        let mut behind_another = frame.clone();
        behind_another.splice(78..78, [14, 1, 0, 0, 0, 0, 0, 0]);
        has(&behind_another, MAC);
        for without in
            [&frame[..78], &frame[..82], &[&frame[..78], &[0; 16]].concat(), &[&frame[..78], &[2, 0]].concat()]
        {
            has(without, station);
        }
    }

    #[test]
    fn a_frame_of_a_stranger_that_is_cut_short_claims_nothing() {
        let whole = &announcements(MAC, Ipv4Addr::new(192, 0, 2, 10).into())[0];
        for length in 0..whole.len() {
            assert_eq!(claim(&whole[..length]), None, "{length} bytes");
        }
        let mut probe = whole.clone();
        probe[28..32].fill(0);
        assert_eq!(claim(&probe), None);
    }
}
