//! How a record lies in the keyspace: format, checksum, commit number, payload.
//!
//! The checksum covers the key too: a value that turns up under another key is not believed.

use super::{Error, Seq};

const FORMAT: u8 = 1;
/// Format, checksum, commit number.
const HEADER: usize = 1 + 4 + 8;

pub(super) fn encode(key: &[u8], seq: Seq, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.push(FORMAT);
    bytes.extend(checksum(key, seq, payload).to_le_bytes());
    bytes.extend(seq.to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// Commit number and payload.
pub(super) fn decode<'a>(key: &[u8], bytes: &'a [u8]) -> Result<(Seq, &'a [u8]), Error> {
    let wrong = |why: &str| Error::Corrupt(format!("{}: {why}", String::from_utf8_lossy(key)));
    let [FORMAT, rest @ ..] = bytes else { return Err(wrong("unknown format")) };
    let (sum, rest) = rest.split_first_chunk().ok_or_else(|| wrong("cut off"))?;
    let (seq, payload) = rest.split_first_chunk().ok_or_else(|| wrong("cut off"))?;
    let seq = Seq::from_le_bytes(*seq);
    if checksum(key, seq, payload) != u32::from_le_bytes(*sum) {
        return Err(wrong("wrong checksum"));
    }
    Ok((seq, payload))
}

fn checksum(key: &[u8], seq: Seq, payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key);
    sum.update(&seq.to_le_bytes());
    sum.update(payload);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_believed_only_whole_and_under_its_own_key() {
        let bytes = encode(b"key", 7, b"payload");
        assert_eq!(decode(b"key", &bytes).unwrap(), (7, &b"payload"[..]));
        assert!(decode(b"kez", &bytes).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(decode(b"key", &flipped).is_err(), "byte {at}");
            assert!(decode(b"key", &bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
