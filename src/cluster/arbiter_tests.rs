//! The rules of a voter of one's own, each with a few words said to it.

use super::*;

const PEER: Identity = Identity { member: Member::First, incarnation: Incarnation(1), hash: None };

fn name(text: &str) -> GroupName {
    GroupName::new(text).unwrap()
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000_000 + ms)
}

/// The second node's, with two groups, which has heard its peer a moment ago.
fn arbiter(way: Way) -> Arbiter {
    let groups = ["web", "mail", "state"].map(|group| (name(group), group != "state")).to_vec();
    let lease = Duration::from_millis(500);
    let boot_wait = Duration::from_secs(30);
    let rules = Rules { me: Member::Second, way, lease, since: at(0), boot_wait, groups };
    let mut arbiter = Arbiter::new(at(0), rules);
    arbiter.heard(at(0), PEER, &Message::Hello);
    arbiter
}

fn ask(arbiter: &mut Arbiter, now: Instant, group: &str) -> Answer {
    let hold = Duration::from_millis(550);
    let request = Request {
        seq: 1,
        group: name(group),
        term: Term(2),
        hold,
        hash: None,
        secrets: Vec::new(),
        fit: true,
        addresses: Vec::new(),
    };
    match arbiter.said(now, &Message::PreVote(request)) {
        Some(Message::PreVoteAnswer(answer)) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

/// Asks for both groups each 10 ms, and looks each 100 ms as the shell does, with `sight` each time.
fn look(arbiter: &mut Arbiter, from: u64, to: u64, sight: &Sight) -> [bool; 2] {
    let mut looking = false;
    let mut granted = [false; 2];
    for ms in (from..to).step_by(10) {
        granted = ["web", "mail"].map(|group| ask(arbiter, at(ms), group).granted);
        looking |= arbiter.take_errand() == Some(Errand::Look);
        if looking && ms % 100 == 0 {
            looking = arbiter.told(at(ms), Fact::Sight(sight.clone()));
        }
    }
    granted
}

#[test]
fn a_group_for_which_somebody_answers_is_refused_and_another_is_not() {
    let mut arbiter = arbiter(Way::None);
    let answered = BTreeMap::from([(name("web"), "somebody".to_owned())]);
    assert_eq!(look(&mut arbiter, 0, 2_000, &Sight { answered, ..Sight::default() }), [false, true]);
    assert!(ask(&mut arbiter, at(2_000), "web").bound && !ask(&mut arbiter, at(2_000), "mail").bound);
    assert!(!ask(&mut arbiter, at(2_000), "state").granted, "who answers for any may write the state");
}

#[test]
fn an_old_look_is_worth_nothing() {
    let mut arbiter = arbiter(Way::None);
    assert_eq!(look(&mut arbiter, 0, 2_000, &Sight::default()), [true, true]);
    assert!(ask(&mut arbiter, at(2_050), "web").granted);
    assert!(!ask(&mut arbiter, at(2_400), "web").granted);
}

#[test]
fn time_in_which_a_node_slept_is_no_silence_of_its_peer() {
    for way in [Way::None, Way::Fence { head_start: Duration::ZERO }] {
        let mut arbiter = arbiter(way);
        ask(&mut arbiter, at(100), "web");
        // It was frozen for ten seconds; what the peer said meanwhile is read a little later.
        for ms in (10_100..11_500).step_by(100) {
            assert!(!ask(&mut arbiter, at(ms), "web").granted);
            assert_ne!(arbiter.take_errand(), Some(Errand::Shoot), "{way:?} at {ms}");
            assert_eq!(arbiter.stand(at(ms)), Stand::PeerHeard);
        }
    }
}

#[test]
fn a_gateway_that_does_not_answer_and_trouble_with_looking_are_no_silence() {
    let mut lone = arbiter(Way::Gateway { need: 2 });
    assert_eq!(look(&mut lone, 0, 2_000, &Sight { gateways: 1, ..Sight::default() }), [false, false]);
    let mut seen = arbiter(Way::Gateway { need: 2 });
    assert_eq!(look(&mut seen, 0, 2_000, &Sight { gateways: 2, ..Sight::default() }), [true, true]);
    let mut blind = arbiter(Way::None);
    let trouble = Some("no such interface".to_owned());
    assert_eq!(look(&mut blind, 0, 2_000, &Sight { trouble, ..Sight::default() }), [false, false]);
}

#[test]
fn an_answer_drives_no_terms_up_and_an_operators_word_is_for_fencing() {
    let mut arbiter = arbiter(Way::None);
    assert_eq!(ask(&mut arbiter, at(10), "web").highest, Term(0));
    assert_eq!(arbiter.confirm_fenced(at(60_000)), Err(Unasked::NoFence));
}
