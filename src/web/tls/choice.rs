//! Which certificate a client is shown: by the host that it names, and by the signatures that it can check.
//!
//! The name itself wins over a wildcard, which stands for one label (RFC 6125 §6.4.3). Of several certificates of a name
//! the cheapest that the client can check is taken: ECDSA, Ed25519, RSA. A client that names no host, or one that is not
//! known, is shown the first certificate of the listener and its siblings of other kinds.

use crate::trust::site::SiteCertificate;
use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

type Keys = Vec<Arc<CertifiedKey>>;

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct Choice {
    exact: BTreeMap<String, Keys>,
    /// By what follows the star and its dot.
    wildcard: BTreeMap<String, Keys>,
    fallback: Keys,
}

impl Choice {
    /// In the order of the file.
    pub(super) fn new(certificates: &[SiteCertificate]) -> Self {
        let mut sorted: Vec<&SiteCertificate> = certificates.iter().collect();
        // Stable: of two alike the first in the file is taken.
        sorted.sort_by_key(|certificate| cost(certificate.facts.key_kind));
        let (mut exact, mut wildcard) = (BTreeMap::<String, Keys>::new(), BTreeMap::<String, Keys>::new());
        for certificate in &sorted {
            for name in &certificate.facts.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wildcard, rest),
                    None => (&mut exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        let first = certificates.first();
        let is_first = |one: &SiteCertificate| first.is_some_and(|first| Arc::ptr_eq(&first.key, &one.key));
        let sibling = |one: &SiteCertificate| {
            is_first(one)
                || first.is_some_and(|first| one.facts.names.iter().any(|name| first.facts.names.contains(name)))
        };
        let fallback = sorted.iter().filter(|one| sibling(one)).map(|one| Arc::clone(&one.key)).collect();
        Self { exact, wildcard, fallback }
    }

    fn keys(&self, host: Option<&str>) -> &Keys {
        let Some(host) = host else { return &self.fallback };
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let exact = self.exact.get(host.as_ref());
        let wild = || host.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
        exact.or_else(wild).unwrap_or(&self.fallback)
    }

    fn choose(&self, host: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let keys = self.keys(host);
        // rustls tells the schemes that fit the client's cipher suites, too.
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        keys.iter().find(fits).or_else(|| keys.first()).map(Arc::clone)
    }
}

/// What a signature costs us, in order.
fn cost(kind: &str) -> u8 {
    match kind {
        "ecdsa" => 0,
        "ed25519" => 1,
        _ => 2,
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(client.server_name(), client.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::site;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use std::{fs, os::unix::fs::PermissionsExt};

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> SiteCertificate {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        fs::write(&cert, CertificateParams::new(names).unwrap().self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        site::load(&cert, &key).unwrap()
    }

    const ALL: [SignatureScheme; 2] = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];

    #[test]
    fn the_name_wins_over_a_wildcard_of_one_label_and_strangers_get_the_first() {
        let [shop, wild, www] = [&["shop.example", "alias.example"][..], &["*.shop.example"], &["www.shop.example"]]
            .map(|names| certificate(names, &PKCS_ECDSA_P256_SHA256));
        let choice = Choice::new(&[shop.clone(), wild.clone(), www.clone()]);
        for (host, wanted) in [
            (Some("shop.example"), &shop),
            (Some("ALIAS.example"), &shop),
            (Some("www.shop.example"), &www),
            (Some("img.shop.example"), &wild),
            (Some("Img.Shop.Example"), &wild),
            (Some("a.img.shop.example"), &shop),
            (Some("other.example"), &shop),
            (None, &shop),
        ] {
            let chosen = choice.choose(host, &ALL).unwrap();
            assert!(Arc::ptr_eq(&chosen, &wanted.key), "{host:?}");
        }
    }

    #[test]
    fn of_two_kinds_of_key_the_cheaper_that_the_client_can_check_is_taken() {
        let ed = certificate(&["shop.example", "only-ed.example"], &PKCS_ED25519);
        let ec = certificate(&["shop.example"], &PKCS_ECDSA_P256_SHA256);
        let choice = Choice::new(&[ed.clone(), ec.clone()]);
        for host in [Some("shop.example"), None, Some("other.example")] {
            assert!(Arc::ptr_eq(&choice.choose(host, &ALL).unwrap(), &ec.key), "{host:?}");
            let chosen = choice.choose(host, &[SignatureScheme::ED25519]).unwrap();
            assert!(Arc::ptr_eq(&chosen, &ed.key), "{host:?}");
        }
        assert!(Arc::ptr_eq(&choice.choose(Some("only-ed.example"), &ALL).unwrap(), &ed.key));
    }
}
