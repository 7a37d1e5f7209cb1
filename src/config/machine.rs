//! What a check asks about the machine that it runs on.

use super::Machine;
use crate::trust::{
    TicketSecrets,
    site::{self, Facts, Standing, Trouble},
};
use ipnet::IpNet;
use std::{net::IpAddr, path::Path, time::SystemTime};

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

    fn certificate(&self, cert: &Path, key: &Path) -> Result<(Facts, Standing), Trouble> {
        let facts = site::load(cert, key)?.facts;
        let standing = facts.standing(SystemTime::now());
        Ok((facts, standing))
    }

    fn client_ca(&self, path: &Path) -> Result<(), Trouble> {
        site::client_ca(path).map(drop)
    }

    fn ticket_keys(&self, path: &Path) -> Result<(), Trouble> {
        TicketSecrets::load(path).map(drop)
    }

    fn may_be_denied(&self) -> bool {
        false
    }
}

/// The same machine, for somebody who checks a file and need not be allowed to read every key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Onlooker;

impl Machine for Onlooker {
    fn networks(&self, interface: &str) -> Option<Vec<IpNet>> {
        ThisMachine.networks(interface)
    }

    fn has_address(&self, address: IpAddr) -> bool {
        ThisMachine.has_address(address)
    }

    fn is_dir(&self, path: &Path) -> bool {
        ThisMachine.is_dir(path)
    }

    fn certificate(&self, cert: &Path, key: &Path) -> Result<(Facts, Standing), Trouble> {
        ThisMachine.certificate(cert, key)
    }

    fn client_ca(&self, path: &Path) -> Result<(), Trouble> {
        ThisMachine.client_ca(path)
    }

    fn ticket_keys(&self, path: &Path) -> Result<(), Trouble> {
        ThisMachine.ticket_keys(path)
    }

    fn may_be_denied(&self) -> bool {
        true
    }
}
