//! Makes a cluster's CA, certificates and secrets: the work of `hawser init`.
//!
//! All or nothing: the folders are built beside their place and moved there in one step. What is there is never touched.
//! ```text
//! out/ca/         ca.crt ca.key                                         stays with the person
//! out/NODE/       ca.crt node.crt node.key cluster.secret hawser.toml   one for each node
//! out/WITNESS/    witness.toml CLUSTER.witness.key
//! ```

use super::{
    keyring::Keyring,
    private::{Readers, TrustError, make_dir, write_new},
};
use crate::cluster::Name;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Certificate of the cluster's CA, in every node's folder.
pub const CA_CERT: &str = "ca.crt";
/// Key of the cluster's CA; never on a node.
pub const CA_KEY: &str = "ca.key";
/// A node's certificate.
pub const NODE_CERT: &str = "node.crt";
/// A node's key.
pub const NODE_KEY: &str = "node.key";
/// The secret that both nodes share.
pub const CLUSTER_SECRET: &str = "cluster.secret";
/// A node's configuration.
pub const NODE_CONFIG: &str = "hawser.toml";
/// A witness's configuration.
pub const WITNESS_CONFIG: &str = "witness.toml";

/// How long certificates hold: ten years.
const VALID: Duration = Duration::from_secs(3653 * 24 * 3600);
/// They hold from a day back, for machines whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// The file name of a witness's secret for this cluster.
#[must_use]
pub fn witness_secret(cluster: Name) -> String {
    format!("{cluster}.witness.key")
}

/// The cluster's own CA. It signs certificates of its nodes and of nobody else.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key: a secret.
    pub key: String,
}

impl Ca {
    /// A new CA with an ECDSA P-256 key.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn generate(cluster: Name, now: SystemTime) -> Result<Self, TrustError> {
        let mut params = params(now);
        params.distinguished_name.push(DnType::CommonName, format!("hawser cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, new_key()?).map_err(crypto)?;
        Ok(Self { issuer })
    }

    /// The CA's certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// The CA's key, in PEM: a secret.
    #[must_use]
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a node, good as server and as client; its name is the common name and the only DNS name.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn issue(&self, node: Name, now: SystemTime) -> Result<Issued, TrustError> {
        let mut params = params(now);
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.subject_alt_names = vec![SanType::DnsName(node.as_str().try_into().map_err(crypto)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(crypto)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// What `hawser init` is to make.
#[derive(Debug)]
pub struct Blueprint<'a> {
    /// The cluster.
    pub cluster: Name,
    /// Its nodes.
    pub nodes: [Name; 2],
    /// Its witness, and the text of `witness.toml`; nothing where no third machine votes.
    pub witness: Option<(Name, &'a str)>,
    /// The text of `hawser.toml`, the same on both nodes.
    pub node_config: &'a str,
}

/// Makes all folders below `out`, which must not exist or be empty.
///
/// # Errors
/// If `out` holds something, two members share a name, or a file cannot be written. Nothing is left behind then.
pub fn build(plan: &Blueprint<'_>, out: &Path, now: SystemTime) -> Result<(), TrustError> {
    distinct_names(plan)?;
    refuse_occupied(out)?;
    let partial = partial_path(out);
    let made = fill(plan, &partial, now).and_then(|()| {
        std::fs::rename(&partial, out).map_err(|cause| match cause.kind() == ErrorKind::DirectoryNotEmpty {
            true => TrustError::Exists(out.to_owned()),
            false => TrustError::Io { verb: "make", path: out.to_owned(), cause },
        })
    });
    if made.is_err() {
        // The error that stopped the work is the one to tell.
        drop(std::fs::remove_dir_all(&partial));
    }
    made
}

/// Each member has a folder of its own name, and `ca` is taken.
fn distinct_names(plan: &Blueprint<'_>) -> Result<(), TrustError> {
    let [first, second] = plan.nodes;
    let members = [Name::new("ca").ok(), Some(first), Some(second), plan.witness.map(|(name, _)| name)];
    for (at, name) in members.iter().enumerate() {
        if let Some(name) = name.filter(|name| members.iter().skip(at + 1).any(|other| *other == Some(*name))) {
            return Err(TrustError::SameName(name));
        }
    }
    Ok(())
}

fn refuse_occupied(out: &Path) -> Result<(), TrustError> {
    match std::fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(TrustError::Exists(out.to_owned())),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotADirectory => Err(TrustError::Exists(out.to_owned())),
        Err(cause) => Err(TrustError::Io { verb: "read", path: out.to_owned(), cause }),
    }
}

/// A hidden folder beside `out`, on the same file system.
fn partial_path(out: &Path) -> PathBuf {
    let name = out.file_name().map_or_else(|| "hawser".into(), |n| n.to_string_lossy());
    let unique = u64::from_be_bytes(super::random());
    out.parent().unwrap_or(Path::new("")).join(format!(".{name}.{unique:016x}.partial"))
}

fn fill(plan: &Blueprint<'_>, out: &Path, now: SystemTime) -> Result<(), TrustError> {
    let ca = Ca::generate(plan.cluster, now)?;
    let ring = Keyring::generate(plan.cluster);
    make_dir(out)?;
    let dir = out.join("ca");
    make_dir(&dir)?;
    write_new(&dir.join(CA_CERT), Readers::All, &ca.certificate())?;
    write_new(&dir.join(CA_KEY), Readers::Owner, &ca.key())?;
    for node in plan.nodes {
        let issued = ca.issue(node, now)?;
        let dir = out.join(node.as_str());
        make_dir(&dir)?;
        write_new(&dir.join(CA_CERT), Readers::All, &ca.certificate())?;
        write_new(&dir.join(NODE_CERT), Readers::All, &issued.certificate)?;
        write_new(&dir.join(NODE_KEY), Readers::Owner, &issued.key)?;
        write_new(&dir.join(CLUSTER_SECRET), Readers::Owner, &ring.to_text())?;
        write_new(&dir.join(NODE_CONFIG), Readers::All, plan.node_config)?;
    }
    let Some((witness, config)) = plan.witness else { return Ok(()) };
    let dir = out.join(witness.as_str());
    make_dir(&dir)?;
    write_new(&dir.join(WITNESS_CONFIG), Readers::All, config)?;
    write_new(&dir.join(witness_secret(plan.cluster)), Readers::Owner, &ring.for_witness().to_text())
}

fn params(now: SystemTime) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Whole seconds: X.509 has no finer ones (RFC 5280 §4.1.2.5).
    let since_epoch = Duration::from_secs(since_epoch.as_secs());
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATED);
    params.not_after = epoch + since_epoch + VALID;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn new_key() -> Result<KeyPair, TrustError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn crypto(error: rcgen::Error) -> TrustError {
    TrustError::Crypto(error.to_string())
}
