//! What the engines say to each other. What is said to one member at one instant travels in one datagram.

use super::name::{AddressMark, GroupName, Incarnation, Secret, SecretHash, Term};
use super::voter::Bid;
use super::voters::{SetTag, Stance};
use crate::{limits::LINKS_MAX, time::Duration};
use serde::{Deserialize, Serialize};

/// A message with what every message carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The incarnation of the receiver that the sender believes in. Without the right one nothing is delivered.
    pub echo: Option<Incarnation>,
    /// The sender's voter set; only what was said in the same one counts.
    pub voters: SetTag,
    /// The links on which the sender has lately heard the receiver. For people alone: nothing is decided by it.
    pub heard: LinkSet,
    /// The messages, in the order in which they were said.
    pub messages: Vec<Message>,
}

/// Some of the links between the nodes, as one byte. Any byte is one: links that do not exist are nobody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSet(u8);

impl LinkSet {
    /// Whether the link is in it.
    #[must_use]
    pub const fn contains(self, link: usize) -> bool {
        link < LINKS_MAX && self.0 & (1 << link) != 0
    }
}

impl FromIterator<usize> for LinkSet {
    /// Links beyond [`LINKS_MAX`] are left out.
    fn from_iter<I: IntoIterator<Item = usize>>(links: I) -> Self {
        Self(links.into_iter().filter(|link| *link < LINKS_MAX).fold(0, |set, link| set | 1 << link))
    }
}

/// Numbers what is sent by one incarnation: each datagram to a member has its own.
pub type Seq = u64;

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Nothing but the echo: "I have heard of your incarnation".
    Hello,
    /// A node's word each interval, to peer and witness alike.
    Heartbeat(Heartbeat),
    /// The voter's answer to a heartbeat.
    Ack(Ack),
    /// Would you vote for me? Changes nothing.
    PreVote(Request),
    /// The answer to a pre-vote.
    PreVoteAnswer(Answer),
    /// Vote for me.
    Vote(Request),
    /// The answer to a vote request.
    VoteAnswer(Answer),
    /// The owner of the group in this term wants the receiver to ask it, and nobody else, for its vote.
    Offer {
        /// The group.
        group: GroupName,
        /// The owner's term.
        term: Term,
    },
    /// An operator at the sender wants the receiver to hand the group over to the sender.
    Ask {
        /// The group.
        group: GroupName,
        /// Even if the sender is unfit.
        force: bool,
    },
    /// Where the sender stands in a change of voters; it counts between different sets, too.
    Voters(Box<Stance>),
}

impl Message {
    /// It has an effect although its sender stands in another voter set.
    #[must_use]
    pub const fn counts_between_sets(&self) -> bool {
        matches!(self, Self::Voters(_))
    }
}

/// How far a node can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fitness {
    /// It can.
    Fit,
    /// It should not while another can: its web tier does not answer.
    Unfit,
    /// It must not: no carrier, no store, a stop failed.
    Unable,
}

/// A node's word each interval.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Number of this datagram.
    pub seq: Seq,
    /// How long the voter is asked to promise: lease + margin.
    pub hold: Duration,
    /// Hash of the secret whose disclosure ends the promise.
    pub hash: Option<SecretHash>,
    /// How far the sender can serve.
    pub fitness: Fitness,
    /// The operator wants the sender to own nothing.
    pub standby: bool,
    /// This life of the sender is ending in order: it holds nothing, and never will again.
    pub leaving: bool,
    /// Digest of what both nodes must have alike in their configurations.
    pub config: u64,
    /// What memory the sender's voter has.
    pub recall: Recall,
    /// One line per group.
    pub groups: Vec<GroupLine>,
}

/// What one node says of one group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupLine {
    /// The group.
    pub name: GroupName,
    /// The term in which the sender owns it.
    pub owned: Option<Term>,
    /// The witness has confirmed the sender in that term.
    pub witnessed: bool,
    /// The last term that this incarnation of the sender owned and gave up, addresses gone.
    pub released: Option<Term>,
    /// The highest term that the sender has heard of.
    pub highest: Term,
    /// The addresses of the group, if the sender owns it.
    pub addresses: Vec<AddressMark>,
}

/// What memory a voter has of its promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Recall {
    /// It knows all it ever promised.
    Kept,
    /// It knows that it never promised anything.
    Blank,
    /// Its memory is missing, and in this life it has promised nothing.
    LostBlank,
    /// Its memory is missing.
    Lost,
}

impl Request {
    /// What is asked for.
    #[must_use]
    pub fn bid(&self) -> Bid<'_> {
        Bid { group: self.group, term: self.term, hold: self.hold, addresses: &self.addresses }
    }
}

impl Recall {
    /// The memory is missing.
    #[must_use]
    pub const fn lost(self) -> bool {
        matches!(self, Self::Lost | Self::LostBlank)
    }

    /// As far as the voter knows, it never promised anything.
    #[must_use]
    pub const fn blank(self) -> bool {
        matches!(self, Self::Blank | Self::LostBlank)
    }
}

/// The voter's answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ack {
    /// Number of the heartbeat.
    pub seq: Seq,
    /// What memory the voter has.
    pub recall: Recall,
    /// One line per group that the heartbeat names.
    pub groups: Vec<AckLine>,
}

/// What a voter says of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AckLine {
    /// The group.
    pub name: GroupName,
    /// The highest term that the voter has heard of.
    pub highest: Term,
    /// What became of the claim in the heartbeat; `None` if there was none, or no answer can be given now.
    pub verdict: Option<AckVerdict>,
    /// A fit node was lately refused this group.
    pub wanted: bool,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AckVerdict {
    /// Promised, in this term.
    Promised(Term),
    /// Refused; the voter is bound in the second term to another incarnation (or knows the first to be over).
    Refused(Term, Term),
}

/// A request for a vote, or for a word on how a vote would go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Number of this datagram.
    pub seq: Seq,
    /// The group.
    pub group: GroupName,
    /// The term asked for.
    pub term: Term,
    /// How long the voter is asked to promise.
    pub hold: Duration,
    /// Hash of the candidate's secret.
    pub hash: Option<SecretHash>,
    /// Secrets of dead incarnations that the candidate has learnt: they end promises.
    pub secrets: Vec<Secret>,
    /// The candidate is fit (an unfit one asks only when nobody else does).
    pub fit: bool,
    /// The addresses of the group.
    pub addresses: Vec<AddressMark>,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the request.
    pub seq: Seq,
    /// The group.
    pub group: GroupName,
    /// The term that was asked for.
    pub term: Term,
    /// Yes or no.
    pub granted: bool,
    /// The highest term that the voter has heard of.
    pub highest: Term,
    /// The last term in which the voter itself owned the group, and gave it up.
    pub released: Option<Term>,
    /// A promise to somebody else runs, for the group or for one of its addresses.
    pub bound: bool,
}
