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
/// Secrets that may be in force at once, so that they can be replaced without an outage.
pub const SEAL_KEYS_MAX: usize = 2;
/// Proven keys kept per sender: its current life, the one before, each with two secrets.
pub const SEAL_CACHE_PER_SENDER: usize = 4;
/// How long a planned move waits for requests in flight.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Longest wait for requests in flight.
pub const DRAIN_MAX: Duration = Duration::from_secs(600);
/// How long the gate may drop the first packets of new connections during a planned move.
pub const SQUEEZE_MAX: Duration = Duration::from_millis(200);

/// Longest value in the store, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Transitions kept in the history.
pub const HISTORY_MAX: usize = 1000;
/// Most listeners, counting each address.
pub const LISTENERS_MAX: usize = 64;
/// Most routes of one listener.
pub const ROUTES_MAX: usize = 64;
/// Most upstreams.
pub const UPSTREAMS_MAX: usize = 64;
/// Most servers of one upstream.
pub const SERVERS_PER_UPSTREAM_MAX: usize = 64;
/// Most web threads.
pub const WEB_THREADS_MAX: usize = 256;
/// Shortest time between two health checks, and shortest wait for one.
pub const HEALTH_TIME_MIN: Duration = Duration::from_millis(50);
/// Longest timeout of the web tier.
pub const WEB_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest path of a Unix socket, in bytes (`sun_path` of unix(7), with its final zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Faults of a configuration file that are reported; more are only counted.
pub const FAULTS_MAX: usize = 200;
/// Longest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;

const _: () = {
    assert!(LEASE_DEFAULT.as_millis() >= INTERVAL_DEFAULT.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_FAST.as_millis() >= INTERVAL_FAST.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_MIN.as_millis() >= INTERVAL_MIN.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_MIN.as_millis() > 3 * GUARD.as_millis(), "a lease outlasts its guards");
    assert!(HOLD_MAX.as_millis() >= LEASE_MAX.as_millis() + LEASE_MAX.as_millis() / 10);
    assert!(SQUEEZE_MAX.as_millis() < 1000, "shorter than the first retransmission of a SYN (RFC 6298 §2.1)");
};
