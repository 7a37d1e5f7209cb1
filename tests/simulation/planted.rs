//! Each known fault, planted into the engine, turns the simulation red: the scenarios named here break a promise with
//! it, and keep all of them without it.
//!
//! `HAWSER_PLANTED_SEEDS=2000` also counts how many seeds find each.

use crate::scenarios::{self as s, Outcome};
use crate::world::{BROKEN, with_each_seed};
use crate::{changes as c, seeds, traces as t};
use hawser::cluster::planted::{Planted, plant};

type Scenario = (&'static str, fn() -> Outcome);

/// Which scenario finds the fault.
fn finder(fault: Planted) -> Scenario {
    match fault {
        Planted::OwnVoterFree => ("an_owners_own_voter_is_bound_too", t::owner_is_asked),
        Planted::CampaignInSilence => {
            ("restarted_voter_does_not_elect_itself_against_its_forgotten_ack", s::restarted_voter)
        }
        Planted::LeaseFromAck => ("a_lease_counts_from_when_the_heartbeat_was_sent", t::slow_acknowledgements),
        Planted::LeaseFromGrant => ("a_lease_counts_from_when_the_granted_request_was_sent", t::slow_grant),
        Planted::EndedLeaseRevived => ("a_lease_that_has_ended_is_never_revived", t::acknowledged_too_late),
        Planted::AckForAll => ("two_groups_ack_for_one_only", s::two_groups),
        Planted::OldAcksCount => {
            ("acknowledgements_of_an_earlier_life_do_not_count", t::acknowledgements_of_an_earlier_life)
        }
        Planted::LateGrantCounts => ("delayed_grant_of_a_dead_candidacy", s::delayed_grant),
        Planted::VoteNotPersisted => ("no_term_is_used_twice_by_those_who_have_died", t::all_who_voted_die),
        Planted::AnswerBeforePersist => {
            ("no_vote_is_answered_before_it_is_on_disk", t::witness_dies_before_its_vote_is_on_disk)
        }
        Planted::OfferBreaksPromise => ("an_offer_breaks_no_promise", t::offer_and_then_nothing),
        Planted::UnaskedRelease => ("a_grant_is_the_answer_to_a_request_and_counts_from_it", t::late_hand_over),
        Planted::ReleaseBeforeShut => {
            ("the_peer_is_told_when_the_gate_is_shut_and_not_before", t::slow_kernel_hands_over)
        }
        Planted::ReleaseByNode => ("late_release_of_an_earlier_term", s::late_release),
        Planted::AnySecret => ("old_secret_replayed_after_reelection", s::old_secret),
        Planted::NoticeBeforeDeath => ("no_notice_while_the_worker_may_live", t::worker_that_does_not_die),
        Planted::GatePlainAdd => ("both_frozen_then_thawed_mid_renewal", s::frozen_mid_renewal),
        Planted::VotersOwnLease => ("voter_with_a_shorter_lease_promises_what_is_asked", s::shorter_lease_at_the_voter),
        Planted::PromiseShortened => ("lease_500_to_100_and_1000_mid_partition", s::lease_changes),
        Planted::FactorTooSmall => ("owner_slow_voter_fast_8_percent", s::clock_rates),
        Planted::WipedVotes => ("witness_wiped_while_bound", s::wiped_witness),
        Planted::ClockBeforeReceive => {
            ("a_promise_counts_from_when_the_heartbeat_was_read", t::heartbeat_waits_for_a_frozen_voter)
        }
        Planted::NoGateSameHold => ("without_a_gate_promises_outlast_the_addresses", t::frozen_without_a_gate),
        Planted::SilenceByPresentLease => (
            "voter_restarted_with_a_shorter_lease_is_silent_for_the_longest_promise",
            s::restarted_with_a_shorter_lease,
        ),
        Planted::AddressesFree => ("vip_changes_group_one_node_away", s::moved_address),
        Planted::AckByNewLease => ("lease_500_to_100_and_1000_mid_partition", s::lease_changes),
        Planted::OnePhaseChange | Planted::SecondStepAtOnce => {
            ("a_lease_on_the_old_witness_is_waited_for", c::lease_on_the_old_witness)
        }
        Planted::TermsNotTold => ("terms_are_told_to_the_new_witness", c::terms_are_told),
        Planted::PeerChooses => ("who_does_not_choose_changes_nothing_by_itself", c::peer_with_another_wish),
        Planted::ThirdCountsInPair => ("witness_changed_owner_cut_in_between", c::cut_in_between),
    }
}

#[test]
fn every_planted_fault_is_found() {
    let more = std::env::var("HAWSER_PLANTED_SEEDS").ok().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    let mut missed = Vec::new();
    for fault in Planted::ALL {
        let (name, scenario) = finder(fault);
        plant(None);
        assert_eq!(with_each_seed(scenario), Ok(()), "{name} without a fault");
        plant(Some(fault));
        let found = with_each_seed(scenario);
        let red = (0..more).filter(|seed| seeds::run(*seed, false).1.is_err()).count();
        plant(None);
        println!("{fault:?}: {name}: {found:?}; {red} of {more} seeds");
        if !found.is_err_and(|why| why.contains(BROKEN)) {
            missed.push((fault, name));
        }
    }
    assert!(missed.is_empty(), "planted, and not found: {missed:?}");
}
