//! Who votes: the set in force, the one that is chosen to follow it, and the steps there are between sets.
//!
//! Rule: one step leads to a neighbour, and quorums of neighbours share a node: {A, B, third} - {A, B} - {A} or {B}. So a
//! third voter is never replaced in one step, and every change passes through the pair, in which both must agree.
//!
//! One node, the coordinator of the set in force, chooses the next set, once, and has its choice on disk before it tells
//! of it; all others follow. So there is one set per generation, whatever crashes. It is the promise file, not the
//! configuration, that says which set is in force; the configuration says which one is wanted.
//!
//! Not here: when a step is taken (`engine::change`), what a promise binds (`voter`).

use super::message::Recall;
use super::name::{GroupName, Member, Name, Term};
use crate::time::Duration;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The voters of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VoterSet {
    /// Grows by one with each step.
    pub generation: u32,
    /// Who votes.
    pub members: Members,
}

/// Who votes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Members {
    /// Both nodes and a third voter: two of three.
    Trio(Third),
    /// Both nodes, and both must agree.
    Pair,
    /// One node, which needs nobody's word. The other one neither owns nor votes.
    Solo(Member),
}

/// Who the third voter is, so that it is found again after the configuration has changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Third {
    /// A witness of our own.
    Witness {
        /// Its name.
        name: Name,
        /// Where it listens; `limits::LINKS_MAX` at most.
        addresses: Vec<SocketAddr>,
    },
    /// An etcd: a digest of what makes it that one.
    Etcd(u64),
    /// A fence device.
    Fence,
    /// Addresses that both need.
    Gateway,
    /// Nobody.
    None,
}

/// What a voter knows of sets, and keeps over its death.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Sets {
    /// The one in force. `None`: of generation 0, as the configurations of the nodes say.
    pub in_force: Option<VoterSet>,
    /// The one that this node has chosen to follow it.
    pub next: Option<VoterSet>,
}

/// What each datagram says of its sender's set: only what was said in the same one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SetTag {
    generation: u32,
    /// Digest of the members; zero if they are not known.
    members: u32,
}

/// Where a node stands: said while sets differ, or one is to follow another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stance {
    /// The set in force at the sender.
    pub in_force: VoterSet,
    /// The set that the sender, its coordinator, has chosen to follow it.
    pub next: Option<VoterSet>,
    /// What memory the sender has, as far as it is on its disk.
    pub recall: Recall,
    /// The longest that any lease of the sender's, or of an earlier life of it, may last that does not rest on the
    /// receiver's promise.
    pub rest: Duration,
    /// Digest of what both nodes must have alike in their configurations.
    pub config: u64,
    /// The third voter that its configuration wants answers it.
    pub ready: bool,
    /// The highest terms that it has heard of.
    pub terms: Vec<(GroupName, Term)>,
}

impl VoterSet {
    /// The first set of a cluster.
    #[must_use]
    pub const fn first(members: Members) -> Self {
        Self { generation: 0, members }
    }

    /// One step from here to `members`.
    #[must_use]
    pub const fn followed_by(&self, members: Members) -> Self {
        Self { generation: self.generation.saturating_add(1), members }
    }

    /// What datagrams of a member of this set carry.
    #[must_use]
    pub fn tag(&self) -> SetTag {
        SetTag { generation: self.generation, members: self.members.digest() }
    }

    /// `next` is a step from here that somebody may have chosen.
    #[must_use]
    pub fn leads_to(&self, next: &Self) -> bool {
        self.generation.checked_add(1) == Some(next.generation)
            && (self.members.is_neighbour(&next.members) || planted!(OnePhaseChange))
    }
}

impl Sets {
    /// What datagrams carry.
    #[must_use]
    pub fn tag(&self) -> SetTag {
        self.in_force.as_ref().map(VoterSet::tag).unwrap_or_default()
    }

    /// The only other voter, where there is one: who has lost its memory asks no third.
    pub(super) fn asks_alone(&self, me: Member) -> Option<Member> {
        let third = self.in_force.as_ref().is_none_or(|set| set.members.third().is_some());
        if third { None } else { me.peer() }
    }
}

impl SetTag {
    /// Whether what was said under the other tag counts here. A third voter of a new cluster does not know of any set.
    #[must_use]
    pub fn counts(self, other: Self) -> bool {
        let unknown = self.members == 0 || other.members == 0;
        self == other || (unknown && self.generation == 0 && other.generation == 0) || planted!(ThirdCountsInPair)
    }
}

impl Members {
    /// There is a third voter.
    #[must_use]
    pub const fn third(&self) -> Option<&Third> {
        match self {
            Self::Trio(third) => Some(third),
            Self::Pair | Self::Solo(_) => None,
        }
    }

    /// Whether the member may own (a node), or vote.
    #[must_use]
    pub fn includes(&self, member: Member) -> bool {
        match self {
            Self::Trio(_) => true,
            Self::Pair => member != Member::Witness,
            Self::Solo(only) => *only == member,
        }
    }

    /// Whether the word of `by`, together with an owner's own promise, is a majority.
    #[must_use]
    pub fn is_enough(&self, by: Member) -> bool {
        match self {
            Self::Trio(_) => true,
            Self::Pair => by != Member::Witness || planted!(ThirdCountsInPair),
            Self::Solo(only) => by == *only,
        }
    }

    /// The node that chooses the next set.
    #[must_use]
    pub const fn coordinator(&self) -> Member {
        match self {
            Self::Trio(_) | Self::Pair => Member::First,
            Self::Solo(only) => *only,
        }
    }

    /// The next step on the way to `wanted`; nothing if it is reached.
    #[must_use]
    pub fn step_toward(&self, wanted: &Self) -> Option<Self> {
        if self == wanted {
            return None;
        }
        if planted!(OnePhaseChange) {
            return Some(wanted.clone());
        }
        Some(match self {
            Self::Trio(_) | Self::Solo(_) => Self::Pair,
            Self::Pair => wanted.clone(),
        })
    }

    fn is_neighbour(&self, other: &Self) -> bool {
        (*self == Self::Pair) != (*other == Self::Pair)
    }

    /// FNV-1a over what both nodes write alike; never zero.
    fn digest(&self) -> u32 {
        let mut sum = Fnv(0x811c_9dc5);
        match self {
            Self::Trio(third) => {
                sum.take(&[1]);
                third.digest(&mut sum);
            }
            Self::Pair => sum.take(&[2]),
            Self::Solo(member) => sum.take(&[3, u8::from(*member == Member::Second)]),
        }
        sum.0.max(1)
    }
}

impl Third {
    fn digest(&self, sum: &mut Fnv) {
        match self {
            Self::Witness { name, addresses } => {
                sum.take(&[1]);
                sum.take(name.as_str().as_bytes());
                for address in addresses {
                    match address.ip() {
                        IpAddr::V4(ip) => sum.take(&ip.octets()),
                        IpAddr::V6(ip) => sum.take(&ip.octets()),
                    }
                    sum.take(&address.port().to_be_bytes());
                }
            }
            Self::Etcd(digest) => {
                sum.take(&[2]);
                sum.take(&digest.to_be_bytes());
            }
            Self::Fence => sum.take(&[3]),
            Self::Gateway => sum.take(&[4]),
            Self::None => sum.take(&[5]),
        }
    }

    /// As people call it.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Witness { name, .. } => name.as_str(),
            Self::Etcd(_) => "etcd",
            Self::Fence => "fence",
            Self::Gateway => "gateway",
            Self::None => "none",
        }
    }
}

struct Fnv(u32);

impl Fnv {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trio(Third::Witness { name, .. }) => write!(f, "both nodes and witness {name}"),
            Self::Trio(third) => write!(f, "both nodes and {}", third.word()),
            Self::Pair => f.write_str("both nodes alone"),
            Self::Solo(Member::First) => f.write_str("the first node alone"),
            Self::Solo(Member::Second | Member::Witness) => f.write_str("the second node alone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(name: &str, address: &str) -> Members {
        let addresses = vec![address.parse().unwrap()];
        Members::Trio(Third::Witness { name: Name::new(name).unwrap(), addresses })
    }

    #[test]
    fn neighbours_share_a_node_in_every_two_quorums_and_others_are_no_step() {
        let w1 = witness("w1", "10.0.0.3:7707");
        let all = [w1.clone(), Members::Trio(Third::None), Members::Pair, Members::Solo(Member::First)];
        for from in &all {
            for to in all.iter().filter(|to| *to != from) {
                let direct = *from == Members::Pair || *to == Members::Pair;
                let set = VoterSet::first(from.clone());
                assert_eq!(set.leads_to(&set.followed_by(to.clone())), direct, "{from} - {to}");
                let step = from.step_toward(to).unwrap();
                assert!(set.leads_to(&set.followed_by(step.clone())), "{from} - {step}");
            }
            assert_eq!(from.step_toward(from), None);
        }
    }

    #[test]
    fn a_set_counts_for_itself_alone() {
        let sets = [witness("w1", "10.0.0.3:7707"), witness("w2", "10.0.0.3:7707"), witness("w1", "10.0.0.3:7708")];
        for (at, one) in sets.iter().enumerate() {
            for (other_at, other) in sets.iter().enumerate() {
                let (one, other) = (VoterSet::first(one.clone()), VoterSet::first(other.clone()));
                assert_eq!(one.tag().counts(other.tag()), at == other_at);
            }
            let set = VoterSet::first(one.clone());
            assert!(set.tag().counts(SetTag::default()), "a third voter of a new cluster knows of no set");
            assert!(!set.followed_by(one.clone()).tag().counts(SetTag::default()));
        }
    }
}
