//! What the driver tells, on the control runtime: log and history.

use super::voters;
use crate::{
    clock,
    cluster::{Cause, Claim, Event, GroupName, Member, Name, Term},
    config::Config,
    driver::{Change as WayChange, Direction, Note, WayEvent},
    replicate::{HistoryEntry, StateHandle},
    time::Duration,
};
use std::{net::SocketAddr, time::UNIX_EPOCH};
use tokio::sync::mpsc;

/// Names of the members, for people.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) me: Member,
    pub(super) nodes: [Name; 2],
    pub(super) witness: Name,
    /// The third voter is no machine of its own.
    pub(super) lone: bool,
    /// The links to the peer: our address, the peer's.
    links: Vec<(SocketAddr, SocketAddr)>,
    /// The addresses of the witness.
    witness_at: Vec<SocketAddr>,
}

impl Names {
    pub(super) fn of_config(config: &Config) -> Self {
        let [first, second] = &config.nodes;
        let lone = config.tiebreak.kind().is_local();
        let links = config.my_node().links.iter().copied().zip(config.peer_node().links.iter().copied()).collect();
        let witness_at = config.tiebreak.addresses().to_vec();
        let nodes = [first.name, second.name];
        Self { me: config.me, nodes, witness: config.tiebreak.name(), lone, links, witness_at }
    }

    pub(super) fn of(&self, member: Member) -> Name {
        match member {
            Member::First => self.nodes[0],
            Member::Second => self.nodes[1],
            Member::Witness => self.witness,
        }
    }
}

/// Takes notes until everything is let go of.
pub(super) async fn run(mut notes: mpsc::Receiver<Note>, names: Names, state: StateHandle) {
    let mut froze = None;
    while let Some(note) = notes.recv().await {
        match note {
            Note::Event(event) => tell(&event, &names, &state, &mut froze),
            Note::Claimed(claim) => record_claim(&claim, &names, &state),
            Note::Way(event) => tell_way(&event, &names),
            Note::Stopped => return,
        }
    }
}

struct Change {
    group: GroupName,
    from: &'static str,
    to: &'static str,
    cause: Cause,
    term: Term,
    after: Option<Duration>,
    text: String,
}

/// `froze`: for how long the process last did not run. What it lost by that is told with it.
fn tell(event: &Event, names: &Names, state: &StateHandle, froze: &mut Option<Duration>) {
    match event {
        Event::Acquired { group, term, cause, after } => {
            let change = Change {
                group: *group,
                from: "standby",
                to: "active",
                cause: *cause,
                term: *term,
                after: *after,
                text: String::new(),
            };
            record(change, names, state);
        }
        Event::Lost { group, term, cause } => {
            let text = match (cause, &froze) {
                (Cause::Froze, Some(late)) => format!("the process did not run for {} ms", late.as_millis()),
                _ => String::new(),
            };
            let change =
                Change { group: *group, from: "active", to: "standby", cause: *cause, term: *term, after: None, text };
            record(change, names, state);
        }
        Event::MoveFailed { group, why } => tracing::warn!(%group, why, "move given up"),
        // A voter on this machine is always there.
        Event::Heard(Member::Witness) | Event::Silent(Member::Witness) if names.lone => {}
        Event::Heard(member) => tracing::info!(member = %names.of(*member), "member heard"),
        Event::Silent(member) => {
            tracing::warn!(member = %names.of(*member), "member not heard any more; redundancy is reduced");
        }
        Event::NotElected { group, term } => tracing::info!(%group, %term, "not elected; trying again"),
        Event::Recovered => tracing::info!("the voter's memory was had from the other members"),
        Event::Froze { late } => {
            *froze = Some(*late);
            let did_not_run_ms = millis(*late);
            tracing::warn!(did_not_run_ms, "process froze for longer than the lease; what it owned it has let go of");
        }
        Event::Late { late } => {
            let late_ms = millis(*late);
            tracing::warn!(late_ms, "cluster thread was called late; the lease is less than four times as long");
        }
        Event::VotersChanged { generation, from, to } => {
            let (from, to) = (voters::in_words(from, names), voters::in_words(to, names));
            tracing::info!(generation, from, to, "voters changed");
            let Ok(group) = Name::new("voters") else { return };
            state.record_history(HistoryEntry {
                at_unix_ms: unix_ms(),
                node: names.of(names.me),
                group,
                from,
                to,
                cause: "voters_changed".to_owned(),
                term: Term::default(),
                after_ms: None,
                text: format!("set {generation}"),
            });
        }
        Event::RolledBack => tracing::error!(
            "what this node remembers of votes is older than what its peer knows (a disk that was put back?): it counts as \
             lost, and is had from the others"
        ),
    }
}

/// A way to another member carries nothing any more, or does again.
fn tell_way(event: &WayEvent, names: &Names) {
    let WayEvent { member, way, direction, change } = *event;
    let link = way + 1;
    if member == Member::Witness {
        let to = names.witness_at.get(way).map(ToString::to_string).unwrap_or_default();
        let witness = names.witness;
        match change {
            WayChange::Lost { carried } => {
                tracing::warn!(%witness, way = link, %to, carried_before = carried, "way to the witness lost");
            }
            WayChange::Back { after, losses } => {
                tracing::info!(%witness, way = link, %to, after_ms = millis(after), losses, "way to the witness back");
            }
        }
        return;
    }
    let (local, remote) =
        names.links.get(way).map(|(ours, theirs)| (ours.to_string(), theirs.to_string())).unwrap_or_default();
    let direction = match direction {
        Direction::From => "from_peer",
        Direction::To => "to_peer",
    };
    match change {
        WayChange::Lost { carried } => {
            tracing::warn!(link, %local, %remote, direction = %direction, carried_before = carried, "link lost");
        }
        WayChange::Back { after, losses } => {
            tracing::info!(link, %local, %remote, direction = %direction, after_ms = millis(after), losses, "link back");
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn record(change: Change, names: &Names, state: &StateHandle) {
    let Change { group, from, to, cause, term, after, text } = change;
    let after_ms = after.map(millis);
    tracing::info!(%group, from, to, cause = cause.as_str(), %term, after_ms, "role changed");
    state.record_history(HistoryEntry {
        at_unix_ms: unix_ms(),
        node: names.of(names.me),
        group,
        from: from.to_owned(),
        to: to.to_owned(),
        cause: cause.as_str().to_owned(),
        term,
        after_ms,
        text,
    });
}

/// Nothing changes by it; but whoever asks later why visitors went astray finds it here.
fn record_claim(claim: &Claim, names: &Names, state: &StateHandle) {
    let Claim { group, term, address, .. } = *claim;
    let mac = claim.station();
    tracing::warn!(%group, %address, mac, %term, "address claimed by another machine; announced again");
    state.record_history(HistoryEntry {
        at_unix_ms: unix_ms(),
        node: names.of(names.me),
        group,
        from: "active".to_owned(),
        to: "active".to_owned(),
        cause: "address_claimed".to_owned(),
        term,
        after_ms: None,
        text: claim.to_string(),
    });
}

fn unix_ms() -> u64 {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0)
}
