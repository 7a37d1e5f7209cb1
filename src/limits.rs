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

/// Longest message from a worker to its supervisor, in bytes: all addresses of all groups fit.
pub const SUPERVISOR_FRAME_BYTES_MAX: usize = 64 * 1024;
/// How long a killed worker may take to die before its addresses are deleted all the same.
pub const KILL_PATIENCE: Duration = Duration::from_millis(4);
/// When the copies of a release notice are sent, after the addresses were seen to be gone.
pub const NOTICE_TIMES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(10), Duration::from_millis(30)];
/// First wait before a worker that died is started again; doubles up to [`RESTART_BACKOFF_MAX`].
pub const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a worker that died is started again.
pub const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A worker that lived this long starts the waits anew.
pub const RESTART_BACKOFF_RESET: Duration = Duration::from_secs(10);
/// Addresses that would not go are tried again this often.
pub const TAKE_AWAY_REPEAT: Duration = Duration::from_millis(10);
/// A dead worker's addresses that would not go for this long do not hold up the next worker: it removes them too.
pub const TAKE_AWAY_PATIENCE: Duration = Duration::from_secs(1);
/// A gate is first opened for this long, then renewed: what is too late for the renewal is shut again soon.
pub const GATE_FIRST: Duration = Duration::from_millis(20);
/// Addresses that are held are renewed this often; their lifetime is the lease, rounded up, and this.
pub const ADDRESS_RENEWAL: Duration = Duration::from_secs(1);
/// Most connections that are reset before the addresses go: the rest must not delay that.
pub const RESETS_FIRST_MAX: usize = 256;
/// How often the sockets of a leaving group are looked at.
pub const SQUEEZE_POLL: Duration = Duration::from_millis(1);
/// A refused address is tried again this often.
pub const ADDRESS_RETRY: Duration = Duration::from_millis(100);
/// A node whose address was refused is called unable for this long after the last refusal.
pub const UNABLE_REST: Duration = Duration::from_secs(10);
/// At most one answer to a machine that claims a held address in this time.
pub const CONFLICT_REPEAT: Duration = Duration::from_secs(1);
/// How long an orderly end waits for the addresses to be gone.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);

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
    assert!(SQUEEZE_MAX.as_millis() < 1000, "shorter than the first retransmission of a SYN (RFC 6298 §2.1)");
    assert!(KILL_PATIENCE.as_millis() < GUARD.as_millis(), "a killed worker's addresses go before the gate shuts");
    assert!(GATE_FIRST.as_millis() < LEASE_MIN.as_millis(), "the first opening is shorter than any lease");
};
