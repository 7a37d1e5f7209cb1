//! The tables, sets and rules of the gate as netlink messages. Pure.
//!
//! As `nft` would print it (the arp table has its own pair of IPv4 sets, because sets belong to a table):
//! ```text
//! table inet hawser {
//!   set guarded4 { type ipv4_addr; flags constant; }      set guarded6 …
//!   set open4    { type ipv4_addr; flags timeout; }       set open6 …
//!   set squeeze4 { type ipv4_addr; flags timeout; }       set squeeze6 …
//!   chain input { type filter hook input priority mangle;
//!     ip  daddr @guarded4 ip  daddr != @open4 drop
//!     ip6 daddr @guarded6 ip6 daddr != @open6 drop
//!     icmpv6 type nd-neighbor-solicit icmpv6 taddr @guarded6 icmpv6 taddr != @open6 drop
//!     ip  daddr @squeeze4 tcp flags & (syn|ack) == syn drop
//!     ip6 daddr @squeeze6 tcp flags & (syn|ack) == syn drop }
//!   chain output { type filter hook output priority mangle;
//!     icmpv6 type 133-137 ip6 saddr @guarded6 ip6 saddr != @open6 drop
//!     icmpv6 type nd-neighbor-advert icmpv6 taddr @guarded6 icmpv6 taddr != @open6 drop }
//! }
//! table arp hawser {
//!   chain input  { type filter hook input  …; arp operation request arp daddr ip @guarded4 arp daddr ip != @open4 drop }
//!   chain output { type filter hook output …; arp saddr ip @guarded4 arp saddr ip != @open4 drop }
//! }
//! ```
//! ARP *replies* come in: they are the other node's announcements, by which this node's own neighbour table follows the
//! address. IP packets *from* a shut address go out: they are the resets of destroyed connections.

use crate::limits::GATE_FIRST;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{
        Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook, HookNumber,
        Immediate, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute,
        RuleMessage, SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage,
        TableAttribute, TableMessage, Verdict, VerdictAttribute,
    },
};
use std::{net::IpAddr, time::Duration};

pub(super) type Message = NetlinkMessage<NetfilterMessage>;

/// Name of both tables.
pub(super) const TABLE: &str = "hawser";

// linux/netfilter.h, linux/netfilter_arp.h, linux/netfilter/nf_tables.h
const NF_INET_LOCAL_IN: u32 = 1;
const NF_INET_LOCAL_OUT: u32 = 3;
const NF_ARP_IN: u32 = 0;
const NF_ARP_OUT: u32 = 1;
const NF_DROP: u32 = 0;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const NFT_LOOKUP_F_INV: u32 = 1;
/// `NF_IP_PRI_MANGLE`: before the filters of other people.
const PRIORITY: i32 = -150;

// Where the fields are: RFC 791, RFC 8200, RFC 9293, RFC 826, RFC 4861 §4.3 and §4.4.
const IP4_DESTINATION: Field = Field { base: NETWORK_HEADER, offset: 16, length: 4 };
const IP6_SOURCE: Field = Field { base: NETWORK_HEADER, offset: 8, length: 16 };
const IP6_DESTINATION: Field = Field { base: NETWORK_HEADER, offset: 24, length: 16 };
const ARP_OPERATION: Field = Field { base: NETWORK_HEADER, offset: 6, length: 2 };
const ARP_SENDER: Field = Field { base: NETWORK_HEADER, offset: 14, length: 4 };
const ARP_TARGET: Field = Field { base: NETWORK_HEADER, offset: 24, length: 4 };
const TCP_FLAGS: Field = Field { base: TRANSPORT_HEADER, offset: 13, length: 1 };
const ICMP6_TYPE: Field = Field { base: TRANSPORT_HEADER, offset: 0, length: 1 };
const ND_TARGET: Field = Field { base: TRANSPORT_HEADER, offset: 8, length: 16 };

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMP6: u8 = 58;
const ARP_REQUEST: [u8; 2] = [0, 1];
const ROUTER_SOLICIT: u8 = 133;
const NEIGHBOUR_SOLICIT: u8 = 135;
const NEIGHBOUR_ADVERT: u8 = 136;
const REDIRECT: u8 = 137;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

#[derive(Clone, Copy)]
struct Field {
    base: u32,
    offset: u32,
    length: u32,
}

/// One of the gate's sets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Guarded,
    Open,
    Squeeze,
}

impl Set {
    const fn name(self, ipv4: bool) -> &'static str {
        match (self, ipv4) {
            (Self::Guarded, true) => "guarded4",
            (Self::Guarded, false) => "guarded6",
            (Self::Open, true) => "open4",
            (Self::Open, false) => "open6",
            (Self::Squeeze, true) => "squeeze4",
            (Self::Squeeze, false) => "squeeze6",
        }
    }

    /// The places where this set is: table and version of IP.
    const fn places(self) -> &'static [(NetfilterProtoFamily, bool)] {
        match self {
            Self::Guarded | Self::Open => &[
                (NetfilterProtoFamily::Inet, true),
                (NetfilterProtoFamily::Inet, false),
                (NetfilterProtoFamily::ARP, true),
            ],
            Self::Squeeze => &[(NetfilterProtoFamily::Inet, true), (NetfilterProtoFamily::Inet, false)],
        }
    }
}

/// Whether an element that is there already is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Adding {
    /// It must not be there.
    Anew,
    /// It does not matter.
    Any,
}

/// Both tables, from nothing or in the place of old ones: to be sent as one batch.
pub(super) fn set_up(vips: &[IpAddr]) -> Vec<Message> {
    let mut all = tear_down();
    for family in [NetfilterProtoFamily::Inet, NetfilterProtoFamily::ARP] {
        all.push(message(family, NLM_F_CREATE, NfTablesMessage::NewTable(table())));
    }
    let mut id = 0;
    for set in [Set::Guarded, Set::Open, Set::Squeeze] {
        for (family, ipv4) in set.places() {
            id += 1;
            all.push(new_set(*family, set, *ipv4, id));
        }
    }
    all.extend(add(Set::Guarded, vips, None, Adding::Any));
    all.extend(inet_rules());
    all.extend(arp_rules());
    all
}

/// Both tables removed, whether they are there or not: to be sent as one batch.
pub(super) fn tear_down() -> Vec<Message> {
    let mut all = Vec::new();
    for family in [NetfilterProtoFamily::Inet, NetfilterProtoFamily::ARP] {
        all.push(message(family, NLM_F_CREATE, NfTablesMessage::NewTable(table())));
        all.push(message(family, 0, NfTablesMessage::DeleteTable(table())));
    }
    all
}

/// Elements added, in each place where the set is.
pub(super) fn add(set: Set, vips: &[IpAddr], timeout: Option<Duration>, adding: Adding) -> Vec<Message> {
    let flags = match adding {
        Adding::Anew => NLM_F_CREATE | NLM_F_EXCL,
        Adding::Any => NLM_F_CREATE,
    };
    elements(set, vips, timeout)
        .map(|(family, list)| message(family, flags, NfTablesMessage::NewSetElement(list)))
        .collect()
}

/// Elements gone, whether they were there or not: added for a moment that no packet sees, then deleted.
pub(super) fn clear(set: Set, vips: &[IpAddr]) -> Vec<Message> {
    let mut messages = add(set, vips, Some(GATE_FIRST), Adding::Any);
    messages.extend(delete(set, vips));
    messages
}

/// Elements deleted, in each place where the set is. One that is not there, or has timed out, fails the whole batch.
pub(super) fn delete(set: Set, vips: &[IpAddr]) -> Vec<Message> {
    elements(set, vips, None)
        .map(|(family, list)| message(family, 0, NfTablesMessage::DeleteSetElement(list)))
        .collect()
}

fn elements(
    set: Set,
    vips: &[IpAddr],
    timeout: Option<Duration>,
) -> impl Iterator<Item = (NetfilterProtoFamily, SetElementMessage)> {
    set.places().iter().filter_map(move |(family, ipv4)| {
        let of_this = vips.iter().filter(|vip| vip.is_ipv4() == *ipv4);
        let list: Vec<_> = of_this.map(|vip| ListAttribute::Element(element(*vip, timeout))).collect();
        let attributes = vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(set.name(*ipv4).into()),
            SetElementList::Elements(list),
        ];
        vips.iter().any(|vip| vip.is_ipv4() == *ipv4).then_some((*family, SetElementMessage { attributes }))
    })
}

fn element(vip: IpAddr, timeout: Option<Duration>) -> Vec<SetElementAttribute> {
    let key = match vip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(key))];
    if let Some(timeout) = timeout {
        // Rounded down; the kernel rounds down again, to ticks.
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        attributes.push(SetElementAttribute::Timeout(millis));
    }
    attributes
}

fn message(family: NetfilterProtoFamily, flags: u16, inner: NfTablesMessage) -> Message {
    let mut message = NetlinkMessage::from(NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner));
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

fn table() -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(TABLE.into())] }
}

fn new_set(family: NetfilterProtoFamily, set: Set, ipv4: bool, id: u32) -> Message {
    let flags = if set == Set::Guarded { SetFlags::Constant } else { SetFlags::Timeout };
    let (kind, length) = if ipv4 { (7, 4) } else { (8, 16) };
    let attributes = vec![
        SetAttribute::Table(TABLE.into()),
        SetAttribute::Name(set.name(ipv4).into()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(kind),
        SetAttribute::KeyLen(length),
        SetAttribute::Id(id),
    ];
    message(family, NLM_F_CREATE, NfTablesMessage::NewSet(SetMessage { attributes }))
}

fn chain(family: NetfilterProtoFamily, name: &str, hook: u32) -> Message {
    let attributes = vec![
        ChainAttribute::Table(TABLE.into()),
        ChainAttribute::Name(name.into()),
        ChainAttribute::Hook(vec![
            Hook::Number(HookNumber::Other(hook)),
            Hook::Priority(u32::from_ne_bytes(PRIORITY.to_ne_bytes())),
        ]),
        ChainAttribute::Type("filter".into()),
    ];
    message(family, NLM_F_CREATE, NfTablesMessage::NewChain(ChainMessage { attributes }))
}

fn inet_rules() -> Vec<Message> {
    let family = NetfilterProtoFamily::Inet;
    let rule = |chain, parts: Vec<Vec<Expressions>>| rule(family, chain, parts);
    let squeezed = || {
        vec![l4protocol(PROTOCOL_TCP), vec![load(TCP_FLAGS), mask(SYN_ACK), compare(Operator::Equal, &[SYN])], drop()]
    };
    let mut squeeze4 = vec![version(NFPROTO_IPV4), in_set(IP4_DESTINATION, Set::Squeeze)];
    squeeze4.extend(squeezed());
    let mut squeeze6 = vec![version(NFPROTO_IPV6), in_set(IP6_DESTINATION, Set::Squeeze)];
    squeeze6.extend(squeezed());
    let nd = |kind| [version(NFPROTO_IPV6), l4protocol(PROTOCOL_ICMP6), equals(ICMP6_TYPE, &[kind])].concat();
    let nd_any = [
        version(NFPROTO_IPV6),
        l4protocol(PROTOCOL_ICMP6),
        vec![load(ICMP6_TYPE)],
        vec![compare(Operator::GreatherThanEqual, &[ROUTER_SOLICIT])],
        vec![compare(Operator::LessThanEqual, &[REDIRECT])],
    ]
    .concat();
    vec![
        chain(family, "input", NF_INET_LOCAL_IN),
        chain(family, "output", NF_INET_LOCAL_OUT),
        rule("input", vec![version(NFPROTO_IPV4), shut(IP4_DESTINATION), drop()]),
        rule("input", vec![version(NFPROTO_IPV6), shut(IP6_DESTINATION), drop()]),
        rule("input", vec![nd(NEIGHBOUR_SOLICIT), shut(ND_TARGET), drop()]),
        rule("input", squeeze4),
        rule("input", squeeze6),
        rule("output", vec![nd_any, shut(IP6_SOURCE), drop()]),
        rule("output", vec![nd(NEIGHBOUR_ADVERT), shut(ND_TARGET), drop()]),
    ]
}

fn arp_rules() -> Vec<Message> {
    let family = NetfilterProtoFamily::ARP;
    vec![
        chain(family, "input", NF_ARP_IN),
        chain(family, "output", NF_ARP_OUT),
        rule(family, "input", vec![equals(ARP_OPERATION, &ARP_REQUEST), shut(ARP_TARGET), drop()]),
        rule(family, "output", vec![shut(ARP_SENDER), drop()]),
    ]
}

fn rule(family: NetfilterProtoFamily, chain: &str, parts: Vec<Vec<Expressions>>) -> Message {
    let attributes = vec![
        RuleAttribute::Table(TABLE.into()),
        RuleAttribute::Chain(chain.into()),
        RuleAttribute::Expressions(parts.into_iter().flatten().map(list_entry).collect()),
    ];
    const NLM_F_APPEND: u16 = netlink_packet_core::NLM_F_APPEND;
    message(family, NLM_F_CREATE | NLM_F_APPEND, NfTablesMessage::NewRule(RuleMessage { attributes }))
}

fn list_entry(expression: Expressions) -> ListAttribute<ExpressionAttribute> {
    expression.into()
}

/// The address in this field is guarded, and not open.
fn shut(field: Field) -> Vec<Expressions> {
    let mut all = in_set(field, Set::Guarded);
    all.push(lookup(Set::Open, field.length == 4, NFT_LOOKUP_F_INV));
    all
}

fn in_set(field: Field, set: Set) -> Vec<Expressions> {
    vec![load(field), lookup(set, field.length == 4, 0)]
}

fn equals(field: Field, value: &[u8]) -> Vec<Expressions> {
    vec![load(field), compare(Operator::Equal, value)]
}

fn version(nfproto: u8) -> Vec<Expressions> {
    vec![meta(MetaKey::Nfproto), compare(Operator::Equal, &[nfproto])]
}

fn l4protocol(protocol: u8) -> Vec<Expressions> {
    vec![meta(MetaKey::L4Proto), compare(Operator::Equal, &[protocol])]
}

fn drop() -> Vec<Expressions> {
    let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))]);
    vec![Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(verdict)])]
}

fn load(field: Field) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(field.base),
        Payload::Offset(field.offset),
        Payload::Len(field.length),
    ])
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)])
}

fn compare(operator: Operator, value: &[u8]) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ])
}

fn mask(bits: u8) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(1),
        Bitwise::Mask(DataAttribute::Value(vec![bits])),
        Bitwise::Xor(DataAttribute::Value(vec![0])),
    ])
}

fn lookup(set: Set, ipv4: bool, flags: u32) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.name(ipv4).into()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::Flags(flags),
    ])
}
