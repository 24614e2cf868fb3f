//! Tokens whose signature was checked before: it is not checked again while its key stays, the times are, always.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::DecodingKey;
use sha2::{Digest as _, Sha256};

use crate::auth::{Caller, LEEWAY_S};

/// Tokens remembered, in two halves: some hundred bytes each, and more than the callers of a few minutes.
const TOKENS_MAX: usize = 20_000;

/// What a token is known by: nobody finds a token in this process's memory.
pub(crate) type Fingerprint = [u8; 32];

/// A token that was verified.
#[derive(Debug)]
pub(crate) struct Known {
    /// Who holds it.
    pub(crate) caller: Caller,
    /// The id of the key that verified it.
    pub(crate) kid: String,
    /// That key, as it was then: after the keys were read again it is another one, and the token is verified anew.
    pub(crate) key: Arc<DecodingKey>,
    /// From when to when it holds.
    pub(crate) times: Times,
}

/// From when to when a token holds, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Times {
    pub(crate) not_before: Option<f64>,
    pub(crate) expires: f64,
}

/// Why a token that was verified does not hold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untimely {
    Expired,
    TooEarly,
}

impl Times {
    /// As a token is verified the first time, with the same leeway.
    pub(crate) fn hold(self, now_s: u64) -> Result<(), Untimely> {
        let (now, leeway) = (seconds(now_s), seconds(LEEWAY_S));
        if self.expires < now - leeway {
            return Err(Untimely::Expired);
        }
        if self.not_before.is_some_and(|from| from > now + leeway) {
            return Err(Untimely::TooEarly);
        }
        Ok(())
    }
}

/// Seconds of this era are whole in 53 bits.
#[expect(clippy::cast_precision_loss, reason = "exact for the next hundred million years")]
fn seconds(whole: u64) -> f64 {
    whole as f64
}

/// This machine's time.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Remembers tokens, the latest ones. When the younger half is full it becomes the older one, and that is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    halves: Mutex<[HashMap<Fingerprint, Arc<Known>>; 2]>,
}

impl Verified {
    pub(crate) fn fingerprint(token: &str) -> Fingerprint {
        Sha256::digest(token.as_bytes()).into()
    }

    pub(crate) fn find(&self, fingerprint: &Fingerprint) -> Option<Arc<Known>> {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.iter().find_map(|half| half.get(fingerprint)).cloned()
    }

    pub(crate) fn remember(&self, fingerprint: Fingerprint, known: Known) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if halves[0].len() >= TOKENS_MAX / 2 {
            halves.swap(0, 1);
            halves[0].clear();
        }
        halves[0].insert(fingerprint, Arc::new(known));
    }

    /// The keys were read again: none of what is known here counts any more.
    pub(crate) fn forget(&self) {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(HashMap::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn known() -> Known {
        Known {
            caller: Caller { subject: "someone".to_owned(), role: Role::Customer },
            kid: "kid".to_owned(),
            key: Arc::new(DecodingKey::from_ed_der(&[0; 32])),
            times: Times { not_before: None, expires: 0.0 },
        }
    }

    #[test]
    fn a_token_holds_from_its_time_to_its_time_give_or_take_the_leeway() {
        let times = Times { not_before: Some(1_000.0), expires: 2_000.5 };
        assert_eq!(times.hold(1_000 - LEEWAY_S - 1), Err(Untimely::TooEarly));
        assert_eq!(times.hold(1_000 - LEEWAY_S), Ok(()));
        assert_eq!(times.hold(2_000 + LEEWAY_S), Ok(()));
        assert_eq!(times.hold(2_001 + LEEWAY_S), Err(Untimely::Expired));
    }

    #[test]
    fn the_latest_tokens_are_remembered_and_no_more_than_the_bound() {
        let verified = Verified::default();
        let of = |number: usize| Verified::fingerprint(&number.to_string());
        for number in 0..3 * TOKENS_MAX {
            verified.remember(of(number), known());
            let halves = verified.halves.lock().unwrap();
            assert!(halves[0].len() + halves[1].len() <= TOKENS_MAX);
        }
        assert!(verified.find(&of(3 * TOKENS_MAX - 1)).is_some());
        assert!(verified.find(&of(0)).is_none());
        verified.forget();
        assert!(verified.find(&of(3 * TOKENS_MAX - 1)).is_none());
    }
}
