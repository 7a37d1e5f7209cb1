//! Addresses as a person writes them, and which of them cannot be what they are written for.

use super::fault::{Wrong, wrong};
use crate::{cluster::Name, limits::PORT_DEFAULT};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// A name of a node, group, upstream or cluster.
pub(super) fn name(text: &str) -> Result<Name, Wrong> {
    Name::new(text).map_err(|_| wrong(format!("\"{text}\" is not a name"), "write 1 to 32 of a-z 0-9 - _ ."))
}

/// An address with a port.
pub(super) fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    let address = text.parse::<SocketAddr>().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => wrong(format!("\"{text}\" has no port"), format!("write \"{}\"", SocketAddr::new(ip, 80))),
        Err(_) => not_an_address(text, "192.0.2.10:80"),
    })?;
    with_port(address)
}

/// An address at which a member is reached; the port may be left out.
pub(super) fn member(text: &str) -> Result<SocketAddr, Wrong> {
    let address = text
        .parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT_DEFAULT)))
        .map_err(|_| not_an_address(text, "10.0.0.1"))?;
    match unusable(address.ip()) {
        Some(what) => Err(wrong(format!("{} is {what}", address.ip()), "write the address of one machine")),
        None => with_port(address),
    }
}

/// Where a witness listens: the port may be left out, the address may be the unspecified one.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    let address = text
        .parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT_DEFAULT)))
        .map_err(|_| not_an_address(text, "0.0.0.0:7707"))?;
    with_port(address)
}

/// A virtual address; a prefix of one address when none is written.
pub(super) fn vip(text: &str) -> Result<IpNet, Wrong> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| not_an_address(text, "192.0.2.10/24"))?;
    let instead = || format!("write a host's address of {}", net.trunc());
    if let Some(what) = unusable(net.addr()) {
        return Err(wrong(format!("{} is {what}", net.addr()), "write an address that one machine can hold"));
    }
    if net.addr().is_loopback() {
        return Err(wrong(format!("{} is a loopback address", net.addr()), "write an address that others can reach"));
    }
    if net.prefix_len() == 0 {
        return Err(wrong("its prefix of /0 covers every address", "write the prefix of its network, like /24"));
    }
    // Point-to-point networks and single addresses have no such reserved addresses (RFC 3021, RFC 6164).
    if net.max_prefix_len() - net.prefix_len() >= 2 {
        if net.addr() == net.network() {
            return Err(wrong(format!("{} is the address of the network {}", net.addr(), net.trunc()), instead()));
        }
        if net.addr().is_ipv4() && net.addr() == net.broadcast() {
            return Err(wrong(format!("{} is the broadcast address of {}", net.addr(), net.trunc()), instead()));
        }
    }
    Ok(net)
}

/// Name of a network interface, as the kernel takes it (`dev_valid_name`, `IFNAMSIZ`).
pub(super) fn interface(text: &str) -> Result<String, Wrong> {
    let fine = !text.is_empty()
        && text.len() < 16
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if fine {
        Ok(text.to_owned())
    } else {
        Err(wrong(
            format!("\"{text}\" is not the name of an interface"),
            "write one that `ip link` shows, like \"eth0\"",
        ))
    }
}

fn with_port(address: SocketAddr) -> Result<SocketAddr, Wrong> {
    if address.port() == 0 {
        return Err(wrong("port 0 is no port", "write a port from 1 to 65535"));
    }
    if mapped(address.ip()) {
        return Err(wrong(format!("{} is an IPv4 address in IPv6 dress", address.ip()), "write the IPv4 address"));
    }
    Ok(address)
}

fn mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// What an address is, if no machine can hold it for others to reach. Loopback is told apart by the caller.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if mapped(address) => Some("an IPv4 address in IPv6 dress"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an address of \"this network\" (RFC 1122 §3.2.1.3)"),
        IpAddr::V4(v4) if v4.octets()[0] >= 240 => Some("a reserved address (RFC 1112 §4)"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("a link-local address, which means another one on each link")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn not_an_address(text: &str, example: &str) -> Wrong {
    let like_a_name = text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains("::");
    let help = if like_a_name {
        format!("names are not looked up: write an address, like \"{example}\"")
    } else {
        format!("write an address, like \"{example}\"")
    };
    wrong(format!("\"{text}\" is not an address"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_address_is_one_that_a_single_machine_can_hold() {
        for good in ["192.0.2.10/24", "192.0.2.10", "10.0.0.0/31", "10.0.0.0/32", "2001:db8::1/64", "2001:db8::1"] {
            assert!(vip(good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "eth0",
            "192.0.2.10/33",
            "192.0.2.0/24",
            "192.0.2.255/24",
            "224.0.0.18",
            "255.255.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "240.0.0.1",
            "10.0.0.1/0",
            "127.0.0.1",
            "::1",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "2001:db8::/64",
        ];
        for bad in bad {
            assert!(vip(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_member_is_reached_at_the_default_port_unless_another_is_written() {
        assert_eq!(member("10.0.0.1"), Ok(SocketAddr::from(([10, 0, 0, 1], PORT_DEFAULT))));
        assert_eq!(member("[fd00::1]:9"), "[fd00::1]:9".parse().map_err(|_| unreachable!()));
        assert_eq!(member("fd00::1"), "[fd00::1]:7707".parse().map_err(|_| unreachable!()));
        for bad in ["0.0.0.0", "10.0.0.1:0", "n1", "n1:7707", "224.0.0.1:7707", "10.0.0.1:70000"] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_in_place_of_an_address_is_told_apart() {
        assert!(socket("app.example:80").unwrap_err().help.contains("names are not looked up"));
        assert_eq!(socket("10.0.0.1").unwrap_err().help, "write \"10.0.0.1:80\"");
    }

    #[test]
    fn an_interface_is_named_as_the_kernel_names_it() {
        assert!(interface("eth0.100").is_ok());
        for bad in ["", ".", "a/b", "much-too-long-name", "a b", "eth0:1"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }
}
