//! What goes over the admin API. Fields are only ever added.

use crate::{
    cluster::{Fitness, GroupName, Layers, Name, Term, engine::RoleView},
    replicate, web,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// How a node is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: Name,
    /// This node's name.
    pub node: Name,
    /// Version of the program.
    pub version: String,
    /// Seconds since the worker started.
    pub uptime_secs: u64,
    /// How far this node can serve.
    #[serde(with = "lower")]
    pub fitness: Fitness,
    /// Why it is not fit.
    pub unfit_because: Vec<String>,
    /// The operator wants this node to own nothing.
    pub standby: bool,
    /// The groups; the implicit `state` is among them.
    pub groups: Vec<Group>,
    /// Other machines that lately said that they have an address of ours.
    #[serde(default)]
    pub claims: Vec<Claimed>,
    /// The other node.
    pub peer: Peer,
    /// The third voter.
    pub witness: Remote,
    /// What decides when the nodes do not see each other: witness, etcd, fence, gateway, none.
    pub tiebreak: String,
    /// Where things stand with a tiebreak that is no third machine's.
    #[serde(default)]
    pub tiebreak_state: TiebreakState,
    /// Who votes.
    #[serde(default)]
    pub voters: Voters,
    /// The links to the peer.
    pub links: Vec<Link>,
    /// Which layers of the kernel-enforced lease are in force.
    pub layers: Layers,
    /// What this node's voter can do.
    pub voter: Voter,
    /// Lease, in milliseconds.
    pub lease_ms: u64,
    /// Interval, in milliseconds.
    pub interval_ms: u64,
    /// How late the cluster thread was ever called, in milliseconds: compare it with the lease.
    pub worst_tick_ms: f64,
    /// How late it was called in the last ten minutes.
    #[serde(default)]
    pub recent_tick_ms: f64,
    /// Datagrams that had no effect, by reason.
    pub refused: BTreeMap<String, u64>,
    /// The replicated state.
    pub state: replicate::View,
    /// The web tier.
    pub web: web::View,
    /// What is wrong and what to do, for people.
    pub advice: Vec<String>,
}

/// One group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Who owns it, as far as this node knows.
    pub owner: Option<Name>,
    /// What this node is to it.
    pub role: RoleView,
    /// The term.
    pub term: Term,
    /// Milliseconds that are left of this node's lease.
    pub lease_left_ms: Option<u64>,
    /// Seconds since this node owns it.
    pub for_secs: Option<u64>,
    /// The lease rests on the witness.
    pub witnessed: bool,
    /// Its addresses, and their interfaces.
    pub vips: Vec<String>,
}

/// Another machine that says that it has an address which this node holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claimed {
    /// The group.
    pub group: GroupName,
    /// The address.
    pub address: IpAddr,
    /// The hardware address of the other machine.
    pub mac: String,
    /// Milliseconds since this was told. It is told at the first claim, and once a minute while it goes on.
    pub ago_ms: u64,
}

/// The other node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: Name,
    /// Heartbeats come.
    pub connected: bool,
    /// How far it can serve, by its own word.
    #[serde(with = "lower_option")]
    pub fitness: Option<Fitness>,
    /// It is in standby.
    pub standby: bool,
    /// It runs the same configuration, where both must agree.
    pub config_agrees: bool,
    /// Round trip, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Milliseconds since it was last heard.
    pub heard_ms: Option<u64>,
}

/// The third voter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remote {
    /// Its name.
    pub name: Name,
    /// It answers.
    pub connected: bool,
    /// Round trip, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Milliseconds since it was last heard.
    pub heard_ms: Option<u64>,
    /// The ways to it.
    #[serde(default)]
    pub ways: Vec<WitnessWay>,
}

/// Where things stand with a tiebreak that is no third machine's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TiebreakState {
    /// What it does not protect from; nothing if both nodes never answer at once.
    pub caveat: Option<String>,
    /// Where things stand while the peer is not heard; nothing if a third machine votes.
    pub stand: Option<String>,
    /// What a person must do, or look at.
    pub needs: Option<String>,
}

/// Who votes: the set in force, as the promise file says, and the one that the configuration wants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Voters {
    /// Grows with each step of a change.
    pub generation: u32,
    /// Who votes.
    pub in_force: String,
    /// Who is to vote, if those are others.
    pub wanted: Option<String>,
    /// What the next step waits for.
    pub waits_for: Option<String>,
    /// What a person must mend for it.
    pub needs: Option<String>,
    /// One node votes alone.
    pub alone: bool,
}

/// `POST /v1/confirm-fenced`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfirmFenced {
    /// The node that is off.
    pub node: Name,
}

/// One link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    /// Its number, in the order of the configuration, from 1.
    #[serde(default)]
    pub number: usize,
    /// Our address.
    pub from: String,
    /// The peer's.
    pub to: String,
    /// It carries in both directions.
    pub up: bool,
    /// Milliseconds since the peer was last heard on it.
    pub heard_ms: Option<u64>,
    /// What the peer says arrives here.
    #[serde(default)]
    pub from_peer: Direction,
    /// What this node says arrives at the peer, by the peer's own word.
    #[serde(default)]
    pub to_peer: Direction,
}

/// One direction of a link, or of a way to the witness and back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Whether what is said arrives.
    pub carries: Carries,
    /// Milliseconds since it is known that something arrived.
    pub carried_ms: Option<u64>,
    /// How often it was lost since the worker started.
    pub losses: u32,
    /// It was lost, carries again, and not yet for long enough to be counted on.
    pub unsteady: bool,
}

/// Whether what is said in a direction arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carries {
    /// Nobody tells: the other side is not heard at all.
    #[default]
    Unknown,
    /// It does.
    Yes,
    /// It does not, while the other side is heard.
    No,
}

/// An address of the witness.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WitnessWay {
    /// The address.
    pub to: String,
    /// Its answers: it answers on each way on which it hears this node.
    pub answers: Direction,
}

/// What this node's voter can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Voter {
    /// It gives no votes for so many milliseconds more.
    pub silent_ms: Option<u64>,
    /// Its memory is missing: it waits until both others have told theirs.
    pub lost: bool,
}

/// `POST /v1/switchover`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Switchover {
    /// The group.
    pub group: GroupName,
    /// The node that is to own it.
    pub to: Option<Name>,
    /// Even to a node that is not fit.
    pub force: bool,
}

/// `POST /v1/standby`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetStandby {
    /// The node; this one if left out.
    pub node: Option<Name>,
    /// Whether it is to own nothing.
    pub on: bool,
    /// Even if nobody is left to own the groups.
    pub force: bool,
}

/// The answer to a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changed {
    /// What was done, for people.
    pub text: String,
    /// The change is on both nodes' disks; if it is one that is written.
    pub replicated: Option<bool>,
}

/// The answer to what could not be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    /// What could not be done, and why.
    pub error: String,
}

mod lower {
    use super::Fitness;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn word(fitness: Fitness) -> &'static str {
        match fitness {
            Fitness::Fit => "fit",
            Fitness::Unfit => "unfit",
            Fitness::Unable => "unable",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Fitness> {
        [Fitness::Fit, Fitness::Unfit, Fitness::Unable].into_iter().find(|f| self::word(*f) == word)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(fitness: &Fitness, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(word(*fitness))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Fitness, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("unknown fitness {text:?}")))
    }
}

mod lower_option {
    use super::{Fitness, lower};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(fitness: &Option<Fitness>, to: S) -> Result<S::Ok, S::Error> {
        fitness.map(lower::word).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Fitness>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|t| lower::parse(&t).ok_or_else(|| D::Error::custom(format!("unknown fitness {t:?}")))).transpose()
    }
}
