//! Sealed datagrams, and the release notice that needs no seal.
//!
//! ```text
//! sealed:  version 1 │ kind 1 │ key id 1 │ sender 1 │ cluster id 8 │ incarnation 16 │ counter 8 │ payload │ tag 16
//! notice:  version 1 │ kind 1 │ cluster id 8 │ secret 32
//! ```
//! Numbers are big endian. The 36 bytes before the payload are associated data. The key is HKDF-SHA256 of the shared
//! secret, salted with sender and incarnation; the nonce is the counter. AES-256-GCM-SIV (RFC 8452) because a cloned
//! machine repeats incarnation and counter: with it that shows only whether two payloads are equal, and forges nothing.
//!
//! A key is kept only after a good seal, a few per sender: garbage cannot push a good key out, nor fill memory. It costs
//! one derivation each, a few microseconds, like the system call that received it.
//!
//! Not here: whether an incarnation is believed, and its replay window (`cluster`).
#![deny(clippy::indexing_slicing)]

use super::keyring::{ClusterId, Key, Keyring, expand};
use crate::{
    cluster::{Incarnation, Member, Secret},
    limits::{DATAGRAM_BYTES_MAX, SEAL_CACHE_PER_SENDER},
};
use arrayvec::ArrayVec;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use std::fmt;

/// First byte of every datagram: `h` for hawser with the top bit set, then the version of the format.
const VERSION: u8 = 0xe1;
/// Second byte of a release notice.
const NOTICE: u8 = 0x4e;
/// HKDF label of the sealing keys.
const SEAL_LABEL: &[u8] = b"hawser seal 1";

const HEADER: usize = 36;
const TAG: usize = 16;
/// Longest payload of a sealed datagram, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER - TAG;
/// Length of a release notice, in bytes.
pub const NOTICE_BYTES: usize = 42;

/// What a sealed datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A message of the engine: heartbeat, acknowledgement, vote, release.
    Engine,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Engine => 1,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Engine),
            _ => None,
        }
    }
}

/// A payload longer than [`PAYLOAD_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(pub usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot seal {} bytes: a datagram carries at most {PAYLOAD_BYTES_MAX}", self.0)
    }
}

impl std::error::Error for TooLong {}

/// Seals what one incarnation of a member says.
pub struct Sealer {
    key: LessSafeKey,
    key_id: u8,
    cluster: ClusterId,
    me: Member,
    incarnation: Incarnation,
    counter: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:?} {:032x} at {})", self.me, self.incarnation.0, self.counter)
    }
}

impl Sealer {
    /// A sealer whose first datagram has counter 1. Make only one per keyring and incarnation.
    ///
    /// # Panics
    /// Never: a keyring holds at least one key.
    #[must_use]
    pub fn new(ring: &Keyring, me: Member, incarnation: Incarnation) -> Self {
        let key = ring.keys().first().expect("a keyring holds at least one key");
        Self { key: derive(key, me, incarnation), key_id: key.id, cluster: ring.id(), me, incarnation, counter: 0 }
    }

    /// Puts the sealed `payload` into `out`, in place of what it held, and returns its counter: a new one each time.
    ///
    /// # Errors
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`]; `out` is empty then.
    ///
    /// # Panics
    /// After 2⁶⁴ datagrams.
    pub fn seal(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Result<u64, TooLong> {
        out.clear();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(TooLong(payload.len()));
        }
        self.counter = self.counter.checked_add(1).expect("2^64 datagrams take longer than any machine lives");
        let header = Header {
            kind: kind.byte(),
            key_id: self.key_id,
            sender: sender_byte(self.me),
            cluster: self.cluster,
            incarnation: self.incarnation,
            counter: self.counter,
        }
        .encode();
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
        let (_, sealed) = out.split_at_mut(HEADER);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.counter), Aad::from(header), sealed)
            .expect("AES-256-GCM-SIV seals any short payload");
        out.extend_from_slice(tag.as_ref());
        Ok(self.counter)
    }
}

/// What a datagram with a good seal said. Whether it came before is for the replay window of `cluster` to say.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Which member sealed it.
    pub sender: Member,
    /// In which life.
    pub incarnation: Incarnation,
    /// Its number in that life.
    pub counter: u64,
    /// What the payload is.
    pub kind: Kind,
    /// What it said.
    pub payload: &'a [u8],
}

/// Why a datagram was not opened. It had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// Shorter than a header and a tag, or longer than any of ours.
    Length,
    /// Another version, or not a datagram of hawser.
    Version,
    /// A kind that this version does not know.
    Kind,
    /// It names another cluster.
    ForeignCluster,
    /// It names a key that is not in force.
    UnknownKey,
    /// It names a sender from whom nothing is expected here.
    UnknownSender,
    /// The seal is broken: forged, damaged, or of another secret.
    BadSeal,
}

impl Refused {
    /// All reasons, in the order of the counters.
    pub const ALL: [Self; 7] = [
        Self::Length,
        Self::Version,
        Self::Kind,
        Self::ForeignCluster,
        Self::UnknownKey,
        Self::UnknownSender,
        Self::BadSeal,
    ];

    /// A word for logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Version => "version",
            Self::Kind => "kind",
            Self::ForeignCluster => "foreign_cluster",
            Self::UnknownKey => "unknown_key",
            Self::UnknownSender => "unknown_sender",
            Self::BadSeal => "bad_seal",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a datagram says of itself: tells which opener is to look at it, and is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Sealed by a member of a cluster.
    Sealed {
        /// The cluster.
        cluster: ClusterId,
        /// The member.
        sender: Member,
    },
    /// A release notice.
    Notice(Notice),
}

/// What a datagram says of itself. Costs next to nothing.
///
/// # Errors
/// If it cannot be a datagram of hawser.
pub fn claim(datagram: &[u8]) -> Result<Claim, Refused> {
    if Notice::is(datagram) {
        return Notice::decode(datagram).map(Claim::Notice);
    }
    let header = Header::decode(datagram.first_chunk().ok_or(Refused::Length)?)?;
    Kind::from_byte(header.kind).ok_or(Refused::Kind)?;
    let sender = Member::ALL.into_iter().find(|member| sender_byte(*member) == header.sender);
    Ok(Claim::Sealed { cluster: header.cluster, sender: sender.ok_or(Refused::UnknownSender)? })
}

/// Opens what the expected senders sealed, and counts what it refuses.
pub struct Opener {
    cluster: ClusterId,
    keys: Vec<Key>,
    senders: ArrayVec<SenderKeys, 3>,
    refused: [u64; Refused::ALL.len()],
    scratch: Vec<u8>,
}

/// The proven keys of one sender, the latest used last.
struct SenderKeys {
    sender: Member,
    proven: ArrayVec<ProvenKey, SEAL_CACHE_PER_SENDER>,
}

struct ProvenKey {
    key_id: u8,
    incarnation: Incarnation,
    key: LessSafeKey,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({} refused {:?})", self.cluster, self.refused)
    }
}

impl Opener {
    /// An opener for datagrams that `senders` sealed with a key of the ring.
    #[must_use]
    pub fn new(ring: &Keyring, senders: &[Member]) -> Self {
        let mut expected = ArrayVec::new();
        for sender in Member::ALL.into_iter().filter(|member| senders.contains(member)) {
            expected.push(SenderKeys { sender, proven: ArrayVec::new() });
        }
        Self {
            cluster: ring.id(),
            keys: ring.keys().to_vec(),
            senders: expected,
            refused: [0; Refused::ALL.len()],
            scratch: Vec::with_capacity(DATAGRAM_BYTES_MAX),
        }
    }

    /// Opens one datagram.
    ///
    /// # Errors
    /// Why it was refused; it is counted and had no other effect.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Opened<'_>, Refused> {
        let header = match self.unseal(datagram) {
            Ok(header) => header,
            Err(reason) => {
                self.count(reason);
                return Err(reason);
            }
        };
        Ok(Opened {
            sender: header.0,
            kind: header.1,
            incarnation: header.2.incarnation,
            counter: header.2.counter,
            payload: &self.scratch,
        })
    }

    /// How many datagrams were refused for this reason.
    #[must_use]
    pub fn refused(&self, reason: Refused) -> u64 {
        Refused::ALL.iter().zip(self.refused).find(|(r, _)| **r == reason).map_or(0, |(_, count)| count)
    }

    fn count(&mut self, reason: Refused) {
        if let Some((_, count)) = Refused::ALL.iter().zip(&mut self.refused).find(|(r, _)| **r == reason) {
            *count = count.saturating_add(1);
        }
    }

    /// Checks the header from the cheapest test to the dearest, then the seal; the payload ends up in `scratch`.
    fn unseal(&mut self, datagram: &[u8]) -> Result<(Member, Kind, Header), Refused> {
        if datagram.len() > DATAGRAM_BYTES_MAX || datagram.len() < HEADER + TAG {
            return Err(Refused::Length);
        }
        let (head, sealed) = datagram.split_first_chunk::<HEADER>().ok_or(Refused::Length)?;
        let header = Header::decode(head)?;
        let kind = Kind::from_byte(header.kind).ok_or(Refused::Kind)?;
        if header.cluster != self.cluster {
            return Err(Refused::ForeignCluster);
        }
        let key = self.keys.iter().find(|key| key.id == header.key_id).ok_or(Refused::UnknownKey)?;
        let from = self.senders.iter_mut().find(|s| sender_byte(s.sender) == header.sender);
        let from = from.ok_or(Refused::UnknownSender)?;
        self.scratch.clear();
        self.scratch.extend_from_slice(sealed);
        let length = from.open(key, &header, head, &mut self.scratch).ok_or(Refused::BadSeal)?;
        self.scratch.truncate(length);
        Ok((from.sender, kind, header))
    }
}

impl SenderKeys {
    /// Opens `sealed` in place; the length of the payload. A key is kept once it has opened something.
    fn open(&mut self, key: &Key, header: &Header, aad: &[u8; HEADER], sealed: &mut [u8]) -> Option<usize> {
        let known = |k: &ProvenKey| k.key_id == key.id && k.incarnation == header.incarnation;
        if let Some(at) = self.proven.iter().position(known) {
            let length = open_with(&self.proven.get(at)?.key, header.counter, aad, sealed)?;
            if at + 1 < self.proven.len() {
                let latest = self.proven.remove(at);
                self.proven.push(latest);
            }
            return Some(length);
        }
        let derived = derive(key, self.sender, header.incarnation);
        let length = open_with(&derived, header.counter, aad, sealed)?;
        if self.proven.is_full() {
            self.proven.remove(0);
        }
        self.proven.push(ProvenKey { key_id: key.id, incarnation: header.incarnation, key: derived });
        Some(length)
    }
}

fn open_with(key: &LessSafeKey, counter: u64, aad: &[u8; HEADER], sealed: &mut [u8]) -> Option<usize> {
    key.open_in_place(nonce(counter), Aad::from(aad), sealed).ok().map(|payload| payload.len())
}

/// The associated data of a datagram, as read; nothing of it is believed before the seal was good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    kind: u8,
    key_id: u8,
    sender: u8,
    cluster: ClusterId,
    incarnation: Incarnation,
    counter: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let fields: [&[u8]; 4] = [
            &[VERSION, self.kind, self.key_id, self.sender],
            &self.cluster.0,
            &self.incarnation.0.to_be_bytes(),
            &self.counter.to_be_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    fn decode(bytes: &[u8; HEADER]) -> Result<Self, Refused> {
        let (&[version, kind, key_id, sender], rest) = bytes.split_first_chunk().ok_or(Refused::Length)?;
        let (&cluster, rest) = rest.split_first_chunk().ok_or(Refused::Length)?;
        let (&incarnation, rest) = rest.split_first_chunk().ok_or(Refused::Length)?;
        let (&counter, _) = rest.split_first_chunk().ok_or(Refused::Length)?;
        if version != VERSION {
            return Err(Refused::Version);
        }
        Ok(Self {
            kind,
            key_id,
            sender,
            cluster: ClusterId(cluster),
            incarnation: Incarnation(u128::from_be_bytes(incarnation)),
            counter: u64::from_be_bytes(counter),
        })
    }
}

const fn sender_byte(member: Member) -> u8 {
    match member {
        Member::First => 0,
        Member::Second => 1,
        Member::Witness => 2,
    }
}

/// The key with which this life of this sender seals.
fn derive(key: &Key, sender: Member, incarnation: Incarnation) -> LessSafeKey {
    let mut salt = [0; 17];
    if let Some((first, rest)) = salt.split_first_mut() {
        *first = sender_byte(sender);
        rest.copy_from_slice(&incarnation.0.to_be_bytes());
    }
    let bytes = expand(&hkdf::Salt::new(hkdf::HKDF_SHA256, &salt), &key.secret, SEAL_LABEL);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &bytes).expect("an AES-256 key has 32 bytes"))
}

/// The counter as a 96-bit nonce.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    if let Some(low) = bytes.last_chunk_mut() {
        *low = counter.to_be_bytes();
    }
    Nonce::assume_unique_for_key(bytes)
}

/// Says that a worker is dead and its addresses are gone: shows the secret whose hash its promises carry.
///
/// It is not sealed, because the supervisor that sends it holds no key; the secret itself is the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// The cluster of the dead worker.
    pub cluster: ClusterId,
    /// Its secret.
    pub secret: Secret,
}

impl Notice {
    /// Whether a datagram claims to be a notice; it may still be damaged.
    #[must_use]
    pub fn is(datagram: &[u8]) -> bool {
        matches!(datagram, [VERSION, NOTICE, ..])
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; NOTICE_BYTES] {
        let mut out = [0; NOTICE_BYTES];
        let fields: [&[u8]; 3] = [&[VERSION, NOTICE], &self.cluster.0, &self.secret.0];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// If it is not a notice, or not of this length.
    pub fn decode(datagram: &[u8]) -> Result<Self, Refused> {
        let bytes: &[u8; NOTICE_BYTES] = datagram.try_into().map_err(|_| Refused::Length)?;
        let (&[version, kind], rest) = bytes.split_first_chunk().ok_or(Refused::Length)?;
        let (&cluster, rest) = rest.split_first_chunk().ok_or(Refused::Length)?;
        let (&secret, _) = rest.split_first_chunk().ok_or(Refused::Length)?;
        if version != VERSION {
            return Err(Refused::Version);
        }
        if kind != NOTICE {
            return Err(Refused::Kind);
        }
        Ok(Self { cluster: ClusterId(cluster), secret: Secret(secret) })
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
