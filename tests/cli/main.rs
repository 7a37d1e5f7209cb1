//! Runs the built program as a person would: help, `check`, `init`, samples, units.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod daemons;
mod tls;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn hawser(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hawser")).args(args).current_dir(dir).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

const VERBS: [&str; 14] = [
    "run",
    "witness",
    "init",
    "check",
    "status",
    "switchover",
    "standby",
    "unstandby",
    "confirm-fenced",
    "history",
    "serve",
    "demo",
    "completions",
    "man",
];

const INIT: [&str; 12] = [
    "init",
    "--cluster",
    "shop",
    "--node",
    "n1=127.0.0.1:7001",
    "--node",
    "n2=127.0.0.1:7002",
    "--witness",
    "w=127.0.0.1:7003",
    "--vip",
    "192.0.2.10/32@lo",
    "--out",
];

fn init(dir: &Path, out: &str) -> Output {
    hawser(&[&INIT[..], &[out]].concat(), dir)
}

#[test]
fn every_verb_has_help_with_an_example() {
    let general = out(&hawser(&["--help"], &root()));
    for verb in VERBS {
        assert!(general.contains(&format!("\n  {verb} ")), "{verb} is listed");
        let help = hawser(&[verb, "--help"], &root());
        assert!(help.status.success());
        assert!(out(&help).contains("Usage: hawser"), "{verb}");
        assert!(out(&help).contains("Example"), "{verb}");
    }
    assert!(!general.contains("worker"), "what only hawser itself types is not listed");
}

#[test]
fn a_man_page_and_completions_know_every_verb() {
    let page = out(&hawser(&["man"], &root()));
    let completions = out(&hawser(&["completions", "bash"], &root()));
    for verb in VERBS {
        let on_page = verb.replace('-', "\\-");
        assert!(page.contains(&format!("hawser\\-{on_page}(1)")), "{verb}");
        assert!(completions.contains(verb), "{verb}");
        assert!(out(&hawser(&["man", verb], &root())).contains(&format!("hawser\\-{on_page} \\-")), "{verb}");
    }
    assert_eq!(hawser(&["man", "nothing"], &root()).status.code(), Some(2));
}

#[test]
fn a_wrong_verb_or_argument_is_exit_code_2_with_a_hint() {
    let typo = hawser(&["swichover"], &root());
    assert_eq!(typo.status.code(), Some(2));
    assert!(err(&typo).contains("switchover"));
    assert_eq!(hawser(&[], &root()).status.code(), Some(2));
    let member = hawser(&["init", "--cluster", "c", "--node", "n1", "--witness", "w=1.2.3.4"], &root());
    assert_eq!(member.status.code(), Some(2));
    assert!(err(&member).contains("write NAME=ADDRESS"), "{}", err(&member));
}

#[test]
fn a_closed_pipe_ends_the_output_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hawser"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(err(&output), "");
}

#[test]
fn every_sample_passes_the_check() {
    let samples: Vec<String> = fs::read_dir(root().join("config"))
        .unwrap()
        .map(|entry| entry.unwrap().path().to_string_lossy().into_owned())
        .filter(|path| path.ends_with(".toml"))
        .collect();
    assert!(samples.len() >= 5);
    for sample in &samples {
        let checked = hawser(&["check", "--offline", sample], &root());
        assert!(checked.status.success(), "{}", err(&checked));
        assert_eq!(err(&checked), "", "a sample gives no warning");
        assert!(out(&checked).starts_with(&format!("{sample}: ok: ")));
    }
}

/// Each key that the reference explains by showing its default is a key indeed.
#[test]
fn every_default_that_the_reference_shows_may_be_written() {
    for sample in ["hawser.toml", "witness.toml"] {
        let text = fs::read_to_string(root().join("config").join(sample)).unwrap();
        let is_key = |line: &str| {
            line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).is_some_and(|(key, value)| {
                key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                    && !value.contains(" is ")
            })
        };
        let written: Vec<&str> =
            text.lines().map(|line| if is_key(line) { line.trim_start_matches("# ") } else { line }).collect();
        assert!(text.lines().any(is_key));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(sample), written.join("\n")).unwrap();
        let checked = hawser(&["check", "--offline", sample], dir.path());
        assert!(checked.status.success(), "{}", err(&checked));
    }
}

#[test]
fn a_bad_file_tells_all_its_faults_with_their_lines_and_exits_78() {
    let dir = tempfile::tempdir().unwrap();
    let sample = fs::read_to_string(root().join("config/static-site.toml")).unwrap();
    let bad =
        sample.replace("name = \"site\"", "name = \"site\"\nleese = \"1s\"").replace("\"10.0.0.2\"", "\"10.0.0.1\"")
            + "\n[[listener]]\naddress = \"192.0.2.10:80\"\nupstream = \"app\"\n";
    fs::write(dir.path().join("hawser.toml"), &bad).unwrap();
    let line =
        |what: &str, nth: usize| bad.lines().enumerate().filter(|(_, l)| l.contains(what)).nth(nth).unwrap().0 + 1;
    let checked = hawser(&["check", "--offline", "hawser.toml"], dir.path());
    assert_eq!(checked.status.code(), Some(78));
    assert_eq!(out(&checked), "");
    let told = err(&checked);
    let expected = [
        format!("hawser.toml:{}: cluster.leese: unknown key; did you mean \"lease\"?", line("leese", 0)),
        format!("hawser.toml:{}: node[1]: 10.0.0.1:7707 is already an address of node[0]", line("10.0.0.1", 1)),
        format!(
            "hawser.toml:{}: listener[1]: port 80 is already taken by listener[0] (line {})",
            line("192.0.2.10:80", 1),
            line("192.0.2.10:80", 0)
        ),
        format!("hawser.toml:{}: listener[1].upstream: there is no upstream \"app\"", line("upstream", 0)),
    ];
    assert_eq!(told.lines().count(), expected.len(), "{told}");
    for (line, expected) in told.lines().zip(expected) {
        assert!(line.starts_with(&expected), "{line}\n{expected}");
    }
    // `run` says the same, and ends the same.
    let run = hawser(&["run", "--node", "n1", "--config", "hawser.toml"], dir.path());
    assert_eq!(run.status.code(), Some(78));
    assert!(err(&run).contains("cluster.leese"));
}

#[test]
fn faults_can_be_read_by_machines() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.toml"), "[cluster]\nname = 1\n").unwrap();
    let sample = root().join("config/two-links.toml");
    let checked = hawser(&["check", "--offline", "--json", "bad.toml", sample.to_str().unwrap()], dir.path());
    assert_eq!(checked.status.code(), Some(78));
    let found: serde_json::Value = serde_json::from_str(&out(&checked)).unwrap();
    assert_eq!(found[0]["ok"], false);
    assert_eq!(found[0]["faults"][0]["line"], 0, "what the file lacks comes first");
    assert!(found[0]["faults"].as_array().unwrap().iter().any(|f| f["line"] == 2 && f["place"] == "cluster.name"));
    assert_eq!(found[1]["ok"], true);
    assert!(found[1]["summary"].as_str().unwrap().starts_with("cluster pair of n1 and n2"));
}

#[test]
fn an_interface_that_is_not_there_is_a_fault_on_this_machine_and_none_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root().join("config/static-site.toml")).unwrap().replace("eth0", "hawser-none");
    fs::write(dir.path().join("hawser.toml"), text).unwrap();
    let here = hawser(&["check", "hawser.toml"], dir.path());
    assert_eq!(here.status.code(), Some(78));
    assert!(err(&here).contains("this machine has no interface hawser-none"), "{}", err(&here));
    assert!(hawser(&["check", "--offline", "hawser.toml"], dir.path()).status.success());
}

#[test]
fn a_missing_file_is_named_with_the_way_out() {
    let checked = hawser(&["check", "none.toml"], &root());
    assert_eq!(checked.status.code(), Some(78));
    assert!(
        err(&checked).contains("none.toml: there is no such file; make one with `hawser init`"),
        "{}",
        err(&checked)
    );
    assert!(err(&checked).contains("hawser check FILE") && !err(&checked).contains("--config"), "{}", err(&checked));
}

#[test]
fn init_makes_folders_that_pass_the_check_with_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path(), "made");
    assert!(made.status.success(), "{}", err(&made));
    assert!(out(&made).contains("ssh root@127.0.0.1 install -d -m 700 /etc/hawser"), "{}", out(&made));
    let files = ["made/n1/hawser.toml", "made/n2/hawser.toml", "made/w/witness.toml"];
    let checked = hawser(&[&["check"], &files[..]].concat(), dir.path());
    assert!(checked.status.success(), "{}", err(&checked));
    assert_eq!(out(&checked).lines().count(), 3);
    assert!(out(&checked).contains("made/w/witness.toml: ok: witness of 1 cluster: shop"));
    assert_eq!(
        fs::read(dir.path().join("made/n1/hawser.toml")).unwrap(),
        fs::read(dir.path().join("made/n2/hawser.toml")).unwrap(),
        "the same file on both nodes"
    );
}

#[test]
fn init_makes_a_pair_without_a_witness_that_says_what_it_does_not_protect_from() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |more: &[&str]| {
        let nodes = ["init", "--cluster", "shop", "--node", "n1=127.0.0.1:7001", "--node", "n2=127.0.0.1:7002"];
        hawser(&[&nodes, more].concat(), dir.path())
    };
    for (kind, more) in [("none", &["--no-witness"][..]), ("gateway", &["--gateway", "192.0.2.1"])] {
        let made = pair(&[more, &["--out", kind]].concat());
        assert!(made.status.success() && !out(&made).contains("witness"), "{}{}", out(&made), err(&made));
        let checked = hawser(&["check", &format!("{kind}/n1/hawser.toml")], dir.path());
        let told = out(&checked);
        assert!(told.contains(&format!("tiebreak {kind}")) && told.contains("both nodes answer"), "{told}");
        assert_eq!(fs::read_dir(dir.path().join(kind)).unwrap().count(), 3, "a CA and two nodes");
    }
    assert_eq!(pair(&["--out", "bare"]).status.code(), Some(2), "something must be chosen");
    assert_eq!(pair(&["--no-witness", "--witness", "w=127.0.0.1:7003", "--out", "both"]).status.code(), Some(2));
}

#[test]
fn init_makes_a_pair_that_an_existing_etcd_votes_for() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |more: &[&str]| {
        let nodes = ["init", "--cluster", "shop", "--node", "n1=127.0.0.1:7001", "--node", "n2=127.0.0.1:7002"];
        hawser(&[&nodes, more].concat(), dir.path())
    };
    let members = ["--etcd", "https://10.0.0.7:2379", "--etcd", "https://10.0.0.8:2379", "--etcd", "https://10.0.0.9"];
    let made = pair(&[&members[..], &["--out", "secure"]].concat());
    assert!(made.status.success() && out(&made).contains("etcd-client.key"), "{}{}", out(&made), err(&made));
    assert!(!out(&made).contains("witness"), "{}", out(&made));
    let checked = hawser(&["check", "--offline", "secure/n1/hawser.toml"], dir.path());
    assert!(out(&checked).contains("etcd of 3 members"), "{}{}", out(&checked), err(&checked));
    let plain = pair(&["--etcd", "http://127.0.0.1:2379", "--out", "plain"]);
    assert!(plain.status.success() && !out(&plain).contains("etcd-client"), "{}{}", out(&plain), err(&plain));
    assert!(hawser(&["check", "plain/n2/hawser.toml"], dir.path()).status.success());
    let no_url = pair(&["--etcd", "10.0.0.7", "--out", "none"]);
    assert_eq!(no_url.status.code(), Some(2));
    assert!(err(&no_url).contains("http://") && !dir.path().join("none").exists(), "{}", err(&no_url));
    assert_eq!(pair(&["--etcd", "http://127.0.0.1", "--no-witness", "--out", "both"]).status.code(), Some(2));
}

#[test]
fn the_check_opens_what_is_shown_to_an_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = ["--node", "n1=127.0.0.1:7001", "--node", "n2=127.0.0.1:7002", "--etcd", "https://127.0.0.1:2379"];
    let made = hawser(&[&["init", "--cluster", "shop"], &nodes[..]].concat(), dir.path());
    assert!(made.status.success(), "{}", err(&made));
    let home = dir.path().join("shop/n1");
    let check = || {
        let checked = hawser(&["check", "shop/n1/hawser.toml"], dir.path());
        (checked.status.code(), err(&checked))
    };
    let (code, told) = check();
    assert!(code == Some(78) && told.contains("etcd-ca.pem"), "{told}");
    // Any pair will do: it is etcd who judges whose they are.
    fs::copy(home.join("ca.crt"), home.join("etcd-ca.pem")).unwrap();
    fs::copy(home.join("node.crt"), home.join("etcd-client.pem")).unwrap();
    fs::copy(dir.path().join("shop/n2/node.key"), home.join("etcd-client.key")).unwrap();
    let (code, told) = check();
    assert!(code == Some(78) && told.contains("etcd-client.key") && told.contains("does not belong"), "{told}");
    fs::copy(home.join("node.key"), home.join("etcd-client.key")).unwrap();
    assert_eq!(check().0, Some(0), "{}", check().1);
    // Both what is beside it and what etcd is shown are told at once.
    fs::remove_file(home.join("etcd-client.pem")).unwrap();
    fs::set_permissions(home.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = check();
    assert!(code == Some(78) && told.contains("etcd-client.pem") && told.contains("node.key"), "{told}");
}

#[test]
fn nobody_is_confirmed_as_fenced_by_mistake() {
    let unsure = hawser(&["confirm-fenced", "n2"], &root());
    assert_eq!(unsure.status.code(), Some(2));
    assert!(err(&unsure).contains("nothing was done") && err(&unsure).contains("--yes"), "{}", err(&unsure));
}

#[test]
fn the_check_looks_at_the_keys_beside_the_file() {
    let dir = tempfile::tempdir().unwrap();
    assert!(init(dir.path(), "made").status.success());
    let told = || {
        let checked = hawser(&["check", "made/n1/hawser.toml"], dir.path());
        assert_eq!(checked.status.code(), Some(78));
        err(&checked)
    };
    let key = dir.path().join("made/n1/node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(told().contains("node.key can be read by others (mode 0644): chmod 600"), "{}", told());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = dir.path().join("made/n1/hawser.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"shop\"", "\"shed\"")).unwrap();
    assert!(told().contains("the secret beside it is of cluster \"shop\""), "{}", told());
    fs::write(&config, text.replace("\"n1\"", "\"n3\"")).unwrap();
    assert!(told().contains("this machine is \"n1\", and the file has no node of that name"), "{}", told());
}

#[test]
fn init_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    assert!(init(dir.path(), "made").status.success());
    let before = fs::read(dir.path().join("made/n1/node.key")).unwrap();
    let again = init(dir.path(), "made");
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("is there already") && err(&again).contains("--out"), "{}", err(&again));
    assert_eq!(fs::read(dir.path().join("made/n1/node.key")).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn init_refuses_what_would_be_a_bad_configuration_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let try_init = |from: &str, to: &str| {
        let args: Vec<&str> = INIT.iter().map(|arg| if *arg == from { to } else { arg }).chain(["made"]).collect();
        let made = hawser(&args, dir.path());
        assert_eq!(made.status.code(), Some(2), "{to}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{to}");
        err(&made)
    };
    assert!(try_init("n2=127.0.0.1:7002", "n2=127.0.0.1:7001").contains("already an address of node[0]"));
    assert!(try_init("n2=127.0.0.1:7002", "n1=127.0.0.1:7002").contains("already node[0]"));
    assert!(try_init("192.0.2.10/32@lo", "224.0.0.1@lo").contains("multicast"));
    assert!(try_init("192.0.2.10/32@lo", "192.0.2.10/32@no/such").contains("not the name of an interface"));
    let one = hawser(&["init", "--cluster", "c", "--node", "n1=10.0.0.1", "--witness", "w=10.0.0.9"], dir.path());
    assert_eq!(one.status.code(), Some(2));
    assert!(err(&one).contains("write --node twice"));
}

#[test]
fn run_without_a_certificate_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    assert!(init(dir.path(), "made").status.success());
    fs::remove_file(dir.path().join("made/n1/node.crt")).unwrap();
    let run = hawser(&["run", "--config", "made/n1/hawser.toml"], dir.path());
    assert_eq!(run.status.code(), Some(78));
    assert!(err(&run).contains("name it with --node"), "{}", err(&run));
}

/// The packages install exactly the files that are here, and the units name the paths that the program uses by itself.
#[test]
fn packages_and_units_name_files_that_exist() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let metadata = &manifest["package"]["metadata"];
    let deb = metadata["deb"]["assets"].as_array().unwrap().iter().map(|asset| asset[0].as_str().unwrap());
    let rpm = metadata["generate-rpm"]["assets"].as_array().unwrap().iter().map(|a| a["source"].as_str().unwrap());
    for source in deb.chain(rpm).filter(|source| !source.starts_with("target/")) {
        let path = root().join(source.trim_end_matches("*.toml"));
        assert!(path.exists(), "{source}");
    }
    let unit = |name: &str| fs::read_to_string(root().join("systemd").join(name)).unwrap();
    assert!(unit("hawser.service").contains("--config /etc/hawser/hawser.toml"));
    assert!(out(&hawser(&["run", "--help"], &root())).contains("/etc/hawser/hawser.toml"));
    assert!(unit("hawser-witness.service").contains("/etc/hawser-witness/*"));
    assert!(out(&hawser(&["witness", "--help"], &root())).contains("/etc/hawser-witness/witness.toml"));
    for name in ["hawser.service", "hawser-witness.service"] {
        assert!(unit(name).contains("RestartPreventExitStatus=78"), "a bad configuration does not mend itself");
    }
}
