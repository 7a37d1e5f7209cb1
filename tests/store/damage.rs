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
    fs::write(folder.join("promise"), [0_u8; 8192]).unwrap();
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
    let user = if rustix::process::geteuid().is_root() { CloneFlags::empty() } else { CloneFlags::CLONE_NEWUSER };
    let enter = move || {
        unshare(CloneFlags::CLONE_NEWNS | user)?;
        let none = None::<&std::ffi::CStr>;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(c"tmpfs"), folder.as_c_str(), Some(c"tmpfs"), MsFlags::empty(), Some(c"size=2m,mode=0700"))?;
        Ok(())
    };
    // SAFETY: between fork and exec this makes system calls only: it allocates nothing and takes no lock. The paths
    // were made before the fork.
    unsafe { command.pre_exec(enter) };
}
