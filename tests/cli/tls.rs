//! Certificates as a person meets them: what `check` and `run` say of files that cannot be used.

use super::{err, hawser, init};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// A node's folder with a listener that shows `shop.crt`; the line of `tls`.
fn folder(dir: &Path) -> usize {
    assert!(init(dir, "made").status.success());
    let path = dir.join("made/n1/hawser.toml");
    let text = fs::read_to_string(&path).unwrap();
    let more = "\n[[listener]]\naddress = \"127.0.0.1:8443\"\nroot = \"/\"\ntls = { cert = \"shop.crt\", key = \"shop.key\" }\n";
    fs::write(&path, format!("{text}{more}")).unwrap();
    text.lines().count() + more.lines().count()
}

fn pair(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write(dir: &Path, (cert, key): &(String, String), mode: u32) {
    fs::write(dir.join("made/n1/shop.crt"), cert).unwrap();
    fs::write(dir.join("made/n1/shop.key"), key).unwrap();
    fs::set_permissions(dir.join("made/n1/shop.key"), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_with_its_line_by_check_and_by_run() {
    let dir = tempfile::tempdir().unwrap();
    let line = folder(dir.path());
    let good = pair(|_| {});
    let stranger = (good.0.clone(), pair(|_| {}).1);
    let config = "made/n1/hawser.toml";
    let told = |expected: &[&str]| {
        for args in [&["check", config][..], &["run", "--config", config]] {
            let refused = hawser(args, dir.path());
            assert_eq!(refused.status.code(), Some(78), "{args:?}: {}", err(&refused));
            let begins = format!("made/n1/hawser.toml:{line}: listener[");
            let said = err(&refused);
            let said = said.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("{said}"));
            assert!(expected.iter().all(|word| said.contains(word)), "{said}\n{expected:?}");
        }
    };
    told(&["tls.cert: cannot read ", "shop.crt: No such file", "; write the path"]);
    write(dir.path(), &stranger, 0o600);
    told(&["tls.key: ", "shop.key does not belong to ", "shop.crt; name the key that this certificate was made for"]);
    write(dir.path(), &good, 0o644);
    told(&["tls.key: ", "shop.key can be read by others (mode 0644): chmod 600 "]);
    write(dir.path(), &(good.1.clone(), good.1.clone()), 0o600);
    told(&["tls.cert: ", "holds no certificate in PEM; it holds a key: are cert and key exchanged?"]);
    write(dir.path(), &good, 0o600);
    let fine = hawser(&["check", config], dir.path());
    assert!(fine.status.success(), "{}", err(&fine));
}

#[test]
fn a_certificate_that_does_not_hold_now_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let line = folder(dir.path());
    let expired = pair(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = pair(|params| params.not_before = date_time_ymd(2900, 1, 1));
    for (pair, word) in [(expired, "EXPIRED "), (early, "is not valid yet")] {
        write(dir.path(), &pair, 0o600);
        let checked = hawser(&["check", "made/n1/hawser.toml"], dir.path());
        assert!(checked.status.success(), "{}", err(&checked));
        let begins = format!("made/n1/hawser.toml:{line}: listener[");
        let said = err(&checked);
        let said = said.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("{said}"));
        assert!(said.contains("warning: ") && said.contains(word) && said.contains("renew it"), "{said}");
    }
}
