//! The driver of a witness: one process, many clusters, each with a voter, a folder and a secret of its own.
//!
//! A node says the same on every way to here, and is answered on each way on which it was lately heard: the loss of one
//! costs neither of them the other.

use super::{refused::Refusals, sockets, sockets::Sockets};
use crate::{
    clock,
    cluster::{
        Envelope, Identity, Incarnation, LinkSet, Member, Memory, Message, Name, Sessions, Verdict, Witness,
        WitnessAction,
    },
    limits::{DATAGRAM_BYTES_MAX, WITNESS_WAY_FRESH, WITNESS_WAYS_MAX},
    time::Instant,
    trust::{self, ClusterId, Keyring, Kind, Notice, Opener, Refused, Sealer},
};
use arrayvec::ArrayVec;
use std::{collections::BTreeMap, io, net::SocketAddr};
use tokio::sync::mpsc;

/// One cluster that is voted for.
pub struct Voting {
    name: Name,
    witness: Witness,
    life: Incarnation,
    sealer: Sealer,
    opener: Opener,
    sessions: Sessions,
    heard: [WaysTo; 2],
    persist: Persist,
}

/// Hands a memory to the disk; its number comes back by the queue.
pub type Persist = Box<dyn FnMut(u64, Memory) -> Result<(), String> + Send>;

/// A way on which a node was heard: by which socket, from where. Answers go back there.
#[derive(Debug, Clone, Copy)]
struct Heard {
    by: usize,
    from: SocketAddr,
    at: Instant,
    /// The newest datagram on it.
    counter: u64,
}

/// The ways to a node.
#[derive(Debug, Default)]
struct WaysTo(ArrayVec<Heard, WITNESS_WAYS_MAX>);

impl WaysTo {
    /// Takes note of a datagram of the life that is believed. Whether it is news on its way: a copy of one that came
    /// by another is. The way that was silent for the longest time is forgotten when there are too many.
    fn note(&mut self, heard: Heard) -> bool {
        let same = |way: &&mut Heard| way.by == heard.by && way.from == heard.from;
        if let Some(way) = self.0.iter_mut().find(same) {
            let news = heard.counter > way.counter;
            if news {
                *way = heard;
            }
            return news;
        }
        let newest = self.0.iter().map(|way| way.counter).max().unwrap_or_default();
        if heard.counter.saturating_add(COPY_LATE_MAX) < newest {
            return false;
        }
        if self.0.is_full() {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, way)| way.at).map(|(at, _)| at);
            oldest.map(|at| self.0.swap_remove(at));
        }
        self.0.push(heard);
        true
    }

    /// Another life of the node begins.
    fn clear(&mut self) {
        self.0.clear();
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = &Heard> {
        self.0.iter().filter(move |way| now.since(way.at) < WITNESS_WAY_FRESH)
    }
}

/// A copy that comes by a new way is at most so many datagrams behind.
const COPY_LATE_MAX: u64 = 64;

impl Voting {
    /// Votes for a cluster from now on.
    #[must_use]
    pub fn new(now: Instant, name: Name, ring: &Keyring, memory: Option<Memory>, persist: Persist) -> Self {
        let life = trust::new_incarnation();
        let me = Identity { member: Member::Witness, incarnation: life, hash: None };
        Self {
            name,
            witness: Witness::new(now, me, memory, trust::hash_secret),
            life,
            sealer: Sealer::new(ring, Member::Witness, life),
            opener: Opener::new(ring, &[Member::First, Member::Second]),
            sessions: Sessions::new(life),
            heard: Default::default(),
            persist,
        }
    }
}

impl std::fmt::Debug for Voting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voting").field("name", &self.name).field("life", &self.life).finish_non_exhaustive()
    }
}

/// What the disk threads tell the witness.
#[derive(Debug)]
pub enum WitnessTold {
    /// The write of this cluster is done, or the disk has failed.
    Persisted(ClusterId, u64, Result<(), String>),
}

/// Binds the sockets of a witness.
///
/// # Errors
/// The address that cannot be had, and why.
pub fn bind(listen: &[SocketAddr]) -> Result<Vec<std::net::UdpSocket>, (SocketAddr, io::Error)> {
    listen.iter().map(|address| sockets::bind(*address).map_err(|cause| (*address, cause))).collect()
}

/// Runs the witness until `stop` is done.
///
/// # Errors
/// If the runtime cannot watch the sockets.
pub async fn run(
    sockets: Vec<std::net::UdpSocket>,
    clusters: BTreeMap<ClusterId, Voting>,
    mut told: mpsc::Receiver<WitnessTold>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut sockets = Sockets::new(sockets)?;
    let mut hall = Hall { clusters, refusals: Refusals::new(clock::now()), sealed: Vec::new() };
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            told = told.recv() => match told {
                Some(told) => hall.take_told(&sockets, told),
                None => return Ok(()),
            },
            (by, from, length) = sockets.receive(&mut buffer) => {
                let now = clock::now();
                hall.take(&sockets, Heard { by, from, at: now, counter: 0 }, buffer.get(..length).unwrap_or_default());
                hall.refusals.say(now);
            }
        }
    }
}

struct Hall {
    clusters: BTreeMap<ClusterId, Voting>,
    refusals: Refusals,
    sealed: Vec<u8>,
}

impl Hall {
    fn take(&mut self, sockets: &Sockets, heard: Heard, datagram: &[u8]) {
        let now = heard.at;
        if Notice::is(datagram) {
            if let Ok(notice) = Notice::decode(datagram)
                && let Some(voting) = self.clusters.get_mut(&notice.cluster)
            {
                voting.witness.notice(&notice.secret);
            }
            return;
        }
        let Some(id) = cluster_of(datagram) else {
            return self.refusals.count(Refused::Length.word(), heard.from);
        };
        let Some(voting) = self.clusters.get_mut(&id) else {
            return self.refusals.count(Refused::ForeignCluster.word(), heard.from);
        };
        let opened = match voting.opener.open(datagram) {
            Ok(opened) => opened,
            Err(reason) => return self.refusals.count(reason.word(), heard.from),
        };
        let Ok(envelope) = postcard::from_bytes::<Envelope>(opened.payload) else {
            return self.refusals.count("unreadable", heard.from);
        };
        let (sender, life, counter) = (opened.sender, opened.incarnation, opened.counter);
        let heard = Heard { counter, ..heard };
        let verdict = voting.sessions.accept(sender, life, counter, envelope.echo);
        let Some(ways) = voting.heard.get_mut(sender.index()) else { return };
        if verdict == (Verdict::Deliver { new: true }) {
            ways.clear();
        }
        let news = voting.sessions.believed(sender) == Some(life) && ways.note(heard);
        match verdict {
            Verdict::Deliver { .. } => {
                let from = Identity { member: sender, incarnation: life, hash: None };
                let counts = voting.witness.voter().sets().tag().counts(envelope.voters);
                let said = envelope.messages.iter().filter(|message| counts || message.counts_between_sets());
                let mut actions: Vec<_> = said.flat_map(|m| voting.witness.handle(now, from, m)).collect();
                if !counts {
                    self.refusals.count("another voter set", heard.from);
                    actions.extend(voting.witness.apart(sender));
                }
                self.carry_out(sockets, now, id, actions);
            }
            Verdict::Greet => {
                if let Some(sealed) = self.seal(id, Some(life), Message::Hello) {
                    sockets.send(heard.by, heard.from, sealed);
                }
            }
            Verdict::Drop if news => {}
            Verdict::Drop => self.refusals.count("replayed", heard.from),
        }
    }

    fn take_told(&mut self, sockets: &Sockets, told: WitnessTold) {
        match told {
            WitnessTold::Persisted(id, number, Ok(())) => {
                let now = clock::now();
                let actions = self.clusters.get_mut(&id).map(|v| v.witness.written(now, number)).unwrap_or_default();
                self.carry_out(sockets, now, id, actions);
            }
            WitnessTold::Persisted(id, _, Err(why)) => {
                if let Some(voting) = self.clusters.get_mut(&id) {
                    tracing::error!(cluster = %voting.name, why, "store failed: no more votes for this cluster");
                    voting.witness.store_failed();
                }
            }
        }
    }

    fn carry_out(&mut self, sockets: &Sockets, now: Instant, id: ClusterId, actions: Vec<WitnessAction>) {
        for action in actions {
            match action {
                WitnessAction::Send(to, message) => {
                    let Some(voting) = self.clusters.get(&id) else { return };
                    let echo = voting.sessions.believed(to);
                    self.send(sockets, now, id, (to, echo), message);
                }
                WitnessAction::Persist(number, memory) => {
                    let Some(voting) = self.clusters.get_mut(&id) else { return };
                    if let Err(why) = (voting.persist)(number, memory) {
                        tracing::error!(cluster = %voting.name, why, "a vote could not be handed to the disk");
                    }
                }
            }
        }
    }

    /// Sends a message to the node on every way on which it was lately heard.
    fn send(&mut self, sockets: &Sockets, now: Instant, id: ClusterId, to: Addressee, message: Message) {
        let (to, echo) = to;
        if self.seal(id, echo, message).is_none() {
            return;
        }
        let ways = self.clusters.get(&id).and_then(|voting| voting.heard.get(to.index()));
        for way in ways.into_iter().flat_map(|ways| ways.fresh(now)) {
            sockets.send(way.by, way.from, &self.sealed);
        }
    }

    fn seal(&mut self, id: ClusterId, echo: Option<Incarnation>, message: Message) -> Option<&[u8]> {
        let voting = self.clusters.get_mut(&id)?;
        let voters = voting.witness.voter().sets().tag();
        // Which of its ways are heard, a node sees by the answers.
        let envelope = Envelope { echo, voters, heard: LinkSet::default(), messages: vec![message] };
        let payload = postcard::to_stdvec(&envelope).ok()?;
        voting.sealer.seal(Kind::Engine, &payload, &mut self.sealed).ok()?;
        Some(&self.sealed)
    }
}

/// A node, and the life of it that is believed.
type Addressee = (Member, Option<Incarnation>);

/// The cluster that a sealed datagram names in its header, to find the key; the seal then proves it.
fn cluster_of(datagram: &[u8]) -> Option<ClusterId> {
    datagram.get(4..12)?.try_into().ok().map(ClusterId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(from: u16, counter: u64, millis: u64) -> Heard {
        Heard { by: 0, from: SocketAddr::from(([127, 0, 0, 1], from)), at: Instant::from_millis(millis), counter }
    }

    fn answered(ways: &WaysTo, millis: u64) -> Vec<u16> {
        ways.fresh(Instant::from_millis(millis)).map(|way| way.from.port()).collect()
    }

    #[test]
    fn a_node_is_answered_on_each_way_on_which_it_was_lately_heard() {
        let mut ways = WaysTo::default();
        assert!(ways.note(heard(1, 1, 0)));
        assert!(ways.note(heard(2, 1, 1)), "a copy by another way");
        assert!(!ways.note(heard(2, 1, 2)), "played again");
        assert_eq!(answered(&ways, 10), [1, 2]);
        for counter in 2..100 {
            assert!(ways.note(heard(2, counter, 20 * counter)));
        }
        assert_eq!(answered(&ways, 2_000), [2], "nothing came by the first any more");
        assert!(!ways.note(heard(3, 10, 2_000)), "what was recorded long ago makes no way");
    }

    #[test]
    fn there_are_never_too_many_ways_and_the_one_heard_last_is_kept() {
        let mut ways = WaysTo::default();
        for from in 0..1_000 {
            assert!(ways.note(heard(from, u64::from(from), u64::from(from))));
        }
        assert!(answered(&ways, 1_000).contains(&999));
        assert_eq!(answered(&ways, 1_000).len(), WITNESS_WAYS_MAX);
    }
}
