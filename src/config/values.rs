//! The values of a checked configuration. Whoever holds one need not check it again.

use crate::{
    cluster::{GroupName, Member, Name},
    limits,
};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// The configuration of a cluster as one of its nodes sees it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name, timing and tiebreak.
    pub cluster: Cluster,
    /// The two nodes: the first and the second of the file. Where the file has one, the second is nobody and has no links.
    pub nodes: [Node; 2],
    /// The node that is to be alone: the file has no other, or says that the other one leaves.
    pub alone: Option<Member>,
    /// Which of the two this machine is (from the name in its certificate, or `--node`).
    pub me: Member,
    /// What decides when the nodes do not see each other.
    pub tiebreak: Tiebreak,
    /// What the other sections of that kind say: used until the voters have changed.
    pub others: Vec<Tiebreak>,
    /// The groups, in the order of the file; the implicit group `state` is not among them.
    pub groups: Vec<Group>,
    /// What is served.
    pub web: Web,
    /// Folders and sockets of this machine.
    pub paths: Paths,
}

/// `[cluster]`.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: Name,
    /// How long an owner may serve on one confirmation.
    pub lease: Duration,
    /// Time between two heartbeats.
    pub interval: Duration,
    /// How long a planned move waits for requests in flight.
    pub drain: Duration,
    /// Whether the nftables gate is to be used.
    pub gate: GateMode,
    /// How long a node that starts alone waits for its peer, where no third machine votes.
    pub boot_wait: Duration,
}

/// `cluster.gate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateMode {
    /// Used; without nftables the node does not start.
    On,
    /// Not used; promises last longer instead, and `status` says so.
    Off,
}

/// `[[node]]`.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// Addresses (with port) at which it is reached, one per link, UDP and TCP. Link i of one node talks to link i of
    /// the other.
    pub links: Vec<SocketAddr>,
}

/// `cluster.tiebreak`, with what its section says.
#[derive(Debug, Clone)]
pub enum Tiebreak {
    /// A third machine votes.
    Witness(Witness),
    /// An existing etcd is the third voter.
    Etcd(Etcd),
    /// A fence device powers a lost peer off.
    Fence(Fence),
    /// Nobody answers for the addresses, and a gateway does.
    Gateway(Gateway),
    /// Nobody answers for the addresses.
    None,
}

impl Tiebreak {
    /// What it is called in `status` and in the log.
    ///
    /// # Panics
    /// Never: the word of each kind is a name.
    #[must_use]
    pub fn name(&self) -> Name {
        match self {
            Self::Witness(witness) => witness.name,
            Self::Etcd(etcd) => etcd.name,
            Self::Fence(_) | Self::Gateway(_) | Self::None =>
            {
                #[expect(clippy::expect_used, reason = "constants that a test covers")]
                Name::new(self.kind().word()).expect("the word of a tiebreak is a name")
            }
        }
    }

    /// Which one it is.
    #[must_use]
    pub const fn kind(&self) -> TiebreakKind {
        match self {
            Self::Witness(_) => TiebreakKind::Witness,
            Self::Etcd(_) => TiebreakKind::Etcd,
            Self::Fence(_) => TiebreakKind::Fence,
            Self::Gateway(_) => TiebreakKind::Gateway,
            Self::None => TiebreakKind::None,
        }
    }

    /// Where a third voter is reached by the cluster's own datagrams; empty if there is none.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        match self {
            Self::Witness(witness) => &witness.addresses,
            Self::Etcd(_) | Self::Fence(_) | Self::Gateway(_) | Self::None => &[],
        }
    }
}

/// `cluster.tiebreak`, without what its section says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TiebreakKind {
    /// `[witness]`.
    Witness,
    /// `[etcd]`.
    Etcd,
    /// `[fence]`.
    Fence,
    /// `[gateway]`.
    Gateway,
    /// Without a section.
    None,
}

impl TiebreakKind {
    /// All of them, by the word for each: also the name of its section.
    pub const ALL: [(&'static str, Self); 5] = [
        ("witness", Self::Witness),
        ("etcd", Self::Etcd),
        ("fence", Self::Fence),
        ("gateway", Self::Gateway),
        ("none", Self::None),
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Witness => "witness",
            Self::Etcd => "etcd",
            Self::Fence => "fence",
            Self::Gateway => "gateway",
            Self::None => "none",
        }
    }

    /// Each node has a voter of its own, and no third machine is asked.
    #[must_use]
    pub const fn is_local(self) -> bool {
        match self {
            Self::Witness | Self::Etcd => false,
            Self::Fence | Self::Gateway | Self::None => true,
        }
    }

    /// What it does not protect from, for people; nothing if both nodes never answer at once.
    #[must_use]
    pub const fn caveat(self) -> Option<&'static str> {
        match self {
            Self::Witness | Self::Etcd => None,
            Self::Fence => Some("it is safe only if the fence device tells the truth: off must mean off"),
            Self::Gateway => Some(
                "while the nodes' network itself is cut in two, and each half has a gateway that answers, both nodes \
                 answer for the addresses",
            ),
            Self::None => Some(
                "while the nodes' network itself is cut in two, both nodes answer for the addresses; a node that \
                 cannot hear takes them too",
            ),
        }
    }
}

/// `[fence]`.
#[derive(Debug, Clone)]
pub struct Fence {
    /// How each node is powered off: the first and the second of the file.
    pub devices: [FenceDevice; 2],
    /// How much earlier an owner shoots than a node that wants to take over.
    pub head_start: Duration,
    /// How long one call of an agent may take.
    pub timeout: Duration,
}

/// `[fence]` with `[fence.NODE]`: how one node is powered off.
#[derive(Clone)]
pub struct FenceDevice {
    /// The agent: a program, by its path or by its name in the usual folders.
    pub agent: PathBuf,
    /// What it is told, besides the action.
    pub options: BTreeMap<String, String>,
}

impl std::fmt::Debug for FenceDevice {
    /// Without the values of the options: passwords are among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<&String> = self.options.keys().collect();
        f.debug_struct("FenceDevice").field("agent", &self.agent).field("options", &keys).finish()
    }
}

/// `[gateway]`.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Addresses that are asked.
    pub addresses: Vec<IpAddr>,
    /// So many of them must answer.
    pub need: usize,
}

/// `[witness]`.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Its name.
    pub name: Name,
    /// Addresses at which it is reached.
    pub addresses: Vec<SocketAddr>,
}

/// `[etcd]`.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// What it is called: etcd.
    pub name: Name,
    /// Its members.
    pub endpoints: Vec<Endpoint>,
    /// The file of the CA that signed its certificates.
    pub ca: Option<PathBuf>,
    /// The files of the certificate and the key that are shown to it.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How the keys begin; no slash at the end.
    pub prefix: String,
}

/// One member of an etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// By https.
    pub tls: bool,
    /// Where.
    pub address: SocketAddr,
}

/// `[[group]]`.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// The node that campaigns first when both come up together.
    pub prefer: Member,
    /// The addresses that move with it, in order.
    pub vips: Vec<Vip>,
}

/// `[[group.vip]]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Vip {
    /// Address and prefix length as installed.
    pub address: IpNet,
    /// Name of the interface that carries it.
    pub interface: String,
}

/// Folders and sockets of this machine.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Folder of the configuration: certificates and secrets are beside the file.
    pub config_dir: PathBuf,
    /// Folder of what must survive (0700).
    pub state_dir: PathBuf,
    /// The admin socket.
    pub admin_socket: PathBuf,
}

/// What is served: listeners and upstream pools.
#[derive(Debug, Clone)]
pub struct Web {
    /// `[[listener]]`.
    pub listeners: Vec<Listener>,
    /// `[[upstream]]`.
    pub upstreams: Vec<Upstream>,
    /// Number of web threads; 0 is one per core.
    pub threads: usize,
    /// Memory for small files and for what was compressed, all threads together, in bytes.
    pub file_cache_bytes: u64,
    /// The file of the keys of session tickets, if they are not made from the cluster's secret.
    pub ticket_keys: Option<PathBuf>,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            upstreams: Vec::new(),
            threads: 0,
            file_cache_bytes: u64::from(limits::FILE_CACHE_MIB_DEFAULT) << 20,
            ticket_keys: None,
        }
    }
}

/// `[[listener]]`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where it listens; the address need not be on this node yet.
    pub address: SocketAddr,
    /// The group whose address this is, if it is a VIP.
    pub group: Option<GroupName>,
    /// First match wins; ordered longest prefix first by the check.
    pub routes: Vec<Route>,
    /// What comes before HTTP.
    pub front: Front,
}

/// What comes before HTTP on a listener: nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Front {
    /// TLS; the addresses of one `[[listener]]` share it.
    pub tls: Option<Arc<Tls>>,
    /// The value of `Strict-Transport-Security`.
    pub hsts: Option<String>,
    /// The networks of the proxies in front: each connection begins with a PROXY header, and nobody else may connect.
    /// Empty: none does.
    pub proxy_from: Vec<IpNet>,
}

/// `listener.tls` and `[[listener.certificate]]`.
#[derive(Debug, Clone)]
pub struct Tls {
    /// At least one. The first is for clients that name no host that is known.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Clients are asked for a certificate.
    pub clients: Option<ClientAuth>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, then those that signed it, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// How clients are asked for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// The CAs that sign the clients' certificates, in PEM.
    pub ca: PathBuf,
    /// Whether there must be one.
    pub need: ClientNeed,
}

/// Whether a client must show a certificate. One that shows a bad one is refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientNeed {
    /// It must.
    Required,
    /// It may.
    Optional,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
}

/// `[[listener.route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    /// Path prefix, beginning with `/`; matches whole segments.
    pub path: String,
    /// What answers.
    pub action: RouteAction,
}

/// What answers a request.
#[derive(Debug, Clone)]
pub enum RouteAction {
    /// Files below a folder.
    Static(Static),
    /// A pool of servers.
    Proxy {
        /// Name of the upstream.
        upstream: Name,
    },
    /// The client is sent to the same address by https.
    ToHttps {
        /// The port there.
        port: u16,
    },
}

/// Files below a folder, and how they are shown.
#[derive(Debug, Clone)]
pub struct Static {
    /// The folder.
    pub root: PathBuf,
    /// Names tried in a directory, in order.
    pub index: Vec<String>,
    /// The file below the root that answers where nothing is found, but for names with a dot.
    pub fallback: Option<PathBuf>,
    /// A directory without an index is listed.
    pub listing: bool,
    /// Which symbolic links are followed.
    pub symlinks: Symlinks,
    /// What becomes of names that begin with a dot.
    pub dotfiles: DotFiles,
    /// A `.br`, `.zst` or `.gz` beside a file is sent in its place to who understands it.
    pub precompressed: bool,
    /// Text is compressed for who understands that.
    pub compress: bool,
    /// Media types by extension (lower case), beside those that are known.
    pub types: BTreeMap<String, String>,
    /// Values of `Cache-Control` by pattern: `/…` is matched with the whole path below the route, else with the name.
    /// The pattern with the most characters wins.
    pub cache_control: Vec<(String, String)>,
}

impl Static {
    /// A folder with nothing special about it.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            index: vec!["index.html".to_owned()],
            fallback: None,
            listing: false,
            symlinks: Symlinks::Inside,
            dotfiles: DotFiles::Hide,
            precompressed: true,
            compress: true,
            types: BTreeMap::new(),
            cache_control: Vec::new(),
        }
    }
}

/// `symlinks`: which symbolic links below a root are followed. The root itself may be one in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    /// None.
    None,
    /// Relative ones that stay below the root.
    Inside,
    /// All, wherever they lead.
    Any,
}

/// `dotfiles`: what becomes of names that begin with a dot. `/.well-known` is shown in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DotFiles {
    /// As if they were not there.
    Hide,
    /// Like all others.
    Show,
}

/// `[[upstream]]`.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name.
    pub name: Name,
    /// The servers.
    pub servers: Vec<SocketAddr>,
    /// How they are checked.
    pub health: HealthCheck,
    /// How long a connect may take (default 1 s).
    pub connect_timeout: Duration,
    /// How long the head of the response may take after the request was sent (default 30 s).
    pub response_timeout: Duration,
    /// How long either body may make no progress (default 60 s).
    pub idle_timeout: Duration,
    /// Speak HTTP/2 by prior knowledge to the servers (default no).
    pub http2: bool,
    /// Begin each connection to a server with a PROXY header; then each request has a connection of its own.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// `upstream.health`.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// What is tried.
    pub kind: HealthKind,
    /// Time between two checks (default 1 s).
    pub interval: Duration,
    /// How long one may take (default 1 s).
    pub timeout: Duration,
    /// This many good ones in a row bring a server back (default 2).
    pub rise: u32,
    /// This many bad ones in a row take it out (default 3).
    pub fall: u32,
}

/// What a health check tries.
#[derive(Debug, Clone)]
pub enum HealthKind {
    /// No check: always taken as healthy.
    None,
    /// A TCP connect.
    Tcp,
    /// `GET path`; healthy when the status is within the range.
    Http {
        /// Path and query.
        path: String,
        /// `Host` header, if another than the server's address.
        host: Option<String>,
        /// Lowest and highest good status (default 200 to 399).
        status: (u16, u16),
    },
}

/// What the second node of a file with one is called.
pub const NOBODY: &str = "nobody";

impl Config {
    /// The file has one node: there is no other to be reached.
    #[must_use]
    pub fn has_no_peer(&self) -> bool {
        self.peer_node().links.is_empty()
    }

    /// This node.
    #[must_use]
    pub fn my_node(&self) -> &Node {
        &self.nodes[self.me.index().min(1)]
    }

    /// The other node.
    #[must_use]
    pub fn peer_node(&self) -> &Node {
        &self.nodes[1 - self.me.index().min(1)]
    }

    /// The group that holds `address`, if it is a VIP.
    #[must_use]
    pub fn group_of(&self, address: IpAddr) -> Option<&Group> {
        self.groups.iter().find(|g| g.vips.iter().any(|v| v.address.addr() == address))
    }
}

/// The configuration of a witness.
#[derive(Debug, Clone)]
pub struct WitnessConfig {
    /// Where it listens, by UDP.
    pub listen: Vec<SocketAddr>,
    /// Folder of what must survive (0700).
    pub state_dir: PathBuf,
    /// The clusters for which it votes.
    pub clusters: Vec<WitnessCluster>,
}

/// `[[cluster]]` of a witness.
#[derive(Debug, Clone)]
pub struct WitnessCluster {
    /// The cluster's name.
    pub name: Name,
    /// The file of the secret that it shares with the nodes (`trust::Keyring`).
    pub secret: PathBuf,
}
