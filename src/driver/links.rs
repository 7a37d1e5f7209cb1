//! The links of a node: seals what the engine says and sends it on every one, opens what comes, and lets through only
//! what counts.
//!
//! Rule: a datagram has an effect only if its seal is good, its sender's life is believed and echoes ours, and its
//! counter is new. The rest is counted.
//!
//! What each link carries is noted on the way, for people ([`super::ways`]).

use super::sockets::Sockets;
use super::ways::{Arrived, WayEvent, WayView, Ways};
use super::{refused::Refusals, sockets};
use crate::{
    cluster::{Envelope, Identity, Incarnation, LinkSet, Member, Message, Secret, Sessions, Verdict},
    config::Config,
    limits::{DATAGRAM_BYTES_MAX, GREETINGS_PER_SECOND_MAX},
    time::{Duration, Instant},
    trust::{Keyring, Kind, Notice, Opener, PAYLOAD_BYTES_MAX, Refused, Sealer},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// What came in and counts.
#[derive(Debug)]
pub enum Arrival {
    /// Messages for the engine, said at one instant.
    Messages(Identity, Vec<Message>),
    /// Somebody's worker is dead, and here is the proof.
    Notice(Secret),
}

/// The links of a node.
pub struct Links {
    sockets: Sockets,
    /// Where the peer is reached, link by link; socket i sends to address i.
    peer: Vec<SocketAddr>,
    /// Where the witness is reached, and by which socket: the kernel picks the way.
    witness: Vec<(usize, SocketAddr)>,
    me: Member,
    life: Incarnation,
    cluster: crate::trust::ClusterId,
    to_peer: Sealer,
    to_witness: Sealer,
    from_peer: Opener,
    from_witness: Opener,
    sessions: Sessions,
    voters: u32,
    /// What the links to the peer carry.
    peer_ways: Ways,
    /// What comes from each address of the witness. It answers on the ways on which it hears us.
    witness_ways: Ways,
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
    witness: Vec<(usize, SocketAddr)>,
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

/// Binds one socket per link, and one per family for the witness.
///
/// # Errors
/// If an address cannot be had.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let bound = |address: SocketAddr| sockets::bind(address).map_err(|cause| BindError { address, cause });
    let mut all = Vec::new();
    for link in &config.my_node().links {
        all.push(bound(*link)?);
    }
    let mut witness = Vec::new();
    let mut families: [Option<usize>; 2] = [None; 2];
    for address in config.tiebreak.addresses() {
        let family = usize::from(address.is_ipv6());
        let socket = match families[family] {
            Some(socket) => socket,
            None => {
                let any: IpAddr =
                    if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
                all.push(bound(SocketAddr::new(any, 0))?);
                families[family] = Some(all.len() - 1);
                all.len() - 1
            }
        };
        witness.push((socket, *address));
    }
    Ok(Bound { sockets: all, witness })
}

impl Links {
    /// The links of this life of the node. To be called on the thread that will use them.
    ///
    /// # Errors
    /// If the runtime cannot watch the sockets.
    pub fn new(bound: Bound, config: &Config, ring: &Keyring, life: Incarnation, now: Instant) -> io::Result<Self> {
        let witness_ring = ring.for_witness();
        let peer = if config.me == Member::First { Member::Second } else { Member::First };
        let ways_to_witness = bound.witness.len();
        Ok(Self {
            sockets: Sockets::new(bound.sockets)?,
            peer: config.peer_node().links.clone(),
            witness: bound.witness,
            me: config.me,
            life,
            cluster: ring.id(),
            to_peer: Sealer::new(ring, config.me, life),
            to_witness: Sealer::new(&witness_ring, config.me, life),
            from_peer: Opener::new(ring, &[peer]),
            from_witness: Opener::new(&witness_ring, &[Member::Witness]),
            sessions: Sessions::new(life),
            voters: 0,
            peer_ways: Ways::new(peer, config.my_node().links.len(), config.cluster.lease),
            witness_ways: Ways::new(Member::Witness, ways_to_witness, config.cluster.lease),
            way_events: Vec::new(),
            greetings: (now, 0),
            refusals: Refusals::new(now),
            unsent: Default::default(),
            sealed: Vec::with_capacity(DATAGRAM_BYTES_MAX),
        })
    }

    /// Generation of the voter set in force.
    pub const fn set_voters(&mut self, voters: u32) {
        self.voters = voters;
    }

    /// What each link carries.
    #[must_use]
    pub fn links(&self, now: Instant) -> Vec<WayView> {
        self.peer_ways.views(now)
    }

    /// What comes from each address of the witness.
    #[must_use]
    pub fn witness_ways(&self, now: Instant) -> Vec<WayView> {
        self.witness_ways.views(now)
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
                self.send_to_life(now, to, self.sessions.believed(to), messages);
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
            for (by, address) in &self.witness {
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
        let verdict = self.sessions.accept(sender, life, counter, envelope.echo);
        let way = Arrived { at: now, by, life, counter, heard: Some(envelope.heard) };
        self.note_way(sender, from, way, verdict);
        match verdict {
            Verdict::Deliver { .. } if envelope.voters == self.voters => {
                Some(Arrival::Messages(Identity { member: sender, incarnation: life, hash: None }, envelope.messages))
            }
            Verdict::Deliver { .. } => {
                self.refusals.count("another voter set", from);
                None
            }
            Verdict::Greet => {
                if self.may_greet(now) {
                    self.send_to_life(now, sender, Some(life), vec![Message::Hello]);
                }
                None
            }
            Verdict::Drop => {
                // By several ways the same datagram comes once on each: no news.
                let ways = if sender == Member::Witness { self.witness.len() } else { self.peer.len() };
                if ways == 1 {
                    self.refusals.count("replayed", from);
                }
                None
            }
        }
    }

    /// Notes what a datagram says about the ways. One of a life that has not proved itself counts only while nobody is
    /// heard who has: then it is the one hint at a way that carries in one direction alone. It may be recorded; nothing
    /// but `status` is misled.
    fn note_way(&mut self, sender: Member, from: SocketAddr, way: Arrived, verdict: Verdict) {
        let ways = if sender == Member::Witness { &mut self.witness_ways } else { &mut self.peer_ways };
        let counts =
            self.sessions.believed(sender) == Some(way.life) || (verdict == Verdict::Greet && !ways.is_heard(way.at));
        if !counts {
            return;
        }
        let way = if sender == Member::Witness {
            let only = self.witness.len() == 1;
            let Some(by) = self.witness.iter().position(|(_, address)| only || *address == from) else { return };
            Arrived { by, heard: None, ..way }
        } else {
            way
        };
        let events = ways.arrived(way);
        self.way_events.extend(events);
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

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("me", &self.me).field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
