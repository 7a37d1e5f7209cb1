//! A copy of what the engine knows, for people.

use super::Engine;
use super::Obstacle;
use super::group::{Role, Stage};
use crate::cluster::message::{Fitness, Recall};
use crate::cluster::name::{GroupName, Member, Term};
use crate::cluster::voters::{Members, Sets};
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

/// What a node is to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleView {
    /// It owns it.
    Active,
    /// It owns it, and hands it over.
    Leaving,
    /// The other owns it, or nobody.
    Standby,
    /// It asks for votes.
    Candidate,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its name.
    pub name: GroupName,
    /// What this node is to it.
    pub role: RoleView,
    /// Who owns it, as far as this node knows.
    pub owner: Option<Member>,
    /// The owner's term; else the highest heard of.
    pub term: Term,
    /// The end of this node's lease.
    pub lease_until: Option<Instant>,
    /// Since when this node owns it.
    pub since: Option<Instant>,
    /// The lease rests on the witness.
    pub witnessed: bool,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Who.
    pub member: Member,
    /// It is heard now.
    pub heard: bool,
    /// When it was last heard.
    pub heard_at: Option<Instant>,
    /// Round trip of the newest acknowledgement.
    pub round_trip: Option<Duration>,
    /// How far it can serve, by its own word.
    pub fitness: Option<Fitness>,
    /// It is in standby.
    pub standby: bool,
    /// A node: its configuration is like ours where it must be.
    pub config_agrees: bool,
}

/// What the engine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// When.
    pub at: Instant,
    /// This node.
    pub me: Member,
    /// The groups.
    pub groups: Vec<GroupView>,
    /// The others.
    pub members: Vec<MemberView>,
    /// How far this node can serve.
    pub fitness: Fitness,
    /// This node is in standby.
    pub standby: bool,
    /// This node gives no vote before this.
    pub silent_until: Option<Instant>,
    /// What memory this node's voter has.
    pub recall: Recall,
    /// Who votes.
    pub sets: Sets,
    /// Who is to vote, as the configuration says.
    pub wanted: Members,
    /// What a change of voters waits for.
    pub obstacle: Option<Obstacle>,
    /// How late the engine was ever called.
    pub worst_late: Duration,
    /// How late it was called in the last minutes.
    pub recent_late: Duration,
    /// It is being stopped.
    pub stopping: bool,
}

impl Engine {
    /// A copy for people.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            at: self.now,
            me: self.setup.me.member,
            groups: self.groups.keys().map(|name| self.group_view(*name)).collect(),
            members: self.setup.me.member.others().map(|m| self.member_view(m)).to_vec(),
            fitness: self.fitness(),
            standby: self.standby,
            silent_until: self.desk.voter.silent(self.now).then(|| self.desk.voter.silent_until()),
            recall: self.recall(),
            sets: self.desk.voter.sets().clone(),
            wanted: self.setup.wanted.clone(),
            obstacle: self.obstacle(),
            worst_late: self.lateness.worst(),
            recent_late: self.lateness.recent(self.now),
            stopping: self.stopping.is_some(),
        }
    }

    fn group_view(&self, name: GroupName) -> GroupView {
        let peer_claim = self.peer_word().and_then(|w| w.lines.get(&name)).and_then(|l| l.owned);
        let mut view = GroupView {
            name,
            role: RoleView::Standby,
            owner: peer_claim.and(self.setup.me.member.peer()),
            term: peer_claim.unwrap_or(self.desk.voter.highest(name)),
            lease_until: None,
            since: None,
            witnessed: false,
        };
        match self.groups.get(&name).map(|g| &g.role) {
            Some(Role::Owner(owner)) => {
                let leaving = owner.leaving.as_ref().is_some_and(|h| !matches!(h.stage, Stage::Draining { .. }));
                view.role = if leaving { RoleView::Leaving } else { RoleView::Active };
                view.owner = Some(self.setup.me.member);
                view.term = owner.term;
                view.lease_until = Some(owner.end);
                view.since = Some(owner.since);
                view.witnessed = owner.witnessed;
            }
            Some(Role::Candidate(_) | Role::Taking(_)) => view.role = RoleView::Candidate,
            Some(Role::Standby | Role::PreVote(_)) | None => {}
        }
        view
    }

    fn member_view(&self, member: Member) -> MemberView {
        let remote = self.remote(member);
        MemberView {
            member,
            heard: remote.heard,
            heard_at: remote.heard_at,
            round_trip: remote.round_trip,
            fitness: remote.word.as_ref().map(|w| w.fitness),
            standby: remote.word.as_ref().is_some_and(|w| w.standby),
            config_agrees: remote.word.as_ref().is_none_or(|w| w.config == self.setup.config),
        }
    }
}
