//! Planted faults that take more than a word: see [`crate::cluster::planted`].

use super::Engine;
use super::group::{Role, Stage};
use crate::cluster::desk::Purpose;
use crate::cluster::event::Cause;
use crate::cluster::message::{Ack, AckLine, AckVerdict, Answer, Heartbeat, Request};
use crate::cluster::name::{GroupName, Term};
use crate::cluster::planted::{Planted, active};
use crate::cluster::voter::Identity;

impl Engine {
    /// An acknowledgement as one reads it who does not look at groups and terms.
    pub(super) fn planted_ack(&self, ack: &Ack) -> Ack {
        if !active(Planted::AckForAll) && !active(Planted::OldAcksCount) {
            return ack.clone();
        }
        let owned = self.groups.values().filter_map(|g| self.owned(g.name).map(|(term, _)| (g.name, term)));
        let groups = owned.map(|(name, term)| AckLine {
            name,
            highest: Term(0),
            verdict: Some(AckVerdict::Promised(term)),
            wanted: false,
        });
        Ack { seq: ack.seq, recall: ack.recall, groups: groups.collect() }
    }

    /// A heartbeat as one reads it who takes his own lease for everybody's.
    pub(super) fn planted_hold(&self, heartbeat: &Heartbeat) -> Heartbeat {
        let hold = if active(Planted::VotersOwnLease) { self.setup.timing.hold() } else { heartbeat.hold };
        Heartbeat { hold, ..heartbeat.clone() }
    }

    /// Hands over without an offer and without being asked. Whether this is how it is done.
    pub(super) fn planted_unasked(&mut self, name: GroupName) -> bool {
        if !active(Planted::UnaskedRelease) {
            return false;
        }
        let to = self.setup.me.member.peer().and_then(|peer| self.remote(peer).identity);
        let (Some(to), Some(Stage::Offering { next, .. })) = (to, self.stage(name).cloned()) else { return true };
        if self.desk.busy() {
            return true;
        }
        let term = Term(self.desk.voter.highest(name).0 + 1);
        let request = Request {
            seq: 0,
            group: name,
            term,
            hold: self.setup.timing.hold(),
            hash: None,
            secrets: Vec::new(),
            fit: true,
            addresses: Vec::new(),
        };
        if self.desk.voter.record_vote(self.now, to, name, term).is_ok()
            && let Some(stage) = self.stage(name)
        {
            *stage = Stage::Writing { to, request: Box::new(request), next };
            self.desk.begin(Purpose::HandOver(name, term));
        }
        true
    }

    /// Takes a group that it did not ask for. Whether it did.
    pub(super) fn planted_take_unasked(&mut self, from: Identity, answer: &Answer) -> bool {
        let idle = matches!(self.groups.get(&answer.group).map(|g| &g.role), Some(Role::Standby | Role::PreVote(_)));
        if !active(Planted::UnaskedRelease) || !answer.granted || answer.seq != 0 || !idle {
            return false;
        }
        let end = self.now + self.setup.timing.lease;
        self.win(from.member, answer.group, answer.term, (end, Cause::HandedOver));
        true
    }
}
