//! What a node is: name, certificate, key and secret, loaded from its folder.
//!
//! The name in the certificate is the only thing in which the two nodes' folders differ; `hawser.toml` is the same.

use super::{
    keyring::{Keyring, Purpose},
    pki::{CA_CERT, CLUSTER_SECRET, NODE_CERT, NODE_KEY},
    private::{Readers, TrustError, bad, read},
    tls,
};
use crate::cluster::Name;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A node's identity, checked as a whole: the key fits the certificate, the certificate is the CA's.
pub struct Identity {
    facts: Facts,
    keyring: Keyring,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whose it is.
    pub name: Name,
    /// It holds from then.
    pub not_before: SystemTime,
    /// It holds until then.
    pub not_after: SystemTime,
}

impl Facts {
    /// How long it still holds; zero once it has expired.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Whether it holds now.
    #[must_use]
    pub fn holds(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {})", self.facts.name, self.keyring.cluster())
    }
}

impl Identity {
    /// Loads a node's folder. A certificate that has expired is loaded: heartbeats go on without it, and
    /// [`Facts::holds`] tells.
    ///
    /// # Errors
    /// If a file is missing, unreadable, readable by others than its owner, or does not fit the others.
    pub fn load(dir: &Path) -> Result<Self, TrustError> {
        let (ca_path, cert_path, key_path) = (dir.join(CA_CERT), dir.join(NODE_CERT), dir.join(NODE_KEY));
        let chain = certificates(&cert_path)?;
        let facts = leaf_facts(&cert_path, &chain)?;
        let key = private_key(&key_path)?;
        fits((&cert_path, &chain), (&key_path, &key), "copy both files of the same folder again")?;
        let roots = roots(&ca_path)?;
        issued_by(&roots, &chain, &facts)
            .map_err(|e| bad(&cert_path, format!("was not issued by {}: {e}", ca_path.display())))?;
        let keyring = Keyring::load(&dir.join(CLUSTER_SECRET), Purpose::Cluster)?;
        Ok(Self { facts, keyring, roots: Arc::new(roots), chain, key })
    }

    /// The name in the certificate of a node's folder; needs no secret.
    ///
    /// # Errors
    /// If the certificate cannot be read or names no node.
    pub fn name_in(dir: &Path) -> Result<Name, TrustError> {
        let path = dir.join(NODE_CERT);
        Ok(leaf_facts(&path, &certificates(&path)?)?.name)
    }

    /// This node's name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.facts.name
    }

    /// What its certificate says.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The secret that both nodes share; the witness's is [`Keyring::for_witness`] of it.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }
}

/// What a certificate says; its name is its only DNS name.
///
/// # Errors
/// A message that says what is wrong with it.
pub fn facts_of(certificate: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| format!("is not a certificate: {e}"))?;
    let names = parsed.subject_alternative_name().map_err(|e| format!("has unreadable names: {e}"))?;
    let mut dns = names
        .into_iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None });
    let (Some(name), None) = (dns.next(), dns.next()) else {
        return Err("must hold exactly one DNS name: the node's".to_owned());
    };
    let (not_before, not_after) = times(&parsed);
    Ok(Facts { name: Name::new(name).map_err(|e| e.to_string())?, not_before, not_after })
}

/// From when until when a certificate holds, whosever it is.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| format!("is not a certificate: {e}"))?;
    Ok(times(&parsed))
}

fn times(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let time = |at: x509_parser::time::ASN1Time| {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default())
    };
    (time(certificate.validity().not_before), time(certificate.validity().not_after))
}

fn leaf_facts(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Facts, TrustError> {
    let leaf = chain.first().ok_or_else(|| bad(path, "holds no certificate in PEM"))?;
    facts_of(leaf).map_err(|what| bad(path, what))
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let text = read(path, Readers::All)?;
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| bad(path, format!("holds no certificate in PEM: {e}")))
}

pub(super) fn roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| bad(path, format!("is not a CA's certificate: {e}")))?;
    }
    if roots.is_empty() { Err(bad(path, "holds no certificate in PEM")) } else { Ok(roots) }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TrustError> {
    let text = read(path, Readers::Owner)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| bad(path, format!("holds no private key in PEM: {e}")))
}

/// Whether a key belongs to the certificate that its holder shows; `advice` is for one that does not.
pub(super) fn fits(
    (cert, chain): (&Path, &[CertificateDer<'static>]),
    (path, key): (&Path, &PrivateKeyDer<'static>),
    advice: &str,
) -> Result<(), TrustError> {
    let signer = tls::provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|e| bad(path, format!("holds a key that cannot be used: {e}")))?;
    let cert = cert.file_name().unwrap_or(cert.as_os_str()).display();
    rustls::sign::CertifiedKey::new(chain.to_vec(), signer)
        .keys_match()
        .map_err(|_| bad(path, format!("does not belong to {cert}: {advice}")))
}

/// The chain, as of a moment at which the certificate holds: expiry is not judged here.
fn issued_by(roots: &RootCertStore, chain: &[CertificateDer<'_>], facts: &Facts) -> Result<(), rustls::Error> {
    let (leaf, rest) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let at = UnixTime::since_unix_epoch(facts.not_after.duration_since(UNIX_EPOCH).unwrap_or_default());
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        roots,
        rest,
        at,
        tls::provider().signature_verification_algorithms.all,
    )
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
