//! The links of a node: seals what the engine says and sends it on every one, opens what comes, and lets through only
//! what counts.
//!
//! Rule: a datagram has an effect only if its seal is good, its sender's life is believed and echoes ours, and its
//! counter is new. The rest is counted.
//!
//! What each link carries is noted on the way, for people ([`super::ways`]).

use super::sockets::Sockets;
use super::third::Thirds;
use super::ways::{Arrived, WayEvent, WayView, Ways};
use super::{refused::Refusals, sockets};
use crate::{
    cluster::{
        Envelope, Identity, Incarnation, LinkSet, Member, Message, Secret, Sessions, SetTag, Sets, Third, Verdict,
    },
    config::Config,
    limits::{DATAGRAM_BYTES_MAX, GREETINGS_PER_SECOND_MAX},
    time::{Duration, Instant},
    trust::{Keyring, Kind, Notice, Opener, PAYLOAD_BYTES_MAX, Refused, Sealer},
};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

/// What came in and counts.
#[derive(Debug)]
pub enum Arrival {
    /// Messages for the engine, said at one instant.
    Messages(Identity, Vec<Message>),
    /// A life that is believed has said something in another voter set. What counts all the same is told.
    Apart(Identity, Vec<Message>),
    /// Somebody's worker is dead, and here is the proof.
    Notice(Secret),
}

/// The links of a node.
pub struct Links {
    sockets: Sockets,
    /// Where the peer is reached, link by link; socket i sends to address i.
    peer: Vec<SocketAddr>,
    thirds: Thirds,
    me: Member,
    life: Incarnation,
    cluster: crate::trust::ClusterId,
    to_peer: Sealer,
    to_witness: Sealer,
    from_peer: Opener,
    from_witness: Opener,
    sessions: Sessions,
    voters: SetTag,
    /// What the links to the peer carry.
    peer_ways: Ways,
    way_events: Vec<WayEvent>,
    greetings: (Instant, u32),
    refusals: Refusals,
    /// What was said to each member and is not sent yet.
    unsent: [Vec<Message>; 3],
    sealed: Vec<u8>,
}

/// The sockets of a node's links, bound before any thread starts, so that a fault is an error of the start.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<UdpSocket>,
}

/// An address that cannot be had.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, cause } = self;
        if cause.kind() == io::ErrorKind::AddrInUse {
            write!(f, "cannot use the link address {address}/udp: another process has it; is hawser running already?")
        } else {
            write!(f, "cannot use the link address {address}/udp: {cause}")
        }
    }
}

impl std::error::Error for BindError {}

/// Binds one socket per link.
///
/// # Errors
/// If an address cannot be had.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let bound = |address: SocketAddr| sockets::bind(address).map_err(|cause| BindError { address, cause });
    let mut all = Vec::new();
    for link in &config.my_node().links {
        all.push(bound(*link)?);
    }
    Ok(Bound { sockets: all })
}

impl Links {
    /// The links of this life of the node. To be called on the thread that will use them.
    ///
    /// # Errors
    /// If the runtime cannot watch the sockets.
    pub fn new(bound: Bound, config: &Config, ring: &Keyring, life: Incarnation, now: Instant) -> io::Result<Self> {
        let witness_ring = ring.for_witness();
        let mut sockets = Sockets::new(bound.sockets)?;
        let wanted = if config.alone.is_none() { config.tiebreak.addresses() } else { &[] };
        let thirds = Thirds::new(&mut sockets, wanted, (life, config.cluster.lease))?;
        let peer = if config.me == Member::First { Member::Second } else { Member::First };
        Ok(Self {
            sockets,
            thirds,
            peer: config.peer_node().links.clone(),
            me: config.me,
            life,
            cluster: ring.id(),
            to_peer: Sealer::new(ring, config.me, life),
            to_witness: Sealer::new(&witness_ring, config.me, life),
            from_peer: Opener::new(ring, &[peer]),
            from_witness: Opener::new(&witness_ring, &[Member::Witness]),
            sessions: Sessions::new(life),
            voters: SetTag::default(),
            peer_ways: Ways::new(peer, config.my_node().links.len(), config.cluster.lease),
            way_events: Vec::new(),
            greetings: (now, 0),
            refusals: Refusals::new(now),
            unsent: Default::default(),
            sealed: Vec::with_capacity(DATAGRAM_BYTES_MAX),
        })
    }

    /// The voters in force. The way to another witness begins here.
    pub fn set_voters(&mut self, sets: &Sets) {
        let tag = sets.tag();
        if tag == self.voters {
            return;
        }
        self.voters = tag;
        let addresses: &[SocketAddr] = match sets.in_force.as_ref().and_then(|set| set.members.third()) {
            Some(Third::Witness { addresses, .. }) => addresses,
            Some(Third::Etcd(_) | Third::Fence | Third::Gateway | Third::None) | None => &[],
        };
        if let Err(error) = self.thirds.turn(&mut self.sockets, addresses) {
            tracing::error!(%error, "no socket could be had for the witness");
        }
    }

    /// Asks the witness that is wanted, and does not vote yet, whether it is there. Whether it is; `None` if the wanted
    /// third voter is no witness.
    pub fn probe_third(&mut self, now: Instant) -> Option<bool> {
        if self.thirds.probe_is_due(now)
            && let Some(far) = &self.thirds.wanted
        {
            let (echo, ways) = (far.sessions.believed(Member::Witness), far.ways.clone());
            self.say_hello(echo, &ways);
        }
        self.thirds.is_ready(now)
    }

    fn say_hello(&mut self, echo: Option<Incarnation>, ways: &[(usize, SocketAddr)]) {
        let messages = vec![Message::Hello];
        let envelope = Envelope { echo, voters: self.voters, heard: LinkSet::default(), messages };
        let Ok(payload) = postcard::to_stdvec(&envelope) else { return };
        if self.to_witness.seal(Kind::Engine, &payload, &mut self.sealed).is_ok() {
            for (by, address) in ways {
                self.sockets.send(*by, *address, &self.sealed);
            }
        }
    }

    /// What each link carries.
    #[must_use]
    pub fn links(&self, now: Instant) -> Vec<WayView> {
        self.peer_ways.views(now)
    }

    /// What comes from each address of the witness.
    #[must_use]
    pub fn witness_ways(&self, now: Instant) -> Vec<WayView> {
        self.thirds.in_force.as_ref().map(|far| far.watch.views(now)).unwrap_or_default()
    }

    /// What has changed on the ways since the last call.
    pub fn way_events(&mut self) -> Vec<WayEvent> {
        std::mem::take(&mut self.way_events)
    }

    /// What was refused, and when to say so.
    pub fn refusals(&mut self) -> &mut Refusals {
        &mut self.refusals
    }

    /// Waits for a datagram.
    pub async fn receive(&mut self, buffer: &mut [u8; DATAGRAM_BYTES_MAX + 1]) -> (usize, SocketAddr, usize) {
        self.sockets.receive(buffer).await
    }

    /// Says something to a member, on every link to it, with the next [`Links::flush`].
    pub fn send(&mut self, to: Member, message: Message) {
        self.unsent[to.index()].push(message);
    }

    /// Sends what was said since the last time: one datagram for each member.
    pub fn flush(&mut self, now: Instant) {
        for to in Member::ALL {
            let messages = std::mem::take(&mut self.unsent[to.index()]);
            if !messages.is_empty() {
                let sessions = match (to, &self.thirds.in_force) {
                    (Member::Witness, Some(far)) => &far.sessions,
                    (Member::Witness, None) => continue,
                    (Member::First | Member::Second, _) => &self.sessions,
                };
                self.send_to_life(now, to, sessions.believed(to), messages);
            }
        }
    }

    fn send_to_life(&mut self, now: Instant, to: Member, echo: Option<Incarnation>, messages: Vec<Message>) {
        let heard = if to == Member::Witness { LinkSet::default() } else { self.peer_ways.heard(now) };
        let mut envelope = Envelope { echo, voters: self.voters, heard, messages };
        let Ok(payload) = postcard::to_stdvec(&envelope) else { return };
        if payload.len() > PAYLOAD_BYTES_MAX && envelope.messages.len() > 1 {
            for message in std::mem::take(&mut envelope.messages) {
                self.send_to_life(now, to, echo, vec![message]);
            }
            return;
        }
        let sealer = if to == Member::Witness { &mut self.to_witness } else { &mut self.to_peer };
        if let Err(error) = sealer.seal(Kind::Engine, &payload, &mut self.sealed) {
            tracing::error!(%error, "a message was too long to be sent");
            return;
        }
        if to == Member::Witness {
            for (by, address) in self.thirds.in_force.iter().flat_map(|far| &far.ways) {
                self.sockets.send(*by, *address, &self.sealed);
            }
        } else {
            for (by, address) in self.peer.iter().enumerate() {
                self.sockets.send(by, *address, &self.sealed);
            }
        }
    }

    /// Looks at a datagram that came in by socket `by`; `now` was read after it was received.
    pub fn take(&mut self, now: Instant, by: usize, from: SocketAddr, datagram: &[u8]) -> Option<Arrival> {
        if Notice::is(datagram) {
            return self.take_notice(datagram);
        }
        let opened = match self.from_peer.open(datagram) {
            Ok(opened) => Ok(opened),
            Err(Refused::UnknownSender) => self.from_witness.open(datagram),
            Err(other) => Err(other),
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                self.refusals.count(reason.word(), from);
                return None;
            }
        };
        let Ok(envelope) = postcard::from_bytes::<Envelope>(opened.payload) else {
            self.refusals.count("unreadable", from);
            return None;
        };
        let (sender, life, counter) = (opened.sender, opened.incarnation, opened.counter);
        if sender == Member::Witness {
            return self.take_of_witness(now, by, from, (life, counter), envelope);
        }
        let verdict = self.sessions.accept(sender, life, counter, envelope.echo);
        let believed = self.sessions.believed(sender) == Some(life);
        let arrived = Arrived { at: now, by, life, counter, heard: Some(envelope.heard) };
        let events = note_way(&mut self.peer_ways, arrived, believed, verdict);
        self.way_events.extend(events);
        self.deliver(now, from, (sender, life), verdict, envelope)
    }

    /// What a witness says counts if it is the one that votes. Of the one that is wanted we only ask whether it is there.
    fn take_of_witness(
        &mut self,
        now: Instant,
        by: usize,
        from: SocketAddr,
        (life, counter): (Incarnation, u64),
        envelope: Envelope,
    ) -> Option<Arrival> {
        let Some((far, votes)) = self.thirds.by(by) else {
            self.refusals.count("another witness", from);
            return None;
        };
        far.heard_at = Some(now);
        let verdict = far.sessions.accept(Member::Witness, life, counter, envelope.echo);
        if !votes {
            if verdict == Verdict::Greet {
                let ways = far.ways.clone();
                self.say_hello(Some(life), &ways);
            }
            return None;
        }
        let believed = far.sessions.believed(Member::Witness) == Some(life);
        let events = match far.way_of(from) {
            Some(by) => {
                note_way(&mut far.watch, Arrived { at: now, by, life, counter, heard: None }, believed, verdict)
            }
            None => Vec::new(),
        };
        self.way_events.extend(events);
        self.deliver(now, from, (Member::Witness, life), verdict, envelope)
    }

    fn deliver(
        &mut self,
        now: Instant,
        from: SocketAddr,
        (sender, life): (Member, Incarnation),
        verdict: Verdict,
        envelope: Envelope,
    ) -> Option<Arrival> {
        match verdict {
            Verdict::Deliver { .. } if self.voters.counts(envelope.voters) => {
                Some(Arrival::Messages(Identity { member: sender, incarnation: life, hash: None }, envelope.messages))
            }
            Verdict::Deliver { .. } => {
                self.refusals.count("another voter set", from);
                let stances = envelope.messages.into_iter().filter(Message::counts_between_sets);
                Some(Arrival::Apart(Identity { member: sender, incarnation: life, hash: None }, stances.collect()))
            }
            Verdict::Greet => {
                if self.may_greet(now) {
                    self.send_to_life(now, sender, Some(life), vec![Message::Hello]);
                }
                None
            }
            Verdict::Drop => {
                // By several ways the same datagram comes once on each: no news.
                let to_witness = self.thirds.in_force.as_ref().map_or(1, |far| far.ways.len());
                let ways = if sender == Member::Witness { to_witness } else { self.peer.len() };
                if ways == 1 {
                    self.refusals.count("replayed", from);
                }
                None
            }
        }
    }

    fn take_notice(&mut self, datagram: &[u8]) -> Option<Arrival> {
        let notice = Notice::decode(datagram).ok().filter(|notice| notice.cluster == self.cluster)?;
        Some(Arrival::Notice(notice.secret))
    }

    fn may_greet(&mut self, now: Instant) -> bool {
        if now.since(self.greetings.0) >= Duration::from_secs(1) {
            self.greetings = (now, 0);
        }
        self.greetings.1 += 1;
        self.greetings.1 <= GREETINGS_PER_SECOND_MAX
    }

    /// This node and its life, for the log.
    #[must_use]
    pub const fn identity(&self) -> (Member, Incarnation) {
        (self.me, self.life)
    }
}

/// Notes what a datagram says about the ways. One of a life that has not proved itself counts only while nobody is heard
/// who has: then it is the one hint at a way that carries in one direction alone. It may be recorded; nothing but `status`
/// is misled.
fn note_way(ways: &mut Ways, arrived: Arrived, believed: bool, verdict: Verdict) -> Vec<WayEvent> {
    let counts = believed || (verdict == Verdict::Greet && !ways.is_heard(arrived.at));
    if counts { ways.arrived(arrived) } else { Vec::new() }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("me", &self.me).field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
