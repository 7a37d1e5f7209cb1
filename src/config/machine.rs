//! What a check asks about the machine that it runs on.

use super::Machine;
use ipnet::IpNet;
use std::{net::IpAddr, path::Path};

/// The machine that we are on, asked anew each time.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn networks(&self, interface: &str) -> Option<Vec<IpNet>> {
        nix::net::if_::if_nametoindex(interface).ok()?;
        let Ok(entries) = nix::ifaddrs::getifaddrs() else { return Some(vec![]) };
        let networks = entries.filter(|entry| entry.interface_name == interface).filter_map(|entry| {
            let ip = |address: &nix::sys::socket::SockaddrStorage| {
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            };
            IpNet::with_netmask(ip(&entry.address?)?, ip(&entry.netmask?)?).ok()
        });
        Some(networks.collect())
    }

    fn has_address(&self, address: IpAddr) -> bool {
        // What a socket can be bound to without further ado is here; port 0 takes none from anybody.
        std::net::UdpSocket::bind((address, 0)).is_ok()
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }
}
