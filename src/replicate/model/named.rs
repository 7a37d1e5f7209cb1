//! Scenarios with a name: narrow moments that a random walk may miss.

use super::{super::content::Entry, *};

fn ok<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|why| panic!("{why}"))
}

/// Both up and in step, the first node owns the state in term 1.
fn pair() -> World {
    let mut world = World::new(7, Faults::default());
    ok(world.elect(0));
    ok(world.connect());
    ok(world.settle());
    assert_eq!(view(&world, 0), ViewRole::Owner);
    assert_eq!(view(&world, 1), ViewRole::InStep);
    world
}

fn view(world: &World, node: usize) -> ViewRole {
    let now = Now { at: world.now, unix_ms: 0 };
    world.nodes[node].replica.as_ref().unwrap().view(now).role
}

fn value(world: &World, node: usize, key: &str) -> Option<u64> {
    let content = world.nodes[node].replica.as_ref().unwrap().content();
    content.get(key).map(|item| u64::from_be_bytes(item.value.clone().try_into().unwrap()))
}

fn history(world: &World, node: usize) -> Vec<String> {
    let content = world.nodes[node].replica.as_ref().unwrap().content();
    content.history().into_iter().map(|entry| entry.text).collect()
}

/// The next answer of a node to its write `id`.
fn answer(world: &World, node: usize, id: u64) -> Option<Result<Written, WriteError>> {
    world.nodes[node].answers.get(&id).cloned()
}

fn settled(world: &mut World, node: usize, key: &str) -> (u64, Result<Written, WriteError>) {
    let id = ok(world.write(node, key));
    ok(world.settle());
    (id, answer(world, node, id).expect("answered"))
}

/// The lease of the owner ends, and the other node is elected.
fn depose(world: &mut World, to: usize) {
    ok(world.pass(LEASE));
    ok(world.elect(to));
}

#[test]
fn a_write_is_on_both_disks_when_it_is_answered_as_replicated() {
    let mut world = pair();
    let id = ok(world.write(0, "k"));
    ok(world.commit(0));
    assert_eq!(answer(&world, 0, id), None, "durable here, not there");
    ok(world.deliver(1));
    assert_eq!(answer(&world, 0, id), None, "under way there");
    ok(world.commit(1));
    ok(world.deliver(0));
    assert!(answer(&world, 0, id).unwrap().unwrap().replicated);
    assert_eq!((value(&world, 0, "k"), value(&world, 1, "k")), (Some(id), Some(id)));
}

#[test]
fn a_followers_write_goes_through_the_owner() {
    let mut world = pair();
    let (id, written) = settled(&mut world, 1, "k");
    assert_eq!(written, Ok(Written { version: Version { term: Term(1), counter: 1 }, replicated: true }));
    assert_eq!((value(&world, 0, "k"), value(&world, 1, "k")), (Some(id), Some(id)));
}

#[test]
fn a_write_with_the_peer_away_is_marked_and_catches_up_later() {
    let mut world = pair();
    world.cut();
    ok(world.settle());
    let (id, written) = settled(&mut world, 0, "k");
    assert!(!written.unwrap().replicated);
    assert_eq!(value(&world, 1, "k"), None);
    ok(world.connect());
    ok(world.settle());
    assert_eq!(value(&world, 1, "k"), Some(id));
    assert!(world.nodes[0].replica.as_ref().unwrap().copy().dirty.is_empty());
}

#[test]
fn a_peer_that_hangs_costs_a_write_its_mark_and_not_its_answer() {
    let mut world = pair();
    let id = ok(world.write(0, "k"));
    ok(world.commit(0));
    for _ in 0..REPLICATE_WAIT.as_millis() / 100 {
        assert_eq!(answer(&world, 0, id), None);
        ok(world.pass(Duration::from_millis(100)));
        ok(world.renew());
    }
    assert!(!answer(&world, 0, id).unwrap().unwrap().replicated);
    assert!(!world.connected, "the session is given up");
}

/// SCENARIOS 22.
#[test]
fn deposed_owners_write_arrives_late() {
    let mut world = pair();
    let id = ok(world.write(0, "k"));
    ok(world.commit(0));
    // The write is on the wire when the first node's lease ends and the second one is elected.
    depose(&mut world, 1);
    ok(world.settle());
    assert_eq!(answer(&world, 0, id), Some(Err(WriteError::Unknown)), "it is not acknowledged");
    // The second node did not take it as a live write; the first one offered it, and it was taken in the new term.
    let item = world.nodes[1].replica.as_ref().unwrap().content().get("k").cloned().unwrap();
    assert_eq!(item.version.term, Term(2));
    assert!(world.stats.refusals > 0);
    assert_eq!(value(&world, 0, "k"), Some(id));
}

#[test]
fn a_write_that_was_not_confirmed_within_the_lease_is_not_answered_as_made() {
    let mut world = pair();
    let id = ok(world.write(0, "k"));
    ok(world.commit(0));
    ok(world.deliver(1));
    ok(world.commit(1));
    // It is on both disks, and the confirmation on the wire, when the lease ends.
    ok(world.pass(LEASE));
    ok(world.deliver(0));
    assert_eq!(answer(&world, 0, id), Some(Err(WriteError::Unknown)));
}

#[test]
fn a_refused_conditional_write_is_a_conflict_in_the_history() {
    let mut world = pair();
    settled(&mut world, 0, "k").1.unwrap();
    world.cut();
    ok(world.settle());
    settled(&mut world, 0, "k").1.unwrap();
    let (kept, written) = settled(&mut world, 0, "mine");
    assert!(!written.unwrap().replicated);
    depose(&mut world, 1);
    let (truth, written) = settled(&mut world, 1, "k");
    assert!(!written.unwrap().replicated);
    ok(world.connect());
    ok(world.settle());
    for node in 0..2 {
        assert_eq!(value(&world, node, "k"), Some(truth), "the owner's copy is the truth");
        assert_eq!(value(&world, node, "mine"), Some(kept), "what did not collide is kept");
        let history = history(&world, node);
        assert_eq!(history.len(), 1, "{history:?}");
        assert!(history[0].starts_with("k (version 1.2"), "{history:?}");
    }
}

#[test]
fn a_key_that_was_made_and_deleted_alone_does_not_come_back() {
    let mut world = pair();
    // The write reaches the peer, its confirmation is lost, and the key is deleted alone.
    ok(world.write(0, "k"));
    ok(world.commit(0));
    ok(world.deliver(1));
    ok(world.commit(1));
    world.nodes[0].inbox.clear();
    world.cut();
    ok(world.settle());
    world.nodes[0].asked.insert(900, ("k".to_owned(), Vec::new()));
    ok(world.handle(0, Input::Write { id: 900, ops: vec![Op::delete("k")] }));
    ok(world.settle());
    depose(&mut world, 1);
    ok(world.connect());
    ok(world.settle());
    assert_eq!((value(&world, 0, "k"), value(&world, 1, "k")), (None, None));
}

#[test]
fn an_owner_below_a_higher_term_does_not_write_until_it_is_elected_above() {
    let mut world = pair();
    depose(&mut world, 1);
    world.cut();
    ok(world.settle());
    // The engine of the first node has forgotten term 2, and is elected in term 1 again: a fault elsewhere.
    ok(world.pass(LEASE));
    ok(world.connect());
    ok(world.settle());
    ok(world.handle(0, Input::Role(Role::Owner { term: Term(1), until: world.now + LEASE })));
    let id = ok(world.write(0, "k"));
    ok(world.settle());
    assert_eq!(answer(&world, 0, id), Some(Err(WriteError::Behind(Term(2)))));
    ok(world.elect(0));
    ok(world.settle());
    assert!(settled(&mut world, 0, "k").1.unwrap().replicated);
}

#[test]
fn a_follower_does_not_take_a_write_after_a_gap() {
    let mut world = pair();
    let version = |counter| Version { term: Term(1), counter };
    let changes = vec![("k".to_owned(), Some(vec![1]))];
    let entry = Entry { version: version(2), prev: version(1), changes };
    ok(world.handle(1, Input::Message(Message::Entry { term: Term(1), entry })));
    assert!(!world.connected, "the follower ends the session");
    ok(world.settle());
    assert_eq!(value(&world, 1, "k"), None);
    ok(world.connect());
    ok(world.settle());
    assert!(settled(&mut world, 0, "k").1.unwrap().replicated, "and is brought up to date");
}

#[test]
fn a_rolled_back_owner_takes_its_peers_copy_before_it_writes() {
    let mut world = pair();
    world.nodes[0].earlier = world.nodes[0].store.clone();
    let (id, written) = settled(&mut world, 0, "k");
    assert!(written.unwrap().replicated);
    world.crash(0);
    world.roll_back(0);
    ok(world.settle());
    world.start(0);
    ok(world.pass(LEASE));
    world.last_term = 2;
    ok(world.elect(0));
    assert_eq!(settled(&mut world, 0, "other").1, Err(WriteError::Suspect), "alone it writes nothing");
    ok(world.connect());
    ok(world.settle());
    assert_eq!(value(&world, 0, "k"), Some(id));
    assert!(settled(&mut world, 0, "other").1.unwrap().replicated);
}

#[test]
fn a_new_node_without_its_peer_writes_only_when_an_operator_accepts_it() {
    let mut world = World::new(1, Faults::default());
    ok(world.elect(0));
    assert_eq!(settled(&mut world, 0, "k").1, Err(WriteError::Suspect));
    ok(world.handle(0, Input::Accept));
    ok(world.settle());
    let (id, written) = settled(&mut world, 0, "k");
    assert!(!written.unwrap().replicated);
    ok(world.connect());
    ok(world.settle());
    assert_eq!(value(&world, 1, "k"), Some(id), "the empty node takes the other's copy");
}

#[test]
fn a_transition_recorded_while_nobody_owns_the_state_is_recorded_later() {
    let mut world = World::new(1, Faults::default());
    ok(world.record(1));
    assert_eq!(history(&world, 1), ["#1"], "it can be read here at once");
    world.crash(1);
    world.start(1);
    assert_eq!(history(&world, 1), ["#1"], "and after a restart");
    ok(world.elect(0));
    ok(world.connect());
    ok(world.settle());
    assert_eq!((history(&world, 0), history(&world, 1)), (vec!["#1".to_owned()], vec!["#1".to_owned()]));
    assert!(world.nodes[1].replica.as_ref().unwrap().content().outbox.is_empty());
}

#[test]
fn the_history_keeps_the_newest_transitions() {
    let mut world = pair();
    for _ in 0..HISTORY_MAX + 20 {
        ok(world.pass(Duration::from_millis(10)));
        ok(world.renew());
        ok(world.record(0));
        ok(world.settle());
    }
    for node in 0..2 {
        let history = history(&world, node);
        assert_eq!(history.len(), HISTORY_MAX);
        assert_eq!(history.first().map(String::as_str), Some("#21"));
        assert_eq!(history.last(), Some(&format!("#{}", HISTORY_MAX + 20)));
    }
}

#[test]
fn a_peer_that_missed_more_than_the_suffix_takes_the_whole_copy() {
    let mut world = pair();
    world.cut();
    ok(world.settle());
    for n in 0..crate::limits::SUFFIX_MAX + 10 {
        ok(world.renew());
        settled(&mut world, 0, &format!("k/{n}")).1.unwrap();
    }
    let copies = world.stats.copies;
    ok(world.connect());
    ok(world.settle());
    assert_eq!(world.stats.copies, copies + 1);
    assert!(value(&world, 1, "k/0").is_some());
    assert!(settled(&mut world, 0, "k/0").1.unwrap().replicated);
}

#[test]
fn a_forwarded_write_whose_owner_is_silent_is_unknown() {
    let mut world = pair();
    let id = ok(world.write(1, "k"));
    ok(world.pass(FORWARD_WAIT));
    assert_eq!(answer(&world, 1, id), Some(Err(WriteError::Unknown)));
}

#[test]
fn a_failed_store_tells_who_waits_and_leaves_the_session() {
    let mut world = pair();
    let id = ok(world.write(0, "k"));
    world.nodes[0].commit = None;
    ok(world.handle(0, Input::Persisted(Err("EIO".to_owned()))));
    assert!(!world.connected);
    let later = ok(world.write(0, "k"));
    for id in [id, later] {
        assert_eq!(answer(&world, 0, id), Some(Err(WriteError::Failed("EIO".to_owned()))));
    }
}
