//! Known faults, one of which can be planted into this thread's engines to show that the simulator finds it.
//!
//! Only with the feature `planted`; without it [`planted!`] is the constant `false` and nothing of this is compiled.
//! Each variant names a rule that is left out.

use std::cell::Cell;

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// An owner's own voter stays free for others.
    OwnVoterFree,
    /// A voter is not silent after a start.
    CampaignInSilence,
    /// A lease counts from the receipt of the acknowledgement.
    LeaseFromAck,
    /// A lease counts from the receipt of the grant.
    LeaseFromGrant,
    /// An acknowledgement extends a lease that has ended.
    EndedLeaseRevived,
    /// An acknowledgement counts for every group of the heartbeat, in whatever term.
    AckForAll,
    /// Acknowledgements of an earlier life count, by their number alone.
    OldAcksCount,
    /// A grant counts after its candidacy is dead.
    LateGrantCounts,
    /// A vote is not written down.
    VoteNotPersisted,
    /// A vote is answered before it is on disk.
    AnswerBeforePersist,
    /// Who is offered a group drops its promise to the owner.
    OfferBreaksPromise,
    /// The owner hands over in a message that nobody asked for.
    UnaskedRelease,
    /// The owner releases before its addresses are gone.
    ReleaseBeforeShut,
    /// A release ends a promise in whatever term.
    ReleaseByNode,
    /// Any secret ends any promise that carries a hash.
    AnySecret,
    /// The release notice goes out before the worker is dead and its addresses are gone.
    NoticeBeforeDeath,
    /// The gate is renewed by a plain add (planted in the simulator's keeper).
    GatePlainAdd,
    /// A node promises for as long as its own lease says.
    VotersOwnLease,
    /// A shorter hold shortens a promise that runs.
    PromiseShortened,
    /// The margin is one per cent.
    FactorTooSmall,
    /// A voter without its memory votes at once.
    WipedVotes,
    /// The clock is read before a datagram is received (planted in the simulator's driver).
    ClockBeforeReceive,
    /// Without a gate, promises are no longer than with one.
    NoGateSameHold,
    /// Silence lasts as long as the present configuration says.
    SilenceByPresentLease,
    /// An acknowledgement extends by the lease of now, not by that of the heartbeat.
    AckByNewLease,
    /// A promise binds a group by its name, and its addresses for nobody.
    AddressesFree,
    /// A third voter is replaced in one step.
    OnePhaseChange,
    /// The pair is left before the leases of before it are over.
    SecondStepAtOnce,
    /// Terms are learnt from nobody's word.
    TermsNotTold,
    /// A node that is not the coordinator changes the voters by itself.
    PeerChooses,
    /// A third voter counts where there is none, and in another set.
    ThirdCountsInPair,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::OwnVoterFree,
        Self::CampaignInSilence,
        Self::LeaseFromAck,
        Self::LeaseFromGrant,
        Self::EndedLeaseRevived,
        Self::AckForAll,
        Self::OldAcksCount,
        Self::LateGrantCounts,
        Self::VoteNotPersisted,
        Self::AnswerBeforePersist,
        Self::OfferBreaksPromise,
        Self::UnaskedRelease,
        Self::ReleaseBeforeShut,
        Self::ReleaseByNode,
        Self::AnySecret,
        Self::NoticeBeforeDeath,
        Self::GatePlainAdd,
        Self::VotersOwnLease,
        Self::PromiseShortened,
        Self::FactorTooSmall,
        Self::WipedVotes,
        Self::ClockBeforeReceive,
        Self::NoGateSameHold,
        Self::SilenceByPresentLease,
        Self::AckByNewLease,
        Self::AddressesFree,
        Self::OnePhaseChange,
        Self::SecondStepAtOnce,
        Self::TermsNotTold,
        Self::PeerChooses,
        Self::ThirdCountsInPair,
    ];
}

thread_local! {
    static ACTIVE: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// From now on this thread's engines have this fault, and no other.
pub fn plant(fault: Option<Planted>) {
    ACTIVE.set(fault);
}

/// Whether this thread's engines have this fault.
#[must_use]
pub fn active(fault: Planted) -> bool {
    ACTIVE.get() == Some(fault)
}
