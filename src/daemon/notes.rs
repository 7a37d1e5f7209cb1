//! What the driver tells, on the control runtime: log and history.

use crate::{
    clock,
    cluster::{Cause, Claim, Event, GroupName, Member, Name, Term},
    config::Config,
    driver::Note,
    replicate::{HistoryEntry, StateHandle},
    time::Duration,
};
use std::time::UNIX_EPOCH;
use tokio::sync::mpsc;

/// Names of the members, for people.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) me: Member,
    pub(super) nodes: [Name; 2],
    pub(super) witness: Name,
    /// The third voter is no machine of its own.
    pub(super) lone: bool,
}

impl Names {
    pub(super) fn of_config(config: &Config) -> Self {
        let [first, second] = &config.nodes;
        let lone = config.tiebreak.kind().is_local();
        Self { me: config.me, nodes: [first.name, second.name], witness: config.tiebreak.name(), lone }
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
    while let Some(note) = notes.recv().await {
        match note {
            Note::Event(event) => tell(&event, &names, &state),
            Note::Claimed(claim) => record_claim(&claim, &names, &state),
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
}

fn tell(event: &Event, names: &Names, state: &StateHandle) {
    match event {
        Event::Acquired { group, term, cause, after } => {
            let change =
                Change { group: *group, from: "standby", to: "active", cause: *cause, term: *term, after: *after };
            record(&change, names, state);
        }
        Event::Lost { group, term, cause } => {
            let change =
                Change { group: *group, from: "active", to: "standby", cause: *cause, term: *term, after: None };
            record(&change, names, state);
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
    }
}

fn record(change: &Change, names: &Names, state: &StateHandle) {
    let after_ms = change.after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    let Change { group, from, to, cause, term, .. } = *change;
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
        text: String::new(),
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
