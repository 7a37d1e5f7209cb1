//! What the peer says, for `crate::hostile`: frames, and whole sessions that a replica has to live through.

use super::{
    message::Message,
    protocol::{Action, Input, Now, Replica},
    session,
    types::{Op, Role},
};
use crate::{
    cluster::{Member, Name, Term},
    limits::{FRAME_BYTES_MAX, STATE_BYTES_MAX},
    store::{Memory, Store},
    time::Instant,
};
use futures_util::FutureExt;
use std::collections::VecDeque;

/// One frame, with its length in front or without.
pub(crate) fn message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        let again = message.encode().unwrap_or_default();
        assert!(again.len() <= bytes.len(), "what is written is not longer than what was read");
        assert_eq!(Message::decode(&again), Ok(message));
    }
    let mut stream = bytes;
    // From bytes that are all there, nothing waits.
    for _ in 0..=bytes.len() / 4 {
        match session::read_frame(&mut stream).now_or_never() {
            Some(Ok(message)) => assert!(message.encode().is_ok_and(|bytes| bytes.len() <= FRAME_BYTES_MAX)),
            Some(Err(_)) => return,
            None => unreachable!("a slice is always ready"),
        }
    }
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let said = sessions().concat();
    let mut messages: Vec<Vec<u8>> = parts(&said).map(<[u8]>::to_vec).collect();
    messages.sort_by_key(|bytes| bytes.first().copied());
    // As frames, too.
    let frames = messages.iter().map(|m| [&u32::try_from(m.len()).unwrap_or(0).to_be_bytes()[..], m].concat());
    let frames: Vec<Vec<u8>> = frames.collect();
    messages.extend(frames);
    messages
}

/// Length and message, again and again.
fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk()?;
        let (message, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
        rest = behind;
        Some(message)
    })
}

/// One node: what it decides, and its disk.
struct Node {
    replica: Replica,
    disk: Memory,
}

fn now(millis: u64) -> Now {
    Now { at: Instant::from_millis(1_000_000 + millis), unix_ms: 1_700_000_000_000 + millis }
}

impl Node {
    fn new(me: Member, disk: Memory) -> Option<Self> {
        let name = Name::new(if me == Member::First { "n1" } else { "n2" }).ok()?;
        let replica = Replica::load(me, name, &disk, Term(0)).ok()?;
        Some(Self { replica, disk })
    }

    /// One input, and all that follows from it here. What goes to the peer, and whether the session is over.
    fn feed(&mut self, at: u64, input: Input) -> (Vec<Message>, bool) {
        let (mut inputs, mut sent, mut over) = (VecDeque::from([input]), Vec::new(), false);
        // One commit is under way at a time, so few follow from one input.
        for _ in 0..5_000 {
            let Some(input) = inputs.pop_front() else { return (sent, over) };
            for action in self.replica.handle(now(at), input) {
                match action {
                    Action::Persist(batch) => {
                        let done = self.disk.commit(batch).map(drop).map_err(|e| e.to_string());
                        inputs.push_back(Input::Persisted(done));
                    }
                    Action::Send(message) => sent.push(message),
                    Action::Disconnect(_) => {
                        over = true;
                        inputs.push_back(Input::Disconnected);
                    }
                    Action::Answer { .. } | Action::Event(_) => {}
                }
            }
        }
        panic_of_too_much()
    }
}

fn panic_of_too_much() -> ! {
    unreachable!("one input has no end of consequences")
}

/// A session with a peer that says anything. The first byte says who owns the state and what the copy is worth.
pub(crate) fn session(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let disk = if choice & 2 == 0 { Memory::new() } else { Memory::new().rolled_back() };
    let Some(mut node) = Node::new(Member::First, disk) else { return };
    if choice & 1 != 0 {
        node.feed(0, Input::Role(Role::Owner { term: Term(1), until: Instant::NEVER }));
        node.feed(0, Input::Write { id: 1, ops: vec![Op::put("k", "mine")] });
    }
    node.feed(1, Input::Connected);
    for (count, part) in parts(rest).take(300).enumerate() {
        let at = 2 + count as u64 * 7;
        let Ok(message) = Message::decode(part) else { continue };
        assert!(node.replica.wants_message(), "nothing is under way");
        let (sent, over) = node.feed(at, Input::Message(message));
        assert!(sent.iter().all(|message| message.encode().is_ok()), "what it says can be sent");
        if over {
            node.feed(at, Input::Connected);
        }
        node.feed(at + 3, Input::Tick);
    }
    let content = node.replica.content();
    let bytes: usize = content.scan("").map(|(key, item)| key.len() + item.value.len()).sum();
    assert!(bytes <= 2 * STATE_BYTES_MAX, "{bytes} bytes of state");
    // What it holds is what a restart would load.
    let again = Node::new(Member::First, node.disk);
    let same = again.is_some_and(|again| again.replica.content().scan("").eq(content.scan("")));
    assert!(same, "the disk has what the memory has");
}

/// What the first node hears in some sessions: as owner and as follower, with a sound copy and with a suspect one.
pub(crate) fn sessions() -> Vec<Vec<u8>> {
    (0..8).filter_map(recorded).collect()
}

fn recorded(choice: u8) -> Option<Vec<u8>> {
    let disk = |suspect| if suspect { Memory::new().rolled_back() } else { Memory::new() };
    let mut nodes =
        [Node::new(Member::First, disk(choice & 2 != 0))?, Node::new(Member::Second, disk(choice & 4 != 0))?];
    let owner = usize::from(choice & 1 == 0);
    let mut said: VecDeque<(usize, Message)> = VecDeque::new();
    let mut heard = vec![choice];
    let write = |n: u8| Input::Write { id: n.into(), ops: vec![Op::put(format!("k{n}"), vec![n; 40])] };
    nodes[owner].feed(0, Input::Role(Role::Owner { term: Term(3), until: Instant::NEVER }));
    nodes[owner].feed(0, write(1));
    for (at, node) in nodes.iter_mut().enumerate() {
        said.extend(node.feed(1, Input::Connected).0.into_iter().map(|message| (1 - at, message)));
    }
    for step in 0..12_u64 {
        for _ in 0..200 {
            let Some((to, message)) = said.pop_front() else { break };
            if to == 0 {
                let bytes = message.encode().ok()?;
                heard.extend(u16::try_from(bytes.len()).ok()?.to_be_bytes());
                heard.extend(bytes);
            }
            let (sent, _) = nodes[to].feed(2 + step, Input::Message(message));
            said.extend(sent.into_iter().map(|message| (1 - to, message)));
        }
        let writer = usize::from(step % 2 == 0);
        let (sent, _) = nodes[writer].feed(2 + step, write(u8::try_from(step).ok()? + 2));
        said.extend(sent.into_iter().map(|message| (1 - writer, message)));
    }
    Some(heard)
}
