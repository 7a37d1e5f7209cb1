//! A node and a peer host, joined by a cable, in network namespaces that go away with the test.
//!
//! [`isolated`] runs a test again as a child process inside a fresh namespace (and, without root, inside a fresh user
//! namespace, which takes a process that has no threads yet). There the child's main namespace is the node; the peer host
//! is a thread with a namespace of its own.

use etherparse::{ArpOperation, ArpPacketSlice, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use hawser::vip::packet::{Wire, link_address};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

/// Set in the child that runs the test's body.
const INSIDE: &str = "HAWSER_TEST_INSIDE";
/// A child that takes longer than this is stuck.
const PATIENCE_SECONDS: u32 = 60;

pub(crate) const NODE: &str = "node0";
pub(crate) const PEER: &str = "peer0";
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// Tests whose bodies run in a namespace of their own.
macro_rules! isolated_tests {
    ($($(#[$meta:meta])* fn $name:ident() $body:block)*) => {
        $($(#[$meta])* #[test] fn $name() {
            $crate::lab::isolated(concat!(module_path!(), "::", stringify!($name)), || $body);
        })*
    };
}
pub(crate) use isolated_tests;

/// Runs `body` in a child process inside a fresh network namespace.
pub(crate) fn isolated(path: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let name = path.split_once("::").map_or(path, |(_, rest)| rest);
    let mut command = child(name);
    let ids = (nix::unistd::getuid(), nix::unistd::getgid());
    let maps = [format!("0 {} 1", ids.0), format!("0 {} 1", ids.1)];
    let enter = move || {
        nix::unistd::alarm::set(PATIENCE_SECONDS);
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => return Ok(()),
            Err(nix::Error::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", &maps[0])?;
        std::fs::write("/proc/self/gid_map", &maps[1])
    };
    #[expect(unsafe_code, reason = "a namespace is entered between fork and exec")]
    // SAFETY: the child has one thread, and glibc's allocator is usable after a fork.
    let output = unsafe { command.pre_exec(enter) }.output().unwrap();
    assert!(
        output.status.success(),
        "{name} failed in its namespace ({}):\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "no such test: {name}\n{said}");
    for line in said.lines().filter(|line| line.contains("measured")) {
        println!("{line}");
    }
}

/// This test program again, to run one test.
pub(crate) fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    command
}

/// The peer host: a thread in a network namespace of its own.
pub(crate) struct Lab {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    pub(crate) node_mac: [u8; 6],
    pub(crate) peer_mac: [u8; 6],
}

impl Lab {
    /// Node and peer with one address of each family, and a cable between them.
    pub(crate) fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, hear) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            without_address_detection();
            tell.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            todo.into_iter().for_each(|job| job());
        });
        without_address_detection();
        let namespace = hear.recv().unwrap();
        netlink(async |handle| {
            handle.link().add(LinkVeth::new(NODE, PEER).build()).execute().await.unwrap();
            let moved = LinkUnspec::new_with_name(PEER).setns_by_fd(namespace.as_raw_fd()).build();
            handle.link().set(moved).execute().await.unwrap();
            configure(&handle, NODE, NODE4, NODE6).await;
        });
        let mut lab = Self { jobs, node_mac: mac(NODE), peer_mac: [0; 6] };
        lab.peer_mac = lab.on_peer(|| {
            netlink(async |handle| configure(&handle, PEER, PEER4, PEER6).await);
            mac(PEER)
        });
        // The kernel takes up to a second to see a carrier.
        eventually("the cable carries frames", || lab.answers_arp(NODE4));
        lab
    }

    /// Runs something on the peer host.
    pub(crate) fn on_peer<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, hear) = mpsc::channel();
        self.jobs.send(Box::new(move || tell.send(job()).unwrap())).unwrap();
        hear.recv().unwrap()
    }

    /// Whether the node answers an ARP request of the peer for `ip`.
    pub(crate) fn answers_arp(&self, ip: Ipv4Addr) -> bool {
        let peer_mac = self.peer_mac;
        self.on_peer(move || {
            let capture = Capture::new(PEER);
            let request = arp_request(peer_mac, PEER4, ip);
            Wire::new().unwrap().send(index(PEER), &request).unwrap();
            capture.wait(
                Duration::from_millis(100),
                |frame| matches!(read(frame), Seen::Arp { operation: ArpOperation::REPLY, sender, .. } if sender == ip),
            )
        })
    }

    /// Whether the node answers a neighbour solicitation of the peer for `ip`: the peer's own kernel asks.
    pub(crate) fn answers_nd(&self, ip: Ipv6Addr) -> bool {
        self.on_peer(move || {
            forget_neighbours();
            let capture = Capture::new(PEER);
            let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
            socket.send_to(b"?", (ip, 9)).ok();
            capture.wait(
                Duration::from_millis(100),
                |frame| matches!(read(frame), Seen::Advert { target } if target == ip),
            )
        })
    }

    /// Whether a TCP connection of the peer to the node succeeds at the first SYN.
    pub(crate) fn connects(&self, to: SocketAddr) -> bool {
        self.connect(to).is_some()
    }

    /// Whether that happens within a time.
    pub(crate) fn connect_within(&self, to: SocketAddr, time: Duration) -> bool {
        self.on_peer(move || TcpStream::connect_timeout(&to, time).is_ok())
    }

    /// A TCP connection of the peer to the node.
    pub(crate) fn connect(&self, to: SocketAddr) -> Option<TcpStream> {
        self.on_peer(move || TcpStream::connect_timeout(&to, Duration::from_millis(300)).ok())
    }
}

/// What the peer sees on its side of the cable.
pub(crate) struct Capture {
    socket: Socket,
}

impl Capture {
    /// Begins to see. To be made on the host that has the interface.
    pub(crate) fn new(interface: &str) -> Self {
        let all = u16::try_from(libc::ETH_P_ALL).unwrap();
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all.to_be())))).unwrap();
        socket.bind(&link_address(index(interface), all)).unwrap();
        Self { socket }
    }

    /// Whether a frame of the other side is one that is waited for, within a time.
    pub(crate) fn wait(&self, time: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> bool {
        self.wait_with_time(time, |_, frame| wanted(frame))
    }

    /// The same, told the time since the call.
    pub(crate) fn wait_with_time(&self, time: Duration, mut wanted: impl FnMut(Duration, &[u8]) -> bool) -> bool {
        let mut found = false;
        self.each(time, |at, frame| {
            found |= wanted(at, frame);
            !found
        });
        found
    }

    /// Shows each frame with the time since the call, until `go_on` says no or the time is over.
    pub(crate) fn each(&self, time: Duration, mut go_on: impl FnMut(Duration, &[u8]) -> bool) {
        let begun = Instant::now();
        let mut frame = [0; 2048];
        while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match (&self.socket).read(&mut frame) {
                Ok(got) => {
                    if !go_on(begun.elapsed(), &frame[..got]) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The frames that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Arp { operation: ArpOperation, mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr },
    Advert { target: Ipv6Addr },
    Solicit { source: Ipv6Addr },
    Other,
}

/// Reads a frame.
pub(crate) fn read(frame: &[u8]) -> Seen {
    if frame[12..14] == [8, 6] {
        let packet = ArpPacketSlice::from_slice(&frame[14..]).unwrap();
        let ip = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
        return Seen::Arp {
            operation: packet.operation(),
            mac: packet.sender_hw_addr().try_into().unwrap(),
            sender: ip(packet.sender_protocol_addr()),
            target: ip(packet.target_protocol_addr()),
        };
    }
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return Seen::Other };
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (packet.net, packet.transport) else {
        return Seen::Other;
    };
    let kind = icmp.icmp_type();
    if matches!(kind, Icmpv6Type::NeighborAdvertisement(_)) {
        return Seen::Advert { target: <[u8; 16]>::try_from(&icmp.payload()[..16]).unwrap().into() };
    }
    if matches!(kind, Icmpv6Type::NeighborSolicitation) {
        return Seen::Solicit { source: ip.header().source_addr() };
    }
    Seen::Other
}

/// An ARP request as any host would send it.
pub(crate) fn arp_request(mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut frame = hawser::vip::frames::announcements(mac, from.into()).remove(0);
    frame[38..42].copy_from_slice(&to.octets());
    frame
}

/// Runs netlink requests of the test, in the namespace of the calling thread.
pub(crate) fn netlink<T>(job: impl AsyncFnOnce(Handle) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        job(handle).await
    })
}

/// Adds an address as an operator would: for ever.
pub(crate) fn add_address(interface: &str, ip: IpAddr, prefix: u8) {
    let index = index(interface);
    netlink(async |handle| {
        let mut request = handle.address().add(index, ip, prefix).replace();
        if ip.is_ipv6() {
            let flags = netlink_packet_route::address::AddressFlags::Nodad;
            request.message_mut().attributes.push(netlink_packet_route::address::AddressAttribute::Flags(flags));
        }
        request.execute().await.unwrap();
    });
}

/// Switches an interface on or off.
pub(crate) fn set_up(interface: &str, up: bool) {
    let link = LinkUnspec::new_with_name(interface);
    let link = if up { link.up() } else { link.down() };
    netlink(async |handle| handle.link().set(link.build()).execute().await.unwrap());
}

/// The hardware address that this host knows for `ip`, and how sure it is.
pub(crate) fn neighbour(ip: IpAddr) -> Option<([u8; 6], NeighbourState)> {
    use futures_util::TryStreamExt;
    let all: Vec<_> = netlink(async |handle| handle.neighbours().get().execute().try_collect().await.unwrap());
    all.into_iter().find_map(|one| {
        let (mut destination, mut mac) = (None, None);
        for attribute in &one.attributes {
            if let NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) = attribute {
                destination = Some(IpAddr::from(*ip));
            } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) = attribute {
                destination = Some(IpAddr::from(*ip));
            } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
        }
        mac.filter(|_| destination == Some(ip)).map(|mac| (mac, one.header.state))
    })
}

/// Tells this host where `ip` is.
pub(crate) fn set_neighbour(interface: &str, ip: IpAddr, mac: [u8; 6], state: NeighbourState) {
    let index = index(interface);
    netlink(async |handle| {
        let request = handle.neighbours().add(index, ip).link_layer_address(&mac).state(state);
        request.replace().execute().await.unwrap();
    });
}

/// Whether the node has this address.
pub(crate) fn has(ip: impl Into<IpAddr>) -> bool {
    !hawser::vip::netlink::Routing::new().unwrap().present(&[ip.into()]).unwrap().is_empty()
}

/// Waits until something is so, and says how long that took.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not so after 10 s: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
    begun.elapsed()
}

pub(crate) fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

pub(crate) fn mac(interface: &str) -> [u8; 6] {
    let links = hawser::vip::netlink::Routing::new().unwrap().links().unwrap();
    links.into_iter().find(|link| link.name == interface).unwrap().mac.unwrap()
}

async fn configure(handle: &Handle, interface: &str, ip4: Ipv4Addr, ip6: Ipv6Addr) {
    for link in ["lo", interface] {
        handle.link().set(LinkUnspec::new_with_name(link).up().build()).execute().await.unwrap();
    }
    let index = index(interface);
    handle.address().add(index, ip4.into(), 24).execute().await.unwrap();
    handle.address().add(index, ip6.into(), 64).execute().await.unwrap();
}

/// A second of waiting that no test needs.
fn without_address_detection() {
    for scope in ["default", "all"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0").unwrap();
    }
}

/// Empties the neighbour tables of this host.
pub(crate) fn forget_neighbours() {
    use futures_util::TryStreamExt;
    netlink(async |handle| {
        let all: Vec<_> = handle.neighbours().get().execute().try_collect().await.unwrap();
        for one in all {
            handle.neighbours().del(one).execute().await.ok();
        }
    });
}
