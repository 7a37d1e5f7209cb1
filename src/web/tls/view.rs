//! Certificates for people and metrics: the one place where their numbers are made.

use super::Terms;
use crate::trust::site::{Facts, Standing};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The certificates of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsView {
    /// Where it listens.
    pub listeners: Vec<SocketAddr>,
    /// What is shown; the first to clients that name no host that is known.
    pub certificates: Vec<CertificateView>,
    /// When the files were last taken up, in seconds since 1970.
    pub loaded_unix: u64,
    /// Why what the files hold now is not used; what was read before still is.
    pub refused: Option<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// Its file.
    pub file: PathBuf,
    /// The hosts that it is for.
    pub names: Vec<String>,
    /// What kind of key it has: `ecdsa`, `rsa`, `ed25519`.
    pub key: String,
    /// It holds from then, in seconds since 1970.
    pub not_before_unix: u64,
    /// It holds until then, in seconds since 1970.
    pub not_after_unix: u64,
    /// Whole days that are left of it; less than zero once it has expired.
    pub days_left: i64,
    /// What a person must know of it; nothing while all is well.
    pub trouble: Option<String>,
}

pub(super) fn of(terms: &Terms, now: SystemTime) -> TlsView {
    let seen = terms.seen();
    let files = terms.config.certificates.iter().map(|files| files.cert.clone());
    TlsView {
        listeners: terms.addresses.clone(),
        certificates: files.zip(&seen.facts).map(|(file, facts)| certificate(file, facts, now)).collect(),
        loaded_unix: unix(seen.loaded),
        refused: seen.refused.clone(),
    }
}

fn certificate(file: PathBuf, facts: &Facts, now: SystemTime) -> CertificateView {
    const DAY: i64 = 24 * 3600;
    let left = match facts.not_after.duration_since(now) {
        Ok(left) => seconds(left),
        Err(since) => -seconds(since.duration()),
    };
    CertificateView {
        file,
        names: facts.names.clone(),
        key: facts.key_kind.to_owned(),
        not_before_unix: unix(facts.not_before),
        not_after_unix: unix(facts.not_after),
        days_left: left.div_euclid(DAY),
        trouble: facts.standing(now).trouble(),
    }
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What somebody at three in the morning should know.
#[must_use]
pub fn advice(listeners: &[TlsView]) -> Vec<String> {
    let certificates = listeners.iter().flat_map(|listener| &listener.certificates);
    let standing = certificates.filter_map(|certificate| {
        let trouble = certificate.trouble.as_ref()?;
        Some(format!("the certificate {} {trouble}; renew it: the new file is taken up by itself", name(certificate)))
    });
    let refused = listeners.iter().filter_map(|listener| listener.refused.as_ref());
    let refused = refused.map(|why| format!("changed certificates are not used, the old ones stay: {why}"));
    let mut advice: Vec<String> = Vec::new();
    for line in standing.chain(refused) {
        if !advice.contains(&line) {
            advice.push(line);
        }
    }
    advice
}

/// What a certificate is called: its hosts and its file.
fn name(certificate: &CertificateView) -> String {
    let file = certificate.file.display();
    match certificate.names.as_slice() {
        [] => file.to_string(),
        [name] => format!("of {name} ({file})"),
        [name, more @ ..] => format!("of {name} and {} more ({file})", more.len()),
    }
}

impl CertificateView {
    /// In a line of `status`.
    #[must_use]
    pub fn line(&self) -> String {
        let (name, key) = (name(self), &self.key);
        match &self.trouble {
            Some(trouble) => format!("{name} {key}: {trouble}"),
            None => format!("{name} {key}: {} days left", self.days_left),
        }
    }
}

/// Whether it is to be told, and how loudly.
pub(super) fn is_lasting(standing: Standing) -> bool {
    match standing {
        Standing::Expired(_) | Standing::NotYet(_) => true,
        Standing::Soon(_) | Standing::Holds => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_to_the_end_and_beyond() {
        const DAY: u64 = 24 * 3600;
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * DAY);
        let facts = Facts { names: vec!["a".into()], not_before: at(100), not_after: at(200), key_kind: "rsa" };
        let left = |now: SystemTime| {
            let view = certificate("c".into(), &facts, now);
            (view.days_left, view.trouble.map(|trouble| trouble.split(' ').next().unwrap_or_default().to_owned()))
        };
        let told = |word: &str| Some(word.to_owned());
        assert_eq!(left(at(150)), (50, None));
        assert_eq!(left(at(179)), (21, None));
        assert_eq!(left(at(179) + Duration::from_secs(1)), (20, told("expires")));
        assert_eq!(left(at(200) + Duration::from_secs(1)), (-1, told("EXPIRED")));
        assert_eq!(left(at(99)), (101, told("is")));
    }

    #[test]
    fn each_trouble_is_told_once_with_the_way_out() {
        let certificate = |trouble: Option<&str>| CertificateView {
            file: "/etc/shop.crt".into(),
            names: vec!["shop.example".into(), "www.shop.example".into()],
            key: "ecdsa".into(),
            not_before_unix: 0,
            not_after_unix: 0,
            days_left: 5,
            trouble: trouble.map(str::to_owned),
        };
        let listener = |trouble, refused: Option<&str>| TlsView {
            listeners: vec![],
            certificates: vec![certificate(trouble)],
            loaded_unix: 0,
            refused: refused.map(str::to_owned),
        };
        assert_eq!(advice(&[listener(None, None)]), Vec::<String>::new());
        let soon = listener(Some("expires in 5 days"), Some("shop.key does not belong to shop.crt"));
        let told = advice(&[soon.clone(), soon]);
        let [expiry, refused] = told.as_slice() else { panic!("{told:?}") };
        assert!(expiry.contains("shop.example and 1 more (/etc/shop.crt) expires in 5 days; renew it"), "{expiry}");
        assert!(refused.contains("the old ones stay: shop.key does not belong"), "{refused}");
    }
}
