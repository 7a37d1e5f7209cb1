//! The driver of a witness: one process, many clusters, each with a voter, a folder and a secret of its own.

use super::{refused::Refusals, sockets, sockets::Sockets};
use crate::{
    clock,
    cluster::{
        Envelope, Identity, Incarnation, Member, Memory, Message, Name, Sessions, Verdict, Witness, WitnessAction,
    },
    limits::DATAGRAM_BYTES_MAX,
    time::Instant,
    trust::{self, ClusterId, Keyring, Kind, Notice, Opener, Refused, Sealer},
};
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
    heard: [Option<Heard>; 2],
    persist: Persist,
}

/// Hands a memory to the disk; its number comes back by the queue.
pub type Persist = Box<dyn FnMut(u64, Memory) -> Result<(), String> + Send>;

#[derive(Debug, Clone, Copy)]
struct Heard {
    /// By which socket, from where: answers go back there.
    by: usize,
    from: SocketAddr,
}

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
            heard: [None; 2],
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
                hall.take(&sockets, now, Heard { by, from }, buffer.get(..length).unwrap_or_default());
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
    fn take(&mut self, sockets: &Sockets, now: Instant, heard: Heard, datagram: &[u8]) {
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
        match voting.sessions.accept(sender, life, counter, envelope.echo) {
            Verdict::Deliver { .. } => {
                if let Some(slot) = voting.heard.get_mut(sender.index()) {
                    *slot = Some(heard);
                }
                let from = Identity { member: sender, incarnation: life, hash: None };
                let counts = voting.witness.voter().sets().tag().counts(envelope.voters);
                let said = envelope.messages.iter().filter(|message| counts || message.counts_between_sets());
                let mut actions: Vec<_> = said.flat_map(|m| voting.witness.handle(now, from, m)).collect();
                if !counts {
                    self.refusals.count("another voter set", heard.from);
                    actions.extend(voting.witness.apart(sender));
                }
                self.carry_out(sockets, id, actions);
            }
            Verdict::Greet => self.send(sockets, id, heard, Some(life), Message::Hello),
            Verdict::Drop => self.refusals.count("replayed", heard.from),
        }
    }

    fn take_told(&mut self, sockets: &Sockets, told: WitnessTold) {
        match told {
            WitnessTold::Persisted(id, number, Ok(())) => {
                let now = clock::now();
                let actions = self.clusters.get_mut(&id).map(|v| v.witness.written(now, number)).unwrap_or_default();
                self.carry_out(sockets, id, actions);
            }
            WitnessTold::Persisted(id, _, Err(why)) => {
                if let Some(voting) = self.clusters.get_mut(&id) {
                    tracing::error!(cluster = %voting.name, why, "store failed: no more votes for this cluster");
                    voting.witness.store_failed();
                }
            }
        }
    }

    fn carry_out(&mut self, sockets: &Sockets, id: ClusterId, actions: Vec<WitnessAction>) {
        for action in actions {
            match action {
                WitnessAction::Send(to, message) => {
                    let Some(voting) = self.clusters.get(&id) else { return };
                    let Some(Some(heard)) = voting.heard.get(to.index()).copied() else { continue };
                    let echo = voting.sessions.believed(to);
                    self.send(sockets, id, heard, echo, message);
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

    fn send(&mut self, sockets: &Sockets, id: ClusterId, to: Heard, echo: Option<Incarnation>, message: Message) {
        let Some(voting) = self.clusters.get_mut(&id) else { return };
        let envelope = Envelope { echo, voters: voting.witness.voter().sets().tag(), messages: vec![message] };
        let Ok(payload) = postcard::to_stdvec(&envelope) else { return };
        if voting.sealer.seal(Kind::Engine, &payload, &mut self.sealed).is_ok() {
            sockets.send(to.by, to.from, &self.sealed);
        }
    }
}

/// The cluster that a sealed datagram names in its header, to find the key; the seal then proves it.
fn cluster_of(datagram: &[u8]) -> Option<ClusterId> {
    datagram.get(4..12)?.try_into().ok().map(ClusterId)
}
