//! The rules of the speaker, each with a few questions to a model of etcd.

use super::*;
use crate::cluster::{Incarnation, Member, Member::*, Name};
use crate::tiebreak::etcd::model::Model;

const LEASE: Duration = Duration::from_millis(500);
const HOLD: Duration = Duration::from_millis(550);
const INTERVAL: Duration = Duration::from_millis(50);

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000_000 + ms)
}

fn web() -> GroupName {
    Name::new("web").unwrap()
}

fn hash(secret: &Secret) -> SecretHash {
    SecretHash(secret.0.map(|byte| byte ^ 0x5a))
}

fn secret(of: Member) -> Secret {
    Secret([u8::try_from(of.index()).unwrap() + 1; 32])
}

fn life(member: Member, number: u128) -> Identity {
    Identity { member, incarnation: Incarnation(number), hash: Some(hash(&secret(member))) }
}

fn speaker(me: Identity) -> Speaker {
    Speaker::new(Setup { me, hash, lease: LEASE, interval: INTERVAL })
}

fn beat(of: Member, seq: u64, owned: Option<u64>) -> Heartbeat {
    let owned = owned.map(Term);
    let line =
        GroupLine { name: web(), owned, witnessed: false, released: None, highest: Term(0), addresses: Vec::new() };
    Heartbeat {
        seq,
        hold: HOLD,
        hash: Some(hash(&secret(of))),
        fitness: Fitness::Fit,
        standby: false,
        leaving: false,
        config: 0,
        recall: Recall::Kept,
        groups: vec![line],
    }
}

fn request(seq: u64, term: u64) -> Request {
    let hash = Some(hash(&secret(if term % 2 == 1 { First } else { Second })));
    Request {
        seq,
        group: web(),
        term: Term(term),
        hold: HOLD,
        hash,
        secrets: Vec::new(),
        fit: true,
        addresses: Vec::new(),
    }
}

/// Asks until nothing more is to be asked now, and what the engine hears of it.
fn settle(speaker: &mut Speaker, etcd: &mut Model, now: Instant) -> Vec<Message> {
    for _ in 0..8 {
        let Some(question) = speaker.next(now) else { return speaker.take_messages() };
        let seen = etcd.answer(&question);
        speaker.answered(now, question.number, &seen);
    }
    panic!("it never ends: {speaker:#?}")
}

fn tell(speaker: &mut Speaker, etcd: &mut Model, now: Instant, message: &Message) -> Vec<Message> {
    speaker.told(now, message);
    settle(speaker, etcd, now)
}

fn granted(messages: &[Message]) -> Option<bool> {
    messages.iter().rev().find_map(|m| if let Message::VoteAnswer(answer) = m { Some(answer.granted) } else { None })
}

fn pre_granted(messages: &[Message]) -> Option<bool> {
    messages.iter().rev().find_map(|m| if let Message::PreVoteAnswer(answer) = m { Some(answer.granted) } else { None })
}

/// The newest acknowledgement: number, verdict, wanted.
fn acked(messages: &[Message]) -> Option<(u64, Option<AckVerdict>, bool)> {
    messages.iter().rev().find_map(|m| {
        if let Message::Ack(ack) = m { Some((ack.seq, ack.groups[0].verdict, ack.groups[0].wanted)) } else { None }
    })
}

/// An etcd in which the first node holds the group in term 1, and that node's speaker.
fn held() -> (Speaker, Model) {
    let (mut first, mut etcd) = (speaker(life(First, 1)), Model::default());
    tell(&mut first, &mut etcd, at(0), &Message::Heartbeat(beat(First, 1, Some(1))));
    assert_eq!(etcd.record(web()).unwrap().holder.unwrap().term, Term(1));
    (first, etcd)
}

#[test]
fn a_missing_record_is_doubted_before_it_is_taken() {
    let (mut first, mut etcd) = (speaker(life(First, 1)), Model::default());
    let heard = tell(&mut first, &mut etcd, at(0), &Message::PreVote(request(1, 1)));
    assert_eq!(pre_granted(&heard), Some(false), "it may have been lost with a promise in it");
    assert!(etcd.record(web()).unwrap().doubt.is_some());
    let heard = tell(&mut first, &mut etcd, at(549), &Message::PreVote(request(2, 1)));
    assert_ne!(pre_granted(&heard), Some(true));
    let heard = tell(&mut first, &mut etcd, at(550), &Message::PreVote(request(3, 1)));
    assert_eq!(pre_granted(&heard), Some(true));
    let heard = tell(&mut first, &mut etcd, at(551), &Message::Vote(request(4, 1)));
    assert_eq!(granted(&heard), Some(true));
}

#[test]
fn a_doubt_must_stand_for_a_whole_hold() {
    let (_, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    assert_eq!(pre_granted(&tell(&mut second, &mut etcd, at(10), &Message::PreVote(request(1, 2)))), Some(false));
    let heard = tell(&mut second, &mut etcd, at(559), &Message::Vote(request(2, 2)));
    assert_ne!(granted(&heard), Some(true));
    let heard = tell(&mut second, &mut etcd, at(560), &Message::Vote(request(3, 2)));
    assert_eq!(granted(&heard), Some(true));
    let holder = etcd.record(web()).unwrap().holder.unwrap();
    assert_eq!((holder.member, holder.term), (Second, Term(2)));
}

#[test]
fn the_wait_begins_when_the_doubt_is_known_to_be_there() {
    let (_, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    second.told(at(0), &Message::PreVote(request(1, 2)));
    let read = second.next(at(0)).unwrap();
    let seen = etcd.answer(&read);
    second.answered(at(1), read.number, &seen);
    let doubt = second.next(at(1)).unwrap();
    let seen = etcd.answer(&doubt);
    second.answered(at(100), doubt.number, &seen);
    assert_eq!(granted(&tell(&mut second, &mut etcd, at(649), &Message::Vote(request(2, 2)))), Some(false));
    assert_eq!(granted(&tell(&mut second, &mut etcd, at(650), &Message::Vote(request(3, 2)))), Some(true));
}

#[test]
fn a_holder_that_lives_strikes_out_the_doubt() {
    let (mut first, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    tell(&mut second, &mut etcd, at(10), &Message::PreVote(request(1, 2)));
    let heard = tell(&mut first, &mut etcd, at(200), &Message::Heartbeat(beat(First, 5, Some(1))));
    assert_eq!(acked(&heard), Some((5, Some(AckVerdict::Promised(Term(1))), false)));
    assert_eq!(etcd.record(web()).unwrap().doubt, None);
    let heard = tell(&mut second, &mut etcd, at(600), &Message::Vote(request(2, 2)));
    assert_eq!(granted(&heard), Some(false), "the wait begins anew");
}

#[test]
fn nothing_is_confirmed_under_a_doubt() {
    let (mut first, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    tell(&mut second, &mut etcd, at(10), &Message::PreVote(request(1, 2)));
    first.told(at(200), &Message::Heartbeat(beat(First, 5, Some(1))));
    let read = first.next(at(200)).unwrap();
    first.take_messages();
    let seen = etcd.answer(&read);
    first.answered(at(201), read.number, &seen);
    assert_eq!(acked(&first.take_messages()), Some((5, None, true)), "and who doubts is fit");
}

#[test]
fn a_confirmation_names_a_heartbeat_that_was_told_before_the_question() {
    let (mut first, mut etcd) = held();
    first.told(at(200), &Message::Heartbeat(beat(First, 5, Some(1))));
    let read = first.next(at(200)).unwrap();
    let seen = etcd.answer(&read);
    first.told(at(250), &Message::Heartbeat(beat(First, 6, Some(1))));
    first.take_messages();
    first.answered(at(251), read.number, &seen);
    assert_eq!(acked(&first.take_messages()), Some((5, Some(AckVerdict::Promised(Term(1))), false)));
}

#[test]
fn a_grant_names_a_request_that_was_told_before_the_question() {
    let (mut first, mut etcd) = held();
    first.told(at(200), &Message::Heartbeat(beat(First, 5, None)));
    first.told(at(200), &Message::Vote(request(6, 3)));
    let swap = first.next(at(200)).unwrap();
    let seen = etcd.answer(&swap);
    first.told(at(210), &Message::Vote(request(7, 3)));
    first.take_messages();
    first.answered(at(211), swap.number, &seen);
    let answers = first.take_messages();
    assert_eq!(granted(&answers), Some(true));
    assert!(answers.iter().any(|m| matches!(m, Message::VoteAnswer(a) if a.seq == 6)), "{answers:?}");
}

#[test]
fn what_is_late_or_comes_twice_changes_nothing() {
    let (_, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    tell(&mut second, &mut etcd, at(0), &Message::PreVote(request(1, 2)));
    second.told(at(560), &Message::Vote(request(2, 2)));
    let late = second.next(at(560)).unwrap();
    // The holder lives after all, and strikes out the doubt, before this question arrives.
    let mut first = speaker(life(First, 1));
    tell(&mut first, &mut etcd, at(561), &Message::Heartbeat(beat(First, 9, Some(1))));
    let before = etcd.record(web());
    for _ in 0..2 {
        let seen = etcd.answer(&late);
        second.answered(at(562), late.number, &seen);
    }
    assert_eq!(etcd.record(web()), before);
    assert_eq!(granted(&second.take_messages()), Some(false));
}

#[test]
fn a_secret_ends_the_promise_that_carries_its_hash_and_no_other() {
    let (_, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    let wrong = Request { secrets: vec![secret(Second)], ..request(1, 2) };
    assert_eq!(pre_granted(&tell(&mut second, &mut etcd, at(0), &Message::PreVote(wrong))), Some(false));
    let right = Request { secrets: vec![secret(First)], ..request(2, 2) };
    assert_eq!(pre_granted(&tell(&mut second, &mut etcd, at(10), &Message::PreVote(right.clone()))), Some(true));
    assert_eq!(granted(&tell(&mut second, &mut etcd, at(12), &Message::Vote(right))), Some(true));
}

#[test]
fn a_release_frees_the_record_at_once_and_only_from_the_term_it_names() {
    let (mut first, mut etcd) = held();
    let mut released = beat(First, 5, None);
    released.groups[0].released = Some(Term(1));
    let mut older = released.clone();
    older.groups[0].released = Some(Term(0));
    tell(&mut first, &mut etcd, at(200), &Message::Heartbeat(older));
    assert!(etcd.record(web()).unwrap().holder.is_some());
    tell(&mut first, &mut etcd, at(1300), &Message::Heartbeat(released));
    assert_eq!(etcd.record(web()).unwrap(), Record { highest: Term(1), holder: None, doubt: None });
    assert!(first.is_settled());
    let mut second = speaker(life(Second, 2));
    assert_eq!(pre_granted(&tell(&mut second, &mut etcd, at(1310), &Message::PreVote(request(1, 2)))), Some(true));
}

#[test]
fn a_deposed_owner_is_told_the_higher_term() {
    let (mut first, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    tell(&mut second, &mut etcd, at(0), &Message::PreVote(request(1, 2)));
    tell(&mut second, &mut etcd, at(600), &Message::Vote(request(2, 2)));
    let heard = tell(&mut first, &mut etcd, at(700), &Message::Heartbeat(beat(First, 9, Some(1))));
    assert_eq!(acked(&heard), Some((9, Some(AckVerdict::Refused(Term(1), Term(2))), false)));
    let mut gone = beat(Second, 3, None);
    gone.groups[0].released = Some(Term(2));
    tell(&mut second, &mut etcd, at(2000), &Message::Heartbeat(gone));
    let heard = tell(&mut first, &mut etcd, at(2010), &Message::Heartbeat(beat(First, 20, Some(1))));
    assert_eq!(acked(&heard), Some((20, Some(AckVerdict::Refused(Term(1), Term(2))), false)), "nor when that is free");
}

#[test]
fn no_vote_in_a_term_that_is_not_above_all_others() {
    let (mut first, mut etcd) = held();
    first.told(at(200), &Message::Heartbeat(beat(First, 5, None)));
    for (seq, term, yes) in [(6, 1, true), (7, 2, false), (8, 5, true), (9, 3, false), (10, 5, true)] {
        let now = at(200 * seq);
        let heard = tell(&mut first, &mut etcd, now, &Message::Vote(request(seq, term)));
        assert_eq!(granted(&heard), Some(yes), "term {term}");
    }
}

#[test]
fn a_longer_hold_is_recorded_before_it_is_confirmed() {
    let (mut first, mut etcd) = held();
    let longer = Heartbeat { hold: HOLD * 2, ..beat(First, 5, Some(1)) };
    first.told(at(200), &Message::Heartbeat(longer));
    let question = first.next(at(200)).unwrap();
    assert!(matches!(question.items[0].1, Item::Swap(..)));
    let seen = etcd.answer(&question);
    first.take_messages();
    first.answered(at(201), question.number, &seen);
    assert_eq!(acked(&first.take_messages()), Some((5, Some(AckVerdict::Promised(Term(1))), false)));
    assert_eq!(etcd.record(web()).unwrap().holder.unwrap().hold, HOLD * 2);
    tell(&mut first, &mut etcd, at(400), &Message::Heartbeat(beat(First, 9, Some(1))));
    assert_eq!(etcd.record(web()).unwrap().holder.unwrap().hold, HOLD * 2, "and never shortened");
}

#[test]
fn a_silent_holder_is_doubted_before_its_group_is_asked_for() {
    let (_, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    tell(&mut second, &mut etcd, at(0), &Message::Heartbeat(beat(Second, 1, None)));
    assert_eq!(etcd.record(web()).unwrap().doubt, None);
    second.peer_is_silent(true);
    settle(&mut second, &mut etcd, at(150));
    assert!(etcd.record(web()).unwrap().doubt.is_some());
    let heard = tell(&mut second, &mut etcd, at(700), &Message::PreVote(request(2, 2)));
    assert_eq!(pre_granted(&heard), Some(true));
}

#[test]
fn a_former_life_of_ones_own_is_doubted_at_the_start() {
    let (_, mut etcd) = held();
    let mut again = speaker(life(First, 7));
    tell(&mut again, &mut etcd, at(0), &Message::Heartbeat(beat(First, 1, None)));
    assert!(etcd.record(web()).unwrap().doubt.is_some());
}

#[test]
fn who_doubts_in_vain_waits_longer_each_time_and_writes_little() {
    let (mut first, mut etcd) = held();
    let mut second = speaker(life(Second, 2));
    second.peer_is_silent(true);
    let before = etcd.changes;
    for ms in (0..60_000).step_by(10) {
        if ms % 50 == 0 {
            tell(&mut first, &mut etcd, at(ms), &Message::Heartbeat(beat(First, ms, Some(1))));
            tell(&mut second, &mut etcd, at(ms), &Message::Heartbeat(beat(Second, ms, None)));
        }
        let heard = tell(&mut second, &mut etcd, at(ms), &Message::PreVote(request(ms, 2)));
        assert_ne!(pre_granted(&heard), Some(true));
    }
    let changes = etcd.changes - before;
    assert!((50..=70).contains(&changes), "{changes} writes in a minute");
}

#[test]
fn a_standby_asks_seldom_and_an_owner_a_few_times_in_a_lease() {
    let mut etcd = Model::default();
    let (mut owner, mut standby) = (speaker(life(First, 1)), speaker(life(Second, 2)));
    let mut asked = [0, 0];
    for ms in (0..10_000).step_by(50) {
        for (count, speaker, of, owned) in [(0, &mut owner, First, Some(1)), (1, &mut standby, Second, None)] {
            speaker.told(at(ms), &Message::Heartbeat(beat(of, ms, owned)));
            while let Some(question) = speaker.next(at(ms)) {
                asked[count] += 1;
                let seen = etcd.answer(&question);
                speaker.answered(at(ms), question.number, &seen);
            }
            let heard = speaker.take_messages();
            assert!(ms == 0 || !heard.is_empty(), "the engine hears that etcd is there, each interval");
        }
    }
    assert!((80..=102).contains(&asked[0]), "{asked:?}");
    assert!((9..=11).contains(&asked[1]), "{asked:?}");
    assert_eq!(etcd.changes, 1, "a calm cluster writes nothing");
}

#[test]
fn a_question_without_an_answer_is_given_up_and_asked_again() {
    let (mut first, mut etcd) = held();
    first.told(at(200), &Message::Heartbeat(beat(First, 5, Some(1))));
    let lost = first.next(at(200)).unwrap();
    first.told(at(250), &Message::Heartbeat(beat(First, 6, Some(1))));
    assert_eq!(first.next(at(250)), None, "one at a time");
    assert!(first.is_reached());
    assert!(first.next_deadline(at(250)) < at(200) + LEASE / 2, "in time for another member of etcd");
    let after = first.next_deadline(at(250));
    first.tick(after);
    assert!(!first.is_reached());
    first.take_messages();
    first.told(after + INTERVAL, &Message::Heartbeat(beat(First, 8, Some(1))));
    assert_eq!(first.take_messages(), [], "who does not answer is not heard");
    assert_eq!(first.next_deadline(after + INTERVAL), Instant::NEVER, "nobody is woken for nothing");
    let heard = settle(&mut first, &mut etcd, after + INTERVAL);
    assert_eq!(acked(&heard), Some((8, Some(AckVerdict::Promised(Term(1))), false)));
    let seen = etcd.answer(&lost);
    first.answered(after + INTERVAL * 2, lost.number, &seen);
    assert_eq!(first.take_messages(), [], "an answer to a question that was given up is none");
}

#[test]
fn a_wiped_etcd_is_not_taken_from_a_holder_that_lives() {
    let (mut first, mut etcd) = held();
    etcd.wipe();
    let mut second = speaker(life(Second, 2));
    let heard = tell(&mut second, &mut etcd, at(100), &Message::PreVote(request(1, 2)));
    assert_eq!(pre_granted(&heard), Some(false));
    tell(&mut first, &mut etcd, at(200), &Message::Heartbeat(beat(First, 5, Some(1))));
    let heard = tell(&mut second, &mut etcd, at(700), &Message::Vote(request(2, 2)));
    assert_eq!(granted(&heard), Some(false));
}
