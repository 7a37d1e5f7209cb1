//! What happened, and why: one enum for the log, the history, the metrics and the tests.

use super::name::{GroupName, Member, Term};
use super::voters::Members;
use crate::time::Duration;
use serde::{Deserialize, Serialize};

/// Why a group changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody owned it.
    Vacant,
    /// The promise to the former owner ran out.
    PeerLeaseExpired,
    /// The former owner's supervisor said that its worker is dead and its addresses are gone.
    PeerDied,
    /// The former owner let go and said so.
    PeerReleased,
    /// The former owner handed it over.
    HandedOver,
    /// An operator moved it.
    Switchover,
    /// An operator put this node in standby.
    Standby,
    /// This node is being stopped.
    Stopping,
    /// No voter confirmed the lease in time.
    LeaseExpired,
    /// A voter is bound to another owner in a higher term.
    HigherTerm,
    /// This node should not serve while the other can.
    Unfit,
    /// This node cannot serve.
    Unable,
    /// This process did not run for longer than a lease.
    Froze,
    /// The kernel side let go by itself.
    LetGo,
    /// The supervisor is gone.
    SupervisorGone,
}

impl Cause {
    /// The word used in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vacant => "vacant",
            Self::PeerLeaseExpired => "peer_lease_expired",
            Self::PeerDied => "peer_died",
            Self::PeerReleased => "peer_released",
            Self::HandedOver => "handed_over",
            Self::Switchover => "switchover",
            Self::Standby => "standby",
            Self::Stopping => "stopping",
            Self::LeaseExpired => "lease_expired",
            Self::HigherTerm => "higher_term",
            Self::Unfit => "unfit",
            Self::Unable => "unable",
            Self::Froze => "froze",
            Self::LetGo => "let_go",
            Self::SupervisorGone => "supervisor_gone",
        }
    }
}

/// What happened, in the past tense.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// This node became the owner of a group.
    Acquired {
        /// The group.
        group: GroupName,
        /// The new term.
        term: Term,
        /// Why.
        cause: Cause,
        /// Since the former owner was last heard to claim it, if it ever was.
        after: Option<Duration>,
    },
    /// This node stopped being the owner.
    Lost {
        /// The group.
        group: GroupName,
        /// The term that ended.
        term: Term,
        /// Why.
        cause: Cause,
    },
    /// A move that was begun was given up; this node is the owner still.
    MoveFailed {
        /// The group.
        group: GroupName,
        /// Why.
        why: &'static str,
    },
    /// A member is heard (again).
    Heard(Member),
    /// A member is not heard any more.
    Silent(Member),
    /// A candidacy ended without enough votes.
    NotElected {
        /// The group.
        group: GroupName,
        /// The term asked for.
        term: Term,
    },
    /// The voter has its memory back from the others.
    Recovered,
    /// The engine was called later than the lease is long: the process did not run. Whatever it owned it has lost.
    Froze {
        /// How late: for so long at least it did not run.
        late: Duration,
    },
    /// The engine was called so late that the lease is too short for this machine.
    Late {
        /// How late.
        late: Duration,
    },
    /// Other voters are in force.
    VotersChanged {
        /// The generation.
        generation: u32,
        /// Who voted.
        from: Members,
        /// Who votes.
        to: Members,
    },
    /// The peer is further than this node ever heard of: what this node remembers is that of an earlier time, and does
    /// not count.
    RolledBack,
}
