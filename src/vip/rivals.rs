//! Which other machines claim addresses that are held here, and when people are told of them. Pure.
//!
//! Each is told at its first claim, and again once a minute as long as it goes on. A stranger who makes names up must
//! not fill log and history: so many a minute, and no more.
//!
//! Not here: what is announced against them (`announce`).

use super::frames::Mac;
use crate::{
    limits::{CLAIM_TOLD_EVERY, CLAIMS_TOLD_MAX},
    time::Instant,
};
use std::net::IpAddr;

/// Those that were told of lately.
#[derive(Debug, Default)]
pub struct Rivals {
    told: Vec<(Mac, IpAddr, Instant)>,
}

impl Rivals {
    /// A machine claims an address. Whether people are to be told.
    pub fn hear(&mut self, now: Instant, mac: Mac, address: IpAddr) -> bool {
        self.told.retain(|(_, _, at)| now.since(*at) < CLAIM_TOLD_EVERY);
        let known = self.told.iter().any(|(who, what, _)| (*who, *what) == (mac, address));
        let tell = !known && self.told.len() < CLAIMS_TOLD_MAX;
        if tell {
            self.told.push((mac, address, now));
        }
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 0x66];

    #[test]
    fn each_rival_is_told_at_once_and_then_once_a_minute_while_it_goes_on() {
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap());
        let mut rivals = Rivals::default();
        let heard = |rivals: &mut Rivals, ip| {
            (0..1_300_u64).filter(|tenth| rivals.hear(Instant::from_millis(100 * tenth), MAC, ip)).collect::<Vec<_>>()
        };
        assert_eq!(heard(&mut rivals, v4), [0, 600, 1200]);
        let mut rivals = Rivals::default();
        assert!(rivals.hear(Instant::ZERO, MAC, v4));
        assert!(rivals.hear(Instant::ZERO, MAC, v6), "another address");
        assert!(rivals.hear(Instant::ZERO, [2, 0, 0, 0, 0, 0x67], v4), "another machine");
        assert!(!rivals.hear(Instant::ZERO, MAC, v6));
    }

    #[test]
    fn a_stranger_with_many_names_is_not_told_more_often_than_the_limit() {
        let mut rivals = Rivals::default();
        let hear = |rivals: &mut Rivals, at: u64, name: u32| {
            let [a, b, c, d] = name.to_be_bytes();
            rivals.hear(Instant::from_millis(at), [2, 0, a, b, c, d], "192.0.2.10".parse().unwrap())
        };
        let told = (0..10_000).filter(|name| hear(&mut rivals, 0, *name)).count();
        assert_eq!(told, CLAIMS_TOLD_MAX);
        assert!(hear(&mut rivals, 60_000, 77_777), "and it goes on");
    }
}
