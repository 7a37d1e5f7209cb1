//! Which other machines claimed addresses of this node lately, for `status`.

use crate::{
    cluster::Claim,
    limits::CLAIM_TOLD_EVERY,
    time::{Duration, Instant},
};
use std::sync::{Arc, Mutex, PoisonError};

/// The keeper tells of each as often as [`CLAIM_TOLD_EVERY`] while it goes on: what is older than this is over.
const SHOWN_FOR: Duration = Duration::from_secs(CLAIM_TOLD_EVERY.as_secs() * 3 / 2);

/// Shared by the keeper's thread, which tells, and the desk, which shows. The keeper tells no more of them than
/// [`crate::limits::CLAIMS_TOLD_MAX`] in its time.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims(Arc<Mutex<Vec<(Claim, Instant)>>>);

impl Claims {
    pub(super) fn note(&self, now: Instant, claim: Claim) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, at)| {
            now.since(*at) < SHOWN_FOR && (known.mac, known.address) != (claim.mac, claim.address)
        });
        all.push((claim, now));
    }

    /// Each, and how long ago it was told.
    pub(super) fn lately(&self, now: Instant) -> Vec<(Claim, Duration)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.iter().map(|(claim, at)| (*claim, now.since(*at)));
        all.filter(|(_, ago)| *ago < SHOWN_FOR).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Name, Term};

    #[test]
    fn a_claim_is_shown_once_and_no_longer_than_it_lasts() {
        let claim = |last: u8| Claim {
            group: Name::new("web").unwrap(),
            term: Term(3),
            address: [192, 0, 2, last].into(),
            mac: [2, 0, 0, 0, 0, 0x66],
        };
        let at = |secs: u64| Instant::from_millis(1000 * secs);
        let claims = Claims::default();
        claims.note(at(0), claim(10));
        claims.note(at(60), claim(10));
        claims.note(at(70), claim(11));
        let ago = |secs| Duration::from_secs(secs);
        assert_eq!(claims.lately(at(80)), [(claim(10), ago(20)), (claim(11), ago(10))]);
        assert_eq!(claims.lately(at(155)), [(claim(11), ago(85))]);
        assert_eq!(claims.lately(at(200)), []);
        assert_eq!(claim(10).to_string(), "02:00:00:00:00:66 claims 192.0.2.10, which this node holds");
    }
}
