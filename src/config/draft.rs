//! What a file says, key by key, before its parts are held against each other. Everything knows its line.

use super::{
    address, etcd,
    fault::{Report, Wrong, wrong},
    files, tls,
    values::{GateMode, HealthCheck, HealthKind, ProxyVersion, RouteAction, TiebreakKind},
    walk::{At, Section},
};
use crate::{cluster::Name, limits};
use ipnet::IpNet;
use std::{net::SocketAddr, ops::RangeInclusive, path::Path, path::PathBuf, time::Duration};

/// Folder of what must survive, unless another is written.
const STATE_DIR: &str = "/var/lib/hawser";
/// Socket of the daemon, unless another is written.
const ADMIN_SOCKET: &str = "/run/hawser/admin.sock";

/// `hawser.toml`, read.
pub(super) struct Draft {
    pub(super) cluster: Cluster,
    pub(super) nodes: Vec<Member>,
    pub(super) witness: Option<Member>,
    pub(super) fence: Option<super::tiebreak::Fence>,
    pub(super) gateway: Option<super::tiebreak::Gateway>,
    pub(super) etcd: Option<etcd::Etcd>,
    pub(super) groups: Vec<Group>,
    pub(super) listeners: Vec<Listener>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) admin_socket: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) web: Web,
}

pub(super) struct Cluster {
    pub(super) name: Option<At<Name>>,
    pub(super) lease: At<Duration>,
    pub(super) interval: At<Duration>,
    pub(super) drain: Duration,
    pub(super) gate: GateMode,
    pub(super) tiebreak: TiebreakKind,
    pub(super) boot_wait: Option<At<Duration>>,
    pub(super) tiebreak_line: usize,
}

/// A node or the witness.
pub(super) struct Member {
    pub(super) place: String,
    pub(super) line: usize,
    pub(super) name: Option<At<Name>>,
    pub(super) addresses: Vec<At<SocketAddr>>,
    /// It is to leave the cluster.
    pub(super) leaves: Option<At<bool>>,
}

pub(super) struct Group {
    pub(super) place: String,
    pub(super) line: usize,
    pub(super) name: Option<At<Name>>,
    pub(super) prefer: Option<At<Name>>,
    pub(super) vips: Vec<Vip>,
}

pub(super) struct Vip {
    pub(super) place: String,
    pub(super) address: Option<At<IpNet>>,
    pub(super) interface: Option<At<String>>,
}

pub(super) struct Listener {
    pub(super) place: String,
    pub(super) addresses: Vec<At<SocketAddr>>,
    pub(super) routes: Vec<Route>,
    pub(super) front: tls::Front,
}

pub(super) struct Route {
    pub(super) place: String,
    pub(super) path: At<String>,
    pub(super) action: At<RouteAction>,
}

pub(super) struct Upstream {
    pub(super) place: String,
    pub(super) line: usize,
    pub(super) name: Option<At<Name>>,
    pub(super) servers: Vec<At<SocketAddr>>,
    pub(super) health: HealthCheck,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) http2: bool,
    pub(super) proxy_protocol: Option<ProxyVersion>,
}

/// `[web]`.
pub(super) struct Web {
    pub(super) threads: usize,
    pub(super) file_cache_bytes: u64,
    pub(super) ticket_keys: Option<At<PathBuf>>,
}

/// Reads the whole document; `dir` is where relative paths begin.
pub(super) fn read(report: &mut Report, mut file: Section<'_>, dir: &Path) -> Draft {
    let cluster = file.section(report, "cluster");
    if cluster.is_none() && !file.has("cluster") {
        file.missing(report, "cluster", "write [cluster] with the cluster's name");
    }
    let nodes = file.sections(report, "node", usize::from(u8::MAX));
    let (witness, etcd) = (file.section(report, "witness"), file.section(report, "etcd"));
    let (fence, gateway) = (file.section(report, "fence"), file.section(report, "gateway"));
    let groups = file.sections(report, "group", limits::GROUPS_MAX);
    let listeners = file.sections(report, "listener", limits::LISTENERS_MAX);
    let upstreams = file.sections(report, "upstream", limits::UPSTREAMS_MAX);
    let admin = file.section(report, "admin");
    let store = file.section(report, "store");
    let web = file.section(report, "web");
    let cluster = read_cluster(report, cluster);
    let web = read_web(report, web, dir);
    tiebreak(report, &file, &cluster, nodes.len() == 1);
    file.finish(report, &[]);
    Draft {
        cluster,
        nodes: nodes.into_iter().map(|node| read_member(report, node, "links", limits::LINKS_MAX)).collect(),
        witness: witness.map(|witness| read_member(report, witness, "address", limits::LINKS_MAX)),
        fence: fence.map(|fence| super::tiebreak::read_fence(report, fence)),
        gateway: gateway.map(|gateway| super::tiebreak::read_gateway(report, gateway)),
        etcd: etcd.map(|etcd| etcd::read(report, etcd, dir)),
        groups: groups.into_iter().map(|group| read_group(report, group)).collect(),
        listeners: listeners.into_iter().map(|listener| read_listener(report, listener, dir)).collect(),
        upstreams: upstreams.into_iter().map(|upstream| read_upstream(report, upstream)).collect(),
        admin_socket: read_path(report, admin, "socket", dir, ADMIN_SOCKET),
        state_dir: read_path(report, store, "dir", dir, STATE_DIR),
        web,
    }
}

/// The section of the chosen tiebreak is there. Those of others are noted: they are for a change of voters.
fn tiebreak(report: &mut Report, file: &Section<'_>, cluster: &Cluster, alone: bool) {
    for (word, kind) in TiebreakKind::ALL {
        if kind != cluster.tiebreak && file.has(word) {
            let what = format!("is written, and the tiebreak is another (line {})", cluster.tiebreak_line);
            let help = "it is used only while the voters change from it: then leave it out";
            report.warn(file.line_of(report, word), word, wrong(what, help));
        }
    }
    if alone {
        return;
    }
    match cluster.tiebreak {
        TiebreakKind::Witness => {
            file.missing(report, "witness", "write [witness] with the name and address of the third voter");
        }
        TiebreakKind::Fence => {
            file.missing(
                report,
                "fence",
                "write [fence] with the agent, and [fence.NODE] with the options of each node",
            );
        }
        TiebreakKind::Gateway => {
            file.missing(report, "gateway", "write [gateway] with addresses = [\"10.0.0.254\"]");
        }
        TiebreakKind::None => {}
        TiebreakKind::Etcd => file.missing(report, "etcd", "write [etcd] with endpoints = [\"http://10.0.0.9:2379\"]"),
    }
}

/// The only path of a small section, or its default.
pub(super) fn read_path(
    report: &mut Report,
    section: Option<Section<'_>>,
    key: &'static str,
    dir: &Path,
    default: &str,
) -> PathBuf {
    let Some(mut section) = section else { return PathBuf::from(default) };
    let path = section.parsed(report, key, |text| path(text, dir));
    section.finish(report, &[]);
    path.map_or_else(|| PathBuf::from(default), |path| path.value)
}

/// A path; a relative one begins at the file's folder.
pub(super) fn path(text: &str, dir: &Path) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(wrong("is not a path", "write a path, like \"/srv/www\""));
    }
    Ok(dir.join(text))
}

fn read_web(report: &mut Report, section: Option<Section<'_>>, dir: &Path) -> Web {
    let bytes = |mib: u32| u64::from(mib) << 20;
    let file_cache_bytes = bytes(limits::FILE_CACHE_MIB_DEFAULT);
    let Some(mut section) = section else { return Web { threads: 0, file_cache_bytes, ticket_keys: None } };
    let most = u32::try_from(limits::WEB_THREADS_MAX).unwrap_or(u32::MAX);
    let threads = section.number(report, "threads", 0..=most);
    let cache = section.number(report, "file_cache_mib", 0..=limits::FILE_CACHE_MIB_MAX);
    let ticket_keys = section.parsed(report, "ticket_keys", |text| path(text, dir));
    section.finish(report, &[]);
    Web {
        threads: threads.map_or(0, |threads| usize::try_from(threads.value).unwrap_or_default()),
        file_cache_bytes: cache.map_or(file_cache_bytes, |cache| bytes(cache.value)),
        ticket_keys,
    }
}

fn read_cluster(report: &mut Report, section: Option<Section<'_>>) -> Cluster {
    let at = |value, line| At { value, line };
    let Some(mut section) = section else {
        let (lease, interval) = (at(limits::LEASE_DEFAULT, 0), at(limits::INTERVAL_DEFAULT, 0));
        let drain = limits::DRAIN_DEFAULT;
        let tiebreak = TiebreakKind::Witness;
        let gate = GateMode::On;
        return Cluster { name: None, lease, interval, drain, gate, tiebreak, tiebreak_line: 0, boot_wait: None };
    };
    let line = section.line;
    let name = section.parsed(report, "name", address::name);
    section.missing(report, "name", "write name = \"shop\"");
    let profiles = [
        ("default", (limits::LEASE_DEFAULT, limits::INTERVAL_DEFAULT)),
        ("fast", (limits::LEASE_FAST, limits::INTERVAL_FAST)),
    ];
    let profile = section.choice(report, "profile", &profiles);
    let (lease, usual) = profile.map_or((limits::LEASE_DEFAULT, limits::INTERVAL_DEFAULT), |p| p.value);
    let lease_bounds = limits::LEASE_MIN..=limits::LEASE_MAX;
    let lease = section.duration(report, "lease", &lease_bounds).unwrap_or(at(lease, line));
    let interval_bounds = limits::INTERVAL_MIN..=limits::LEASE_MAX / limits::INTERVALS_PER_LEASE_MIN;
    let interval = section.duration(report, "interval", &interval_bounds);
    // A shorter lease brings a shorter interval with it, so that one key is enough.
    let interval = interval.unwrap_or(at(usual.min(lease.value / 10), line));
    let drain = section.duration(report, "drain", &(Duration::ZERO..=limits::DRAIN_MAX));
    let gate = section.choice(report, "gate", &[("on", GateMode::On), ("off", GateMode::Off)]);
    let tiebreak = section.choice(report, "tiebreak", &TiebreakKind::ALL);
    let boot_wait = section.duration(report, "boot_wait", &(Duration::ZERO..=limits::BOOT_WAIT_MAX));
    section.finish(report, &[]);
    Cluster {
        name,
        lease,
        interval,
        drain: drain.map_or(limits::DRAIN_DEFAULT, |drain| drain.value),
        gate: gate.map_or(GateMode::On, |gate| gate.value),
        tiebreak: tiebreak.map_or(TiebreakKind::Witness, |tiebreak| tiebreak.value),
        boot_wait,
        tiebreak_line: tiebreak.map_or(line, |tiebreak| tiebreak.line),
    }
}

fn read_member(report: &mut Report, mut section: Section<'_>, key: &'static str, max: usize) -> Member {
    let name = section.parsed(report, "name", address::name);
    section.missing(report, "name", "write name = \"n1\"");
    let addresses = section.list(report, key, max, address::member);
    section.missing(report, key, format!("write {key} = [\"10.0.0.1\"]"));
    let leaves = if key == "links" { section.flag(report, "leaves") } else { None };
    let (place, line) = (section.place.clone(), section.line);
    section.finish(report, &[]);
    Member { place, line, name, addresses: addresses.unwrap_or_default(), leaves }
}

fn read_group(report: &mut Report, mut section: Section<'_>) -> Group {
    let name = section.parsed(report, "name", address::name);
    section.missing(report, "name", "write name = \"web\"");
    let prefer = section.parsed(report, "prefer", address::name);
    let vips = section.sections(report, "vip", limits::VIPS_MAX);
    if vips.is_empty() {
        let help = "write vip = [{ address = \"192.0.2.10/24\", interface = \"eth0\" }]";
        report.fault(section.line, &section.place, wrong("has no vip: nothing would move", help));
    }
    let vips = vips.into_iter().map(|vip| read_vip(report, vip)).collect();
    let (place, line) = (section.place.clone(), section.line);
    section.finish(report, &[]);
    Group { place, line, name, prefer, vips }
}

fn read_vip(report: &mut Report, mut section: Section<'_>) -> Vip {
    let address = section.parsed(report, "address", address::vip);
    section.missing(report, "address", "write address = \"192.0.2.10/24\"");
    let interface = section.parsed(report, "interface", address::interface);
    section.missing(report, "interface", "write interface = \"eth0\", the one that carries the address");
    let place = section.place.clone();
    section.finish(report, &[]);
    Vip { place, address, interface }
}

fn read_listener(report: &mut Report, mut section: Section<'_>, dir: &Path) -> Listener {
    let addresses = section.list(report, "address", limits::LISTENERS_MAX, address::socket);
    section.missing(report, "address", "write address = \"192.0.2.10:80\"");
    let mut routes = Vec::new();
    let front = tls::read(report, &mut section, dir);
    let short = ACTIONS.into_iter().any(|key| section.has(key));
    let (place, line) = (section.place.clone(), section.line);
    if short {
        let path = At { value: "/".to_owned(), line };
        routes.extend(read_action(report, &mut section, dir).map(|action| Route {
            place: place.clone(),
            path,
            action,
        }));
    } else if !section.has("route") {
        let help = "write root = \"/srv/www\", or upstream = \"app\", or redirect = \"https\", or [[listener.route]]";
        report.fault(line, &place, wrong("answers nothing", help));
    }
    for key in files::KEYS.into_iter().filter(|key| !short && section.has(key)) {
        let (line, place) = (section.line_of(report, key), section.place_of(key));
        report.fault(
            line,
            &place,
            wrong("belongs to a root", "write root = \"/srv/www\" beside it, or put it where root is"),
        );
    }
    for route in section.sections(report, "route", limits::ROUTES_MAX) {
        routes.extend(read_route(report, route, dir));
    }
    let answers: Vec<&str> = ACTIONS.into_iter().chain(files::KEYS).collect();
    section.finish(report, &answers);
    Listener { place, addresses: addresses.unwrap_or_default(), routes, front }
}

fn read_route(report: &mut Report, mut section: Section<'_>, dir: &Path) -> Option<Route> {
    let path = section.parsed(report, "path", route_path);
    section.missing(report, "path", "write path = \"/api/\"");
    let action = read_action(report, &mut section, dir);
    let place = section.place.clone();
    section.finish(report, &[]);
    Some(Route { place, path: path?, action: action? })
}

/// The keys that say what answers.
const ACTIONS: [&str; 3] = ["root", "upstream", "redirect"];

/// `root` with what belongs to files, or `upstream`, or `redirect`: exactly one.
fn read_action(report: &mut Report, section: &mut Section<'_>, dir: &Path) -> Option<At<RouteAction>> {
    let root = section.parsed(report, "root", |text| path(text, dir));
    let files = files::read(report, section, root.as_ref().map(|root| root.value.clone()).unwrap_or_default());
    let upstream = section.parsed(report, "upstream", address::name);
    let redirect = section.parsed(report, "redirect", tls::redirect);
    let written: Vec<&str> = ACTIONS.into_iter().filter(|key| section.has(key)).collect();
    let &[action] = written.as_slice() else {
        let what = match written.as_slice() {
            [] => "has neither root nor upstream nor redirect".to_owned(),
            written => format!("has both {}", written.join(" and ")),
        };
        let help = "write root = \"/srv/www\" for files, upstream = \"app\" to forward, or redirect = \"https\"";
        report.fault(section.line, &section.place, wrong(what, help));
        return None;
    };
    for key in files::KEYS.into_iter().filter(|key| action != "root" && section.has(key)) {
        let (line, help) = (section.line_of(report, key), format!("leave it out beside {action}"));
        report.fault(line, &section.place_of(key), wrong("is for files", help));
    }
    if let Some(upstream) = upstream {
        return Some(At { value: RouteAction::Proxy { upstream: upstream.value }, line: upstream.line });
    }
    if let Some(redirect) = redirect {
        return Some(At { value: RouteAction::ToHttps { port: redirect.value }, line: redirect.line });
    }
    Some(At { value: RouteAction::Static(files), line: root?.line })
}

/// A prefix of request paths: what a client cannot send would never match.
fn route_path(text: &str) -> Result<String, Wrong> {
    let help = "write a path as clients send it, like \"/api/\"";
    if !text.starts_with('/') {
        return Err(wrong(format!("\"{text}\" does not begin with /"), help));
    }
    if text.contains(['?', '#']) || text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(wrong(format!("\"{text}\" holds what a path cannot"), help));
    }
    if text.split('/').any(|part| matches!(part, "." | "..")) || text.contains("//") {
        return Err(wrong(format!("\"{text}\" is not in its shortest form"), "leave out . .. and //"));
    }
    Ok(text.to_owned())
}

fn read_upstream(report: &mut Report, mut section: Section<'_>) -> Upstream {
    let timeouts = Duration::from_millis(1)..=limits::WEB_TIMEOUT_MAX;
    let name = section.parsed(report, "name", address::name);
    section.missing(report, "name", "write name = \"app\"");
    let servers = section.list(report, "servers", limits::SERVERS_PER_UPSTREAM_MAX, address::socket);
    section.missing(report, "servers", "write servers = [\"10.0.0.5:8080\"]");
    let health = read_health(report, &mut section);
    let mut timeout = |section: &mut Section<'_>, key, default: u64| {
        section.duration(report, key, &timeouts).map_or(Duration::from_secs(default), |time| time.value)
    };
    let connect_timeout = timeout(&mut section, "connect_timeout", 1);
    let response_timeout = timeout(&mut section, "response_timeout", 30);
    let idle_timeout = timeout(&mut section, "idle_timeout", 60);
    let http2 = section.flag(report, "http2").is_some_and(|http2| http2.value);
    let versions = [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
    let proxy_protocol = section.choice(report, "proxy_protocol", &versions).map(|version| version.value);
    let (place, line, servers) = (section.place.clone(), section.line, servers.unwrap_or_default());
    section.finish(report, &[]);
    Upstream {
        place,
        line,
        name,
        servers,
        health,
        connect_timeout,
        response_timeout,
        idle_timeout,
        http2,
        proxy_protocol,
    }
}

fn read_health(report: &mut Report, upstream: &mut Section<'_>) -> HealthCheck {
    let second = Duration::from_secs(1);
    let mut check = HealthCheck { kind: HealthKind::Tcp, interval: second, timeout: second, rise: 2, fall: 3 };
    if upstream.is_text("health", "none") {
        upstream.text(report, "health");
        return HealthCheck { kind: HealthKind::None, ..check };
    }
    let Some(mut section) = upstream.section(report, "health") else { return check };
    let times: RangeInclusive<Duration> = limits::HEALTH_TIME_MIN..=limits::WEB_TIMEOUT_MAX;
    check.interval = section.duration(report, "interval", &times).map_or(check.interval, |time| time.value);
    check.timeout = section.duration(report, "timeout", &times).map_or(check.timeout, |time| time.value);
    check.rise = section.number(report, "rise", 1..=1000).map_or(check.rise, |count| count.value);
    check.fall = section.number(report, "fall", 1..=1000).map_or(check.fall, |count| count.value);
    let path = section.parsed(report, "http", health_path);
    let host = section.parsed(report, "host", health_host);
    let status = section.parsed(report, "status", status_range);
    let tcp = section.flag(report, "tcp");
    if section.has("http") && section.has("tcp") {
        let line = tcp.map_or(section.line, |tcp| tcp.line);
        report.fault(line, &section.place, wrong("has both http and tcp", "write one of them"));
    }
    for key in ["host", "status"].into_iter().filter(|key| section.has(key) && !section.has("http")) {
        let place = section.place_of(key);
        report.fault(section.line, &place, wrong("is for http checks", "write http = \"/healthz\" beside it"));
    }
    if let Some(tcp) = tcp.filter(|tcp| !tcp.value) {
        let place = section.place_of("tcp");
        report.fault(tcp.line, &place, wrong("false checks nothing", "write health = \"none\", or tcp = true"));
    }
    if let Some(path) = path {
        let (host, status) = (host.map(|host| host.value), status.map_or((200, 399), |status| status.value));
        check.kind = HealthKind::Http { path: path.value, host, status };
    }
    section.finish(report, &[]);
    check
}

fn health_path(text: &str) -> Result<String, Wrong> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains('#') {
        Ok(text.to_owned())
    } else {
        Err(wrong(format!("\"{text}\" is not a path"), "write a path as clients send it, like \"/healthz\""))
    }
}

fn health_host(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)) {
        Ok(text.to_owned())
    } else {
        Err(wrong(format!("\"{text}\" is not a host"), "write a name or address, like \"shop.example\""))
    }
}

/// `200` or `200-399`.
fn status_range(text: &str) -> Result<(u16, u16), Wrong> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if 100 <= low && low <= high && high <= 599 => Ok((low, high)),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => {
            Err(wrong(format!("\"{text}\" is not a range of status codes"), "write \"200-399\" or \"204\""))
        }
    }
}
