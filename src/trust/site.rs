//! The files behind a TLS listener: certificates that sites show to visitors, their keys, the CA of client
//! certificates. Loaded and checked as a whole; what is wrong is told with the way out.
//!
//! A certificate that has expired is loaded: a warning in the browser is better than no site, and [`Facts::standing`]
//! tells.
//!
//! Not here: which certificate a visitor gets, and when files are read again (`web::tls`).

use super::{
    private::{Readers, TrustError, read_up_to},
    tls,
};
use crate::limits::{CERTIFICATE_FILE_BYTES_MAX, CERTIFICATE_SOON};
use rustls::{
    RootCertStore, SignatureAlgorithm,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use std::{
    fmt, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate with its chain and its key: they belong together.
#[derive(Debug, Clone)]
pub struct SiteCertificate {
    /// For rustls.
    pub key: Arc<CertifiedKey>,
    /// What the certificate says.
    pub facts: Facts,
}

/// What a site's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its DNS names in lower case; `*.` begins a wildcard.
    pub names: Vec<String>,
    /// It holds from then.
    pub not_before: SystemTime,
    /// It holds until then.
    pub not_after: SystemTime,
    /// What kind of key it has: `ecdsa`, `rsa`, `ed25519`.
    pub key_kind: &'static str,
}

/// Whether a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// For longer than anybody needs to think of.
    Holds,
    /// For so many days only.
    Soon(u64),
    /// Not yet: for so many days.
    NotYet(u64),
    /// Not any more: since so many days.
    Expired(u64),
}

/// Which of the files is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The certificate.
    Certificate,
    /// The key.
    Key,
    /// The CA of client certificates.
    ClientCa,
    /// The keys of session tickets.
    TicketKeys,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which file.
    pub which: Which,
    /// What is wrong, with the file's name.
    pub what: String,
    /// What to do.
    pub help: String,
    /// Whoever looked may not read it, which says nothing of the file.
    pub not_permitted: bool,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

impl std::error::Error for Trouble {}

impl Facts {
    /// Whether the certificate holds at `now`.
    #[must_use]
    pub fn standing(&self, now: SystemTime) -> Standing {
        let days = |span: Duration| span.as_secs() / (24 * 3600);
        if let Ok(wait) = self.not_before.duration_since(now)
            && !wait.is_zero()
        {
            return Standing::NotYet(days(wait));
        }
        match self.not_after.duration_since(now) {
            Ok(left) if left >= CERTIFICATE_SOON => Standing::Holds,
            Ok(left) => Standing::Soon(days(left)),
            Err(since) => Standing::Expired(days(since.duration())),
        }
    }
}

impl Standing {
    /// What a person must know of it, as the end of a sentence about the certificate.
    #[must_use]
    pub fn trouble(self) -> Option<String> {
        match self {
            Self::Holds => None,
            Self::Soon(days) => Some(format!("expires in {}", count(days))),
            Self::NotYet(days) => Some(format!("is not valid yet, for {}: is the clock right?", count(days))),
            Self::Expired(days) => {
                Some(format!("EXPIRED {} ago: visitors are turned away by their browsers", count(days)))
            }
        }
    }
}

fn count(days: u64) -> String {
    match days {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Loads a certificate and its key.
///
/// # Errors
/// What is wrong with which of them.
pub fn load(cert: &Path, key: &Path) -> Result<SiteCertificate, Trouble> {
    let chain = certificates(cert, Which::Certificate)?;
    let (Some(leaf), shown) = (chain.first(), cert.display()) else { return Err(no_certificate(cert, "")) };
    let wrong = |what: String, help: &str| trouble(Which::Certificate, format!("{shown} {what}"), help);
    let (names, not_before, not_after) = said(leaf)
        .map_err(|what| wrong(what, "name the certificate of the site, in PEM, then those that signed it"))?;
    let signer = signer(key)?;
    let certified = CertifiedKey::new(chain, Arc::clone(&signer));
    match certified.keys_match() {
        Ok(()) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(stranger(&certified, &signer, cert, key)),
        Err(error) => return Err(wrong(format!("cannot be used: {error}"), "")),
    }
    let kinds = [
        (SignatureAlgorithm::RSA, "rsa"),
        (SignatureAlgorithm::ECDSA, "ecdsa"),
        (SignatureAlgorithm::ED25519, "ed25519"),
    ];
    let key_kind = kinds.into_iter().find(|(kind, _)| *kind == signer.algorithm()).map_or("other", |(_, word)| word);
    Ok(SiteCertificate { key: Arc::new(certified), facts: Facts { names, not_before, not_after, key_kind } })
}

/// The key is not that of the first certificate: why, as far as it can be seen.
fn stranger(certified: &CertifiedKey, signer: &Arc<dyn SigningKey>, cert: &Path, key: &Path) -> Trouble {
    let fits = |other: &CertificateDer<'static>| {
        CertifiedKey::new(vec![other.clone()], Arc::clone(signer)).keys_match().is_ok()
    };
    let (cert, key) = (cert.display(), key.display());
    if certified.cert.iter().skip(1).any(fits) {
        let what = format!("{cert} does not begin with the certificate of {key}");
        return trouble(Which::Certificate, what, "put the site's own certificate first");
    }
    let help = "name the key that this certificate was made for; was only one of the two files renewed?";
    trouble(Which::Key, format!("{key} does not belong to {cert}"), help)
}

/// Loads the certificates of the CAs whose clients are let in.
///
/// # Errors
/// What is wrong with the file.
pub fn client_ca(path: &Path) -> Result<RootCertStore, Trouble> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, Which::ClientCa)? {
        roots.add(certificate).map_err(|error| {
            let what = format!("{} holds what is no CA's certificate: {error}", path.display());
            trouble(Which::ClientCa, what, "name the certificate of the CA that signs the clients' certificates")
        })?;
    }
    Ok(roots)
}

/// The text of a file that others than its owner and group may not read.
pub(super) fn secret(path: &Path, which: Which) -> Result<String, Trouble> {
    text(path, which, Readers::Group)
}

pub(super) fn trouble(which: Which, what: String, help: impl Into<String>) -> Trouble {
    Trouble { which, what, help: help.into(), not_permitted: false }
}

fn text(path: &Path, which: Which, readers: Readers) -> Result<String, Trouble> {
    read_up_to(path, readers, CERTIFICATE_FILE_BYTES_MAX).map_err(|error| {
        let not_permitted =
            matches!(&error, TrustError::Io { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied);
        let help = match &error {
            TrustError::Io { .. } if not_permitted => "let the user that hawser runs as read it",
            TrustError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                "write the path of a PEM file; one without / at its begin is looked for beside the configuration"
            }
            TrustError::Io { .. }
            | TrustError::TooOpen { .. }
            | TrustError::Content { .. }
            | TrustError::Exists(_)
            | TrustError::SameName(_)
            | TrustError::Crypto(_) => "",
        };
        Trouble { which, what: error.to_string(), help: help.to_owned(), not_permitted }
    })
}

fn certificates(path: &Path, which: Which) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let text = text(path, which, Readers::All)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match parsed {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Trouble { which, ..no_certificate(path, &text) }),
        Err(error) => {
            let what = format!("{} is damaged: {error}", path.display());
            Err(trouble(which, what, "write the file again"))
        }
    }
}

fn no_certificate(path: &Path, text: &str) -> Trouble {
    let help = if text.contains("PRIVATE KEY-----") {
        "it holds a key: are cert and key exchanged?"
    } else {
        "name a file with -----BEGIN CERTIFICATE-----"
    };
    trouble(Which::Certificate, format!("{} holds no certificate in PEM", path.display()), help)
}

fn signer(path: &Path) -> Result<Arc<dyn SigningKey>, Trouble> {
    let text = secret(path, Which::Key)?;
    let wrong = |what: String, help: &str| trouble(Which::Key, format!("{} {what}", path.display()), help);
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        if text.contains("ENCRYPTED") {
            return wrong("is encrypted".to_owned(), "take the passphrase off: openssl pkey -in OLD -out NEW");
        }
        wrong(format!("holds no private key in PEM: {error}"), "name a file with -----BEGIN PRIVATE KEY-----")
    })?;
    tls::provider().key_provider.load_private_key(key).map_err(|error| {
        wrong(
            format!("holds a key that cannot be used: {error}"),
            "use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more",
        )
    })
}

/// Names and validity.
fn said(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, SystemTime, SystemTime), String> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| format!("holds no certificate: {e}"))?;
    let names = parsed.subject_alternative_name().map_err(|e| format!("has unreadable names: {e}"))?;
    let names = names.into_iter().flat_map(|san| &san.value.general_names);
    let dns = names
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None });
    let time = |at: x509_parser::time::ASN1Time| {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default())
    };
    let validity = parsed.validity();
    Ok((dns.collect(), time(validity.not_before), time(validity.not_after)))
}

/// Whether a certificate holds at `now`, by its own word.
#[must_use]
pub fn holds(certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
    said(certificate).is_ok_and(|(_, not_before, not_after)| not_before <= now && now <= not_after)
}

/// The subject of a certificate as RFC 4514 writes it, the most specific part first. ASCII only: everything else is
/// escaped, so that nobody's name says more than it is.
#[must_use]
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let sets: Vec<_> = parsed.subject().iter_rdn().collect();
    let mut text = String::new();
    for set in sets.into_iter().rev() {
        for (at, part) in set.iter().enumerate() {
            text.push_str(if at > 0 {
                "+"
            } else if text.is_empty() {
                ""
            } else {
                ","
            });
            let oid = part.attr_type();
            match short_name(&oid.to_id_string()) {
                Some(short) => text.push_str(short),
                None => text.push_str(&oid.to_id_string()),
            }
            text.push('=');
            match part.as_str() {
                Ok(value) => escape(value, &mut text),
                // RFC 4514 §2.4: what is no string is written as its bytes.
                Err(_) => {
                    text.push('#');
                    part.attr_value().data.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
                }
            }
        }
    }
    Some(text)
}

/// RFC 4514 §3.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

/// RFC 4514 §2.4.
fn escape(value: &str, out: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let edge = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' if !edge => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:02x}")),
        }
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
