//! Decides who may own which group, until when. Pure: no socket, clock, disk or random source.
//!
//! # Why two nodes never answer for one address
//!
//! Two nodes and a witness: three voters. Each step rests on the ones above it and names the test that fails when it is
//! wrong; most of them are scenarios of `tests/simulation`, where the engines below run in virtual time beside the real
//! supervisors. With the feature `planted` each rule is left out in turn, and its scenario must turn red.
//!
//! 1. **A voter has one promise per group**, to one life of one node, until a moment on its own clock. Only time, a
//!    release that names life and term, or the secret whose hash it carries ends it: not a higher term, not a refusal.
//!    It binds the addresses, too: one that another configuration has in another group is promised to nobody else.
//!    (`late_release_of_an_earlier_term`, `old_secret_replayed_after_reelection`,
//!    `lease_500_to_100_and_1000_mid_partition`, `vip_changes_group_one_node_away`)
//! 2. **An owner holds its own promise and one other voter's.** Two such pairs out of three share a voter, which would
//!    have promised twice. An owner's own voter is bound as long as its lease, whoever renews it.
//!    (`an_owners_own_voter_is_bound_too`, `two_groups_ack_for_one_only`)
//! 3. **The owner's lease ends before the promises that it rests on.** It counts from before the datagram was sent, the
//!    promise from after it was received, and is longer by a margin that two clocks, each 4 % wrong, do not use up. A
//!    lease that has ended is not revived. (`a_lease_counts_from_when_the_heartbeat_was_sent`,
//!    `a_promise_counts_from_when_the_heartbeat_was_read`, `owner_slow_voter_fast_8_percent`,
//!    `a_lease_that_has_ended_is_never_revived`)
//! 4. **What an earlier life promised is kept.** A voter that starts again votes for nobody, itself included, for as
//!    long as its longest promise may have been; one whose memory is missing waits for both others.
//!    (`restarted_voter_does_not_elect_itself_against_its_forgotten_ack`, `witness_wiped_while_bound`,
//!    `voter_restarted_with_a_shorter_lease_is_silent_for_the_longest_promise`,
//!    `acknowledgements_of_an_earlier_life_do_not_count`)
//! 5. **Terms only order.** A vote is on disk before it is told, no two nodes share a number, and a candidacy that is
//!    over stays so. (`no_vote_is_answered_before_it_is_on_disk`, `no_term_is_used_twice_by_those_who_have_died`,
//!    `delayed_grant_of_a_dead_candidacy`)
//! 6. **A hand-over overlaps nowhere.** An offer breaks no promise; the owner's vote and release leave when its gate is
//!    shut and its addresses are gone. (`an_offer_breaks_no_promise`,
//!    `the_peer_is_told_when_the_gate_is_shut_and_not_before`, `a_grant_is_the_answer_to_a_request_and_counts_from_it`)
//! 7. **Without a lease the kernel is silent**, whoever is frozen or dead: the gate's element runs out a guard before the
//!    lease, a late renewal cannot re-open it, and frames that leave are dropped as well as those that come.
//!    (`both_frozen_then_thawed_mid_renewal`, `winner_frozen_before_first_gate_call`,
//!    `without_a_gate_promises_outlast_the_addresses`; on a real kernel `stale_owner_sends_arp_with_closed_gate`,
//!    `nft_flush_under_load`, `switchover_under_load_counts_failed_requests_and_dark_ms`, and what else is in
//!    `tests/kernel` and `tests/e2e`)
//! 8. **A crash notice is a proof.** The supervisor tells the secret when the worker is dead and no address is left.
//!    (`no_notice_while_the_worker_may_live`, `whatever_happens_a_notice_means_dead_and_gone`)
//! 9. **Voters change by steps whose quorums share a node** ([`voters`]), and no lease outlives the second step that
//!    rests on what was before the first. Promises belong to a voter, not to a set, so a change ends none; only what was
//!    said in the same set counts; one node chooses each set, and has written it down before it tells of it. A third
//!    voter votes in a set when both nodes have told it that they stand there, and their terms.
//!    (`a_lease_on_the_old_witness_is_waited_for`, `witness_changed_owner_cut_in_between`,
//!    `terms_are_told_to_the_new_witness`, `who_does_not_choose_changes_nothing_by_itself`,
//!    `coordinator_dies_at_each_step_of_a_change`, `a_disk_is_lost_at_each_step_of_a_change`,
//!    `one_node_grows_to_two_and_back`)
//!
//! Whatever else goes wrong at once is tried by seeds (`at_most_one_node_answers_whatever_happens_and_one_does_when_it_is_over`),
//! and every order of losses, delays, deaths and moves, within small bounds, by a model checker (`tests/model`).
//!
//! Without a third machine each node has a third voter of its own ([`arbiter`]), so step 2 does not hold: {node, its voter}
//! and {peer, its voter} share nobody. In its place: such a voter gives no vote while the peer is heard
//! (`time_in_which_a_node_slept_is_no_silence_of_its_peer`), and when it is lost, only if it is confirmed off or has ended
//! in order (`with_an_honest_fence_device_at_most_one_node_answers_whatever_happens`), or nobody answers for the addresses
//! (`while_the_network_of_the_addresses_is_whole_at_most_one_node_answers_for_them`). All other steps hold as they are.
//!
//! Outside the argument: a hypervisor that stops a guest's clock (the old owner may answer after it resumes, until its
//! next heartbeat is refused: `vm_pause_clock_stops_yields_on_first_refusal`), a machine that goes back to a snapshot,
//! a copy of a machine that runs beside it, and whoever has the cluster's secret.

/// Whether a known fault is planted into this thread's engines: `false` unless the feature `planted` is on.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($fault:ident) => {
        $crate::cluster::planted::active($crate::cluster::planted::Planted::$fault)
    };
}
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($fault:ident) => {
        false
    };
}

pub mod arbiter;
pub mod desk;
pub mod engine;
pub mod event;
pub mod input;
pub mod intent;
pub mod lateness;
pub mod message;
pub mod name;
pub mod normal;
#[cfg(feature = "planted")]
pub mod planted;
pub mod replay;
pub mod session;
pub mod timing;
pub mod voter;
pub mod voters;
pub mod witness;

pub use arbiter::{Arbiter, Errand, Fact, OffBy, Rules, Sight, Stand, Way};
pub use engine::{Engine, GroupSetup, Obstacle, Setup, View};
pub use event::{Cause, Event};
pub use input::{Action, Command, CommandId, CommandRefusal, Input};
pub use intent::{Claim, Intent, Intents, Layers, Report};
pub use lateness::Lateness;
pub use message::{Envelope, Fitness, LinkSet, Message};
pub use name::{AddressMark, GroupName, Incarnation, Member, Name, STATE_GROUP, Secret, SecretHash, Term};
pub use session::{Sessions, Verdict};
pub use timing::Timing;
pub use voter::{Bid, Identity, Memory, Voter};
pub use voters::{Members, SetTag, Sets, Stance, Third, VoterSet};
pub use witness::{Witness, WitnessAction};
