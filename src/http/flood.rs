//! Sees a flood of HTTP/2 frames that carry nothing.
//!
//! hyper and h2 limit what costs them memory: streams, resets of streams that nobody has looked at, header lists and
//! their continuations. What only costs time they take for ever: SETTINGS and PING that must be answered, PRIORITY,
//! WINDOW_UPDATE, RST_STREAM, frames of unknown kinds, DATA without a byte. Here each such frame costs its length, from an
//! account that fills with the time and with content that goes either way; who overdraws it is cut off.
//!
//! Only the heads of the frames are looked at (RFC 9113 §4.1). Whether a frame is right is for h2 to say.
#![deny(clippy::indexing_slicing)]

use crate::limits::{H2_OVERHEAD_BYTES, H2_OVERHEAD_BYTES_PER_SECOND, H2_OVERHEAD_SHARE};
use arrayvec::ArrayVec;
use tokio::time::Instant;

/// Length of a frame's head.
const HEAD: usize = 9;
/// What comes before the first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Account {
    /// Bytes until the next head.
    skip: usize,
    head: ArrayVec<u8, HEAD>,
    left: i64,
    filled: Instant,
}

/// The account is overdrawn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Account {
    pub(super) fn new(now: Instant) -> Self {
        Self { skip: PREFACE, head: ArrayVec::new(), left: H2_OVERHEAD_BYTES, filled: now }
    }

    /// Bytes came from the client. `now` is asked only when the account runs low.
    pub(super) fn received(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let part = bytes.len().min(self.head.remaining_capacity());
            let (head, rest) = bytes.split_at(part);
            self.head.extend(head.iter().copied());
            bytes = rest;
            let Some(&[high, middle, low, kind, flags, ..]) = self.head.first_chunk::<HEAD>() else { return Ok(()) };
            self.head.clear();
            self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.frame(kind, flags, &now)?;
        }
    }

    /// Bytes went to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.earn(i64::try_from(bytes).unwrap_or(i64::MAX) / H2_OVERHEAD_SHARE);
    }

    fn earn(&mut self, bytes: i64) {
        self.left = self.left.saturating_add(bytes).min(H2_OVERHEAD_BYTES);
    }

    fn frame(&mut self, kind: u8, flags: u8, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        let length = i64::try_from(self.skip).unwrap_or(i64::MAX);
        match kind {
            DATA if length > 0 => self.earn(length / H2_OVERHEAD_SHARE),
            DATA if flags & END_STREAM != 0 => {}
            HEADERS | CONTINUATION => {}
            _ => self.left = self.left.saturating_sub(length + HEAD as i64),
        }
        if self.left >= 0 {
            return Ok(());
        }
        let now = now();
        let millis = i64::try_from(now.saturating_duration_since(self.filled).as_millis()).unwrap_or(i64::MAX);
        self.filled = now;
        self.earn(millis.saturating_mul(H2_OVERHEAD_BYTES_PER_SECOND) / 1000);
        if self.left >= 0 { Ok(()) } else { Err(Flood) }
    }
}

/// For `crate::hostile`: any bytes, as if a client sent them; whole and byte by byte they mean the same.
#[cfg(any(test, feature = "hostile"))]
pub(crate) fn eat(bytes: &[u8]) {
    let now = Instant::now();
    let end = |pieces: usize| {
        let mut account = Account::new(now);
        let ended = bytes.chunks(pieces).try_for_each(|piece| account.received(piece, || now));
        assert!(account.left <= H2_OVERHEAD_BYTES, "nobody saves up more than the account holds");
        (ended, account.left, account.skip, account.head)
    };
    let whole = end(bytes.len().max(1));
    for pieces in [1, 5, 24] {
        assert_eq!(whole, end(pieces), "in pieces of {pieces}");
    }
}

#[cfg(any(test, feature = "hostile"))]
pub(crate) fn samples() -> Vec<Vec<u8>> {
    const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let headers: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];
    let reset: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    vec![
        [OPENING, settings, headers].concat(),
        [OPENING, settings, &[headers, reset].concat().repeat(100)].concat(),
        [OPENING, &settings.repeat(50)].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., high, middle, low] = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + length, 7);
        frame
    }

    fn account(now: Instant) -> Account {
        let mut account = Account::new(now);
        account.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now).unwrap();
        account
    }

    /// How many frames until it is called a flood; none within a million.
    fn endured(frame: &[u8], each: Duration) -> Option<usize> {
        let (begun, mut passed) = (Instant::now(), Duration::ZERO);
        let mut account = account(begun);
        (0..1_000_000).find(|_| {
            passed += each;
            account.received(frame, || begun + passed).is_err()
        })
    }

    #[test]
    fn frames_that_carry_nothing_are_endured_at_a_pace_and_not_as_a_flood() {
        for kind in [2, 3, 4, 6, 8, 99] {
            let frame = frame(kind, 0, 8);
            let many = endured(&frame, Duration::ZERO).expect("a flood is seen");
            assert_eq!(many, usize::try_from(H2_OVERHEAD_BYTES).unwrap() / frame.len());
            assert_eq!(endured(&frame, Duration::from_millis(1)), None, "a thousand a second");
        }
        assert!(endured(&frame(DATA, 0, 0), Duration::ZERO).is_some(), "DATA without a byte");
    }

    #[test]
    fn requests_and_content_are_no_flood() {
        for (kind, flags, length) in [(HEADERS, 5, 30), (DATA, 0, 1), (DATA, END_STREAM, 0), (DATA, 0, 16_384)] {
            assert_eq!(endured(&frame(kind, flags, length), Duration::ZERO), None);
        }
        // As a download does: 13 bytes of WINDOW_UPDATE for each 16 KiB.
        let now = Instant::now();
        let (mut account, update) = (account(now), frame(8, 0, 4));
        for _ in 0..1_000_000 {
            account.sent(16_384);
            assert_eq!(account.received(&update, || now), Ok(()));
        }
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_come() {
        let now = Instant::now();
        let stream: Vec<u8> = [frame(1, 4, 100), frame(0, 0, 70_000), frame(6, 0, 8), frame(4, 0, 0)].concat();
        let left = |pieces: usize| {
            let mut account = account(now);
            stream.chunks(pieces).for_each(|piece| account.received(piece, || now).unwrap());
            assert_eq!((account.skip, account.head.len()), (0, 0));
            account.left
        };
        for pieces in [1, 2, 7, 9, 10, 4096, stream.len()] {
            assert_eq!(left(pieces), H2_OVERHEAD_BYTES - 17 - 9, "in pieces of {pieces}");
        }
    }
}
