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

/// The third voter that the configuration wants, and that does not vote yet, is asked this often whether it is there.
pub const THIRD_PROBE: Duration = Duration::from_millis(500);
/// It is there if it answered so lately.
pub const THIRD_PROBE_FRESH: Duration = Duration::from_millis(1600);
/// Without a third machine a node is taken for lost when it was not heard for so many leases.
pub const LOST_LEASES: u32 = 3;
/// Addresses are asked for this often while a node wants to take them without a third machine.
pub const LOOK_STEP: Duration = Duration::from_millis(100);
/// So many questions in a row must stay without an answer.
pub const LOOK_STEPS: u32 = 4;
/// The last of them may be so old when the vote is given: the next look of somebody else sees what came of it.
pub const LOOK_FRESH: Duration = Duration::from_millis(200);
/// One look lasts this long at most.
pub const LOOK_MAX: Duration = Duration::from_secs(2);
/// Pause before the next look, when somebody answered.
pub const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The second node gives way for this long to a first one that looks at the same time.
pub const RIVAL_MAX: Duration = Duration::from_secs(3);
/// Who asked for a vote so lately still wants it.
pub const WISH_FRESH: Duration = Duration::from_secs(1);
/// Default wait for the peer of a node that starts alone, where no third machine votes.
pub const BOOT_WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest wait for the peer of a node that starts alone.
pub const BOOT_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Default head start of an owner that has its peer powered off.
pub const HEAD_START_DEFAULT: Duration = Duration::from_secs(5);
/// Longest head start.
pub const HEAD_START_MAX: Duration = Duration::from_secs(300);
/// How long a fence agent may take, unless otherwise written.
pub const FENCE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Longest time that a fence agent may be given.
pub const FENCE_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// First wait before a fence agent that failed is run again; doubles.
pub const FENCE_RETRY_MIN: Duration = Duration::from_secs(5);
/// Longest wait before a fence agent that failed is run again.
pub const FENCE_RETRY_MAX: Duration = Duration::from_secs(60);
/// What a fence agent prints is kept up to this many bytes.
pub const FENCE_OUTPUT_BYTES_MAX: usize = 4096;
/// Most options of a fence agent.
pub const FENCE_OPTIONS_MAX: usize = 64;
/// Most addresses that a gateway tiebreak asks.
pub const GATEWAYS_MAX: usize = 8;

/// Most groups of one cluster.
pub const GROUPS_MAX: usize = 16;
/// Longest name of a node, group, cluster, in bytes.
pub const NAME_BYTES_MAX: usize = 32;
/// Most virtual addresses of one cluster: the heartbeat of a node that owns all of them names each, in one datagram.
pub const VIPS_MAX: usize = 32;
/// Most links to one peer.
pub const LINKS_MAX: usize = 8;
/// A way that carries nothing counts as lost when the other side was heard this often meanwhile,
pub const LINK_MISSES: u32 = 8;
/// for one lease, but not for less than this.
pub const LINK_PATIENCE_MIN: Duration = Duration::from_millis(250);
/// A way that was lost must carry for this long before it is told to be back; twice as long each time,
pub const LINK_REST_MIN: Duration = Duration::from_secs(2);
/// but not longer than this: so a way that flaps is told of twice a minute at most.
pub const LINK_REST_MAX: Duration = Duration::from_secs(60);
/// A way that carried for so long begins with the shortest rest again.
pub const LINK_CALM: Duration = Duration::from_secs(600);
/// Ways to one node that a witness remembers, and answers on.
pub const WITNESS_WAYS_MAX: usize = LINKS_MAX;
/// A witness answers on every way on which it heard a node within this time.
pub const WITNESS_WAY_FRESH: Duration = Duration::from_secs(1);
/// The worst lateness of so many minutes is told as the one of late.
pub const LATE_MINUTES: usize = 10;
/// A lease below so many times the worst lateness is too short.
pub const LEASE_PER_LATENESS_MIN: u32 = 4;
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
/// Longest body of an admin call, in bytes.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 * 1024;
/// Admin connections that are served at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// How long the command line waits for an answer that takes no work.
pub const ADMIN_LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one admin connection may last: longer than a drain.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest queue of notes that wait for the control runtime.
pub const NOTES_QUEUE_MAX: usize = 1024;
/// Longest queue of inputs that wait for the cluster thread.
pub const DRIVER_QUEUE_MAX: usize = 1024;
/// Datagrams taken from the sockets before timers are looked at again.
pub const DATAGRAM_BURST_MAX: usize = 64;
/// Refused datagrams are logged this often at most.
pub const REFUSED_LOG_EVERY: Duration = Duration::from_secs(60);
/// While a group drains, it is asked this often whether old requests are done.
pub const DRAIN_POLL: Duration = Duration::from_millis(5);
/// A request that is in progress for less than this does not hold a planned move up: it ends within the squeeze.
pub const DRAIN_YOUNG: Duration = Duration::from_millis(50);
/// Greetings to strangers per second: each is the answer to an authentic datagram of a life not yet believed.
pub const GREETINGS_PER_SECOND_MAX: u32 = 200;
/// How long a planned move waits for requests in flight.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Longest wait for requests in flight.
pub const DRAIN_MAX: Duration = Duration::from_secs(600);
/// How long the gate may drop the first packets of new connections during a planned move.
pub const SQUEEZE_MAX: Duration = Duration::from_millis(200);

/// Longest message from a worker to its supervisor, in bytes: all addresses of all groups fit.
pub const SUPERVISOR_FRAME_BYTES_MAX: usize = 64 * 1024;
/// A worker that closed its link and holds no address gets so long to end by itself.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
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
/// A machine that claims a held address is told of at its first claim, and again so often while it goes on.
pub const CLAIM_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Most such machines and addresses that are told of in that time.
pub const CLAIMS_TOLD_MAX: usize = 16;
/// Addresses on which somebody else has laid hands are put right at once, but not more often than this.
pub const MEND_REST: Duration = Duration::from_millis(20);
/// The same deed of somebody else is told this often at most.
pub const MEND_TOLD_EVERY: Duration = Duration::from_secs(1);
/// How long an orderly end waits for the addresses to be gone.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
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
/// How long a client may take for the handshake of TLS.
pub const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Most handshakes (and PROXY headers) that are awaited at once, all threads together; at most half of the connections.
pub const TLS_HANDSHAKES_MAX: usize = 8192;
/// How long a proxy in front may take for its PROXY header.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest PROXY header, in bytes: addresses and what vendors add to them.
pub const PROXY_HEADER_BYTES_MAX: usize = 1024;
/// Most networks from which a listener takes PROXY headers.
pub const PROXY_NETWORKS_MAX: usize = 64;
/// Most certificates of one listener.
pub const CERTIFICATES_MAX: usize = 64;
/// Longest file of certificates or of a key of a site, in bytes: whole collections of CAs are such files.
pub const CERTIFICATE_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How often the files of certificates are looked at.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(5);
/// A certificate that holds for less than this is told.
pub const CERTIFICATE_SOON: Duration = Duration::from_secs(21 * 24 * 3600);
/// How long the key of session tickets is in use, and how long a ticket is good.
pub const TICKET_EPOCH: Duration = Duration::from_secs(6 * 3600);
/// Most secrets from which session tickets are opened.
pub const TICKET_KEYS_MAX: usize = 8;
/// Longest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields of a request or response. It is hyper's own limit, too: any other costs two allocations of 4 KB for
/// each request, so a listener sets none.
pub const HEADERS_MAX: usize = 100;
/// Most concurrent streams of one HTTP/2 connection.
pub const H2_STREAMS_MAX: u32 = 200;
/// Longest list of header fields of one HTTP/2 request, in bytes.
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// HTTP/2 streams that a client has reset before they were looked at: more end the connection (CVE-2023-44487).
pub const H2_PENDING_RESETS_MAX: usize = 20;
/// HTTP/2 streams that were reset because of the client's faults: more end the connection.
pub const H2_ERROR_RESETS_MAX: usize = 128;
/// What a client may send on one HTTP/2 stream before it is read, in bytes.
pub const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for all streams of a connection together.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What waits to be sent on one HTTP/2 stream, in bytes.
pub const H2_SEND_BYTES_MAX: usize = 256 * 1024;
/// Bytes of HTTP/2 frames that carry nothing (SETTINGS, PING, RST_STREAM and the like) which a client may send at once,
pub const H2_OVERHEAD_BYTES: i64 = 256 * 1024;
/// and each second besides,
pub const H2_OVERHEAD_BYTES_PER_SECOND: i64 = 64 * 1024;
/// and besides one for so many bytes of content in either direction.
pub const H2_OVERHEAD_SHARE: i64 = 8;
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
/// The same by bytes, for HTTP/2: who floods does not stop when told to.
pub const H2_LINGER_BYTES_MAX: usize = 256 * 1024;
/// Longest request path, in bytes (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;
/// Size of a piece in which larger files are read, in bytes.
pub const FILE_PIECE_BYTES: usize = 128 * 1024;
/// Buffers of that size that a thread keeps to use them again.
pub const FILE_PIECES_SPARE_MAX: usize = 8;
/// Longest part of a file that is sent at once from the page cache to a socket, in bytes.
pub const PARCEL_BYTES_MAX: usize = 512 * 1024;
/// At each so many bytes it is looked whether a file is in the page cache: the kernel reads ahead in units like this.
pub const FILE_LOOK_BYTES: u64 = 64 * 1024;
/// An HTTP/1.1 connection writes when this much is waiting, in bytes: one piece of a file, so that it is still in the
/// processor's cache, and so that a client who takes nothing costs one piece.
pub const HTTP1_BUFFER_BYTES: usize = FILE_PIECE_BYTES;
/// Files up to this size are kept in memory while they are asked for.
pub const FILE_KEPT_BYTES_MAX: u64 = 256 * 1024;
/// Memory for small files and for what was compressed, all web threads together, in MiB, unless another is written.
pub const FILE_CACHE_MIB_DEFAULT: u32 = 64;
/// Most of it, in MiB.
pub const FILE_CACHE_MIB_MAX: u32 = 1024 * 1024;
/// What a file in memory counts at least, in bytes: its name, its headers, its place.
pub const FILE_KEPT_OVERHEAD: u64 = 1024;
/// For so long a file in memory is sent without looking whether it has changed.
pub const FILE_FRESH: Duration = Duration::from_millis(100);
/// A file that was changed within this time before it was read may change once more without showing it: it is read anew.
pub const FILE_SETTLED: Duration = Duration::from_secs(1);
/// Shorter text is not compressed: it fits a packet anyway.
pub const COMPRESS_BYTES_MIN: u64 = 1024;
/// Longer text is not compressed on the fly.
pub const COMPRESS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Parts of a file that one request may ask for; who asks for more gets the whole file.
pub const RANGES_MAX: usize = 16;
/// Entries of a directory that are listed.
pub const LISTING_ENTRIES_MAX: usize = 10_000;
/// Media types, and patterns of `cache_control`, of one route.
pub const FILE_RULES_MAX: usize = 64;
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
/// Longest value in the store, in bytes; keys and values of one write together are no longer either.
pub const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Longest record in the store: a value, or the values of one write with what belongs to them.
pub const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX + 8 * 1024;
/// Longest key of the replicated state, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
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
/// Shortest time between two health checks, and shortest wait for one.
pub const HEALTH_TIME_MIN: Duration = Duration::from_millis(50);
/// Longest timeout of the web tier.
pub const WEB_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest path of a Unix socket, in bytes (`sun_path` of unix(7), with its final zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Faults of a configuration file that are reported; more are only counted.
pub const FAULTS_MAX: usize = 200;
/// Longest word (from, to, cause) of a transition, in bytes.
pub const HISTORY_WORD_BYTES_MAX: usize = 64;
/// Longest text of a transition, in bytes.
pub const HISTORY_TEXT_BYTES_MAX: usize = 512;
/// One slot of the promise file, in bytes: one page.
pub const PROMISE_SLOT_BYTES: usize = 4096;
/// Copies of each slot of the promise file: one of them may go bad.
pub const PROMISE_COPIES: u64 = 2;
/// Groups that a voter remembers: the configured ones and `state`, and as many again while groups are renamed.
pub const MEMORIES_MAX: usize = 2 * (GROUPS_MAX + 1);
/// Cache of the keyspace, in bytes.
pub const STORE_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How long the keyspace may take to open.
pub const STORE_OPEN_MAX: Duration = Duration::from_secs(60);
/// How often the lock of a folder is tried: its last holder may be on the way out.
pub const LOCK_TRIES: u32 = 100;
/// Pause between two tries of a lock.
pub const LOCK_RETRY: Duration = Duration::from_millis(10);
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
/// Most members of an etcd that are named.
pub const ETCD_ENDPOINTS_MAX: usize = 8;
/// Longest prefix of the keys in etcd, in bytes.
pub const ETCD_PREFIX_BYTES_MAX: usize = 128;
/// Longest answer of etcd, in bytes: the records of all groups, many times over.
pub const ETCD_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// A question to etcd is given up after a third of the lease, but not earlier than this,
pub const ETCD_PATIENCE_MIN: Duration = Duration::from_millis(30);
/// and not later than this.
pub const ETCD_PATIENCE_MAX: Duration = Duration::from_secs(1);
/// Longest wait before etcd is asked again after it did not answer.
pub const ETCD_RETRY_MAX: Duration = Duration::from_millis(250);
/// A node that owns nothing asks etcd this often whether it is there.
pub const ETCD_IDLE: Duration = Duration::from_secs(1);
/// A request to etcd that the engine has not repeated for this long is not wished any more.
pub const ETCD_WISH_FOR: Duration = Duration::from_millis(100);
/// Longest wait before a holder is doubted again that has struck out a doubt: each costs etcd two writes.
pub const ETCD_DOUBT_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Words of the engine that may wait for the thread that asks etcd.
pub const ETCD_QUEUE_MAX: usize = 256;
/// How long an orderly end waits for etcd to know what was let go of.
pub const ETCD_GOODBYE: Duration = Duration::from_millis(300);
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
    assert!(PROXY_HEADER_BYTES_MAX >= 16 + 216, "what every receiver must take: the longest addresses");
    assert!(TLS_HANDSHAKES_MAX * 2 <= WEB_CONNECTIONS_MAX, "those on their way in leave room for those that are in");
    assert!(HTTP1_BUFFER_BYTES > HEAD_BYTES_MAX, "a whole head fits");
    assert!(FILE_FRESH.as_millis() < FILE_SETTLED.as_millis());
    assert!(
        PROMISE_SLOT_BYTES >= 96 + NAME_BYTES_MAX + LINKS_MAX * 20 + MEMORIES_MAX * (NAME_BYTES_MAX + 32),
        "the fullest record fits its slot"
    );
    assert!(FRAME_BYTES_MAX >= 2 * RECORD_BYTES_MAX);
    assert!(
        FRAMES_QUEUED_MAX * (FRAME_BYTES_MAX - RECORD_BYTES_MAX) > 2 * STATE_BYTES_MAX,
        "a whole copy fits the queue"
    );
    assert!(SESSION_IDLE_MAX.as_millis() >= 4 * SESSION_PING.as_millis());
    assert!(SQUEEZE_MAX.as_millis() < 1000, "shorter than the first retransmission of a SYN (RFC 6298 §2.1)");
    assert!(KILL_PATIENCE.as_millis() < GUARD.as_millis(), "a killed worker's addresses go before the gate shuts");
    assert!(LOOK_FRESH.as_millis() >= 2 * LOOK_STEP.as_millis(), "one late question does not spoil a look");
    assert!(LOOK_MAX.as_millis() > 2 * LOOK_STEP.as_millis() * LOOK_STEPS as u128);
    assert!(LINKS_MAX <= 8, "which links carry is told in the bits of one byte");
    assert!(LINK_REST_MIN.as_millis() > LINK_PATIENCE_MIN.as_millis(), "a way is back later than it is lost");
    assert!(GATE_FIRST.as_millis() < LEASE_MIN.as_millis(), "the first opening is shorter than any lease");
};
/// Longest chaos or soak of the demo.
pub const DEMO_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
