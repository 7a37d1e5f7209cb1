//! Every bound by name, with the relations between them checked when hawser is compiled.

use std::time::Duration;

/// UDP and TCP port of the links, when none is named.
pub const PORT_DEFAULT: u16 = 7707;

/// Default lease: how long an owner may serve on one confirmation.
pub const LEASE_DEFAULT: Duration = Duration::from_millis(500);
/// Default time between two heartbeats.
pub const INTERVAL_DEFAULT: Duration = Duration::from_millis(50);
/// Lease of the `fast` profile.
pub const LEASE_FAST: Duration = Duration::from_millis(100);
/// Interval of the `fast` profile.
pub const INTERVAL_FAST: Duration = Duration::from_millis(10);
/// Shortest lease.
pub const LEASE_MIN: Duration = Duration::from_millis(100);
/// Longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(10);
/// Shortest time between two heartbeats.
pub const INTERVAL_MIN: Duration = Duration::from_millis(5);
/// A lease is at least this many intervals, so that lost heartbeats do not cost it.
pub const INTERVALS_PER_LEASE_MIN: u32 = 5;
/// Least extra time for which a voter promises beyond the lease: covers two clock rates that differ by 9 %.
pub const MARGIN_MIN: Duration = Duration::from_millis(25);
/// How long a voter without a memory of its promises is silent: no promise was ever longer.
pub const HOLD_MAX: Duration = Duration::from_secs(11);
/// g: the worker lets go three of these before a lease ends, the supervisor acts two before, the gate shuts one before.
pub const GUARD: Duration = Duration::from_millis(10);
/// A candidacy lasts two intervals, but never less than this (a flush to disk may take tens of milliseconds).
pub const CANDIDACY_MIN: Duration = Duration::from_millis(100);
/// A request that waits for an answer is repeated this often.
pub const REPEAT: Duration = Duration::from_millis(10);

/// Most groups of one cluster.
pub const GROUPS_MAX: usize = 16;
/// Longest name of a node, group, cluster, in bytes.
pub const NAME_BYTES_MAX: usize = 32;
/// Most virtual addresses of one group.
pub const VIPS_PER_GROUP_MAX: usize = 32;
/// Most links to one peer.
pub const LINKS_MAX: usize = 8;
/// Most clusters that one witness serves.
pub const CLUSTERS_PER_WITNESS_MAX: usize = 256;
/// Longest sealed datagram, in bytes: fits every path without fragments.
pub const DATAGRAM_BYTES_MAX: usize = 1200;
/// Width of the replay window, in datagrams.
pub const REPLAY_WINDOW: u64 = 1024;
/// How long a planned move waits for requests in flight.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// How long the gate may drop the first packets of new connections during a planned move.
pub const SQUEEZE_MAX: Duration = Duration::from_millis(200);

/// Most connections that the web tier has open at once, all threads together (less where few files may be open).
pub const WEB_CONNECTIONS_MAX: usize = 65_536;
/// Most web threads.
pub const WEB_THREADS_MAX: usize = 64;
/// Connections that the kernel keeps ready for one listening socket (`net.core.somaxconn` may lower it).
pub const WEB_BACKLOG: i32 = 4096;
/// Open files left to everything but the connections of the web tier.
pub const WEB_FILES_SPARE: u64 = 512;
/// How long accepting rests when the machine has run out of files or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take for the head of a request, and how long an HTTP/1.1 connection may be idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a new connection without a byte counts as one that is about to send its request.
pub const FIRST_BYTE_GRACE: Duration = Duration::from_secs(1);
/// Longest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields of a request or response.
pub const HEADERS_MAX: usize = 128;
/// Most concurrent streams of one HTTP/2 connection.
pub const H2_STREAMS_MAX: u32 = 200;
/// Longest list of header fields of one HTTP/2 request, in bytes.
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Time between two HTTP/2 pings of a connection.
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long an HTTP/2 ping may stay without an answer.
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an HTTP/2 connection may be without a request.
pub const H2_IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a client may take no bytes of a response.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// How long a closed connection is still read, so that the last response is not lost to a reset (RFC 9112 §9.6).
pub const LINGER_MAX: Duration = Duration::from_secs(2);
/// Longest request path, in bytes (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;
/// Files up to this size are read at once, larger ones in pieces.
pub const FILE_WHOLE_BYTES_MAX: u64 = 64 * 1024;
/// Size of such a piece, in bytes.
pub const FILE_PIECE_BYTES: usize = 128 * 1024;
/// Most threads that read what is not in the page cache, for each web thread.
pub const FILE_READERS_MAX: usize = 16;
/// Most idle connections kept to one server by one web thread.
pub const UPSTREAM_IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection to a server is kept.
pub const UPSTREAM_KEEP_IDLE: Duration = Duration::from_secs(30);
/// How often a request that a kept connection handed back unsent is tried on another kept one; then on a new one.
pub const UPSTREAM_HANDBACKS_MAX: u32 = 2;
/// A silent connection is asked after this time, and then this often, whether its other end is still there (TCP
/// keep-alive); upgraded connections (WebSocket) have no other limit.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// How long one side of an upgraded connection may go on after the other has ended.
pub const TUNNEL_HALF_MAX: Duration = Duration::from_secs(10);
/// See [`KEEPALIVE_AFTER`].
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two requests that the web tier makes to itself.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long one may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
/// This many failed ones in a row make the node unfit; after a failed one the next comes at once.
pub const PROBE_FALL: u32 = 2;
/// This many good ones in a row make it fit again.
pub const PROBE_RISE: u32 = 2;
/// Most probe connections that one web thread serves at once.
pub const PROBE_CONNECTIONS_MAX: usize = 8;

/// Longest value in the store, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Transitions kept in the history.
pub const HISTORY_MAX: usize = 1000;
/// Longest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;

const _: () = {
    assert!(LEASE_DEFAULT.as_millis() >= INTERVAL_DEFAULT.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_FAST.as_millis() >= INTERVAL_FAST.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_MIN.as_millis() >= INTERVAL_MIN.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_MIN.as_millis() > 3 * GUARD.as_millis(), "a lease outlasts its guards");
    assert!(HOLD_MAX.as_millis() >= LEASE_MAX.as_millis() + LEASE_MAX.as_millis() / 10);
    assert!(
        PROBE_INTERVAL.as_millis() + PROBE_FALL as u128 * PROBE_TIMEOUT.as_millis() <= 3000,
        "a stuck web tier is known within three seconds"
    );
    assert!(FILE_PIECE_BYTES as u64 >= FILE_WHOLE_BYTES_MAX, "a whole file is one piece");
    assert!(SQUEEZE_MAX.as_millis() < 1000, "shorter than the first retransmission of a SYN (RFC 6298 §2.1)");
};
