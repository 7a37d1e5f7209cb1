//! A pair whose third voter is a real etcd of three members, by TLS with certificates on both sides.

use super::pairs::{Pair, in_sandbox};
use hawser::demo::lab::{Host, Lab};
use hawser::demo::process::{Daemon, Recipe};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the members run.
const MEMBERS: [Host; 3] = [Host::Witness, Host::App, Host::Client];

/// `NAME.pem` and `NAME.key`, signed by the CA.
fn issue(folder: &Path, ca: &CertifiedIssuer<'_, KeyPair>, host: Host) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![host.name().to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress(host.address().into()));
    let cert = params.signed_by(&key, ca).unwrap();
    write(folder, &format!("{}.pem", host.name()), &cert.pem());
    write(folder, &format!("{}.key", host.name()), &key.serialize_pem());
}

fn new_ca(folder: &Path, name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write(folder, name, &ca.pem());
    ca
}

fn write(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).unwrap();
    fs::set_permissions(folder.join(file), fs::Permissions::from_mode(0o600)).unwrap();
}

fn program() -> PathBuf {
    let path = std::env::var_os("HAWSER_ETCD").map_or_else(|| "/usr/bin/etcd".into(), PathBuf::from);
    assert!(path.exists(), "no etcd: install etcd-server, or set HAWSER_ETCD");
    path
}

/// A member that lets nobody in who shows no certificate of the CA.
fn member(lab: &Lab, folder: &Path, host: Host) -> Daemon {
    let name = host.name();
    let url = |scheme: &str, host: Host, port: u16| format!("{scheme}://{}", SocketAddr::from((host.address(), port)));
    let all: Vec<String> = MEMBERS.iter().map(|host| format!("{}={}", host.name(), url("http", *host, 2380))).collect();
    let file = |file: String| folder.join(file).display().to_string();
    let options = [
        ("name", name.to_owned()),
        ("data-dir", file(format!("{name}.etcd"))),
        ("listen-client-urls", url("https", host, 2379)),
        ("advertise-client-urls", url("https", host, 2379)),
        ("listen-peer-urls", url("http", host, 2380)),
        ("initial-advertise-peer-urls", url("http", host, 2380)),
        ("initial-cluster", all.join(",")),
        ("cert-file", file(format!("{name}.pem"))),
        ("key-file", file(format!("{name}.key"))),
        ("trusted-ca-file", file("ca.pem".into())),
        ("client-cert-auth", "true".into()),
    ];
    let recipe = Recipe {
        program: program(),
        arguments: options.map(|(key, value)| format!("--{key}={value}")).to_vec(),
        environment: vec![],
        log: folder.join(format!("{name}.log")),
    };
    Daemon::start(host, lab.host(host), recipe).unwrap()
}

/// What `hawser.toml` says of it; `node` shows its certificate.
fn section(folder: &Path, ca: &str) -> String {
    let endpoints = MEMBERS.map(|host| format!("\"https://{}:2379\"", host.address())).join(", ");
    let file = |file: &str| folder.join(file).display().to_string();
    format!(
        "[etcd]\nendpoints = [{endpoints}]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
        file(ca),
        file("n1.pem"),
        file("n1.key")
    )
}

#[test]
#[ignore = "needs a real etcd; tests/etcd.sh runs it"]
fn two_of_three_members_of_a_real_etcd_vote_by_tls_and_one_may_die() {
    in_sandbox("etcd::two_of_three_members_of_a_real_etcd_vote_by_tls_and_one_may_die", || {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new().unwrap();
        let ca = new_ca(folder.path(), "ca.pem");
        MEMBERS.iter().chain([&Host::N1]).for_each(|host| issue(folder.path(), &ca, *host));
        let mut members = MEMBERS.map(|host| member(&lab, folder.path(), host));
        let mut pair = Pair::start_on(lab, "etcd", &section(folder.path(), "ca.pem"));
        pair.wait("etcd answers both", |pair| Host::NODES.iter().all(|node| pair.is_judged(*node)));
        // Whichever leads or is asked: one is gone, and nothing moves.
        for at in 0..members.len() {
            members[at].end();
            std::thread::sleep(Duration::from_secs(3));
            assert_eq!(pair.holder().as_deref(), Some("n1"), "{} is gone", MEMBERS[at].name());
            if at + 1 < members.len() {
                members[at].restart().unwrap();
            }
            pair.wait("etcd answers both", |pair| Host::NODES.iter().all(|node| pair.is_judged(*node)));
        }
        // One is still gone when the owner dies.
        pair.node(Host::N1).signal_all(Signal::SIGKILL).unwrap();
        pair.wait_for_owner(Host::N2);
        pair.assert_never_two();
    });
}

#[test]
#[ignore = "needs a real etcd; tests/etcd.sh runs it"]
fn an_etcd_that_another_ca_vouches_for_has_no_vote_and_the_reason_is_told() {
    in_sandbox("etcd::an_etcd_that_another_ca_vouches_for_has_no_vote_and_the_reason_is_told", || {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new().unwrap();
        let ca = new_ca(folder.path(), "ca.pem");
        new_ca(folder.path(), "other.pem");
        MEMBERS.iter().chain([&Host::N1]).for_each(|host| issue(folder.path(), &ca, *host));
        let _members = MEMBERS.map(|host| member(&lab, folder.path(), host));
        // The very first start needs all three voters: nobody remembers a vote.
        let pair = Pair::begin_on(lab, "etcd", &section(folder.path(), "other.pem"));
        pair.wait("the log says why", |pair| {
            let log = fs::read_to_string(pair.log(Host::N1)).unwrap();
            log.contains("etcd does not answer") && log.contains("invalid peer certificate")
        });
        assert_eq!(pair.holder(), None, "an etcd that is not believed votes for nobody");
        assert!(!pair.is_judged(Host::N1));
    });
}
