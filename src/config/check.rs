//! Holds the parts of a configuration against each other. Pure: what it needs to know of the machine it is told.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{
    draft::{Draft, Group, Listener, Member, Upstream},
    etcd,
    fault::{Report, wrong},
    values::{self, Config, GateMode, Paths, RouteAction, TiebreakKind, Web},
    walk::{At, nearest, show},
};
use crate::{
    cluster::{self, Name, STATE_GROUP, Timing},
    limits,
    trust::site::{Facts, Standing, Trouble},
};
use ipnet::IpNet;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// What a check asks about the machine on which the file is to be used.
pub trait Machine {
    /// The networks of an interface; `None` if there is no such interface.
    fn networks(&self, interface: &str) -> Option<Vec<IpNet>>;
    /// Whether it has this address.
    fn has_address(&self, address: IpAddr) -> bool;
    /// Whether the folder is there.
    fn is_dir(&self, path: &Path) -> bool;
    /// What the certificate says, and whether it holds now.
    ///
    /// # Errors
    /// Why it cannot be used with this key.
    fn certificate(&self, cert: &Path, key: &Path) -> Result<(Facts, Standing), Trouble>;
    /// Whether the file holds the CA of client certificates.
    ///
    /// # Errors
    /// Why not.
    fn client_ca(&self, path: &Path) -> Result<(), Trouble>;
    /// Whether the file holds keys of session tickets.
    ///
    /// # Errors
    /// Why not.
    fn ticket_keys(&self, path: &Path) -> Result<(), Trouble>;
    /// Whether the one who asks need not be allowed to read keys.
    fn may_be_denied(&self) -> bool;
}

/// What a file is checked against.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The file: named in messages; relative paths begin at its folder.
    pub path: &'a Path,
    /// Which node this machine is; `None` where it does not matter, then it is taken as the first.
    pub me: Option<Name>,
    /// This machine, unless the file is for another one.
    pub machine: Option<&'a dyn Machine>,
}

/// Checks everything that needs more than one key, and makes the values.
pub(super) fn judge(report: &mut Report, draft: Draft, scene: &Scene<'_>, dir: PathBuf) -> Option<Config> {
    timing(report, &draft);
    members(report, &draft);
    super::tiebreak::judge(report, &draft, scene);
    at_home(report, &draft, scene);
    groups(report, &draft, scene);
    vips(report, &draft);
    listeners(report, &draft);
    routes(report, &draft, scene);
    upstreams(report, &draft);
    super::tls::judge(report, &draft, scene);
    socket_path(report, &draft.admin_socket);
    assemble(report, draft, scene, dir)
}

fn timing(report: &mut Report, draft: &Draft) {
    let (lease, interval) = (draft.cluster.lease, draft.cluster.interval);
    let most = lease.value / limits::INTERVALS_PER_LEASE_MIN;
    if interval.value > most {
        let what = format!(
            "a lease of {} has fewer than {} intervals of {}: a few lost heartbeats would cost it",
            show(lease.value),
            limits::INTERVALS_PER_LEASE_MIN,
            show(interval.value)
        );
        let help = format!(
            "write interval = \"{}\" or less, or lease = \"{}\" or more",
            show(most),
            show(interval.value * limits::INTERVALS_PER_LEASE_MIN)
        );
        report.fault(interval.line.max(lease.line), "cluster.interval", wrong(what, help));
    }
    if draft.cluster.gate == GateMode::Off {
        let fits = |lease| Timing::without_gate(lease, interval.value).hold() <= limits::HOLD_MAX;
        if !fits(lease.value) {
            let longest = (1..).take_while(|seconds| fits(Duration::from_secs(*seconds))).last().unwrap_or(1);
            let help = format!("write lease = \"{longest}s\" or less, or gate = \"on\"");
            report.fault(lease.line, "cluster.lease", wrong("is too long without the gate", help));
        }
    }
}

fn members(report: &mut Report, draft: &Draft) {
    if !(1..=2).contains(&draft.nodes.len()) {
        let line = draft.nodes.get(2).map_or(0, |third| third.line);
        let what = format!("a cluster has two nodes, and the file has {}", draft.nodes.len());
        report.fault(line, "node", wrong(what, "write [[node]] twice, or once for a node alone"));
    }
    let leaving: Vec<_> = draft.nodes.iter().filter(|n| n.leaves.is_some_and(|leaves| leaves.value)).collect();
    if let Some(last) = leaving.last().filter(|_| leaving.len() >= draft.nodes.len()) {
        let line = last.leaves.map_or(last.line, |leaves| leaves.line);
        let what = "leaves, and nobody would be left";
        report.fault(line, &format!("{}.leaves", last.place), wrong(what, "leave it out of one [[node]]"));
    }
    let all: Vec<&Member> = draft.nodes.iter().chain(&draft.witness).collect();
    for (at, member) in all.iter().enumerate() {
        for earlier in all.iter().take(at) {
            if let (Some(name), Some(other)) = (member.name, earlier.name)
                && name.value == other.value
            {
                let what = format!("\"{}\" is already {} (line {})", name.value, earlier.place, other.line);
                report.fault(name.line, &format!("{}.name", member.place), wrong(what, "write another name"));
            }
            same_address(report, member, earlier);
        }
        for address in member.addresses.iter().filter(|address| address.value.ip().is_loopback()) {
            let what = format!("{} is a loopback address", address.value.ip());
            report.warn(address.line, &member.place, wrong(what, "good for a trial on one machine only"));
        }
    }
    if let [first, second, ..] = draft.nodes.as_slice() {
        links(report, first, second);
    }
}

/// The folder of one node on the machine of the other would make a second one of it.
fn at_home(report: &mut Report, draft: &Draft, scene: &Scene<'_>) {
    let (Some(me), Some(machine)) = (scene.me, scene.machine) else { return };
    let named = |node: &&Member| node.name.as_ref().is_some_and(|name| name.value == me);
    let Some(node) = draft.nodes.iter().find(named) else { return };
    let Some(first) = node.addresses.first() else { return };
    if !node.addresses.iter().any(|link| machine.has_address(link.value.ip())) {
        let what =
            format!("none of the addresses of {me} is on this machine, and its certificate says that it is {me}");
        let help = "if this is the folder of the other node, do not start it: there would be two of that node";
        // Not a fault: at boot the addresses may come after hawser.
        report.warn(first.line, &format!("{}.links", node.place), wrong(what, help));
    }
}

fn same_address(report: &mut Report, member: &Member, earlier: &Member) {
    for address in &member.addresses {
        if let Some(other) = earlier.addresses.iter().find(|other| other.value == address.value) {
            let what = format!("{} is already an address of {} (line {})", address.value, earlier.place, other.line);
            report.fault(address.line, &member.place, wrong(what, "each member has addresses of its own"));
        } else if let Some(other) = earlier.addresses.iter().find(|other| other.value.ip() == address.value.ip())
            && !address.value.ip().is_loopback()
        {
            let what = format!("is on the machine of {} (line {})", earlier.place, other.line);
            report.warn(address.line, &member.place, wrong(what, "they would die together"));
        }
    }
}

fn links(report: &mut Report, first: &Member, second: &Member) {
    for node in [first, second] {
        for (at, link) in node.addresses.iter().enumerate() {
            if let Some(other) = node.addresses.iter().take(at).find(|other| other.value == link.value) {
                let what = format!("{} is already a link of this node (line {})", link.value, other.line);
                report.fault(link.line, &format!("{}.links", node.place), wrong(what, "write each address once"));
            }
        }
    }
    if let (Some(one), Some(other)) = (first.addresses.first(), second.addresses.first())
        && first.addresses.len() != second.addresses.len()
    {
        let (ours, theirs) = (first.addresses.len(), second.addresses.len());
        let what = format!("has {theirs}, and {} has {ours} (line {})", first.place, one.line);
        let help = "link i of one node talks to link i of the other: write as many on both";
        report.fault(other.line, &format!("{}.links", second.place), wrong(what, help));
    }
    for (at, (one, other)) in first.addresses.iter().zip(&second.addresses).enumerate() {
        if one.value.is_ipv4() != other.value.is_ipv4() {
            let what =
                format!("cannot reach {}.links[{at}] (line {}): one is IPv4, one is IPv6", first.place, one.line);
            let help = "write both of the same family";
            report.fault(other.line, &format!("{}.links[{at}]", second.place), wrong(what, help));
        }
    }
}

fn groups(report: &mut Report, draft: &Draft, scene: &Scene<'_>) {
    let nodes: Vec<&str> = draft.nodes.iter().filter_map(|node| node.name.as_ref()).map(|n| n.value.as_str()).collect();
    for (at, group) in draft.groups.iter().enumerate() {
        if let Some(name) = group.name {
            let place = format!("{}.name", group.place);
            if name.value.as_str() == STATE_GROUP {
                let what = format!("\"{STATE_GROUP}\" is the group of the replicated state");
                report.fault(name.line, &place, wrong(what, "write another name"));
            }
            let same = |other: &&Group| other.name.is_some_and(|other| other.value == name.value);
            if let Some(other) = draft.groups.iter().take(at).find(same) {
                let what = format!("\"{}\" is already {} (line {})", name.value, other.place, other.line);
                report.fault(name.line, &place, wrong(what, "write another name"));
            }
        }
        if let Some(prefer) = group.prefer.filter(|prefer| !nodes.contains(&prefer.value.as_str())) {
            let what = format!("\"{}\" is not a node", prefer.value);
            report.fault(prefer.line, &format!("{}.prefer", group.place), wrong(what, instead(prefer.value, &nodes)));
        }
        if let Some(machine) = scene.machine {
            group.vips.iter().for_each(|vip| interface(report, vip, machine));
        }
    }
    if draft.groups.is_empty() {
        report.warn(0, "group", wrong("there is none: no address moves", "write [[group]] with a vip"));
    }
}

fn interface(report: &mut Report, vip: &super::draft::Vip, machine: &dyn Machine) {
    let Some(interface) = &vip.interface else { return };
    let Some(networks) = machine.networks(&interface.value) else {
        let what = format!("this machine has no interface {}", interface.value);
        let help = "write one that `ip link` shows (--offline: the file is for another machine)";
        return report.fault(interface.line, &format!("{}.interface", vip.place), wrong(what, help));
    };
    let Some(address) = vip.address else { return };
    let covers = |net: &IpNet| net.addr() != address.value.addr() && net.contains(&address.value.addr());
    if !networks.iter().any(covers) {
        let what = format!("{} is in no network of {}", address.value.addr(), interface.value);
        report.warn(address.line, &vip.place, wrong(what, "its neighbours may not find it: is the interface right?"));
    }
}

fn vips(report: &mut Report, draft: &Draft) {
    let all: Vec<_> = draft.groups.iter().flat_map(|group| &group.vips).collect();
    if let Some(vip) = all.get(limits::VIPS_MAX) {
        let line = vip.address.map_or(0, |address| address.line);
        let what = format!("this is one of {} addresses", all.len());
        report.fault(
            line,
            &vip.place,
            wrong(what, format!("write at most {} in all groups together", limits::VIPS_MAX)),
        );
    }
    let members: Vec<&Member> = draft.nodes.iter().chain(&draft.witness).collect();
    for (at, vip) in all.iter().enumerate() {
        let Some(address) = vip.address else { continue };
        let place = format!("{}.address", vip.place);
        for (earlier, other) in all.iter().take(at).filter_map(|vip| vip.address.map(|address| (vip, address))) {
            if other.value.addr() == address.value.addr() {
                let what = format!("{} is already {} (line {})", address.value.addr(), earlier.place, other.line);
                report.fault(address.line, &place, wrong(what, "an address moves with one group, once"));
            }
        }
        for member in &members {
            let same = |link: &&At<SocketAddr>| link.value.ip() == address.value.addr();
            if let Some(link) = member.addresses.iter().find(same) {
                let what = format!(
                    "{} is an address of {} (line {}), and stays there",
                    link.value.ip(),
                    member.place,
                    link.line
                );
                report.fault(address.line, &place, wrong(what, "write an address that no machine has of its own"));
            }
        }
    }
}

fn listeners(report: &mut Report, draft: &Draft) {
    let all: Vec<(&Listener, &At<SocketAddr>)> =
        draft.listeners.iter().flat_map(|l| l.addresses.iter().map(move |address| (l, address))).collect();
    if all.len() > limits::LISTENERS_MAX {
        let what = format!("there are {} addresses", all.len());
        let help = format!("write at most {}", limits::LISTENERS_MAX);
        report.fault(all.last().map_or(0, |(_, address)| address.line), "listener", wrong(what, help));
    }
    for (at, (listener, address)) in all.iter().take(limits::LISTENERS_MAX).enumerate() {
        for (earlier, other) in all.iter().take(at).filter(|(_, other)| overlap(other.value, address.value)) {
            taken(report, listener, address, &earlier.place, other);
        }
        for node in &draft.nodes {
            for link in node.addresses.iter().filter(|link| overlap(link.value, address.value)) {
                taken(report, listener, address, &format!("{}.links", node.place), link);
            }
        }
        reachable(report, draft, listener, address);
    }
}

/// Whether two sockets would compete for the same connections.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let covers = a == b || ((a.is_unspecified() || b.is_unspecified()) && a.is_ipv4() == b.is_ipv4());
    one.port() == other.port() && covers
}

fn taken(report: &mut Report, listener: &Listener, address: &At<SocketAddr>, by: &str, other: &At<SocketAddr>) {
    let port = address.value.port();
    let whose = if other.value == address.value {
        format!("line {}", other.line)
    } else {
        format!("{}, line {}", other.value, other.line)
    };
    let what = format!("port {port} is already taken by {by} ({whose})");
    report.fault(address.line, &listener.place, wrong(what, "write another port or address, or leave one of them out"));
}

/// Warns about an address that no node will ever have.
fn reachable(report: &mut Report, draft: &Draft, listener: &Listener, address: &At<SocketAddr>) {
    let ip = address.value.ip();
    let vips = draft.groups.iter().flat_map(|group| &group.vips).filter_map(|vip| vip.address);
    let links = draft.nodes.iter().flat_map(|node| &node.addresses);
    let known = ip.is_unspecified()
        || ip.is_loopback()
        || vips.into_iter().any(|vip| vip.value.addr() == ip)
        || links.into_iter().any(|link| link.value.ip() == ip);
    if !known {
        let what = format!("{ip} is no vip, and no link of a node");
        report.warn(address.line, &listener.place, wrong(what, "nobody answers there unless something else adds it"));
    }
}

fn routes(report: &mut Report, draft: &Draft, scene: &Scene<'_>) {
    let names: Vec<&str> = draft.upstreams.iter().filter_map(|u| u.name.as_ref()).map(|n| n.value.as_str()).collect();
    for listener in &draft.listeners {
        for (at, route) in listener.routes.iter().enumerate() {
            let plain = |path: &str| path.trim_end_matches('/').to_owned();
            let same = |other: &&super::draft::Route| plain(&other.path.value) == plain(&route.path.value);
            if let Some(other) = listener.routes.iter().take(at).find(same) {
                let what = format!("path {} is already {} (line {})", route.path.value, other.place, other.path.line);
                report.fault(route.path.line, &route.place, wrong(what, "write each path once"));
            }
            match &route.action.value {
                RouteAction::Proxy { upstream } if !names.contains(&upstream.as_str()) => {
                    let what = format!("there is no upstream \"{upstream}\"");
                    let place = format!("{}.upstream", route.place);
                    report.fault(route.action.line, &place, wrong(what, instead(*upstream, &names)));
                }
                RouteAction::Static(files) if scene.machine.is_some_and(|machine| !machine.is_dir(&files.root)) => {
                    let what = format!("there is no folder {} on this machine", files.root.display());
                    report.warn(
                        route.action.line,
                        &format!("{}.root", route.place),
                        wrong(what, "every answer is a 404"),
                    );
                }
                RouteAction::Proxy { .. } | RouteAction::Static(_) | RouteAction::ToHttps { .. } => {}
            }
        }
    }
}

fn upstreams(report: &mut Report, draft: &Draft) {
    for (at, upstream) in draft.upstreams.iter().enumerate() {
        let same =
            |other: &&Upstream| other.name.is_some_and(|o| upstream.name.is_some_and(|name| name.value == o.value));
        if let Some(other) = draft.upstreams.iter().take(at).find(same) {
            let what = format!("its name is already {} (line {})", other.place, other.line);
            report.fault(upstream.line, &format!("{}.name", upstream.place), wrong(what, "write another name"));
        }
        for (at, server) in upstream.servers.iter().enumerate() {
            let place = format!("{}.servers[{at}]", upstream.place);
            if let Some(other) = upstream.servers.iter().take(at).find(|other| other.value == server.value) {
                let what = format!("{} is already there (line {})", server.value, other.line);
                report.fault(server.line, &place, wrong(what, "write each server once"));
            }
            if server.value.ip().is_unspecified() || server.value.ip().is_multicast() {
                let what = format!("{} is no server's address", server.value.ip());
                report.fault(server.line, &place, wrong(what, "write the address of one machine"));
            }
            if draft.listeners.iter().flat_map(|l| &l.addresses).any(|address| address.value == server.value) {
                let what = format!("{} is a listener of this file", server.value);
                report.warn(server.line, &place, wrong(what, "a request that comes back to it goes round for ever"));
            }
        }
        let used = |action: &RouteAction| matches!(action, RouteAction::Proxy { upstream: name } if upstream.name.is_some_and(|own| own.value == *name));
        if !draft.listeners.iter().flat_map(|l| &l.routes).any(|route| used(&route.action.value)) {
            report.warn(
                upstream.line,
                &upstream.place,
                wrong("no route uses it", "leave it out, or name it in a route"),
            );
        }
    }
}

pub(super) fn socket_path(report: &mut Report, path: &Path) {
    let length = path.as_os_str().len();
    if length > limits::SOCKET_PATH_BYTES_MAX {
        let what = format!("is {length} bytes long");
        let help = format!("the kernel takes at most {} for a socket", limits::SOCKET_PATH_BYTES_MAX);
        report.fault(0, "admin.socket", wrong(what, help));
    }
}

/// The help for a name that is not among the known ones.
fn instead(name: Name, known: &[&str]) -> String {
    match nearest(name.as_str(), known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if known.is_empty() => "the file has none".to_owned(),
        None => format!("the file has {}", known.join(", ")),
    }
}

/// The values; `None` if a part of them is missing, which has been reported then.
fn assemble(report: &mut Report, draft: Draft, scene: &Scene<'_>, dir: PathBuf) -> Option<Config> {
    let groups: Option<Vec<values::Group>> = draft.groups.iter().map(|group| assemble_group(group, &draft)).collect();
    let groups = groups?;
    let upstreams: Option<Vec<values::Upstream>> = draft.upstreams.into_iter().map(assemble_upstream).collect();
    let listeners: Option<Vec<_>> =
        draft.listeners.into_iter().map(|listener| assemble_listener(listener, &groups)).collect();
    let web = Web {
        listeners: listeners?.concat(),
        upstreams: upstreams?,
        threads: draft.web.threads,
        file_cache_bytes: draft.web.file_cache_bytes,
        ticket_keys: draft.web.ticket_keys.map(|keys| keys.value),
    };
    let leaves = |at: usize| draft.nodes.get(at).is_some_and(|node| node.leaves.is_some_and(|leaves| leaves.value));
    let alone = match (draft.nodes.len(), leaves(0), leaves(1)) {
        (1, ..) | (_, _, true) => Some(cluster::Member::First),
        (_, true, false) => Some(cluster::Member::Second),
        (_, false, false) => None,
    };
    let nodes: Option<Vec<values::Node>> = draft.nodes.into_iter().map(assemble_node).collect();
    let mut nodes = nodes?;
    if nodes.len() == 1 {
        nodes.push(values::Node { name: Name::new(values::NOBODY).ok()?, links: Vec::new() });
    }
    let nodes: [values::Node; 2] = nodes.try_into().ok()?;
    let me = match scene.me {
        None => cluster::Member::First,
        Some(me) => match nodes.iter().position(|node| node.name == me) {
            Some(0) => cluster::Member::First,
            Some(_) => cluster::Member::Second,
            None => {
                let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                let what = format!("this machine is \"{me}\", and the file has no node of that name");
                report.fault(0, "", wrong(what, instead(me, &names)));
                return None;
            }
        },
    };
    let kind = draft.cluster.tiebreak;
    let all = assemble_tiebreaks(draft.witness, draft.etcd, (draft.fence, draft.gateway), &nodes);
    let (chosen, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|tiebreak| tiebreak.kind() == kind);
    let tiebreak = match chosen.into_iter().next() {
        Some(chosen) => chosen,
        None if alone.is_some() || kind == TiebreakKind::None => values::Tiebreak::None,
        None => return None,
    };
    Some(Config {
        cluster: values::Cluster {
            name: draft.cluster.name?.value,
            lease: draft.cluster.lease.value,
            interval: draft.cluster.interval.value,
            drain: draft.cluster.drain,
            gate: draft.cluster.gate,
            boot_wait: draft.cluster.boot_wait.map_or(limits::BOOT_WAIT_DEFAULT, |wait| wait.value),
        },
        nodes,
        alone,
        me,
        tiebreak,
        others,
        groups,
        web,
        paths: Paths { config_dir: dir, state_dir: draft.state_dir, admin_socket: draft.admin_socket },
    })
}

/// What each section of that kind says.
fn assemble_tiebreaks(
    witness: Option<Member>,
    etcd: Option<etcd::Etcd>,
    (fence, gateway): (Option<super::tiebreak::Fence>, Option<super::tiebreak::Gateway>),
    nodes: &[values::Node; 2],
) -> Vec<values::Tiebreak> {
    let witness = witness.and_then(|witness| {
        let addresses = witness.addresses.into_iter().map(|address| address.value).collect();
        Some(values::Tiebreak::Witness(values::Witness { name: witness.name?.value, addresses }))
    });
    let etcd = etcd.map(|etcd| values::Tiebreak::Etcd(etcd::assemble(etcd)));
    let fence = fence.and_then(|fence| fence.assemble(nodes)).map(values::Tiebreak::Fence);
    let gateway = gateway.and_then(super::tiebreak::Gateway::assemble).map(values::Tiebreak::Gateway);
    [witness, etcd, fence, gateway].into_iter().flatten().collect()
}

fn assemble_node(node: Member) -> Option<values::Node> {
    Some(values::Node { name: node.name?.value, links: node.addresses.into_iter().map(|link| link.value).collect() })
}

fn assemble_group(group: &Group, draft: &Draft) -> Option<values::Group> {
    let second = draft.nodes.get(1).and_then(|node| node.name);
    let prefers_second = group.prefer.is_some_and(|prefer| second.is_some_and(|second| second.value == prefer.value));
    let vip = |vip: &super::draft::Vip| {
        Some(values::Vip { address: vip.address?.value, interface: vip.interface.as_ref()?.value.clone() })
    };
    Some(values::Group {
        name: group.name?.value,
        prefer: if prefers_second { cluster::Member::Second } else { cluster::Member::First },
        vips: group.vips.iter().map(vip).collect::<Option<_>>()?,
    })
}

fn assemble_upstream(upstream: Upstream) -> Option<values::Upstream> {
    Some(values::Upstream {
        name: upstream.name?.value,
        servers: upstream.servers.into_iter().map(|server| server.value).collect(),
        health: upstream.health,
        connect_timeout: upstream.connect_timeout,
        response_timeout: upstream.response_timeout,
        idle_timeout: upstream.idle_timeout,
        http2: upstream.http2,
        proxy_protocol: upstream.proxy_protocol,
    })
}

/// One listener for each address, its routes ordered longest path first.
fn assemble_listener(listener: Listener, groups: &[values::Group]) -> Option<Vec<values::Listener>> {
    let front = listener.front.assemble()?;
    let mut routes: Vec<values::Route> = listener
        .routes
        .into_iter()
        .map(|route| values::Route { path: route.path.value, action: route.action.value })
        .collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    let listener_addresses = listener.addresses;
    let group_of =
        |ip: IpAddr| groups.iter().find(|g| g.vips.iter().any(|vip| vip.address.addr() == ip)).map(|g| g.name);
    let listener = |address: At<SocketAddr>| values::Listener {
        address: address.value,
        group: group_of(address.value.ip()),
        routes: routes.clone(),
        front: front.clone(),
    };
    Some(listener_addresses.into_iter().map(listener).collect())
}
