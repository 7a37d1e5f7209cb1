//! A network laboratory: one switch and the hosts on it, each in a network namespace of its own.
//!
//! Every host has a loopback and one interface, `eth0`, whose other end is a port of the switch (a bridge in a
//! namespace of its own). Cables are pulled and nodes are separated at the switch, as in a rack, so that a host
//! sees nothing but the effect: its carrier goes, or frames no longer arrive.
//!
//! Not here: what runs on the hosts (`cluster`) and what is measured (`prober`, `observer`).

use super::error::{Attempt, Result};
use super::netns::Netns;
use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoBridge, InfoData, InfoVeth, LinkAttribute, LinkFlags};
use netlink_packet_route::neighbour::NeighbourState;
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// A hardware address.
pub type Mac = [u8; 6];

/// The hosts on the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// First node.
    N1,
    /// Second node.
    N2,
    /// Third vote.
    Witness,
    /// The application that the nodes forward to.
    App,
    /// Where visitors sit.
    Client,
    /// Watches the frames on the switch.
    Observer,
}

impl Host {
    /// Every host.
    pub const ALL: [Self; 6] = [Self::N1, Self::N2, Self::Witness, Self::App, Self::Client, Self::Observer];
    /// The two nodes.
    pub const NODES: [Self; 2] = [Self::N1, Self::N2];

    /// The host's name; for nodes and witness the one that the cluster knows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::N1 => "n1",
            Self::N2 => "n2",
            Self::Witness => "w",
            Self::App => "app",
            Self::Client => "client",
            Self::Observer => "observer",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::N1 => 1,
            Self::N2 => 2,
            Self::Witness => 9,
            Self::App => 20,
            Self::Client => 50,
            Self::Observer => 60,
        }
    }

    /// Its own IPv4 address, in a network of 24 bits.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number())
    }

    /// Its own IPv4 address in a network.
    #[must_use]
    pub const fn address_in(self, network: Network) -> Ipv4Addr {
        match network {
            Network::First => self.address(),
            Network::Second => Ipv4Addr::new(10, 78, 0, self.number()),
        }
    }

    const fn mac_in(self, network: Network) -> Mac {
        match network {
            Network::First => self.mac(),
            Network::Second => [0x02, 0x78, 0, 0, 0, self.number()],
        }
    }

    /// Its own IPv6 address, in a network of 64 bits.
    #[must_use]
    pub const fn address_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, self.number() as u16)
    }

    /// The hardware address of its `eth0`.
    #[must_use]
    pub const fn mac(self) -> Mac {
        [0x02, 0x77, 0, 0, 0, self.number()]
    }

    /// The host with this hardware address.
    #[must_use]
    pub fn with_mac(mac: Mac) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.mac() == mac)
    }

    /// The host with this name.
    #[must_use]
    pub fn with_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.name() == name)
    }

    /// Index of the host's port, in the switch. Far above what a kernel makes by itself in a new namespace.
    const fn port(self) -> u32 {
        self.port_in(Network::First)
    }

    const fn port_in(self, network: Network) -> u32 {
        match network {
            Network::First => 1000 + self.number() as u32,
            Network::Second => 2000 + self.number() as u32,
        }
    }
}

/// The other node; any other host is its own other.
#[must_use]
pub const fn peer_of(node: Host) -> Host {
    match node {
        Host::N1 => Host::N2,
        Host::N2 => Host::N1,
        other @ (Host::Witness | Host::App | Host::Client | Host::Observer) => other,
    }
}

/// A host's cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// In the switch.
    Plugged,
    /// Pulled out: neither end has a carrier.
    Pulled,
}

/// The networks of the laboratory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The one that every host is on, by `eth0`.
    First,
    /// A second one between nodes and witness, by `eth1`, with a switch of its own: see [`Lab::add_second_network`].
    Second,
}

/// What becomes of what a host sends to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// It arrives.
    Arrives,
    /// It is lost on the way; what comes back is not.
    Lost,
}

/// What the two nodes see of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// Everything.
    Joined,
    /// Nothing; both still see all other hosts.
    Apart,
}

const BRIDGE: u32 = 1000;
const ETH0: u32 = 1000;
const SECOND_BRIDGE: u32 = 2000;
const ETH1: u32 = 1001;
/// Nobody has this hardware address.
const NOBODY: Mac = [0x02, 0x77, 0xff, 0xff, 0xff, 0xff];

/// The switch and the hosts. Dropping it ends the networks, once the processes in them are gone.
#[derive(Debug)]
pub struct Lab {
    switch: Netns,
    hosts: [Netns; Host::ALL.len()],
    families: Families,
}

/// What a kernel speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone: IPv6 is switched off on this machine.
    V4,
    /// IPv4 and IPv6.
    Both,
}

impl Families {
    fn of_this_machine() -> Self {
        // Without IPv6 the kernel has no such sockets.
        if Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok() { Self::Both } else { Self::V4 }
    }
}

impl Lab {
    /// Builds the switch, and all hosts with their cables plugged in.
    ///
    /// # Errors
    /// If the kernel refuses a namespace, a bridge or a cable.
    pub fn new() -> Result<Self> {
        let make = || Netns::new().or_cannot("make a network namespace");
        let hosts = [make()?, make()?, make()?, make()?, make()?, make()?];
        let lab = Self { switch: make()?, hosts, families: Families::of_this_machine() };
        lab.build_switch()?;
        for host in Host::ALL {
            lab.build_host(host)?;
        }
        Ok(lab)
    }

    /// What the hosts speak.
    #[must_use]
    pub const fn families(&self) -> Families {
        self.families
    }

    /// The network of a host.
    #[must_use]
    pub fn host(&self, host: Host) -> &Netns {
        let [n1, n2, witness, app, client, observer] = &self.hosts;
        match host {
            Host::N1 => n1,
            Host::N2 => n2,
            Host::Witness => witness,
            Host::App => app,
            Host::Client => client,
            Host::Observer => observer,
        }
    }

    /// Pulls or plugs in a host's cable. The host loses or regains its carrier.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_cable(&self, host: Host, cable: Cable) -> Result<()> {
        self.set_cable_in(Network::First, host, cable)
    }

    /// Pulls or plugs in a host's cable to one of the networks.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_cable_in(&self, network: Network, host: Host, cable: Cable) -> Result<()> {
        let port = LinkUnspec::new_with_index(host.port_in(network));
        let message = match cable {
            Cable::Plugged => port.up().build(),
            Cable::Pulled => port.down().build(),
        };
        self.switch.netlink(async move |handle| handle.link().set(message).execute().await)
    }

    /// Separates the two nodes, or joins them again. Every other path stays.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_nodes(&self, nodes: Nodes) -> Result<()> {
        // Isolated ports of a bridge cannot speak to each other, only to the others.
        let isolated = nodes == Nodes::Apart;
        self.switch.netlink(async move |handle| {
            for node in Host::NODES {
                let message = LinkBridgePort::new(node.port()).isolated(isolated).build();
                handle.link().set_port(message).execute().await?;
            }
            Ok(())
        })
    }

    /// Loses what one host sends to another's IPv4 address in a network, or lets it arrive again. The other direction
    /// stays as it is, and so does everybody else's: the sender is given a wrong hardware address for the other.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_sending(&self, network: Network, from: Host, to: Host, sending: Sending) -> Result<()> {
        let mac = match sending {
            Sending::Arrives => to.mac_in(network),
            Sending::Lost => NOBODY,
        };
        let interface = match network {
            Network::First => ETH0,
            Network::Second => ETH1,
        };
        let address = to.address_in(network).into();
        self.host(from).netlink(async move |handle| {
            let neighbour = handle.neighbours().add(interface, address);
            neighbour.state(NeighbourState::Permanent).link_layer_address(&mac).replace().execute().await
        })
    }

    /// Lays a second network between the nodes and the witness: `eth1` of each, IPv4 alone.
    ///
    /// # Errors
    /// If the kernel refuses a bridge or a cable.
    pub fn add_second_network(&self) -> Result<()> {
        self.switch.netlink(async |handle| {
            let bridge = LinkBridge::new("switch2").index(SECOND_BRIDGE).up();
            handle.link().add(bridge.build()).execute().await
        })?;
        for host in [Host::N1, Host::N2, Host::Witness] {
            self.lay_cable(host, Network::Second)?;
            self.host(host).netlink(async move |handle| {
                handle.link().set(LinkUnspec::new_with_index(ETH1).up().build()).execute().await?;
                handle.address().add(ETH1, host.address_in(Network::Second).into(), 24).execute().await
            })?;
        }
        Ok(())
    }

    /// Whether a host's interface has a carrier.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn has_carrier(&self, host: Host) -> Result<bool> {
        self.host(host).netlink(async |handle| {
            let mut links = handle.link().get().match_index(ETH0).execute();
            let link = links.try_next().await?;
            Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::LowerUp)))
        })
    }

    /// Adds an address to a host's interface, as a stand-in for a node that holds a virtual address.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add_address(&self, host: Host, address: IpAddr, prefix: u8) -> Result<()> {
        self.host(host).netlink(async move |handle| add_address(&handle, address, prefix).await)
    }

    /// Takes an address from a host's interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_address(&self, host: Host, address: IpAddr) -> Result<()> {
        self.host(host).netlink(async move |handle| {
            let mut held = handle.address().get().set_link_index_filter(ETH0).set_address_filter(address).execute();
            while let Some(message) = held.try_next().await? {
                handle.address().del(message).execute().await?;
            }
            Ok(())
        })
    }

    fn build_switch(&self) -> Result<()> {
        self.switch.netlink(async |handle| {
            // Snooping would hold neighbour discovery back until a querier is found, and there is none.
            let bridge = LinkBridge::new("switch").index(BRIDGE).append_info_data(InfoBridge::MulticastSnooping(false));
            handle.link().add(bridge.build()).execute().await
        })
    }

    fn build_host(&self, host: Host) -> Result<()> {
        let network = self.host(host);
        network.run(prepare_ipv6)?;
        self.lay_cable(host, Network::First)?;
        let families = self.families;
        network.netlink(async move |handle| {
            handle.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await?;
            handle.link().set(LinkUnspec::new_with_index(ETH0).up().build()).execute().await?;
            add_address(&handle, host.address().into(), 24).await?;
            match families {
                Families::V4 => Ok(()),
                Families::Both => add_address(&handle, host.address_v6().into(), 64).await,
            }
        })
    }

    /// Lays a cable from the host to the switch of a network.
    fn lay_cable(&self, host: Host, network: Network) -> Result<()> {
        let (interface, index, bridge, port) = match network {
            Network::First => ("eth0", ETH0, BRIDGE, format!("to-{}", host.name())),
            Network::Second => ("eth1", ETH1, SECOND_BRIDGE, format!("to2-{}", host.name())),
        };
        let far_end = LinkMessageBuilder::<LinkUnspec>::new()
            .name(interface)
            .index(index)
            .address(host.mac_in(network).to_vec())
            .append_extra_attribute(LinkAttribute::NetNsFd(self.host(host).as_raw_fd()))
            .build();
        let cable = LinkMessageBuilder::<LinkVeth>::new(&port, interface)
            .index(host.port_in(network))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
            .build();
        let port = LinkUnspec::new_with_index(host.port_in(network)).controller(bridge).up().build();
        self.switch.netlink(async move |handle| {
            handle.link().add(cable).execute().await?;
            handle.link().set(port).execute().await
        })
    }
}

async fn add_address(
    handle: &rtnetlink::Handle,
    address: IpAddr,
    prefix: u8,
) -> std::result::Result<(), rtnetlink::Error> {
    let mut request = handle.address().add(ETH0, address, prefix);
    if address.is_ipv6() {
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await
}

/// Switches IPv6 on, without duplicate address detection: link-local addresses are then there at once. Where
/// `/proc/sys` is read-only they take a second, and nothing waits for them.
fn prepare_ipv6() {
    for setting in ["all/accept_dad", "default/accept_dad", "all/disable_ipv6", "default/disable_ipv6"] {
        if let Err(refusal) = std::fs::write(format!("/proc/sys/net/ipv6/conf/{setting}"), "0") {
            tracing::debug!(setting, %refusal, "a network keeps its setting");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::testing::{in_sandbox, in_user_sandbox};
    use crate::time::Duration;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    /// Whether `from` reaches `to` by TCP, with an address of `to`.
    fn reaches(lab: &Lab, from: Host, to: Host, address: IpAddr) -> bool {
        let listener = lab.host(to).run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
        let target = SocketAddr::from((address, listener.local_addr().unwrap().port()));
        // A first packet that is lost while a carrier comes back, which may take a second, is repeated after one.
        let patience = Duration::from_millis(2500);
        lab.host(from).run(|| TcpStream::connect_timeout(&target, patience)).unwrap().is_ok()
    }

    fn everybody_reaches_everybody(lab: &Lab) {
        for (from, to) in [(Host::N1, Host::N2), (Host::N2, Host::Witness), (Host::Client, Host::N1)] {
            assert!(reaches(lab, from, to, to.address().into()), "{from:?} to {to:?}");
            assert!(reaches(lab, from, to, to.address_v6().into()), "{from:?} to {to:?} by IPv6");
        }
    }

    #[test]
    fn hosts_reach_each_other_in_a_laboratory_made_by_root() {
        in_sandbox("demo::lab::tests::hosts_reach_each_other_in_a_laboratory_made_by_root", || {
            everybody_reaches_everybody(&Lab::new().unwrap());
        });
    }

    #[test]
    fn hosts_reach_each_other_in_a_laboratory_made_in_a_user_namespace() {
        in_user_sandbox("demo::lab::tests::hosts_reach_each_other_in_a_laboratory_made_in_a_user_namespace", || {
            assert!(std::fs::read_to_string("/proc/self/uid_map").unwrap().trim_end().ends_with(" 1"));
            everybody_reaches_everybody(&Lab::new().unwrap());
        });
    }

    #[test]
    fn a_pulled_cable_takes_the_carrier_and_the_path() {
        in_sandbox("demo::lab::tests::a_pulled_cable_takes_the_carrier_and_the_path", || {
            let lab = Lab::new().unwrap();
            assert!(lab.has_carrier(Host::N1).unwrap());
            lab.set_cable(Host::N1, Cable::Pulled).unwrap();
            assert!(!lab.has_carrier(Host::N1).unwrap());
            assert!(!reaches(&lab, Host::Client, Host::N1, Host::N1.address().into()));
            assert!(lab.has_carrier(Host::N2).unwrap());
            lab.set_cable(Host::N1, Cable::Plugged).unwrap();
            assert!(lab.has_carrier(Host::N1).unwrap());
            everybody_reaches_everybody(&lab);
        });
    }

    #[test]
    fn nodes_apart_see_everybody_but_each_other() {
        in_sandbox("demo::lab::tests::nodes_apart_see_everybody_but_each_other", || {
            let lab = Lab::new().unwrap();
            lab.set_nodes(Nodes::Apart).unwrap();
            assert!(!reaches(&lab, Host::N1, Host::N2, Host::N2.address().into()));
            assert!(!reaches(&lab, Host::N2, Host::N1, Host::N1.address().into()));
            assert!(reaches(&lab, Host::N1, Host::Witness, Host::Witness.address().into()));
            assert!(reaches(&lab, Host::N2, Host::Witness, Host::Witness.address().into()));
            assert!(reaches(&lab, Host::Client, Host::N2, Host::N2.address().into()));
            lab.set_nodes(Nodes::Joined).unwrap();
            everybody_reaches_everybody(&lab);
        });
    }
}
