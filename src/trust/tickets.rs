//! Session tickets that either node can open: their keys come from a secret that both have, and from the time.
//!
//! ```text
//! ticket:  name 8 │ nonce 12 │ session │ tag 16        AES-256-GCM-SIV (RFC 8452), the name is associated data
//! ```
//! Nothing is replicated: a key is HKDF-SHA256 of the secret, the domain and the epoch. The nonce is random, and GCM-SIV
//! forgives a machine that repeats one. A ticket is opened with the keys of the epoch before, of now, and of the next:
//! the other node's clock may be ahead.
//!
//! A domain is what a session may be taken up in again: the demands on client certificates differ between domains, and
//! a session that was begun under one demand must not pass another (rustls looks at no certificate again).
//!
//! Instead of the cluster's secret, keys can be set from a file, which somebody else replaces; time plays no part then.
//!
//! Who has the secret can read sessions of TLS 1.2 that were recorded; those of TLS 1.3 agree on new keys each time.

use super::{
    keyring::{Keyring, expand},
    random,
    site::{Trouble, Which, secret, trouble},
};
use crate::{
    clock,
    limits::{TICKET_EPOCH, TICKET_KEYS_MAX},
};
use arc_swap::ArcSwap;
use arrayvec::ArrayVec;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use rustls::server::ProducesTickets;
use std::{fmt, path::Path, sync::Arc, time::UNIX_EPOCH};

const NAME: usize = 8;
const SALT: &[u8] = b"hawser tickets 1";

/// What ticket keys are made from: the current one first, older ones still open.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecrets {
    secrets: ArrayVec<[u8; 32], TICKET_KEYS_MAX>,
    /// Keys change with the time; those of a file do not.
    timed: bool,
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecrets({}, timed: {})", self.secrets.len(), self.timed)
    }
}

impl TicketSecrets {
    /// Of this process alone.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::timed([random()])
    }

    /// What both nodes of a cluster have.
    #[must_use]
    pub fn of_cluster(ring: &Keyring) -> Self {
        Self::timed(ring.keys().iter().map(|key| key.secret).take(TICKET_KEYS_MAX))
    }

    fn timed(secrets: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { secrets: secrets.into_iter().collect(), timed: true }
    }

    /// From a file: 64 hexadecimal digits a line, the key that seals first. Lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// If the file cannot be read, can be read by others, or holds something else.
    pub fn load(path: &Path) -> Result<Self, Trouble> {
        let help = "write one key a line, each made by `openssl rand -hex 32`; the first seals, all open";
        let wrong = |what: String| trouble(Which::TicketKeys, format!("{} {what}", path.display()), help);
        let mut secrets = ArrayVec::new();
        for line in secret(path, Which::TicketKeys)?.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = data_encoding::HEXLOWER_PERMISSIVE.decode(line.as_bytes()).ok();
            let key = key.and_then(|key| <[u8; 32]>::try_from(key).ok());
            let key = key.ok_or_else(|| wrong("holds a line that is not 64 hexadecimal digits".to_owned()))?;
            secrets.try_push(key).map_err(|_| wrong(format!("holds more than {TICKET_KEYS_MAX} keys")))?;
        }
        if secrets.is_empty() { Err(wrong("holds no key".to_owned())) } else { Ok(Self { secrets, timed: false }) }
    }
}

/// Seals and opens the tickets of one domain.
pub struct Tickets {
    secrets: TicketSecrets,
    domain: [u8; 32],
    keys: ArcSwap<Keys>,
}

/// The keys of an epoch and its neighbours; the first seals.
struct Keys {
    epoch: u64,
    keys: Vec<(Name, LessSafeKey)>,
}

type Name = [u8; NAME];

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({:?})", self.secrets)
    }
}

impl Tickets {
    /// For one domain, named by the digest of what is demanded there.
    #[must_use]
    pub fn new(secrets: TicketSecrets, domain: [u8; 32]) -> Self {
        let keys = ArcSwap::from_pointee(derive(&secrets, &domain, now(&secrets)));
        Self { secrets, domain, keys }
    }

    /// The keys of now: made anew when an epoch ends, else only looked up.
    fn keys(&self) -> arc_swap::Guard<Arc<Keys>> {
        let now = now(&self.secrets);
        let keys = self.keys.load();
        if keys.epoch == now {
            return keys;
        }
        self.keys.store(Arc::new(derive(&self.secrets, &self.domain, now)));
        self.keys.load()
    }
}

/// The epoch of now.
fn now(secrets: &TicketSecrets) -> u64 {
    if !secrets.timed {
        return 0;
    }
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / TICKET_EPOCH.as_secs()
}

fn derive(secrets: &TicketSecrets, domain: &[u8; 32], epoch: u64) -> Keys {
    let epochs: &[u64] =
        if secrets.timed { &[epoch, epoch.saturating_sub(1), epoch.saturating_add(1)] } else { &[epoch] };
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT);
    let key = |secret: &[u8; 32], epoch: u64| {
        let made = |what: &[u8]| expand(&salt, secret, &[what, domain, &epoch.to_be_bytes()].concat());
        let mut name = Name::default();
        name.copy_from_slice(&made(b"name")[..NAME]);
        let key = UnboundKey::new(&AES_256_GCM_SIV, &made(b"key")).expect("AES-256 takes 32 bytes");
        (name, LessSafeKey::new(key))
    };
    let keys = epochs.iter().flat_map(|epoch| secrets.secrets.iter().map(move |secret| (secret, *epoch)));
    Keys { epoch, keys: keys.map(|(secret, epoch)| key(secret, epoch)).collect() }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_EPOCH.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let (name, key) = keys.keys.first()?;
        let nonce: [u8; NONCE_LEN] = random();
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + AES_256_GCM_SIV.tag_len());
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let (_, sealed) = ticket.split_at_mut(NAME + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(name), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys();
        let (_, key) = keys.keys.iter().find(|(known, _)| known == name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.open_in_place(nonce, Aad::from(name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(secret: u8, domain: u8) -> Tickets {
        Tickets::new(TicketSecrets::timed([[secret; 32]]), [domain; 32])
    }

    #[test]
    fn a_ticket_of_one_node_is_opened_by_the_other_and_by_nobody_else() {
        let ticket = tickets(1, 1).encrypt(b"session").unwrap();
        assert_eq!(tickets(1, 1).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets(2, 1).decrypt(&ticket), None, "another cluster");
        assert_eq!(tickets(1, 2).decrypt(&ticket), None, "another demand on clients");
    }

    #[test]
    fn every_bit_flip_and_every_cut_of_a_ticket_is_refused() {
        let tickets = tickets(1, 1);
        let ticket = tickets.encrypt(b"session").unwrap();
        for bit in 0..ticket.len() * 8 {
            let mut spoilt = ticket.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.decrypt(&spoilt), None, "bit {bit}");
        }
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None, "cut to {length}");
        }
    }

    #[test]
    fn a_ticket_lives_through_the_end_of_its_epoch_and_not_through_two() {
        let tickets = tickets(1, 1);
        let epoch = now(&tickets.secrets);
        let at = |other: u64| {
            let keys = derive(&tickets.secrets, &tickets.domain, other);
            Tickets { secrets: tickets.secrets.clone(), domain: tickets.domain, keys: ArcSwap::from_pointee(keys) }
        };
        let names = |tickets: &Tickets| tickets.keys.load().keys.iter().map(|key| key.0).collect::<Vec<_>>();
        let sealing = names(&tickets)[0];
        for (later, opened) in
            [(epoch - 2, false), (epoch - 1, true), (epoch, true), (epoch + 1, true), (epoch + 2, false)]
        {
            assert_eq!(names(&at(later)).contains(&sealing), opened, "{}", i128::from(later) - i128::from(epoch));
        }
    }

    #[test]
    fn a_secret_that_was_replaced_still_opens() {
        let old = tickets(1, 1).encrypt(b"session").unwrap();
        let both = Tickets::new(TicketSecrets::timed([[2; 32], [1; 32]]), [1; 32]);
        assert!(both.decrypt(&old).is_some());
        assert!(tickets(2, 1).decrypt(&both.encrypt(b"session").unwrap()).is_some(), "the first seals");
    }

    #[test]
    fn keys_of_a_file_seal_with_the_first_and_open_with_all() {
        use std::{fs, os::unix::fs::PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tickets");
        let (a, b) = ("ab".repeat(32), "CD".repeat(32));
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            TicketSecrets::load(&path)
        };
        let first = write(&format!("# mine\n{a}\n"), 0o600).unwrap();
        let both = write(&format!("{b}\n\n{a}\n"), 0o600).unwrap();
        let ticket = Tickets::new(first.clone(), [1; 32]).encrypt(b"session").unwrap();
        assert!(Tickets::new(both.clone(), [1; 32]).decrypt(&ticket).is_some());
        let ticket = Tickets::new(both, [1; 32]).encrypt(b"session").unwrap();
        assert!(Tickets::new(first, [1; 32]).decrypt(&ticket).is_none());
        for (text, mode, word) in [
            ("", 0o600, "holds no key"),
            ("abcd\n", 0o600, "64 hexadecimal digits"),
            (&*format!("{a}\n").repeat(TICKET_KEYS_MAX + 1), 0o600, "more than"),
            (&*a, 0o604, "chmod 600"),
        ] {
            let error = write(text, mode).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
