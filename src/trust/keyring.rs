//! The secret that the members of a cluster share, and the file that holds it.
//!
//! The nodes seal what they say to each other with the cluster's secret. The witness gets another one, derived from it:
//! it can vote, it cannot pose as a node. Two keys may be in force at once, so that a secret can be replaced without an
//! outage: the current one seals, both open.

use super::{
    private::{Readers, TrustError, bad, read},
    random,
};
use crate::{cluster::Name, limits::SEAL_KEYS_MAX};
use arrayvec::ArrayVec;
use aws_lc_rs::hkdf;
use serde::Deserialize;
use std::{fmt, path::Path};

/// HKDF label of the witness's secret.
const WITNESS_LABEL: &[u8] = b"hawser witness";

/// Tells a datagram of this cluster from one of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 8]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Between whom a keyring is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// The two nodes.
    Cluster,
    /// The nodes and their witness.
    Witness,
}

impl Purpose {
    const fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Witness => "witness",
        }
    }
}

/// The secrets in force, the current one first.
#[derive(Clone)]
pub struct Keyring {
    purpose: Purpose,
    cluster: Name,
    id: ClusterId,
    keys: ArrayVec<Key, SEAL_KEYS_MAX>,
}

/// One secret and the number by which datagrams name it.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: u8,
    pub(super) secret: [u8; 32],
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} {} {})", self.purpose.word(), self.cluster, self.id)
    }
}

impl Keyring {
    /// A new cluster's id and secret.
    #[must_use]
    pub fn generate(cluster: Name) -> Self {
        Self::new(cluster, ClusterId(random()), random())
    }

    /// A keyring with one key, number 0.
    #[must_use]
    pub fn new(cluster: Name, id: ClusterId, secret: [u8; 32]) -> Self {
        let mut keys = ArrayVec::new();
        keys.push(Key { id: 0, secret });
        Self { purpose: Purpose::Cluster, cluster, id, keys }
    }

    /// What the witness gets: each secret derived by HKDF-SHA256 (RFC 5869), so that it tells nothing of ours.
    #[must_use]
    pub fn for_witness(&self) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &self.id.0);
        let keys = self.keys.iter().map(|key| Key { id: key.id, secret: expand(&salt, &key.secret, WITNESS_LABEL) });
        Self { purpose: Purpose::Witness, keys: keys.collect(), ..self.clone() }
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> Name {
        self.cluster
    }

    /// The cluster's id.
    #[must_use]
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// The key that seals, and all that open.
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Loads a keyring from its file.
    ///
    /// # Errors
    /// If the file cannot be read, can be read by others, or holds something else.
    pub fn load(path: &Path, purpose: Purpose) -> Result<Self, TrustError> {
        let ring = Self::parse(&read(path, Readers::Owner)?).map_err(|what| bad(path, what))?;
        if ring.purpose == purpose {
            return Ok(ring);
        }
        let (is, needed) = (ring.purpose.word(), purpose.word());
        Err(bad(
            path,
            format!("is a {is} secret, and a {needed} secret is needed: copy the right file of `hawser init`"),
        ))
    }

    /// Reads the text of a keyring's file.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form: Form = toml::from_str(text).map_err(|e| format!("is not a hawser secret: {}", e.message()))?;
        let mut keys = ArrayVec::<Key, SEAL_KEYS_MAX>::new();
        for key in form.key {
            if keys.iter().any(|k| k.id == key.id) {
                return Err(format!("holds two keys with id {}", key.id));
            }
            let secret = unhex(&key.secret).ok_or("holds a secret that is not 64 hexadecimal digits")?;
            let full = keys.try_push(Key { id: key.id, secret }).is_err();
            if full {
                return Err(format!("holds more than {SEAL_KEYS_MAX} keys"));
            }
        }
        if keys.is_empty() {
            return Err("holds no key".to_owned());
        }
        let id = ClusterId(unhex(&form.id).ok_or("holds an id that is not 16 hexadecimal digits")?);
        Ok(Self { purpose: form.purpose, cluster: form.cluster, id, keys })
    }

    /// The text of the keyring's file. It is a secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "# Secret of cluster {0}: whoever has it can speak for its members. Keep it 0600.\n\
             purpose = \"{1}\"\ncluster = \"{0}\"\nid = \"{2}\"\n",
            self.cluster,
            self.purpose.word(),
            self.id
        );
        for key in &self.keys {
            text.push_str(&format!("\n[[key]]\nid = {}\nsecret = \"{}\"\n", key.id, hex(&key.secret)));
        }
        text
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    purpose: Purpose,
    cluster: Name,
    id: String,
    key: Vec<KeyForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    id: u8,
    secret: String,
}

/// HKDF-SHA256 of one 32-byte key.
pub(super) fn expand(salt: &hkdf::Salt, secret: &[u8], label: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    salt.extract(secret)
        .expand(&[label], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("HKDF gives 32 bytes from any secret (RFC 5869 §2.3: up to 255 hashes)");
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}
