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

/// Longest value in the store, in bytes; keys and values of one write together are no longer either.
pub const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Longest record in the store: a value, or the values of one write with what belongs to them.
pub const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX + 8 * 1024;
/// Longest key of the replicated state, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Transitions kept in the history.
pub const HISTORY_MAX: usize = 1000;
/// Longest word (from, to, cause) of a transition, in bytes.
pub const HISTORY_WORD_BYTES_MAX: usize = 64;
/// Longest text of a transition, in bytes.
pub const HISTORY_TEXT_BYTES_MAX: usize = 512;
/// One slot of the promise file, in bytes: one page.
pub const PROMISE_SLOT_BYTES: usize = 4096;
/// Groups that a voter remembers: the configured ones and `state`, and as many again while groups are renamed.
pub const MEMORIES_MAX: usize = 2 * (GROUPS_MAX + 1);
/// Cache of the keyspace, in bytes.
pub const STORE_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How long the keyspace may take to open.
pub const STORE_OPEN_MAX: Duration = Duration::from_secs(60);
/// Commits that may wait for the disk.
pub const COMMITS_QUEUED_MAX: usize = 8;

/// Most keys of the replicated state.
pub const STATE_KEYS_MAX: usize = 4096;
/// Most bytes of the replicated state, keys and values.
pub const STATE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Last writes that are kept so that a peer which missed some need not take the whole copy.
pub const SUFFIX_MAX: usize = 256;
/// Most keys that one write changes.
pub const OPS_PER_WRITE_MAX: usize = 32;
/// Keys that a returning node offers in one message.
pub const OFFER_OPS_MAX: usize = 4;
/// Writes that may wait for the owner of the state, from this node and from its peer each.
pub const WRITES_QUEUED_MAX: usize = 64;
/// How long a write waits for the peer's disk before it is answered as not replicated.
pub const REPLICATE_WAIT: Duration = Duration::from_secs(2);
/// How long a forwarded write waits for the owner's answer.
pub const FORWARD_WAIT: Duration = Duration::from_secs(5);
/// How long a transition that the owner could not take waits before it is sent again.
pub const RECORD_AGAIN: Duration = Duration::from_secs(1);
/// Longest frame between two replicas, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Frames that may wait for a slow peer: a whole copy and what follows it.
pub const FRAMES_QUEUED_MAX: usize = 1024;
/// An idle session says so this often.
pub const SESSION_PING: Duration = Duration::from_millis(500);
/// A session on which nothing was heard for so long is over.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(3);
/// How long connecting and the handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(2);
/// Connections that may be in their handshake at a time.
pub const HANDSHAKES_MAX: usize = 8;
/// Shortest wait between two attempts to connect; the wait doubles, with jitter.
pub const REDIAL_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two attempts to connect.
pub const REDIAL_MAX: Duration = Duration::from_secs(2);
/// Longest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;

const _: () = {
    assert!(LEASE_DEFAULT.as_millis() >= INTERVAL_DEFAULT.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_FAST.as_millis() >= INTERVAL_FAST.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_MIN.as_millis() >= INTERVAL_MIN.as_millis() * INTERVALS_PER_LEASE_MIN as u128);
    assert!(LEASE_MIN.as_millis() > 3 * GUARD.as_millis(), "a lease outlasts its guards");
    assert!(HOLD_MAX.as_millis() >= LEASE_MAX.as_millis() + LEASE_MAX.as_millis() / 10);
    assert!(PROMISE_SLOT_BYTES >= 64 + MEMORIES_MAX * (NAME_BYTES_MAX + 32), "the fullest record fits its slot");
    assert!(FRAME_BYTES_MAX >= 2 * RECORD_BYTES_MAX);
    assert!(
        FRAMES_QUEUED_MAX * (FRAME_BYTES_MAX - RECORD_BYTES_MAX) > 2 * STATE_BYTES_MAX,
        "a whole copy fits the queue"
    );
    assert!(SESSION_IDLE_MAX.as_millis() >= 4 * SESSION_PING.as_millis());
    assert!(SQUEEZE_MAX.as_millis() < 1000, "shorter than the first retransmission of a SYN (RFC 6298 §2.1)");
};
