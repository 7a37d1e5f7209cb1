//! Tests of the supervisor's decisions.

use super::*;
use proptest::prelude::*;

const SECRET: Secret = Secret([9; 32]);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}
fn web() -> GroupName {
    GroupName::new("web").unwrap()
}
fn vips() -> Vec<Vip> {
    vec![Vip { address: "192.0.2.10/24".parse().unwrap(), interface: "eth0".into() }]
}
fn hello() -> Input {
    let hello = Hello { secret: SECRET, vips: vips(), notice: Vec::new(), notice_datagram: Vec::new() };
    Input::Word(Word::Hello(hello))
}
fn arm(until: u64) -> Input {
    Input::Word(Word::Arm { group: web(), until: at(until) })
}
fn take_away(resets: Resets) -> Vec<Action> {
    vec![Action::TakeAway { vips: vips(), resets }]
}
const GONE: Input = Input::TakenAway { all_gone: true };
const LEFT: Input = Input::TakenAway { all_gone: false };
const KILLED: Input = Input::WorkerDied(Ending::Killed(9));

/// A supervisor whose worker has said hello and holds `web` until 500 ms.
fn armed() -> Core {
    let mut core = Core::new();
    assert_eq!(core.handle(at(0), Input::Tick), [Action::StartWorker]);
    assert_eq!(core.handle(at(0), hello()), []);
    assert_eq!(core.handle(at(0), arm(500)), []);
    core
}

/// Lets time pass until `end`, and says when what was done.
fn pass(core: &mut Core, end: u64) -> Vec<(u64, Action)> {
    let mut done = Vec::new();
    let mut now = Instant::ZERO;
    while core.next_deadline() <= at(end) {
        now = now.max(core.next_deadline());
        done.extend(core.handle(now, Input::Tick).into_iter().map(|action| (now.as_nanos() / 1_000_000, action)));
    }
    done
}

#[test]
fn a_missed_deadline_is_acted_upon_two_guards_before_the_lease_ends() {
    let mut core = armed();
    assert_eq!(core.next_deadline(), at(480));
    assert_eq!(core.handle(at(479), Input::Tick), []);
    assert_eq!(core.handle(at(480), Input::Tick), [Action::KillWorker]);
    assert_eq!(core.handle(at(481), KILLED), take_away(Resets::Last));
}

#[test]
fn of_several_groups_the_earliest_deadline_counts_and_a_disarmed_one_does_not() {
    let mut core = armed();
    let app = GroupName::new("app").unwrap();
    core.handle(at(0), Input::Word(Word::Arm { group: app, until: at(300) }));
    assert_eq!(core.next_deadline(), at(280));
    core.handle(at(1), Input::Word(Word::Disarm { group: app }));
    assert_eq!(core.next_deadline(), at(480));
    core.handle(at(1), Input::Word(Word::Disarm { group: web() }));
    assert_eq!(core.next_deadline(), Instant::NEVER);
}

#[test]
fn a_renewal_that_is_read_late_but_before_the_tick_saves_the_worker() {
    let mut core = armed();
    core.handle(at(600), arm(900));
    assert_eq!(core.handle(at(600), Input::Tick), []);
}

#[test]
fn a_deadline_that_has_passed_when_it_is_read_is_acted_upon_at_once() {
    let mut core = armed();
    core.handle(at(600), arm(610));
    assert_eq!(core.handle(at(600), Input::Tick), [Action::KillWorker]);
}

#[test]
fn a_worker_that_fails_at_its_start_may_say_why_and_ends_the_supervisor_with_its_code() {
    let mut core = Core::new();
    assert_eq!(core.handle(at(0), Input::Tick), [Action::StartWorker]);
    assert_eq!(core.handle(at(10), Input::LinkClosed), [], "a kill would hide its message and its code");
    assert_eq!(core.handle(at(11), Input::WorkerDied(Ending::Exited(78))), [Action::Exit(78)]);
}

#[test]
fn a_worker_that_closed_its_link_and_does_not_end_is_killed() {
    let mut core = Core::new();
    core.handle(at(0), Input::Tick);
    core.handle(at(10), Input::LinkClosed);
    assert_eq!(core.next_deadline(), at(10) + CLOSE_PATIENCE);
    assert_eq!(core.handle(core.next_deadline(), Input::Tick), [Action::KillWorker]);
}

#[test]
fn the_notice_follows_the_death_and_the_empty_dump_in_several_copies() {
    let mut core = armed();
    assert_eq!(core.handle(at(100), Input::LinkClosed), [Action::KillWorker]);
    assert_eq!(core.handle(at(101), KILLED), take_away(Resets::First));
    assert_eq!(core.handle(at(102), GONE), [Action::SendNotice(SECRET)]);
    let copy = Action::SendNotice(SECRET);
    let rest = [(105, copy.clone()), (112, copy.clone()), (132, copy), (151, Action::StartWorker)];
    assert_eq!(pass(&mut core, 200), rest);
}

#[test]
fn no_notice_is_sent_while_an_address_is_seen() {
    let mut core = armed();
    core.handle(at(100), KILLED);
    assert_eq!(core.handle(at(100), LEFT), []);
    assert_eq!(core.handle(at(109), Input::Tick), []);
    assert_eq!(core.handle(at(110), Input::Tick), take_away(Resets::First));
    assert_eq!(core.handle(at(110), GONE), [Action::SendNotice(SECRET)]);
}

#[test]
fn a_worker_that_does_not_die_loses_its_addresses_and_no_notice_is_sent() {
    let mut core = armed();
    core.handle(at(480), Input::Tick);
    assert_eq!(core.handle(at(484), Input::Tick), take_away(Resets::Last));
    assert_eq!(core.handle(at(484), GONE), []);
    assert_eq!(pass(&mut core, 100_000), []);
    // It comes back from the disk at last: once more, as it may have done something before it died.
    assert_eq!(core.handle(at(100_000), KILLED), take_away(Resets::Last));
    assert_eq!(core.handle(at(100_000), GONE), [Action::SendNotice(SECRET)]);
}

#[test]
fn a_worker_that_dies_again_and_again_is_started_less_and_less_often() {
    let mut core = armed();
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..9 {
        core.handle(at(now), KILLED);
        core.handle(at(now), GONE);
        let (started, _) = pass(&mut core, now + 60_000).into_iter().find(|(_, a)| *a == Action::StartWorker).unwrap();
        waits.push(started - now);
        now = started;
        core.handle(at(now), hello());
    }
    assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    core.handle(at(now + 10_000), KILLED);
    core.handle(at(now + 10_000), GONE);
    assert!(pass(&mut core, now + 10_050).contains(&(now + 10_050, Action::StartWorker)));
}

#[test]
fn addresses_that_will_not_go_do_not_keep_the_next_worker_away() {
    let mut core = armed();
    core.handle(at(0), KILLED);
    let mut now = 0;
    loop {
        let actions = core.handle(at(now), LEFT);
        assert!(!actions.contains(&Action::SendNotice(SECRET)));
        if actions.contains(&Action::StartWorker) {
            break;
        }
        now += 10;
        core.handle(at(now), Input::Tick);
        assert!(now < 2000, "never started");
    }
}

#[test]
fn an_orderly_end_is_passed_on_once_the_addresses_are_gone() {
    let mut core = armed();
    assert_eq!(core.handle(at(10), Input::Stop(15)), [Action::Forward(15)]);
    core.handle(at(20), Input::Word(Word::Disarm { group: web() }));
    core.handle(at(20), Input::Word(Word::Bye));
    assert_eq!(core.handle(at(20), Input::LinkClosed), [], "a kill would hide its code");
    assert_eq!(core.handle(at(21), Input::WorkerDied(Ending::Exited(4))), take_away(Resets::First));
    core.handle(at(21), GONE);
    assert_eq!(pass(&mut core, 1000).last(), Some(&(51, Action::Exit(4))));
    assert_eq!(core.next_deadline(), Instant::NEVER);
}

#[test]
fn the_second_request_to_end_kills_and_one_between_two_workers_ends_at_once() {
    let mut core = armed();
    core.handle(at(10), Input::Stop(15));
    assert_eq!(core.handle(at(11), Input::Stop(15)), [Action::KillWorker]);

    let mut core = armed();
    core.handle(at(10), KILLED);
    core.handle(at(10), GONE);
    pass(&mut core, 45);
    assert_eq!(core.handle(at(46), Input::Stop(15)), []);
    assert_eq!(core.handle(at(46), Input::Tick), [Action::Exit(137)]);
}

#[test]
fn what_a_new_start_would_not_mend_is_not_started_again() {
    for code in [0, EXIT_CONFIG] {
        let mut core = armed();
        core.handle(at(10), Input::WorkerDied(Ending::Exited(code)));
        core.handle(at(10), GONE);
        assert_eq!(pass(&mut core, 1000).last(), Some(&(40, Action::Exit(code))));
    }
    let mut core = Core::new();
    core.handle(at(0), Input::Tick);
    assert_eq!(core.handle(at(5), Input::WorkerDied(Ending::Exited(1))), [Action::Exit(1)], "it never came up");
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(hello()),
        (0..3000_u64).prop_map(arm),
        Just(Input::Word(Word::Disarm { group: web() })),
        Just(Input::Word(Word::Bye)),
        Just(Input::LinkClosed),
        Just(KILLED),
        (0..80_u8).prop_map(|code| Input::WorkerDied(Ending::Exited(code))),
        Just(GONE),
        Just(LEFT),
        Just(Input::Stop(15)),
        Just(Input::Pass(1)),
        Just(Input::Tick),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_notice_means_dead_and_gone(inputs in prop::collection::vec((0..40_u64, any_input()), 1..120)) {
        let mut core = Core::new();
        let (mut now, mut lives, mut dead, mut asked, mut gone) = (0, false, false, false, false);
        for (later, input) in inputs {
            now += later;
            match &input {
                // What cannot be heard without a worker, or without having asked.
                Input::WorkerDied(_) | Input::LinkClosed | Input::Word(_) if !lives => continue,
                Input::TakenAway { .. } if !asked => continue,
                Input::WorkerDied(_) => (lives, dead, asked, gone) = (false, true, false, false),
                Input::TakenAway { all_gone } => (asked, gone) = (false, *all_gone && dead),
                Input::Word(_) | Input::LinkClosed | Input::Stop(_) | Input::Pass(_) | Input::Tick => {}
            }
            for action in core.handle(at(now), input) {
                match action {
                    Action::StartWorker => {
                        prop_assert!(!lives, "two workers");
                        (lives, dead, gone) = (true, false, false);
                    }
                    Action::SendNotice(_) => prop_assert!(dead && gone),
                    Action::Exit(_) => prop_assert!(!lives),
                    Action::KillWorker | Action::Forward(_) => prop_assert!(lives),
                    Action::TakeAway { .. } => (asked, gone) = (true, false),
                }
            }
        }
    }
}
