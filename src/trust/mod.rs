//! Who is let in: the cluster's CA and secrets, identities, TLS settings, sealed datagrams.
//!
//! Everything that arrives from the network passes through here before anybody else looks at it. What a stranger sends
//! is refused and counted; it never ends the process and never costs more than a bounded amount of work.
//!
//! | module       | what it is for                                                     |
//! |--------------|--------------------------------------------------------------------|
//! | [`keyring`]  | the secret that the members of a cluster share, and its file        |
//! | [`seal`]     | sealed datagrams and the release notice                             |
//! | [`pki`]      | makes a cluster's CA, certificates and secrets (`hawser init`)      |
//! | [`identity`] | loads what a node is from its folder                                |
//! | [`tls`]      | mutual TLS 1.3 between the nodes                                    |
//!
//! Not here: which incarnation is believed (`cluster`), sockets (`driver`).

pub mod identity;
pub mod keyring;
pub mod pki;
pub mod private;
pub mod seal;
pub mod tls;

pub use identity::Identity;
pub use keyring::{ClusterId, Keyring};
pub use private::TrustError;
pub use seal::{Claim, Kind, Notice, Opened, Opener, PAYLOAD_BYTES_MAX, Refused, Sealer, claim};

use crate::cluster::{Incarnation, Secret, SecretHash};
use aws_lc_rs::{digest, rand};

/// The first eight bytes of SHA-256, to tell two texts apart.
#[must_use]
pub fn digest(text: &[u8]) -> u64 {
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Random bytes from the operating system.
///
/// # Panics
/// If there are none to be had: nothing that hawser promises can be kept then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A new incarnation.
#[must_use]
pub fn new_incarnation() -> Incarnation {
    Incarnation(u128::from_be_bytes(random()))
}

/// A new secret of an incarnation.
#[must_use]
pub fn new_secret() -> Secret {
    Secret(random())
}

/// The hash of an incarnation's secret: SHA-256.
#[must_use]
pub fn hash_secret(secret: &Secret) -> SecretHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, &secret.0).as_ref());
    SecretHash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_secret_is_its_sha_256() {
        // FIPS 180-4, SHA-256 of 32 zero bytes.
        let hash = hash_secret(&Secret([0; 32]));
        let hex: String = hash.0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }

    #[test]
    fn no_two_incarnations_are_alike() {
        assert_ne!(new_incarnation(), new_incarnation());
        assert!(new_secret() != new_secret());
    }
}
