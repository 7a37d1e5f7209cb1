//! PROXY headers, versions 1 and 2: what a proxy in front says of the client, and what we say to a server behind.
//!
//! A header comes before everything else on a connection, TLS included. Not a byte behind it is read here, so that
//! whoever comes next finds the connection as if there had been none: first what every header has, then what the header
//! says is left (version 2), or what has arrived of its line (version 1).
//!
//! Not here: who may send one (the listener knows the networks).

use crate::{config::ProxyVersion, limits::PROXY_HEADER_BYTES_MAX};
use arrayvec::ArrayVec;
use ppp::{v1, v2};
use std::{io, net::SocketAddr};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Client and the address that it connected to. None: the proxy speaks for itself, or of what is no TCP connection.
pub(crate) type Proxied = Option<(SocketAddr, SocketAddr)>;

/// The shortest header of version 1 (`PROXY UNKNOWN` and the end of the line).
const LINE_MIN: usize = 15;
/// The longest of version 1, its end included.
const LINE_MAX: usize = 107;
/// What every header of version 2 has: 12 bytes that are the same, version, family, length.
const FIXED: usize = 16;

/// What is missing of a header of which these bytes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// So many bytes: no fewer.
    Bytes(usize),
    /// What is left of a line of at most so many bytes.
    Line(usize),
    /// It is whole.
    Nothing,
}

/// Not a header, or one that is too long.
fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn missing(bytes: &[u8]) -> io::Result<Missing> {
    let binary = bytes.iter().zip(v2::PROTOCOL_PREFIX).all(|(a, b)| a == b);
    let text = bytes.iter().zip(v1::PROTOCOL_PREFIX.as_bytes()).all(|(a, b)| a == b);
    let length = bytes.len();
    match (binary, text) {
        (false, false) => Err(refused("no PROXY header")),
        (_, _) if length < LINE_MIN => Ok(Missing::Bytes(LINE_MIN - length)),
        (false, true) if bytes.ends_with(b"\n") => Ok(Missing::Nothing),
        (false, true) if length >= LINE_MAX => Err(refused("a PROXY header without an end")),
        (false, true) => Ok(Missing::Line(LINE_MAX - length)),
        (true, _) => {
            let Some(&[.., high, low]) = bytes.first_chunk::<FIXED>() else {
                return Ok(Missing::Bytes(FIXED - length));
            };
            let whole = FIXED + usize::from(u16::from_be_bytes([high, low]));
            match whole.checked_sub(length) {
                _ if whole > PROXY_HEADER_BYTES_MAX => Err(refused("a PROXY header that is too long")),
                Some(0) | None => Ok(Missing::Nothing),
                Some(more) => Ok(Missing::Bytes(more)),
            }
        }
    }
}

/// Reads a whole header from a connection. It waits for as long as it takes.
///
/// # Errors
/// If the connection ends before, or holds something else.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Proxied> {
    let mut header = ArrayVec::<u8, PROXY_HEADER_BYTES_MAX>::new();
    loop {
        let more = match missing(&header)? {
            Missing::Nothing => return decode(&header),
            Missing::Bytes(more) => more,
            Missing::Line(most) => {
                let mut here = [0; LINE_MAX];
                let arrived = stream.peek(&mut here[..most]).await?;
                let line = here[..arrived].iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                line.unwrap_or(arrived)
            }
        };
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let begun = header.len();
        header.extend(std::iter::repeat_n(0, more));
        stream.read_exact(&mut header[begun..]).await?;
    }
}

/// What a whole header says.
///
/// # Errors
/// If it is none.
pub(crate) fn decode(header: &[u8]) -> io::Result<Proxied> {
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v2::Header::try_from(header).map_err(|_| refused("a PROXY header that is not right"))?;
        return Ok(match (header.command, header.protocol, header.addresses) {
            (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv4(ip)) => {
                Some(((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into()))
            }
            (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv6(ip)) => {
                Some(((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into()))
            }
            // It speaks for itself, or of what has no such addresses: as if nothing were said (§2.2 of its text).
            (v2::Command::Local | v2::Command::Proxy, _, _) => None,
        });
    }
    let header = v1::Header::try_from(header).map_err(|_| refused("a PROXY header that is not right"))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ip) => {
            Some(((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into()))
        }
        v1::Addresses::Tcp6(ip) => {
            Some(((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into()))
        }
        v1::Addresses::Unknown => None,
    })
}

/// A header that says this. Addresses of different families cannot be said.
pub(crate) fn encode(version: ProxyVersion, proxied: Proxied) -> Vec<u8> {
    let told = proxied.filter(|(from, to)| from.is_ipv4() == to.is_ipv4());
    match (version, told) {
        (ProxyVersion::V1, told) => told.map_or(v1::Addresses::Unknown, Into::into).to_string().into_bytes(),
        (ProxyVersion::V2, Some(told)) => {
            let proxy = v2::Version::Two | v2::Command::Proxy;
            v2::Builder::with_addresses(proxy, v2::Protocol::Stream, told).build().unwrap_or_else(|_| local())
        }
        (ProxyVersion::V2, None) => local(),
    }
}

/// Version 2: the proxy speaks for itself.
fn local() -> Vec<u8> {
    [v2::PROTOCOL_PREFIX, &[0x20, 0, 0, 0]].concat()
}

/// For `crate::hostile`: any bytes, as if they came from a connection.
#[cfg(any(test, feature = "hostile"))]
pub(crate) fn eat(bytes: &[u8]) {
    let mut length = 0;
    // As `read` does, but that everything has arrived.
    let whole = loop {
        let Some(header) = bytes.get(..length) else { return };
        assert!(length <= PROXY_HEADER_BYTES_MAX, "more than the limit is read");
        match missing(header) {
            Err(_) => return,
            Ok(Missing::Nothing) => break header,
            Ok(Missing::Bytes(more)) => length += more,
            Ok(Missing::Line(most)) => {
                let arrived = bytes.get(length..).unwrap_or_default();
                let arrived = &arrived[..arrived.len().min(most)];
                if arrived.is_empty() {
                    return;
                }
                length += arrived.iter().position(|byte| *byte == b'\n').map_or(arrived.len(), |at| at + 1);
            }
        }
    };
    for shorter in 0..whole.len() {
        assert!(missing(&whole[..shorter]).is_ok_and(|missing| missing != Missing::Nothing), "it was whole before");
    }
    let Ok(said) = decode(whole) else { return };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let again = encode(version, said);
        assert!(matches!(missing(&again), Ok(Missing::Nothing)), "what is written is whole");
        let reread = decode(&again).unwrap_or_default();
        let plain = |told: Proxied| told.map(|(from, to)| ((from.ip(), from.port()), (to.ip(), to.port())));
        assert_eq!(plain(reread), plain(said), "what is written is what was read");
    }
}

#[cfg(any(test, feature = "hostile"))]
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let pairs: [Proxied; 3] = [
        None,
        Some((([192, 0, 2, 7], 50_000).into(), ([198, 51, 100, 1], 443).into())),
        Some((([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 1).into(), ([0xfe80, 0, 0, 0, 0, 0, 0, 1], 65_535).into())),
    ];
    let mut samples: Vec<Vec<u8>> = pairs
        .iter()
        .flat_map(|pair| [ProxyVersion::V1, ProxyVersion::V2].map(|version| encode(version, *pair)))
        .collect();
    // With what vendors add, and with bytes of the connection behind.
    let mut vendor = encode(ProxyVersion::V2, pairs[1]);
    vendor[15] += 7;
    vendor.extend([0xea, 0, 4, 1, 2, 3, 4]);
    samples.push([vendor, b"GET / HTTP/1.1\r\n\r\n".to_vec()].concat());
    samples.push(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n\x16\x03\x01".to_vec());
    samples.push(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec());
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_whole_exactly_at_its_end() {
        for sample in samples() {
            eat(&sample);
            let said = decode(&sample).unwrap();
            eat(&encode(ProxyVersion::V2, said));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_bytes() {
        for text in ["GET / HTTP/1.1\r\n", "\x16\x03\x01\x02\0", "PROXZ TCP4 ", "\r\n\r\n\0\r\nQUIZ\n"] {
            assert!(missing(text.as_bytes()).is_err(), "{text:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LINE_MAX));
        assert!(missing(&long.as_bytes()[..LINE_MAX]).is_err());
        let mut long = local();
        long[14] = 0xff;
        assert!(missing(&long).is_err());
    }

    #[test]
    fn a_header_of_version_one_is_a_line_that_is_right() {
        for line in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4\r\n",
        ] {
            assert!(decode(line.as_bytes()).is_err(), "{line:?}");
        }
    }
}
