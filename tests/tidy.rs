//! House rules that no compiler checks: who may import whom, headers, pure files, sizes.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which rooms each room may use. Changing this table is a decision about the design.
const MAY_USE: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("limits", &[]),
    ("clock", &["time"]),
    ("alarm", &["time", "clock"]),
    ("cluster", &["time", "limits"]),
    ("config", &["time", "limits", "cluster", "trust"]),
    ("telemetry", &[]),
    ("trust", &["time", "limits", "clock", "cluster", "config"]),
    ("store", &["time", "limits", "clock", "cluster"]),
    ("http", &["time", "limits", "clock", "cluster", "config"]),
    ("driver", &["time", "limits", "clock", "alarm", "cluster", "config", "trust"]),
    ("tiebreak", &["time", "limits", "clock", "alarm", "cluster", "config", "trust"]),
    ("vip", &["time", "limits", "clock", "alarm", "cluster", "config"]),
    ("replicate", &["time", "limits", "clock", "cluster", "store"]),
    ("web", &["time", "limits", "clock", "cluster", "config", "trust", "http"]),
    ("admin", &["time", "limits", "cluster", "replicate", "web"]),
    ("supervisor", &["time", "limits", "clock", "alarm", "cluster", "config", "vip"]),
    (
        "daemon",
        &[
            "time",
            "limits",
            "clock",
            "cluster",
            "config",
            "telemetry",
            "trust",
            "store",
            "driver",
            "tiebreak",
            "vip",
            "replicate",
            "web",
            "admin",
        ],
    ),
    ("demo", &["time", "limits", "clock", "cluster", "config"]),
    (
        "cli",
        &[
            "time",
            "limits",
            "cluster",
            "config",
            "telemetry",
            "trust",
            "web",
            "replicate",
            "admin",
            "supervisor",
            "daemon",
            "demo",
        ],
    ),
    ("hostile", &["time", "limits", "cluster", "config", "trust", "vip", "replicate", "web", "admin"]),
    ("main", &[]),
];

/// What a pure file must not name: it is told the time and gives values back.
const IMPURE: &[&str] = &[
    "crate::clock",
    "std::time::Instant",
    "SystemTime",
    "tokio",
    "std::fs",
    "std::net::Udp",
    "std::thread",
    "HashMap",
    "Mutex",
];

/// Files that decide and do not act.
const PURE: &[&str] = &[
    "src/cluster",
    "src/time.rs",
    "src/limits.rs",
    "src/driver/ways.rs",
    "src/supervisor/core.rs",
    "src/tiebreak/etcd/json.rs",
    "src/tiebreak/etcd/model.rs",
    "src/tiebreak/etcd/record.rs",
    "src/tiebreak/etcd/speaker.rs",
    "src/vip/announce.rs",
    "src/vip/frames.rs",
    "src/vip/keeper/plan.rs",
    "src/vip/rivals.rs",
    "src/vip/upkeep.rs",
    "src/replicate/protocol",
];

/// Rooms that decide who owns what, or end it, and may not know the time of day: people and servers set it, forwards and
/// backwards.
const TIMELESS: &[&str] = &[
    "alarm.rs",
    "cluster",
    "driver",
    "limits.rs",
    "supervisor",
    "tiebreak",
    "time.rs",
    "vip",
    "store/promise.rs",
    "store/voter.rs",
];

/// Ways to learn the time of day: the standard library's and the kernel's.
const TIME_OF_DAY: &[&str] = &[
    "clock::wall",
    "wall()",
    "SystemTime",
    "UNIX_EPOCH",
    "Realtime",
    "REALTIME",
    "CLOCK_TAI",
    "ClockId::Tai",
    "gettimeofday",
    "OffsetDateTime",
    "DateTime",
    "UnixTime",
];

/// Who may print it, or must know it: files have dates, certificates end, transitions are told with their time.
const MAY_KNOW_THE_TIME_OF_DAY: &[&str] = &[
    "cli",
    "clock.rs",
    "config/machine.rs",
    "config/tests.rs",
    "config/tls_tests.rs",
    "daemon/notes.rs",
    "daemon/tiebreak.rs",
    "hostile.rs",
    "replicate/state.rs",
    "store/keyspace.rs",
    "trust",
    "web",
];

/// Lines of code, without comments and tests.
const LINES_MAX: usize = 600;

fn sources(under: &Path) -> Vec<PathBuf> {
    if under.is_file() {
        return vec![under.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The code of a file: no comments, and nothing from its tests on.
fn code(path: &Path) -> String {
    let text = text(path);
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms that a piece of code names, after `crate::` and in `use crate::{…}`.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 1 && (c.is_alphanumeric() || c == '_') {
                    word.push(c);
                } else if depth <= 1 || c == '{' {
                    if depth <= 1 || !word.is_empty() {
                        used.insert(std::mem::take(&mut word));
                    }
                    if c == ':' {
                        // The rest of this path is inside the room.
                        word.clear();
                    }
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            used.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used
}

#[test]
fn imports_go_downward_only() {
    let table: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let inside = path.strip_prefix(root().join("src")).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" {
            continue;
        }
        let allowed = table.get(room.as_str()).unwrap_or_else(|| panic!("{room} is not in the table"));
        for used in rooms_used(&code(&path)) {
            if used != room && table.contains_key(used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses {used}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_imports_sees_them() {
    let used = rooms_used("use crate::{clock, cluster::{Name, self}, time::Instant};\nlet a = crate::trust::random();");
    for room in ["clock", "cluster", "time", "trust"] {
        assert!(used.contains(room), "{room} in {used:?}");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in sources(&root().join("src")) {
        assert!(text(&path).starts_with("//! "), "{} has no header", path.display());
    }
}

#[test]
fn pure_files_name_no_clock_no_thread_no_disk() {
    let mut wrong = Vec::new();
    for pure in PURE {
        for path in sources(&root().join(pure)) {
            let code = code(&path);
            wrong.extend(IMPURE.iter().filter(|w| code.contains(**w)).map(|w| format!("{}: {w}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The places where a file names the time of day.
fn times_of_day(path: &Path) -> Vec<String> {
    let code = code(path);
    TIME_OF_DAY.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", path.display())).collect()
}

/// By construction: what decides and what ends a lease is told instants of the boot clock and of nothing else, so a jump
/// of the time of day, forwards or backwards, is not even seen.
#[test]
fn a_jump_of_the_time_of_day_cannot_be_seen_by_what_decides_or_ends_a_lease() {
    let src = root().join("src");
    let files: Vec<PathBuf> = TIMELESS.iter().flat_map(|room| sources(&src.join(room))).collect();
    assert!(files.len() > 50, "the rooms are there: {files:?}");
    let wrong: Vec<String> = files.iter().flat_map(|path| times_of_day(path)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // One place reads clocks: these by its own, those by it. Nobody asks the kernel past it.
    let clock = src.join("clock.rs");
    for path in sources(&src).into_iter().filter(|path| *path != clock) {
        assert!(!code(&path).contains("clock_gettime"), "{} reads a clock", path.display());
    }
    let now = code(&clock);
    let now = now.split("pub fn now()").nth(1).and_then(|rest| rest.split("pub fn").next()).unwrap();
    assert!(now.contains("ClockId::Boottime") && now.matches("clock_gettime").count() == 1, "{now}");
    assert!(code(&src.join("alarm.rs")).contains("TimerfdClockId::Boottime"));
}

#[test]
fn the_time_of_day_is_known_only_where_it_is_printed_or_must_be() {
    let src = root().join("src");
    let known: Vec<PathBuf> = MAY_KNOW_THE_TIME_OF_DAY.iter().map(|room| src.join(room)).collect();
    let others = sources(&src).into_iter().filter(|path| !known.iter().any(|room| path.starts_with(room)));
    let wrong: Vec<String> = others.flat_map(|path| times_of_day(&path)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for room in &known {
        assert!(sources(room).iter().any(|path| !times_of_day(path).is_empty()), "{} need not know", room.display());
    }
}

#[test]
fn no_file_is_more_than_one_idea_long() {
    let long: Vec<String> = sources(&root().join("src"))
        .into_iter()
        .map(|path| (code(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{}: {lines}", path.display()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn only_the_store_names_sled() {
    for path in sources(&root().join("src")) {
        if !path.starts_with(root().join("src/store")) {
            assert!(!code(&path).contains("sled::"), "{} names sled", path.display());
        }
    }
}

/// Words in code quotes of a module's head that can only be names of tests: long ones.
fn tests_named(text: &str) -> BTreeSet<String> {
    let head = text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
    let quoted = head.split('`').skip(1).step_by(2).map(str::to_owned);
    quoted
        .filter(|word| word.matches('_').count() >= 4 && !word.contains(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect()
}

#[test]
fn every_test_that_the_documentation_names_exists() {
    let all: Vec<String> =
        sources(&root().join("tests")).iter().chain(&sources(&root().join("src"))).map(|p| text(p)).collect();
    let mut missing = Vec::new();
    let mut found = 0;
    for path in sources(&root().join("src")) {
        for name in tests_named(&text(&path)) {
            let (plain, of_macro) = (format!("fn {name}("), format!("    {name} = "));
            if all.iter().any(|t| t.contains(&plain) || t.contains(&of_macro)) {
                found += 1;
            } else {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(found >= 20, "the safety argument names its tests: {found}");
}
