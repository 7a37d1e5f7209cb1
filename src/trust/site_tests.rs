//! Tests of what is loaded for a site, and how each fault is told.

use super::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        self.path(name)
    }

    /// Certificate and key in PEM.
    fn pair(names: &[&str], kind: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(kind).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        (CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn load(&self, cert: &str, key: &str) -> Result<SiteCertificate, Trouble> {
        load(&self.write("cert", cert), &self.write("key", key))
    }
}

#[test]
fn what_a_certificate_says_is_known() {
    let place = Place::new();
    for (kind, word) in [(&PKCS_ECDSA_P256_SHA256, "ecdsa"), (&PKCS_RSA_SHA256, "rsa")] {
        let (cert, key) = Place::pair(&["Shop.Example", "*.shop.example", "192.0.2.10"], kind);
        let facts = place.load(&cert, &key).unwrap().facts;
        assert_eq!(
            (facts.names.as_slice(), facts.key_kind),
            (&["shop.example".to_owned(), "*.shop.example".to_owned()][..], word)
        );
    }
}

#[test]
fn each_fault_names_the_file_and_what_to_do() {
    let place = Place::new();
    let (cert, key) = Place::pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
    let (other, other_key) = Place::pair(&["b.example"], &PKCS_ECDSA_P256_SHA256);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n";
    for (cert, key, which, what, help) in [
        ("", &*key, Which::Certificate, "cert holds no certificate in PEM", "BEGIN CERTIFICATE"),
        (&key, &cert, Which::Certificate, "cert holds no certificate in PEM", "are cert and key exchanged?"),
        (&cert, "", Which::Key, "key holds no private key in PEM", "BEGIN PRIVATE KEY"),
        (&cert, encrypted, Which::Key, "key is encrypted", "openssl pkey"),
        (&cert, broken, Which::Key, "key holds a key that cannot be used", "ECDSA P-256"),
        (&cert, &other_key, Which::Key, "key does not belong to ", "was only one of the two files renewed?"),
        (&*format!("{other}{cert}"), &key, Which::Certificate, "cert does not begin with the certificate of ", "first"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            Which::Certificate,
            "no certificate",
            "PEM",
        ),
    ] {
        let trouble = place.load(cert, key).unwrap_err();
        assert_eq!(trouble.which, which, "{trouble}");
        assert!(trouble.what.contains(what) && trouble.help.contains(help), "{trouble}\n{what}; {help}");
    }
}

#[test]
fn files_that_cannot_be_read_are_told_apart() {
    let place = Place::new();
    let (cert, key) = Place::pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
    let (cert, key) = (place.write("cert", &cert), place.write("key", &key));
    let trouble = load(&place.path("none"), &key).unwrap_err();
    assert!(trouble.which == Which::Certificate && trouble.help.contains("beside the configuration"), "{trouble}");
    let trouble = load(&cert, &place.path("none")).unwrap_err();
    assert!(trouble.which == Which::Key && trouble.what.contains("No such file"), "{trouble}");
    let trouble = load(&cert, place.dir.path()).unwrap_err();
    assert!(trouble.which == Which::Key && trouble.what.contains("is not a file"), "{trouble}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let trouble = load(&cert, &key).unwrap_err();
    assert!(trouble.which == Which::Key && trouble.what.contains("chmod 600"), "{trouble}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(load(&cert, &key).is_ok(), "a group may share a key");
    fs::write(&cert, vec![b'x'; usize::try_from(CERTIFICATE_FILE_BYTES_MAX).unwrap() + 1]).unwrap();
    assert!(load(&cert, &key).unwrap_err().what.contains("is longer than"));
}

#[test]
fn a_certificate_is_told_by_the_days_that_it_holds() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let begin = UNIX_EPOCH + 1000 * DAY;
    let facts = Facts { names: vec![], not_before: begin, not_after: begin + 90 * DAY, key_kind: "rsa" };
    for (at, standing) in [
        (begin - DAY, Standing::NotYet(1)),
        (begin, Standing::Holds),
        (begin + 69 * DAY, Standing::Holds),
        (begin + 69 * DAY + Duration::from_secs(1), Standing::Soon(20)),
        (begin + 90 * DAY, Standing::Soon(0)),
        (begin + 90 * DAY + Duration::from_secs(1), Standing::Expired(0)),
        (begin + 93 * DAY, Standing::Expired(3)),
    ] {
        assert_eq!(facts.standing(at), standing);
    }
    assert_eq!(Standing::Soon(0).trouble().as_deref(), Some("expires in less than a day"));
}

#[test]
fn a_subject_is_written_so_that_no_name_says_more_than_it_is() {
    let subject_of = |parts: Vec<(DnType, DnValue)>| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        parts.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value));
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        subject(cert.der()).unwrap()
    };
    let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
    let plain = vec![
        (DnType::CountryName, utf8("DE")),
        (DnType::OrganizationName, utf8("Shop & Co")),
        (DnType::CommonName, utf8("alice")),
        (DnType::CustomDnType(vec![1, 2, 3, 4]), utf8("x")),
    ];
    assert_eq!(subject_of(plain), "1.2.3.4=x,CN=alice,O=Shop & Co,C=DE", "the most specific part first");
    for (name, written) in [
        ("a,CN=root", "CN=a\\,CN\\=root"),
        ("a+b\\c\"d;e<f>", "CN=a\\+b\\\\c\\\"d\\;e\\<f\\>"),
        (" a ", "CN=\\20a\\20"),
        ("#a", "CN=\\23a"),
        ("a\r\nX-Evil: 1", "CN=a\\0d\\0aX-Evil: 1"),
        ("\u{fc}", "CN=\\c3\\bc"),
    ] {
        assert_eq!(subject_of(vec![(DnType::CommonName, utf8(name))]), written, "{name:?}");
    }
    assert_eq!(subject_of(vec![]), "");
}
