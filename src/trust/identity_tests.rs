//! Tests of PKI, identity and TLS together: what `hawser init` makes is what a node loads and its peer accepts.

use super::*;
use crate::trust::pki::{self, Blueprint, Ca};
use rustls::{ClientConnection, ServerConnection};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A cluster's folders, made now.
fn cluster() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("shop");
    pki::build(&blueprint(), &out, SystemTime::now()).unwrap();
    (dir, out)
}

fn blueprint() -> Blueprint<'static> {
    Blueprint {
        cluster: name("shop"),
        nodes: [name("n1"), name("n2")],
        witness: Some((name("w"), "# witness\n")),
        node_config: "# node\n",
    }
}

fn message(error: &TrustError) -> String {
    error.to_string()
}

/// Lets two ends talk until both are done or one refuses.
fn shake(client: &Identity, server: &Identity, expected: (Name, Name)) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(tls::client_config(client, expected.0)?, tls::server_name())?;
    let mut server = ServerConnection::new(tls::server_config(server, expected.1)?)?;
    let mut wire = Vec::new();
    for _ in 0..10 {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(tls::ALPN));
    assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    Ok(())
}

#[test]
fn what_init_makes_is_what_a_node_loads() {
    let (_dir, out) = cluster();
    let identity = Identity::load(&out.join("n2")).unwrap();
    assert_eq!(identity.name(), name("n2"));
    assert_eq!(Identity::name_in(&out.join("n1")).unwrap(), name("n1"));
    let now = SystemTime::now();
    assert!(identity.facts().holds(now));
    assert!(identity.facts().holds(now - Duration::from_secs(23 * 3600)), "for clocks that are behind");
    let years = identity.facts().remaining(now).as_secs() / (365 * 24 * 3600);
    assert_eq!(years, 10);
}

#[test]
fn the_witness_holds_the_secret_that_the_nodes_derive_and_nothing_else() {
    let (_dir, out) = cluster();
    let identity = Identity::load(&out.join("n1")).unwrap();
    let witness = Keyring::load(&out.join("w/shop.witness.key"), Purpose::Witness).unwrap();
    assert_eq!(witness.to_text(), identity.keyring().for_witness().to_text());
    let mut files: Vec<_> = fs::read_dir(out.join("w")).unwrap().map(|f| f.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["shop.witness.key", "witness.toml"]);
    let wrong = Keyring::load(&out.join("w/shop.witness.key"), Purpose::Cluster).unwrap_err();
    assert!(message(&wrong).contains("is a witness secret, and a cluster secret is needed"), "{wrong}");
}

#[test]
fn keys_can_be_read_by_their_owner_alone() {
    let (_dir, out) = cluster();
    for dir in ["", "ca", "n1", "n2", "w"] {
        assert_eq!(fs::metadata(out.join(dir)).unwrap().permissions().mode() & 0o777, 0o700, "{dir}");
    }
    for secret in ["ca/ca.key", "n1/node.key", "n2/cluster.secret", "w/shop.witness.key"] {
        assert_eq!(fs::metadata(out.join(secret)).unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
    }
    for secret in ["node.key", "cluster.secret"] {
        let path = out.join("n1").join(secret);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load(&out.join("n1")).unwrap_err();
        assert!(message(&error).ends_with(&format!("(mode 0640): chmod 600 {}", path.display())), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    Identity::load(&out.join("n1")).unwrap();
}

#[test]
fn nothing_that_is_there_is_overwritten_and_a_failure_leaves_nothing_behind() {
    let (dir, out) = cluster();
    let before = fs::read(out.join("n1/node.key")).unwrap();
    let error = pki::build(&blueprint(), &out, SystemTime::now()).unwrap_err();
    assert!(message(&error).contains("is there already"), "{error}");
    assert_eq!(fs::read(out.join("n1/node.key")).unwrap(), before);
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert!(pki::build(&blueprint(), &file, SystemTime::now()).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    assert!(pki::build(&blueprint(), &dir.path().join("no/such/place"), SystemTime::now()).is_err());
    let same = Blueprint { witness: Some((name("n1"), "")), ..blueprint() };
    assert!(matches!(pki::build(&same, &dir.path().join("new"), SystemTime::now()), Err(TrustError::SameName(_))));
    let taken = Blueprint { witness: Some((name("ca"), "")), ..blueprint() };
    assert!(matches!(pki::build(&taken, &dir.path().join("new"), SystemTime::now()), Err(TrustError::SameName(_))));
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "shop"]);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    pki::build(&blueprint(), &empty, SystemTime::now()).unwrap();
}

#[test]
fn files_of_different_folders_do_not_fit_together() {
    let (_a, ours) = cluster();
    let (_b, theirs) = cluster();
    let refused = |from: PathBuf, to: &str, part: &str| {
        let to = ours.join("n1").join(to);
        let kept = fs::read(&to).unwrap();
        fs::write(&to, fs::read(from).unwrap()).unwrap();
        let error = message(&Identity::load(&ours.join("n1")).unwrap_err());
        assert!(error.contains(part), "{error}");
        fs::write(&to, kept).unwrap();
    };
    refused(ours.join("n2/node.key"), "node.key", "node.key: does not belong to node.crt");
    refused(theirs.join("n1/ca.crt"), "ca.crt", "node.crt: was not issued by");
    refused(ours.join("n1/node.crt"), "cluster.secret", "cluster.secret: is not a hawser secret");
    refused(ours.join("n1/hawser.toml"), "node.crt", "node.crt: holds no certificate in PEM");
    refused(ours.join("ca/ca.crt"), "node.crt", "node.crt: must hold exactly one DNS name");
    fs::remove_file(ours.join("n1/node.key")).unwrap();
    assert!(message(&Identity::load(&ours.join("n1")).unwrap_err()).starts_with("cannot read "));
}

#[test]
fn an_expired_certificate_is_loaded_and_told_but_not_let_in() {
    let (_dir, out) = cluster();
    let long_ago = SystemTime::now() - Duration::from_secs(20 * 365 * 24 * 3600);
    let ca = Ca::generate(name("shop"), long_ago).unwrap();
    let old = ca.issue(name("n1"), long_ago).unwrap();
    fs::write(out.join("n1/ca.crt"), ca.certificate()).unwrap();
    fs::write(out.join("n1/node.crt"), &old.certificate).unwrap();
    fs::write(out.join("n1/node.key"), &old.key).unwrap();
    let identity = Identity::load(&out.join("n1")).unwrap();
    assert!(!identity.facts().holds(SystemTime::now()));
    assert_eq!(identity.facts().remaining(SystemTime::now()), Duration::ZERO);
    assert!(shake(&identity, &identity, (name("n1"), name("n1"))).is_err());
}

#[test]
fn the_two_nodes_of_a_cluster_let_each_other_in() {
    let (_dir, out) = cluster();
    let (n1, n2) = (Identity::load(&out.join("n1")).unwrap(), Identity::load(&out.join("n2")).unwrap());
    shake(&n1, &n2, (name("n2"), name("n1"))).unwrap();
    shake(&n2, &n1, (name("n1"), name("n2"))).unwrap();
}

#[test]
fn a_certificate_of_the_right_ca_and_another_name_is_refused_by_either_end() {
    let (_dir, out) = cluster();
    let (n1, n2) = (Identity::load(&out.join("n1")).unwrap(), Identity::load(&out.join("n2")).unwrap());
    let as_server = shake(&n1, &n2, (name("n3"), name("n1"))).unwrap_err().to_string();
    assert!(as_server.contains("is of n2, and n3 is expected here"), "{as_server}");
    let as_client = shake(&n1, &n2, (name("n2"), name("n3"))).unwrap_err().to_string();
    assert!(as_client.contains("is of n1, and n3 is expected here"), "{as_client}");
    assert!(shake(&n1, &n1, (name("n2"), name("n2"))).is_err(), "a node is not its own peer");
}

#[test]
fn the_same_names_of_another_ca_are_refused_by_either_end() {
    let (_a, ours) = cluster();
    let (_b, theirs) = cluster();
    let load = |out: &std::path::Path, node: &str| Identity::load(&out.join(node)).unwrap();
    assert!(shake(&load(&ours, "n1"), &load(&theirs, "n2"), (name("n2"), name("n1"))).is_err());
    assert!(shake(&load(&theirs, "n1"), &load(&ours, "n2"), (name("n2"), name("n1"))).is_err());
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let (_dir, out) = cluster();
    let n2 = Identity::load(&out.join("n2")).unwrap();
    let anonymous = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(Arc::clone(&n2.roots))
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(anonymous), "n2".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(tls::server_config(&n2, name("n1")).unwrap()).unwrap();
    let mut refused = false;
    let mut wire = Vec::new();
    for _ in 0..4 {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            refused |= server.process_new_packets().is_err();
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        refused |= client.process_new_packets().is_err();
    }
    assert!(refused && server.is_handshaking());
}
