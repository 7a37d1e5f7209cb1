//! What the kernel says, for `crate::hostile`: answers, dumps and news by netlink.

use super::{gate, netlink, sockets};
use netlink_packet_core::{NLM_F_ACK, NetlinkMessage, Parseable};
use netlink_packet_route::{RouteNetlinkMessage, address::AddressMessage};

/// One datagram, read as each reader here would.
pub(crate) fn netlink(bytes: &[u8]) {
    let mut messages = 0;
    netlink::each_message(bytes, |answer| {
        messages += 1;
        let error = answer.error();
        assert!(error.is_none_or(|error| error.raw_os_error().is_some_and(|code| code > 0)));
        assert!(netlink::parse_link(answer.payload).is_none_or(|link| link.name.len() <= 3 * answer.payload.len()));
        if let Ok(message) = AddressMessage::parse(answer.payload)
            && let Some(present) = netlink::Present::from_message(&message)
        {
            let again = netlink::Present::from_message(&present.message());
            assert_eq!(again, Some(present), "what is asked for is what was seen");
        }
        assert!(sockets::parse(answer.payload).is_none() || answer.payload.len() >= 72);
        let _disturbed = gate::is_deletion_of_ours(&answer);
    });
    // A header is 16 bytes.
    assert!(messages <= bytes.len() / 16, "{messages} messages in {} bytes", bytes.len());
    // As the reader of news does.
    drop(NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes));
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    let present = |text: &str| {
        let address = text.parse().unwrap_or_default();
        netlink::Present { address, interface: 3 }.message()
    };
    let mut samples: Vec<Vec<u8>> = ["192.0.2.10/24", "2001:db8::10/64"]
        .iter()
        .flat_map(|text| {
            let message = present(text);
            [RouteNetlinkMessage::NewAddress(message.clone()), RouteNetlinkMessage::DelAddress(message)]
        })
        .map(|message| {
            let mut message = NetlinkMessage::from(message);
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        })
        .collect();
    let raw = |kind: u16, payload: Vec<u8>| {
        let mut message = netlink::Raw { kind, payload }.message(NLM_F_ACK);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    };
    // An interface with name and address; a socket; an error; a table of ours that is deleted.
    let mut link = vec![0, 0, 1, 0, 3, 0, 0, 0, 0x43, 0, 1, 0, 0, 0, 0, 0];
    link.extend([9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0, 10, 0, 1, 0, 2, 0, 0, 0, 0, 7, 0, 0]);
    let table = [&[1, 0, 0, 0, 11, 0, 1, 0][..], b"hawser\0\0"].concat();
    samples.extend([raw(16, link), raw(20, vec![1; 72]), raw(2, (-17_i32).to_ne_bytes().to_vec()), raw(0x0a02, table)]);
    let all = samples.concat();
    samples.push(all);
    samples
}
