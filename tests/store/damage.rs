//! Disks that lie, lose or fill up: seen, said, and never taken for sound.

use super::{child, number, put, spawn};
use hawser::{
    limits::RECORD_BYTES_MAX,
    store::{self, Batch, Condition, Error, Store, Stores},
};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A closed state folder with some commits in it; the last one has number `n`.
fn written(n: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    let mut stores = store::open(&folder).unwrap();
    assert_eq!(stores.condition, Condition::Sound);
    for i in 1..=n {
        let mut batch = put("n", i);
        batch.put(format!("key/{:02}", i % 50), &vec![7_u8; 300]).unwrap();
        assert_eq!(stores.keyspace.commit(batch).unwrap(), i);
    }
    (dir, folder)
}

/// Zeroes the last `bytes` of what sled has written, as a disk does that dropped its cache.
fn lose_tail(folder: &Path, bytes: usize) {
    let at = folder.join("state/db");
    let content = fs::read(&at).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let file = fs::OpenOptions::new().write(true).open(at).unwrap();
    file.write_all_at(&vec![0; bytes.min(end)], end.saturating_sub(bytes) as u64).unwrap();
}

#[test]
fn a_store_that_went_back_in_time_says_so_until_it_is_settled() {
    for bytes in [1, 600, 3_000, 20_000] {
        let (_dir, folder) = written(300);
        lose_tail(&folder, bytes);
        let Stores { condition, keyspace, promises, .. } = store::open(&folder).unwrap();
        let Condition::RolledBack { found, confirmed: Some(300) } = condition else { panic!("{bytes}: {condition:?}") };
        assert!(found < 300 && number(&keyspace, "n") == Some(found).filter(|n| *n > 0), "{bytes}");
        assert!(keyspace.is_suspect() && promises.commit() > 300, "the number never goes back");
        drop(keyspace);
        // A restart does not hide it, nor does a commit.
        let mut stores = store::open(&folder).unwrap();
        assert!(matches!(stores.condition, Condition::RolledBack { .. }), "{:?}", stores.condition);
        stores.keyspace.commit(put("n", 1)).unwrap();
        drop(stores);
        let mut stores = store::open(&folder).unwrap();
        assert!(stores.keyspace.is_suspect());
        let mut copy = put("n", 300);
        copy.settle();
        stores.keyspace.commit(copy).unwrap();
        drop(stores);
        assert_eq!(store::open(&folder).unwrap().condition, Condition::Sound);
    }
}

#[test]
fn a_half_written_snapshot_does_not_keep_the_store_shut() {
    let (_dir, folder) = written(300);
    drop(store::open(&folder).unwrap());
    for content in [&b""[..], b"half of a snapshot"] {
        fs::write(folder.join("state/snap.FFFFFFFFFFFFFF00.generating"), content).unwrap();
        let stores = store::open(&folder).unwrap();
        assert_eq!(stores.condition, Condition::Sound);
        assert_eq!(number(&stores.keyspace, "n"), Some(300));
    }
}

#[test]
fn a_folder_that_does_not_open_is_moved_aside_and_kept() {
    let (_dir, folder) = written(300);
    let at = folder.join("state/db");
    let mut content = fs::read(&at).unwrap();
    // Through the whole file, so that both the log and whatever it points to are hit.
    content.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x55);
    fs::write(&at, &content).unwrap();
    for entry in fs::read_dir(folder.join("state")).unwrap().map(|e| e.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            fs::write(entry, b"not a snapshot at all").unwrap();
        }
    }
    let stores = store::open(&folder).unwrap();
    match &stores.condition {
        Condition::Rebuilt { moved_to: Some(kept), .. } => {
            assert!(kept.file_name().unwrap().to_string_lossy().starts_with("state.bad-"));
            assert_eq!(fs::read(kept.join("db")).unwrap(), content, "what is left of it is kept");
        }
        // sled may also take all of it for the end of its log.
        Condition::RolledBack { found: 0, .. } => {}
        Condition::RolledBack { .. } | Condition::Rebuilt { .. } | Condition::Sound => {
            panic!("{:?}", stores.condition)
        }
    }
    assert!(stores.keyspace.is_suspect() && number(&stores.keyspace, "n").is_none());
}

#[test]
fn a_keyspace_of_garbage_is_moved_aside() {
    let (_dir, folder) = written(10);
    fs::write(folder.join("state/conf"), b"garbage that is no configuration of sled").unwrap();
    let stores = store::open(&folder).unwrap();
    assert!(matches!(stores.condition, Condition::Rebuilt { moved_to: Some(_), .. }), "{:?}", stores.condition);
    assert!(stores.keyspace.is_suspect());
}

#[test]
fn a_keyspace_that_is_gone_is_missed() {
    let (_dir, folder) = written(10);
    fs::remove_dir_all(folder.join("state")).unwrap();
    let stores = store::open(&folder).unwrap();
    assert!(matches!(stores.condition, Condition::Rebuilt { moved_to: None, .. }), "{:?}", stores.condition);
    assert!(stores.keyspace.is_suspect() && stores.promises.commit() > 10);
}

#[test]
fn a_keyspace_whose_promise_file_is_new_is_not_believed() {
    let (_dir, folder) = written(10);
    fs::remove_file(folder.join("promise")).unwrap();
    let stores = store::open(&folder).unwrap();
    assert_eq!(stores.condition, Condition::RolledBack { found: 10, confirmed: None });
    assert_eq!(stores.promises.election(), None, "and the voter has no memory");
}

#[test]
fn a_damaged_promise_file_keeps_the_whole_store_shut() {
    let (_dir, folder) = written(10);
    fs::write(folder.join("promise"), [0_u8; 16_384]).unwrap();
    let refused = store::open(&folder).unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
}

#[test]
fn a_record_beyond_the_limit_is_refused_and_changes_nothing() {
    let (_dir, folder) = written(1);
    let mut stores = store::open(&folder).unwrap();
    let refused = Batch::new().put("large", &vec![0_u8; RECORD_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(Error::TooLarge(_))));
    assert_eq!(stores.keyspace.commit(put("n", 2)).unwrap(), 2);
}

/// Copies a folder with all below it.
pub(super) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A number that looks random, from another one (splitmix64).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Turns one bit of a file round, within what is not zero at its end.
fn flip(at: &Path, seed: u64) {
    let mut content = fs::read(at).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let bit = usize::try_from(mixed(seed)).unwrap() % (8 * used);
    content[bit / 8] ^= 1 << (bit % 8);
    fs::write(at, content).unwrap();
}

#[test]
fn a_flipped_bit_in_the_state_is_harmless_or_seen() {
    let rounds: u64 = std::env::var("HAWSER_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let (_dir, folder) = written(300);
    // Opened once more, so that there is a snapshot with something in it.
    drop(store::open(&folder).unwrap());
    let names = fs::read_dir(folder.join("state")).unwrap().map(|e| e.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).filter(|name| name != "blobs").collect();
    assert!(names.iter().any(|name| name.starts_with("snap.")) && names.contains(&"db".to_owned()), "{names:?}");
    let mut seen = 0;
    for round in 0..rounds {
        let name = &names[usize::try_from(round).unwrap() % names.len()];
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("state");
        copy_all(&folder, &copy);
        flip(&copy.join("state").join(name), round);
        let mut stores = store::open(&copy).unwrap();
        let told = format!("{name}, round {round}: {:?}", stores.condition);
        if stores.condition == Condition::Sound {
            assert!(!stores.keyspace.is_suspect(), "{told}");
            assert_eq!(number(&stores.keyspace, "n"), Some(300), "{told}");
            let keys = stores.keyspace.scan(b"key/").unwrap();
            assert_eq!(keys.len(), 50, "{told}");
            let value = |payload: &[u8]| store::batch::decode::<Vec<u8>>(b"key", payload).unwrap();
            assert!(keys.iter().all(|(_, payload)| value(payload) == [7; 300]), "{told}");
        } else {
            seen += 1;
            assert!(stores.keyspace.is_suspect(), "{told}");
        }
        assert!(stores.keyspace.commit(put("n", 301)).unwrap() > 300, "and it can be used: {told}");
    }
    println!("{seen} of {rounds} flipped bits were seen, the others hit nothing that counts");
    assert!(seen > 0, "some flips hit something");
}

/// Spoils pages of the promise file; a write goes to the slot that is the older one.
fn spoil(folder: &Path, pages: &[u64], seed: u64) {
    let at = folder.join("promise");
    let file = fs::OpenOptions::new().read(true).write(true).open(&at).unwrap();
    for page in pages {
        // Somewhere in what the checksum covers, and in itself.
        let mut byte = [0];
        let place = page * 4096 + mixed(seed ^ page) % 28;
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], place).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_one_place_of_the_promise_file_costs_nothing() {
    let (_dir, folder) = written(10);
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("state");
        copy_all(&folder, &copy);
        spoil(&copy, &[seed % 4], seed);
        let stores = store::open(&copy).unwrap();
        assert_eq!((&stores.condition, stores.promises.commit()), (&Condition::Sound, 10), "seed {seed}");
    }
}

#[test]
fn a_promise_file_that_may_have_lost_its_newest_record_is_no_memory() {
    let (_dir, folder) = written(10);
    let vote = store::Election { hold_given: std::time::Duration::from_secs(5), ..store::Election::default() };
    store::open(&folder).unwrap().promises.update_election(vote.clone()).unwrap();
    // Pages 0 and 2 are the first slot, 1 and 3 the second; record 1 went to both, record 12 is the vote.
    for (pages, newest) in [([0, 2], false), ([1, 3], true)] {
        for seed in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let copy = dir.path().join("state");
            copy_all(&folder, &copy);
            spoil(&copy, &pages, seed);
            let stores = store::open(&copy).unwrap();
            assert_eq!(stores.promises.election(), None, "the voter has no memory");
            assert!(stores.keyspace.is_suspect(), "{:?}", stores.condition);
            let store::Opened::Doubtful(left) = stores.promises.found() else { panic!("{:?}", stores.promises) };
            assert_eq!(left.election.as_ref() != Some(&vote), newest, "both slots are tried");
        }
    }
}

/// On a small tmpfs of its own: fills it, and commits until that fails.
fn fill_up(folder: &Path) {
    let mut stores = store::open(folder).unwrap();
    let filler = folder.join("filler");
    let mut last = 0;
    for n in 1..=20 {
        last = stores.keyspace.commit(put("n", n)).unwrap();
    }
    let mut size = 1 << 20;
    let mut filled = Vec::new();
    while size >= 512 {
        filled.resize(filled.len() + size, 7_u8);
        if fs::write(&filler, &filled).is_err() {
            filled.truncate(filled.len() - size);
            size /= 2;
        }
    }
    let mut large = |n: u64| {
        let mut batch = put("n", n);
        batch.put(format!("key/{n}"), &vec![n.to_le_bytes()[0]; 16_000]).unwrap();
        stores.keyspace.commit(batch)
    };
    let failed = (21..10_000).find_map(|n| match large(n) {
        Ok(seq) => {
            last = seq;
            None
        }
        Err(e) => Some(e),
    });
    println!("failed with {}", failed.expect("the disk is full"));
    assert!(matches!(large(10_000), Err(Error::Failed(_))), "a failed store stays failed");
    drop(stores);
    match store::open(folder) {
        Ok(stores) => assert_eq!(stores.condition, Condition::Sound),
        Err(e) => assert!(matches!(e, Error::Io { .. }), "a full disk is no reason to move anything aside: {e}"),
    }
    fs::remove_file(&filler).unwrap();
    let stores = store::open(folder).unwrap();
    assert_eq!(stores.condition, Condition::Sound, "with room it opens again");
    let found = number(&stores.keyspace, "n").unwrap();
    assert!(found >= last, "commit {last} was acknowledged, {found} is there");
    println!("done after {last}");
}

#[test]
fn a_full_disk_fails_the_store_and_loses_nothing() {
    if let Some(folder) = child("fills") {
        return fill_up(&folder);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut filler = spawn("damage::a_full_disk_fails_the_store_and_loses_nothing", "fills", dir.path());
    mounted(&mut filler, dir.path());
    let output = filler.stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("done after"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs the command in a mount namespace with a tmpfs of 2 MiB on `folder`; without root, in a user namespace too.
#[expect(unsafe_code, reason = "namespaces must be entered between fork and exec")]
fn mounted(command: &mut std::process::Command, folder: &Path) {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    use std::os::unix::process::CommandExt;
    let folder = std::ffi::CString::new(folder.to_str().unwrap()).unwrap();
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let maps = [format!("0 {} 1", user.as_raw()), format!("0 {} 1", group.as_raw())];
    let enter = move || {
        if user.is_root() {
            unshare(CloneFlags::CLONE_NEWNS)?;
        } else {
            // Whoever has no name in the new user namespace can make no file there.
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", &maps[0])?;
            fs::write("/proc/self/gid_map", &maps[1])?;
        }
        let none = None::<&std::ffi::CStr>;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(c"tmpfs"), folder.as_c_str(), Some(c"tmpfs"), MsFlags::empty(), Some(c"size=2m,mode=0700"))?;
        Ok(())
    };
    // SAFETY: between fork and exec this makes system calls only, with paths and texts that were made before the fork;
    // glibc's allocator is usable there all the same.
    unsafe { command.pre_exec(enter) };
}
