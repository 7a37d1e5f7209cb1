//! What is confirmed was synced before, and a sync that fails is final.

use super::{
    alone, child, number, put, spawn,
    syscalls::{Call, Verdict, WRITES, watched},
};
use hawser::{
    cluster::{GroupName, Term},
    store::{self, Batch, Condition, Election, Error, GroupMemory, Promises, Store},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

fn election(term: u64) -> Election {
    let group = GroupName::new("web").unwrap();
    let memory = GroupMemory { group, highest: Term(term), voted: Term(term), voted_for: None };
    Election { groups: vec![memory], ..Election::default() }
}

fn term(promises: &Promises) -> u64 {
    promises.election().map_or(0, |e| e.groups[0].voted.0)
}

/// A closed state folder with one commit and one vote.
fn begun() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap().join("state");
    let mut stores = store::open(&folder).unwrap();
    stores.keyspace.commit(put("n", 1)).unwrap();
    stores.promises.update_election(election(1)).unwrap();
    drop(stores);
    (dir, folder)
}

/// Content of the files below a folder.
type Files = BTreeMap<PathBuf, Arc<Vec<u8>>>;

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), Arc::new(fs::read(&path).unwrap()));
        }
    }
    found
}

/// What had been confirmed, what had been done for it since the confirmation before, and what the disk must have had.
struct Confirmed {
    commit: u64,
    vote: u64,
    calls: Vec<Call>,
    durable: Files,
}

/// A disk that keeps nothing but what was synced, at the moment of each confirmation.
fn confirmed(rounds: u64) -> (tempfile::TempDir, PathBuf, Vec<Confirmed>) {
    let disk = Mutex::new((Files::new(), Vec::new()));
    let judge = |call: &Call| {
        let mut disk = disk.lock().unwrap();
        if call.syncs(&call.path) && call.path.is_file() {
            disk.0.insert(call.path.clone(), Arc::new(fs::read(&call.path).unwrap()));
        }
        disk.1.push(call.clone());
        Verdict::Go
    };
    let work = || {
        let (dir, folder) = begun();
        let all = files(&folder);
        disk.lock().unwrap().0 = all;
        let mut stores = store::open(&folder).unwrap();
        disk.lock().unwrap().1.clear();
        let (mut commit, mut vote) = (1, 1);
        let mut seen = Vec::new();
        for round in 0..rounds {
            if round % 3 == 2 {
                vote += 1;
                stores.promises.update_election(election(vote)).unwrap();
            } else {
                commit += 1;
                stores.keyspace.commit(nth(commit)).unwrap();
            }
            let mut disk = disk.lock().unwrap();
            let calls = std::mem::take(&mut disk.1);
            seen.push(Confirmed { commit, vote, calls, durable: disk.0.clone() });
        }
        (dir, folder, seen)
    };
    watched(&WRITES, judge, work)
}

fn nth(commit: u64) -> Batch {
    let mut batch = put("n", commit);
    batch.put(format!("key/{:02}", commit % 7), &vec![7_u8; 900]).unwrap();
    batch
}

#[test]
fn each_confirmed_commit_and_vote_was_synced_before() {
    if !alone("sync::each_confirmed_commit_and_vote_was_synced_before") {
        return;
    }
    let (_dir, folder, confirmed) = confirmed(60);
    let (db, promise) = (folder.join("state/db"), folder.join("promise"));
    let (mut commits, mut last) = (0, 1);
    for Confirmed { commit, calls, .. } in confirmed {
        let first = |what: &dyn Fn(&Call) -> bool| calls.iter().position(what);
        let latest = |what: &dyn Fn(&Call) -> bool| calls.iter().rposition(what);
        let promised = first(&|c| c.writes(&promise)).expect("the promise file is written");
        assert!(latest(&|c| c.syncs(&promise)) > latest(&|c| c.writes(&promise)), "and then synced: {calls:?}");
        if commit > last {
            let wrote = latest(&|c| c.writes(&db)).expect("the state is written");
            let synced = latest(&|c| c.syncs(&db)).expect("there is an fdatasync behind each commit");
            assert!(wrote < synced, "what was written is synced: {calls:?}");
            assert!(synced < promised, "a commit is counted once it is durable: {calls:?}");
            commits += 1;
        }
        last = commit;
    }
    assert_eq!(commits, 40);
}

#[test]
fn a_power_loss_right_after_a_confirmation_loses_nothing_of_it() {
    let name = "sync::a_power_loss_right_after_a_confirmation_loses_nothing_of_it";
    if let Some(folder) = child("look") {
        let stores = store::open(&folder).unwrap();
        let n = number(&stores.keyspace, "n").unwrap();
        return println!("found {:?} {n} {}", stores.condition, term(&stores.promises));
    }
    if !alone(name) {
        return;
    }
    let judged = |seen: &Confirmed, folder: &Path| {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in &seen.durable {
            let to = dir.path().join(path.strip_prefix(folder).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, content.as_slice()).unwrap();
        }
        // As another process would: sled's threads of this one are watched no more.
        let output = spawn(name, "look", dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = format!("found Sound {} {}", seen.commit, seen.vote);
        assert!(said.contains(&expected), "{expected}: {said}");
    };
    let (_dir, folder, confirmed) = confirmed(45);
    assert_eq!(confirmed.len(), 45);
    confirmed.iter().for_each(|seen| judged(seen, &folder));
}

/// Which call is failed: the first to this file after so many that are let go.
#[derive(Debug, Clone)]
struct Fault {
    file: PathBuf,
    number: libc::c_long,
    spared: u64,
}

/// What fails once, and until then.
#[derive(Debug, Default)]
struct Trap(Mutex<Option<Fault>>);

impl Trap {
    fn judge(&self, call: &Call) -> Verdict {
        let mut fault = self.0.lock().unwrap();
        let Some(armed) = fault.as_mut().filter(|f| f.number == call.number && f.file == call.path) else {
            return Verdict::Go;
        };
        if let Some(left) = armed.spared.checked_sub(1) {
            armed.spared = left;
            return Verdict::Go;
        }
        *fault = None;
        Verdict::Fail
    }

    fn arm(&self, fault: Fault) {
        *self.0.lock().unwrap() = Some(fault);
    }
}

/// Commits, or votes, until the fault; then again, when the disk does not fail any more. Then what a restart finds.
fn work_until_it_fails(trap: &Trap, file: &str, number: libc::c_long, spared: u64, vote: bool) {
    let (_dir, folder) = begun();
    let fault = Fault { file: folder.join(file), number, spared };
    let told = format!("{fault:?}");
    let mut stores = store::open(&folder).unwrap();
    trap.arm(fault);
    let mut step = |n| match vote {
        true => stores.promises.update_election(election(n)),
        false => stores.keyspace.commit(nth(n)).map(|_| ()),
    };
    let failed = (2..100).find_map(|n| step(n).err().map(|e| (n, e)));
    let (n, error) = failed.unwrap_or_else(|| panic!("{told}: it is not met"));
    assert!(matches!(error, Error::Io { .. }), "{told}: {error}");
    for again in 0..3 {
        assert!(matches!(step(n + again), Err(Error::Failed(_))), "{told}: a failed store stays failed");
    }
    drop(stores);
    let stores = store::open(&folder).unwrap();
    assert_eq!(stores.condition, Condition::Sound, "{told}");
    let found = if vote { term(&stores.promises) } else { super::number(&stores.keyspace, "n").unwrap() };
    // What failed may be there: nobody was told that it is not.
    assert!(found == n - 1 || found == n, "{told}: {} was confirmed, {found} is there", n - 1);
}

#[test]
fn an_error_of_the_disk_is_final_and_loses_nothing_that_was_confirmed() {
    if !alone("sync::an_error_of_the_disk_is_final_and_loses_nothing_that_was_confirmed") {
        return;
    }
    let trap = Trap::default();
    let work = || {
        for spared in [0, 1, 6] {
            for number in [libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_pwrite64] {
                work_until_it_fails(&trap, "state/db", number, spared, false);
            }
            for (number, vote) in
                [(libc::SYS_fdatasync, true), (libc::SYS_fdatasync, false), (libc::SYS_pwrite64, true)]
            {
                work_until_it_fails(&trap, "promise", number, spared, vote);
            }
        }
    };
    watched(&WRITES, |call| trap.judge(call), work);
}
