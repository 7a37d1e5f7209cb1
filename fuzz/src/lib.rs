//! Finds the decoder of a fuzz target.

use hawser::hostile::DECODERS;

/// Feeds the decoder of this name.
///
/// # Panics
/// If the decoder breaks one of its rules, or there is none of this name.
pub fn eat(name: &str, bytes: &[u8]) {
    let decoder = DECODERS.iter().find(|decoder| decoder.name == name).expect("each target has its decoder");
    (decoder.eat)(bytes);
}

/// Bytes that are as they should be, to begin with.
#[must_use]
pub fn samples() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    DECODERS.iter().map(|decoder| (decoder.name, (decoder.samples)())).collect()
}
