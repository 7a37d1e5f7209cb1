//! `kill -9` at any moment: nothing acknowledged is lost, no promise goes back, no term is voted in twice.

use super::{child, number, put, spawn};
use hawser::{
    cluster::{GroupName, Term},
    store::{self, Condition, Election, Error, GroupMemory, Store},
};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

const SLOTS: u64 = 64;

fn election(term: u64) -> Election {
    let group = GroupName::new("web").unwrap();
    let memory = GroupMemory { group, highest: Term(term), voted: Term(term), voted_for: None };
    Election { groups: vec![memory], ..Election::default() }
}

fn say(word: &str, n: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {n}").unwrap();
    out.flush().unwrap();
}

/// Commits and votes until it is killed, and says each one that was confirmed.
fn commit_for_ever(folder: &Path) -> ! {
    let mut stores = store::open(folder).unwrap();
    let promises = stores.promises.clone();
    let mut term = promises.election().map_or(0, |e| e.groups[0].voted.0);
    thread::spawn(move || {
        loop {
            term += 1;
            promises.update_election(election(term)).unwrap();
            say("vote", term);
        }
    });
    let mut n = number(&stores.keyspace, "n").unwrap();
    loop {
        n += 1;
        let mut batch = put("n", n);
        if n.is_multiple_of(40) {
            // A whole copy: all slots go and come in one commit.
            batch.clear("slot/");
            for slot in 0..SLOTS {
                batch.put(format!("slot/{slot:02}"), &(n, slot)).unwrap();
            }
        } else {
            batch.put(format!("slot/{:02}", n % SLOTS), &(n, n % SLOTS)).unwrap();
        }
        stores.keyspace.commit(batch).unwrap();
        say("commit", n);
    }
}

/// What must hold after a crash. Returns the last commit and vote.
fn check(folder: &Path, commit: u64, vote: u64) -> (u64, u64) {
    let stores = store::open(folder).unwrap();
    assert_eq!(stores.condition, Condition::Sound);
    let n = number(&stores.keyspace, "n").unwrap();
    assert!(n >= commit, "commit {commit} was acknowledged, {n} is there");
    let slots = stores.keyspace.scan(b"slot/").unwrap();
    assert_eq!(slots.len() as u64, SLOTS, "no part of a whole copy is missing");
    let newest = slots.iter().map(|(key, payload)| {
        let (at, slot): (u64, u64) = store::batch::decode(key, payload).unwrap();
        assert_eq!(key, format!("slot/{slot:02}").as_bytes());
        at
    });
    assert_eq!(newest.max(), Some(n), "a commit is there as a whole or not at all");
    let term = stores.promises.election().map_or(0, |e| e.groups[0].voted.0);
    assert!(term >= vote, "vote {vote} was confirmed, {term} is there");
    (n, term)
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    if let Some(folder) = child("commits") {
        commit_for_ever(&folder);
    }
    let rounds: u32 = std::env::var("HAWSER_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    {
        let mut first = put("n", SLOTS);
        (0..SLOTS).for_each(|slot| first.put(format!("slot/{slot:02}"), &(SLOTS, slot)).unwrap());
        store::open(&folder).unwrap().keyspace.commit(first).unwrap();
    }
    let (mut commit, mut vote) = (SLOTS, 0);
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    for round in 0..rounds {
        let name = "crash::nothing_acknowledged_is_lost_by_kill_9";
        let mut victim = spawn(name, "commits", &folder).spawn().unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        // It is killed at some moment of its work, not of its start: after so many lines, and then a little later.
        let spared = 1 + (round * 7) % 60;
        let mut said = Vec::new();
        let first = lines
            .by_ref()
            .map_while(Result::ok)
            .filter(|l| l.starts_with("commit ") || l.starts_with("vote "))
            .take(spared as usize);
        said.extend(first);
        thread::sleep(Duration::from_micros(u64::from(round * 131 % 1_000)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        said.extend(lines.map_while(Result::ok));
        for line in said {
            match line.split_once(' ').map(|(word, n)| (word, n.parse::<u64>().unwrap_or(0))) {
                Some(("commit", n)) => commit = commit.max(n),
                // A life's first vote is above all that were confirmed to lives before it.
                Some(("vote", n)) if n <= vote => panic!("round {round}: term {n} was voted in twice"),
                Some(("vote", n)) => vote = n,
                Some(_) | None => {}
            }
        }
        let reopened = Instant::now();
        let (last, term) = check(&folder, commit, vote);
        slowest = slowest.max(reopened.elapsed());
        (commit, vote) = (last, term);
    }
    assert!(commit > SLOTS + u64::from(rounds) && vote > u64::from(rounds), "the victims did work");
    println!(
        "{rounds} rounds in {:?}: {commit} commits, {vote} votes, slowest open and check {slowest:?}",
        begun.elapsed()
    );
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_and_told_the_first() {
    if let Some(folder) = child("holds") {
        let _held = store::open(&folder).unwrap();
        say("held", 0);
        thread::sleep(Duration::from_secs(600));
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "crash::a_second_process_on_the_same_folder_is_refused_and_told_the_first";
    let mut holder = spawn(name, "holds", dir.path()).spawn().unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("held 0")));
    let refused = store::open(dir.path()).unwrap_err();
    let expected = Error::Locked { folder: dir.path().display().to_string(), pid: Some(holder.id()) };
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(refused, expected);
    store::open(dir.path()).unwrap();
}
