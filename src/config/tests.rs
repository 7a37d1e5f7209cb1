//! Tests of the whole check: what a good file means, and that every fault of a bad one is told, with its line.

use super::*;
use crate::cluster::{Member, Name};
use crate::limits;
use crate::trust::site::{Facts, Standing, Trouble};
use ipnet::IpNet;
use proptest::prelude::*;
use std::{net::IpAddr, path::PathBuf, time::Duration};

const GOOD: &str = r#"[cluster]
name = "shop"

[[node]]
name = "n1"
links = ["10.0.0.1", "10.1.0.1:7000"]

[[node]]
name = "n2"
links = ["10.0.0.2", "10.1.0.2:7000"]

[witness]
name = "w"
address = "10.0.0.9"

[[group]]
name = "web"
prefer = "n2"
vip = [
  { address = "192.0.2.10/24", interface = "eth0" },
  { address = "2001:db8::10", interface = "eth0" },
]

[[listener]]
address = ["192.0.2.10:80", "[2001:db8::10]:80"]
root = "/srv/www"

[[listener.route]]
path = "/api/"
upstream = "app"

[[upstream]]
name = "app"
servers = ["10.0.0.5:8080", "10.0.0.6:8080"]
health = { http = "/healthz", interval = "2s", timeout = "500ms", rise = 4, fall = 5, status = "200-204" }
"#;

/// A machine with `eth0` in 192.0.2.0/24, and every folder.
struct Pretended;

impl Machine for Pretended {
    fn networks(&self, interface: &str) -> Option<Vec<IpNet>> {
        (interface == "eth0").then(|| vec!["192.0.2.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()])
    }

    fn has_address(&self, address: IpAddr) -> bool {
        address != IpAddr::from([10, 9, 9, 9])
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.starts_with("/srv")
    }

    fn certificate(&self, _: &Path, _: &Path) -> Result<(Facts, Standing), Trouble> {
        let from = std::time::UNIX_EPOCH;
        let names = vec!["shop.example".to_owned()];
        Ok((Facts { names, not_before: from, not_after: from, key_kind: "ecdsa" }, Standing::Holds))
    }

    fn client_ca(&self, _: &Path) -> Result<(), Trouble> {
        Ok(())
    }

    fn ticket_keys(&self, _: &Path) -> Result<(), Trouble> {
        Ok(())
    }

    fn may_be_denied(&self) -> bool {
        false
    }
}

fn scene() -> Scene<'static> {
    Scene { path: Path::new("/etc/hawser/hawser.toml"), me: None, machine: Some(&Pretended) }
}

fn good(text: &str) -> Config {
    let checked = check(text, &scene()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(checked.warnings, []);
    checked.config
}

/// The faults as they are printed, without the file's name.
fn faults(text: &str) -> Vec<String> {
    let faults = check(text, &scene()).map(|_| ()).unwrap_err();
    faults.to_string().lines().map(|line| line.replace("/etc/hawser/hawser.toml:", "")).collect()
}

/// The good file with one piece replaced, and its faults.
fn spoilt(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    faults(&GOOD.replacen(from, to, 1))
}

fn warnings(text: &str) -> Vec<String> {
    check(text, &scene()).unwrap_or_else(|f| panic!("{f}")).warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_file_means_what_it_says() {
    let config = good(GOOD);
    assert_eq!(config.cluster.name.as_str(), "shop");
    assert_eq!(config.cluster.lease, limits::LEASE_DEFAULT);
    assert_eq!(config.cluster.interval, limits::INTERVAL_DEFAULT);
    assert_eq!(config.cluster.gate, GateMode::On);
    assert_eq!(config.nodes[0].links, ["10.0.0.1:7707".parse().unwrap(), "10.1.0.1:7000".parse().unwrap()]);
    assert_eq!(config.tiebreak.addresses(), ["10.0.0.9:7707".parse().unwrap()]);
    let [group] = config.groups.as_slice() else { panic!("one group") };
    assert_eq!(group.prefer, Member::Second);
    assert_eq!(group.vips[0].address.to_string(), "192.0.2.10/24");
    assert_eq!(group.vips[1].address.to_string(), "2001:db8::10/128", "one address unless a prefix is written");
    assert_eq!(config.paths.config_dir, PathBuf::from("/etc/hawser"));
    assert_eq!(config.paths.state_dir, PathBuf::from("/var/lib/hawser"));
}

#[test]
fn each_address_of_a_listener_serves_the_same_routes_longest_first() {
    let config = good(GOOD);
    let [v4, v6] = config.web.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!(v4.group, Some(Name::new("web").unwrap()));
    assert_eq!(v6.address, "[2001:db8::10]:80".parse().unwrap());
    let paths: Vec<&str> = v6.routes.iter().map(|route| route.path.as_str()).collect();
    assert_eq!(paths, ["/api/", "/"]);
}

#[test]
fn a_health_check_means_what_it_says() {
    let config = good(GOOD);
    let health = &config.web.upstreams[0].health;
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(2), Duration::from_millis(500)));
    assert_eq!((health.rise, health.fall), (4, 5));
    assert!(matches!(&health.kind, HealthKind::Http { path, host: None, status: (200, 204) } if path == "/healthz"));
    let line = GOOD.lines().find(|line| line.starts_with("health")).unwrap();
    let kind = |text: &str| good(&GOOD.replace(line, text)).web.upstreams[0].health.kind.clone();
    assert!(matches!(kind("health = \"none\""), HealthKind::None));
    assert!(matches!(kind("health = { tcp = true }"), HealthKind::Tcp));
    assert!(matches!(kind(""), HealthKind::Tcp));
}

#[test]
fn a_profile_sets_lease_and_interval_and_a_key_overrides_it() {
    let timing = |line: &str| {
        let cluster = good(&GOOD.replace("name = \"shop\"", &format!("name = \"shop\"\n{line}"))).cluster;
        (cluster.lease.as_millis(), cluster.interval.as_millis())
    };
    assert_eq!(timing("profile = \"fast\""), (100, 10));
    assert_eq!(timing("profile = \"default\""), (500, 50));
    assert_eq!(timing("lease = \"2s\""), (2000, 50));
    assert_eq!(timing("lease = \"200ms\""), (200, 20));
    assert_eq!(timing("profile = \"fast\"\nlease = \"1s\"\ninterval = \"100ms\""), (1000, 100));
}

#[test]
fn this_machine_is_the_node_of_its_name() {
    let me = |name: &str| Scene { me: Some(Name::new(name).unwrap()), ..scene() };
    assert_eq!(check(GOOD, &me("n1")).unwrap().config.me, Member::First);
    assert_eq!(check(GOOD, &me("n2")).unwrap().config.me, Member::Second);
    let faults = check(GOOD, &me("n3")).map(|_| ()).unwrap_err();
    assert!(faults.to_string().contains("this machine is \"n3\""), "{faults}");
}

#[test]
fn all_faults_of_a_file_are_told_at_once_in_the_order_of_its_lines() {
    let bad = r#"[cluster]
name = "Shop"
lese = "1s"
lease = 500
interval = "3 parsecs"
gate = true

[[node]]
name = "n1"
links = ["10.0.0.1", 7]

[[node]]
name = "n1"
links = "10.0.0.1"

[witness]
address = ["witness.example"]

[[group]]
name = "state"
prefer = "n3"
vip = [{ address = "224.0.0.1", interface = "eth9" }, { adress = "192.0.2.0/24" }]

[[listener]]
address = "0.0.0.0:80"
upstream = "ap"

[[listener]]
address = "192.0.2.10:80"
root = "/srv/www"
upstream = "app"

[[upstream]]
name = "app"
servers = []
health = { htpp = "/", rise = 0 }

[amdin]
"#;
    let expected = [
        "2: cluster.name: \"Shop\" is not a name",
        "3: cluster.lese: unknown key; did you mean \"lease\"?",
        "4: cluster.lease: has no unit; write lease = \"500ms\" or \"500s\"",
        "5: cluster.interval: \"3 parsecs\" is not a duration",
        "6: cluster.gate: is a boolean, and a string is needed",
        "10: node[0].links[1]: is an integer, and a string is needed",
        "13: node[1].name: \"n1\" is already node[0] (line 9); write another name",
        "14: node[1]: 10.0.0.1:7707 is already an address of node[0] (line 10)",
        "16: witness: name is missing; write name = ",
        "17: witness.address[0]: \"witness.example\" is not an address; names are not looked up",
        "20: group[0].name: \"state\" is the group of the replicated state",
        "21: group[0].prefer: \"n3\" is not a node; did you mean \"n1\"?",
        "22: group[0].vip[0].address: 224.0.0.1 is a multicast address",
        "22: group[0].vip[0].interface: this machine has no interface eth9",
        "22: group[0].vip[1].adress: unknown key; did you mean \"address\"?",
        "22: group[0].vip[1]: address is missing",
        "22: group[0].vip[1]: interface is missing",
        "26: listener[0].upstream: there is no upstream \"ap\"; did you mean \"app\"?",
        "28: listener[1]: has both root and upstream",
        "29: listener[1]: port 80 is already taken by listener[0] (0.0.0.0:80, line 25)",
        "35: upstream[0].servers: is empty; write at least one",
        "36: upstream[0].health.htpp: unknown key; did you mean \"http\"?",
        "36: upstream[0].health.rise: 0 is out of bounds; write a number from 1 to 1000",
        "38: amdin: unknown key; did you mean \"admin\"?",
    ];
    let told = faults(bad);
    for expected in expected {
        assert!(told.iter().any(|line| line.starts_with(expected)), "not told: {expected}\n{}", told.join("\n"));
    }
    assert_eq!(told.len(), expected.len(), "{}", told.join("\n"));
    let lines: Vec<usize> = told.iter().map(|line| line.split(':').next().unwrap().parse().unwrap()).collect();
    assert!(lines.is_sorted(), "{lines:?}");
}

#[test]
fn each_rule_between_keys_has_a_fault_of_its_own() {
    let cases = [
        ("name = \"shop\"", "name = \"shop\"\ninterval = \"200ms\"", "3: cluster.interval: a lease of 500ms has fewer"),
        (
            "name = \"shop\"",
            "name = \"shop\"\nlease = \"50ms\"",
            "3: cluster.lease: 50ms is out of bounds; write a time from 100ms to 10s",
        ),
        (
            "name = \"shop\"",
            "name = \"shop\"\nlease = \"10s\"\ngate = \"off\"",
            "3: cluster.lease: is too long without the gate",
        ),
        ("\"10.0.0.2\", \"10.1.0.2:7000\"", "\"10.0.0.2\"", "10: node[1].links: has 1, and node[0] has 2 (line 6)"),
        ("\"10.0.0.2\"", "\"fd00::2\"", "10: node[1].links[0]: cannot reach node[0].links[0] (line 6)"),
        (
            "\"10.1.0.1:7000\"",
            "\"10.0.0.1\"",
            "6: node[0].links: 10.0.0.1:7707 is already a link of this node (line 6)",
        ),
        ("\"10.0.0.9\"", "\"10.0.0.2\"", "14: witness: 10.0.0.2:7707 is already an address of node[1] (line 10)"),
        ("name = \"w\"", "name = \"n1\"", "13: witness.name: \"n1\" is already node[0] (line 5)"),
        (
            "2001:db8::10\"",
            "192.0.2.10\"",
            "21: group[0].vip[1].address: 192.0.2.10 is already group[0].vip[0] (line 20)",
        ),
        ("192.0.2.10/24", "10.0.0.9/24", "20: group[0].vip[0].address: 10.0.0.9 is an address of witness (line 14)"),
        ("192.0.2.10/24", "192.0.2.255/24", "20: group[0].vip[0].address: 192.0.2.255 is the broadcast address"),
        (
            "\"[2001:db8::10]:80\"",
            "\"192.0.2.10:80\"",
            "25: listener[0]: port 80 is already taken by listener[0] (line 25)",
        ),
        (
            "\"[2001:db8::10]:80\"",
            "\"10.0.0.1:7707\"",
            "25: listener[0]: port 7707 is already taken by node[0].links (line 6)",
        ),
        (
            "\"[2001:db8::10]:80\"",
            "\"10.0.0.1\"",
            "25: listener[0].address[1]: \"10.0.0.1\" has no port; write \"10.0.0.1:80\"",
        ),
        ("path = \"/api/\"", "path = \"/\"", "29: listener[0].route[0]: path / is already listener[0] (line 24)"),
        ("path = \"/api/\"", "path = \"api\"", "29: listener[0].route[0].path: \"api\" does not begin with /"),
        ("upstream = \"app\"", "upstream = \"app\"\nindex = \"a\"", "31: listener[0].route[0].index: is for files"),
        ("root = \"/srv/www\"", "", "none"),
        ("\"10.0.0.6:8080\"", "\"10.0.0.5:8080\"", "34: upstream[0].servers[1]: 10.0.0.5:8080 is already there"),
        (
            "\"10.0.0.6:8080\"",
            "\"app.example:8080\"",
            "34: upstream[0].servers[1]: \"app.example:8080\" is not an address; names",
        ),
        ("[witness]", "[[witness]]", "12: witness: is written as a list; write [witness], once"),
        ("[[upstream]]", "[upstream]", "32: upstream: is a table, and a list of tables is needed; write [[upstream]]"),
        ("name = \"shop\"", "name = \"shop\"\nname = \"two\"", "3: is not TOML: duplicate key"),
        ("name = \"shop\"", "name = shop", "2: is not TOML: "),
    ];
    for (from, to, expected) in cases {
        if expected == "none" {
            good(&GOOD.replacen(from, to, 1));
            continue;
        }
        let told = spoilt(from, to);
        assert!(told.iter().any(|line| line.starts_with(expected)), "not told: {expected}\n{}", told.join("\n"));
        assert_eq!(told.len(), 1, "one cause, one fault:\n{}", told.join("\n"));
    }
}

#[test]
fn what_only_deserves_a_look_is_a_warning() {
    let with = |from: &str, to: &str| warnings(&GOOD.replacen(from, to, 1)).join("\n");
    assert!(with("192.0.2.10/24", "198.51.100.7/24").contains("198.51.100.7 is in no network of eth0"));
    assert!(with("192.0.2.10:80", "203.0.113.1:80").contains("203.0.113.1 is no vip"));
    assert!(with("/srv/www", "/nowhere").contains("there is no folder /nowhere"));
    assert!(with("\"10.0.0.9\"", "\"10.0.0.2:9\"").contains("they would die together"));
    assert!(with("upstream = \"app\"", "root = \"/srv\"").contains("no route uses it"));
    assert!(with("\"10.0.0.5:8080\"", "\"192.0.2.10:80\"").contains("round for ever"));
}

#[test]
fn a_file_for_another_machine_is_not_held_against_this_one() {
    let offline = Scene { machine: None, ..scene() };
    let text = GOOD.replace("eth0", "eth9").replace("/srv/www", "/nowhere");
    assert_eq!(check(&text, &offline).unwrap().warnings, []);
    assert!(check(&text, &scene()).is_err());
}

#[test]
fn an_empty_file_tells_what_it_needs() {
    let told = faults("").join("\n");
    for needed in ["cluster is missing", "two nodes", "witness is missing"] {
        assert!(told.contains(needed), "{told}");
    }
}

#[test]
fn a_file_with_too_many_faults_tells_the_first_and_counts_the_rest() {
    let text: String = (0..500).map(|n| format!("key{n} = 1\n")).collect();
    let faults = check(&text, &scene()).map(|_| ()).unwrap_err();
    assert_eq!(faults.faults.len(), limits::FAULTS_MAX);
    assert!(faults.to_string().ends_with(&format!("and {} more", faults.omitted)), "{faults}");
    assert!(faults.omitted > 300);
}

#[test]
fn a_file_that_is_too_long_or_not_text_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let told = |bytes: &[u8]| {
        let path = dir.path().join("hawser.toml");
        std::fs::write(&path, bytes).unwrap();
        load(&Scene { path: &path, ..scene() }).map(|_| ()).unwrap_err().to_string()
    };
    assert!(told(&vec![b'#'; limits::CONFIG_BYTES_MAX + 1]).contains("is longer than"));
    assert!(told(b"# fine\n\xff").contains("hawser.toml:2: is not UTF-8"));
    let missing = Scene { path: &dir.path().join("none.toml"), ..scene() };
    assert!(load(&missing).map(|_| ()).unwrap_err().to_string().contains("there is no such file"));
}

const WITNESS: &str = r#"[witness]
listen = ["0.0.0.0", "[::]:7707"]
state = "state"

[[cluster]]
name = "shop"
secret = "shop.witness.key"

[[cluster]]
name = "blog"
secret = "/keys/blog.witness.key"
"#;

#[test]
fn a_witness_votes_for_the_clusters_of_its_file() {
    let config = check_witness(WITNESS, &scene()).unwrap().config;
    assert_eq!(config.listen, ["0.0.0.0:7707".parse().unwrap(), "[::]:7707".parse().unwrap()]);
    assert_eq!(config.state_dir, PathBuf::from("/etc/hawser/state"));
    assert_eq!(config.clusters[0].secret, PathBuf::from("/etc/hawser/shop.witness.key"));
    assert_eq!(config.clusters[1].secret, PathBuf::from("/keys/blog.witness.key"));
    assert!(is_witness(WITNESS));
    assert!(!is_witness(GOOD));
}

#[test]
fn a_witness_has_each_cluster_and_each_secret_once() {
    let told =
        |from: &str, to: &str| check_witness(&WITNESS.replace(from, to), &scene()).map(|_| ()).unwrap_err().to_string();
    assert!(told("\"blog\"", "\"shop\"").contains(":10: cluster[1].name: \"shop\" is already cluster[0] (line 6)"));
    assert!(
        told("/keys/blog", "shop").contains("toml:11: cluster[1].secret: is already the secret of cluster[0] (line 7)")
    );
    assert!(told("[::]:7707", "10.0.0.1").contains("is covered by 0.0.0.0:7707 (line 2)"));
    assert!(told("[[cluster]]", "[cluster]").contains("is not TOML"));
    assert!(check_witness("", &scene()).map(|_| ()).unwrap_err().to_string().contains("there is none"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(check(&text, &scene()).is_err());
        prop_assert!(check_witness(&text, &scene()).is_err());
        prop_assert!(!is_witness(&text) || text.contains("cluster") || text.contains("listen"));
    }

    #[test]
    fn a_good_file_with_a_damaged_piece_is_never_a_panic_and_every_fault_has_a_line_of_the_file(
        at in 0..GOOD.len(),
        cut in 0usize..40,
        insert in "[\\[\\]{}=\", .a-z0-9\n/:-]{0,12}",
    ) {
        let mut text = GOOD.to_owned();
        text.replace_range(at..(at + cut).min(GOOD.len()), &insert);
        if let Err(faults) = check(&text, &scene()) {
            prop_assert!(!faults.faults.is_empty());
            for fault in &faults.faults {
                prop_assert!(fault.line <= text.lines().count() + 1, "{}", fault);
                prop_assert!(fault.what != "the file is incomplete", "a fault without a reason:\n{}", text);
            }
        }
    }
}

#[test]
fn a_node_none_of_whose_addresses_is_on_this_machine_is_warned_about() {
    let me = |name| Some(Name::new(name).unwrap());
    let text = GOOD.replacen("10.0.0.1", "10.9.9.9", 1).replacen("10.1.0.1", "10.9.9.9", 1);
    let told = |name| {
        let checked = check(&text, &Scene { me: me(name), ..scene() }).unwrap();
        checked.warnings.iter().any(|w| w.what.contains("none of the addresses"))
    };
    assert!(told("n1"), "the folder of one node on the machine of the other");
    assert!(!told("n2"));
}

/// The good file without its witness, with another tiebreak.
fn pair(kind: &str, sections: &str) -> String {
    let (before, rest) = GOOD.split_once("[witness]").unwrap();
    let (_, after) = rest.split_once("[[group]]").unwrap();
    let before = before.replace("name = \"shop\"", &format!("name = \"shop\"\ntiebreak = \"{kind}\""));
    format!("{before}{sections}\n[[group]]{after}")
}

const FENCE: &str = "[fence]\nagent = \"/bin/true\"\noptions = { lanplus = true, port = 623 }\nhead_start = \"7s\"\n\
                     [fence.n1]\noptions = { ip = \"10.9.0.1\" }\n[fence.n2]\nagent = \"/bin/false\"\n";

#[test]
fn a_pair_without_a_witness_means_what_it_says() {
    assert!(matches!(good(&pair("none", "")).tiebreak, Tiebreak::None));
    let Tiebreak::Gateway(gateway) = good(&pair("gateway", "[gateway]\naddresses = \"192.0.2.1\"")).tiebreak else {
        panic!("another tiebreak");
    };
    assert_eq!((gateway.addresses, gateway.need), (vec!["192.0.2.1".parse().unwrap()], 1));
    let config = good(&pair("fence", FENCE));
    assert_eq!((config.cluster.boot_wait, config.tiebreak.name().as_str()), (limits::BOOT_WAIT_DEFAULT, "fence"));
    let Tiebreak::Fence(fence) = config.tiebreak else { panic!("another tiebreak") };
    assert_eq!((fence.head_start, fence.timeout), (Duration::from_secs(7), limits::FENCE_TIMEOUT_DEFAULT));
    let told = |device: &FenceDevice| {
        let options: Vec<String> = device.options.iter().map(|(key, text)| format!("{key}={text}")).collect();
        format!("{} {}", device.agent.display(), options.join(" "))
    };
    let [n1, n2] = &fence.devices;
    assert_eq!(told(n1), "/bin/true ip=10.9.0.1 lanplus=true port=623");
    assert_eq!(told(n2), "/bin/false lanplus=true port=623");
    assert!(!format!("{fence:?}").contains("10.9.0.1"), "values may be secrets");
}

#[test]
fn each_fault_of_a_tiebreak_is_told() {
    let fence = |from: &str, to: &str| pair("fence", &FENCE.replacen(from, to, 1));
    let cases = [
        (pair("fence", ""), "fence is missing"),
        (pair("gateway", ""), "gateway is missing"),
        (pair("witness", ""), "witness is missing"),
        (pair("nobody", ""), "\"nobody\" is not known; write \"witness\" or \"etcd\" or \"fence\""),
        (fence("[fence.n2]", "[fence.n3]"), "fence.n3: is neither a key nor a node; did you mean \"n1\"?"),
        (fence("[fence.n2]\nagent = \"/bin/false\"\n", ""), "fence: does not say how n2 is powered off"),
        (fence("agent = \"/bin/true\"\n", ""), "fence.n1: has no agent"),
        (fence("/bin/true", "./true"), "\"./true\" is no program"),
        (fence("port = 623", "port = [1]"), "fence.options.port: is not one line of text"),
        (fence("port = 623", "action = \"on\""), "fence.options.action: cannot be an option"),
        (fence("head_start", "headstart"), "fence.headstart: unknown key; did you mean \"head_start\"?"),
        (fence("agent = \"/bin/false\"", "options = { ip = \"10.9.0.1\" }"), "says the same as fence.n2"),
        (pair("gateway", "[gateway]\naddresses = \"10.0.0.1\""), "10.0.0.1 is an address of the nodes themselves"),
        (pair("gateway", "[gateway]\naddresses = \"192.0.2.1\"\nneed = 2"), "2 of 1 addresses can never answer"),
        (pair("gateway", "[gateway]\naddresses = \"router\""), "\"router\" is not the address of a machine"),
    ];
    for (text, expected) in cases {
        let told = faults(&text);
        assert!(told.iter().any(|fault| fault.contains(expected)), "{expected}: {told:#?}");
    }
    let told = warnings(&fence("/bin/true", "fence_of_nowhere"));
    assert!(told.iter().any(|warning| warning.contains("there is no program fence_of_nowhere")), "{told:#?}");
}

#[test]
fn sections_of_other_tiebreaks_stay_while_the_voters_change() {
    let text = pair("none", FENCE);
    let told = warnings(&text);
    assert!(told.iter().any(|w| w.contains("fence: is written, and the tiebreak is another (line 3)")), "{told:?}");
    let config = check(&text, &scene()).unwrap().config;
    assert!(matches!((&config.tiebreak, config.others.as_slice()), (Tiebreak::None, [Tiebreak::Fence(_)])));
}

#[test]
fn a_node_can_be_alone_and_the_other_one_can_leave() {
    let (before, rest) = GOOD.split_once("[[node]]\nname = \"n2\"").unwrap();
    let (_, after) = rest.split_once("[witness]").unwrap();
    let one = format!("{before}[witness]{after}").replace("prefer = \"n2\"", "prefer = \"n1\"");
    let config = good(&one);
    assert_eq!((config.alone, config.has_no_peer()), (Some(Member::First), true));
    assert!(matches!(config.tiebreak, Tiebreak::Witness(_)), "it may stay, for later");
    let leaves =
        |node: &str| GOOD.replacen(&format!("name = \"{node}\"\n"), &format!("name = \"{node}\"\nleaves = true\n"), 1);
    assert_eq!(good(&leaves("n2")).alone, Some(Member::First));
    assert_eq!(good(&leaves("n1")).alone, Some(Member::Second));
    assert!(!good(&leaves("n1")).has_no_peer());
    let both = leaves("n1").replacen("name = \"n2\"\n", "name = \"n2\"\nleaves = true\n", 1);
    assert!(faults(&both).iter().any(|fault| fault.contains("nobody would be left")), "{:?}", faults(&both));
}

const WITH_ETCD: &str = r#"[etcd]
endpoints = ["https://10.0.0.8", "https://[fd00::9]:4001/"]
ca = "etcd-ca.pem"
cert = "/keys/etcd.pem"
key = "etcd.key"
prefix = "/apps/hawser/"
"#;

fn with_etcd() -> String {
    let witness = "[witness]\nname = \"w\"\naddress = \"10.0.0.9\"\n";
    assert!(GOOD.contains(witness));
    GOOD.replacen(witness, WITH_ETCD, 1).replacen("name = \"shop\"", "name = \"shop\"\ntiebreak = \"etcd\"", 1)
}

#[test]
fn an_etcd_can_be_the_third_voter() {
    let config = good(&with_etcd());
    let Tiebreak::Etcd(etcd) = &config.tiebreak else { panic!("an etcd") };
    let endpoint = |address: &str| Endpoint { tls: true, address: address.parse().unwrap() };
    assert_eq!(etcd.endpoints, [endpoint("10.0.0.8:2379"), endpoint("[fd00::9]:4001")]);
    assert_eq!(etcd.ca, Some(PathBuf::from("/etc/hawser/etcd-ca.pem")));
    assert_eq!(etcd.identity, Some((PathBuf::from("/keys/etcd.pem"), PathBuf::from("/etc/hawser/etcd.key"))));
    assert_eq!(etcd.prefix, "/apps/hawser");
    assert_eq!(config.tiebreak.name().as_str(), "etcd");
    assert_eq!(config.tiebreak.addresses(), [], "no datagram goes there");
}

#[test]
fn faults_of_an_etcd_are_told_with_line_and_help() {
    for (from, to, fault) in [
        (
            "https://10.0.0.8",
            "etcd.example:2379",
            "14: etcd.endpoints[0]: \"etcd.example:2379\" is no URL; write a URL",
        ),
        ("https://10.0.0.8", "ftp://10.0.0.8", "14: etcd.endpoints[0]: ftp is not how etcd is spoken to"),
        ("https://10.0.0.8", "https://etcd.example", "14: etcd.endpoints[0]: \"etcd.example\" is not an address"),
        ("https://10.0.0.8", "https://10.0.0.8/v3", "14: etcd.endpoints[0]: \"https://10.0.0.8/v3\" has a path"),
        ("https://10.0.0.8", "https://0.0.0.0", "14: etcd.endpoints[0]: 0.0.0.0:2379 is no machine's address"),
        (
            "https://10.0.0.8",
            "https://[fd00::9]:4001",
            "14: etcd.endpoints[1]: [fd00::9]:4001 is already there (line 14)",
        ),
        ("ca = \"etcd-ca.pem\"\n", "", "13: etcd: https is written, and no ca; write ca = \"etcd-ca.pem\""),
        ("key = \"etcd.key\"\n", "", "16: etcd.cert: needs a key; write key beside it"),
        ("/apps/hawser/", "apps", "18: etcd.prefix: \"apps\" is not a prefix of keys"),
        ("tiebreak = \"etcd\"\n", "", "witness is missing"),
    ] {
        let text = with_etcd();
        assert!(text.contains(from), "{from}");
        let told = faults(&text.replacen(from, to, 1));
        assert!(told.iter().any(|line| line.contains(fault)), "{fault}: {told:#?}");
    }
    let warned = warnings(
        &with_etcd()
            .replace("https", "http")
            .replace("ca = \"etcd-ca.pem\"\n", "")
            .replace("cert = \"/keys/etcd.pem\"\nkey = \"etcd.key\"\n", ""),
    );
    assert!(warned.iter().any(|w| w.contains("neither encrypted nor authenticated")), "{warned:?}");
}

mod files;
