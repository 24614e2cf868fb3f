//! What becomes of a record and its key: the rules of ordered retry, pure. `tests/it/retry_model.rs` explores them.
//!
//! Only the head of a parked key travels through the retry topics; its followers are held and drained in order.

use super::key_state::KeyState;
use super::policy::{Poisoned, Policy};

/// The largest hop the inbox can tell apart; a record that came this often is a dead letter.
pub const HOP_MAX: i16 = i16::MAX;
/// What a replayed message counts as tried, so that it gets every tier once more.
pub const ATTEMPTS_AT_REPLAY: u16 = 1;

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A main topic (or a retry topic, but the record is not its key's head: then it is like any other).
    Main,
    /// A retry topic, and it is its key's head.
    Head {
        /// The topic's tier.
        tier: u8,
    },
    /// The held messages of a key, the oldest.
    Held,
}

/// Whether a record may be handled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Its turn has come.
    Handle,
    /// It waits behind its key's head.
    Hold,
}

/// What handling a record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// Its effects are made.
    Done,
    /// Not now, perhaps later.
    Retry,
    /// Neither now nor later.
    Reject,
}

/// How often a record was tried, and which appearance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tried {
    /// Attempts, this one included.
    pub attempts: u16,
    /// 0 on the main topic; each retry and each replay adds one.
    pub hop: i16,
}

/// Where the record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goes {
    /// Nowhere: it is done.
    Nowhere,
    /// To a retry topic, as its key's head.
    Retry {
        /// From 1.
        tier: u8,
        /// The number of that appearance.
        hop: i16,
    },
    /// To the dead letters.
    DeadLetter,
}

/// What becomes of a record and of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Where the record goes.
    pub record: Goes,
    /// The key's next state; `None` is not parked.
    pub key: Option<KeyState>,
}

/// Why an operator's wish can not be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Another message of the key is being retried or drained.
    #[error("another message of its key is being retried or waits for an operator; mend that one first")]
    KeyBusy,
    /// The policy has no tiers, so there is no topic to send it to.
    #[error("the group's policy has no retry tiers; give it one")]
    NoTiers,
    /// It has been replayed more often than can be counted.
    #[error("it came back too often to be counted; discard it")]
    HopsExhausted,
}

/// Whether a record of a key in this state may be handled.
#[must_use]
pub fn admit(source: Source, key: Option<KeyState>) -> Admission {
    match (source, key) {
        (_, None)
        | (Source::Head { .. }, Some(KeyState::Retrying { .. }))
        | (Source::Held, Some(KeyState::Draining)) => Admission::Handle,
        _ => Admission::Hold,
    }
}

/// What follows from a judgement about an admitted record.
#[must_use]
pub fn judge(policy: &Policy, source: Source, tried: Tried, judgement: Judgement) -> Decision {
    match judgement {
        Judgement::Done => Decision { record: Goes::Nowhere, key: go_on(source) },
        Judgement::Retry => match next_tier(policy, source, tried) {
            Some(tier) => travel(tier, tried.hop + 1),
            None => give_up(policy, source),
        },
        Judgement::Reject => give_up(policy, source),
    }
}

/// The key after a part of its held messages was drained. `held_left` is counted with the key locked.
#[must_use]
pub fn drained(held_left: u64) -> Option<KeyState> {
    (held_left > 0).then_some(KeyState::Draining)
}

/// Sends a dead letter of the key round again. `hop` is the appearance that became the dead letter; `is_blocked_by_it`
/// whether this very letter blocks the key.
///
/// # Errors
/// [`Refusal`].
pub fn replay(
    policy: &Policy,
    key: Option<KeyState>,
    is_blocked_by_it: bool,
    hop: i16,
) -> Result<Decision, Refusal> {
    match key {
        None => {}
        Some(KeyState::Blocked) if is_blocked_by_it => {}
        Some(_) => return Err(Refusal::KeyBusy),
    }
    if policy.tiers() == 0 {
        return Err(Refusal::NoTiers);
    }
    let hop = hop.checked_add(1).ok_or(Refusal::HopsExhausted)?;
    Ok(travel(1, hop))
}

/// The key after one of its dead letters was given up for good.
#[must_use]
pub fn discard(key: Option<KeyState>, is_blocked_by_it: bool) -> Option<KeyState> {
    match key {
        Some(KeyState::Blocked) if is_blocked_by_it => Some(KeyState::Draining),
        other => other,
    }
}

fn travel(tier: u8, hop: i16) -> Decision {
    Decision { record: Goes::Retry { tier, hop }, key: Some(KeyState::Retrying { tier }) }
}

/// The key of a record that is out of the way.
fn go_on(source: Source) -> Option<KeyState> {
    match source {
        Source::Main => None,
        Source::Head { .. } | Source::Held => Some(KeyState::Draining),
    }
}

fn give_up(policy: &Policy, source: Source) -> Decision {
    let key = match policy.poisoned {
        Poisoned::Block => Some(KeyState::Blocked),
        Poisoned::Skip => go_on(source),
    };
    Decision { record: Goes::DeadLetter, key }
}

fn next_tier(policy: &Policy, source: Source, tried: Tried) -> Option<u8> {
    if tried.attempts >= policy.attempts_max || policy.tiers() == 0 || tried.hop == HOP_MAX {
        return None;
    }
    let tier = match source {
        Source::Main | Source::Held => 0,
        Source::Head { tier } => tier,
    };
    Some(tier.saturating_add(1).min(policy.tiers()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn retry(policy: &Policy, source: Source, attempts: u16) -> Goes {
        judge(policy, source, Tried { attempts, hop: 0 }, Judgement::Retry).record
    }

    #[test]
    fn the_last_tier_repeats_until_the_attempts_are_used_up() {
        let policy = Policy { attempts_max: 4, ..Policy::with_delays(&[Duration::ZERO; 2]) };
        assert_eq!(retry(&policy, Source::Main, 1), Goes::Retry { tier: 1, hop: 1 });
        assert_eq!(retry(&policy, Source::Head { tier: 1 }, 2), Goes::Retry { tier: 2, hop: 1 });
        assert_eq!(retry(&policy, Source::Head { tier: 2 }, 3), Goes::Retry { tier: 2, hop: 1 });
        assert_eq!(retry(&policy, Source::Head { tier: 2 }, 4), Goes::DeadLetter);
        let none = Policy::with_delays(&[]);
        assert_eq!(retry(&none, Source::Main, 1), Goes::DeadLetter);
    }

    #[test]
    fn only_the_letter_that_blocks_a_key_moves_it() {
        let policy = Policy::default();
        let blocked = Some(KeyState::Blocked);
        assert_eq!(replay(&policy, blocked, false, 0), Err(Refusal::KeyBusy));
        assert_eq!(replay(&policy, Some(KeyState::Draining), true, 0), Err(Refusal::KeyBusy));
        assert_eq!(replay(&policy, blocked, true, HOP_MAX), Err(Refusal::HopsExhausted));
        assert_eq!(replay(&policy, blocked, true, 3).unwrap().record, Goes::Retry { tier: 1, hop: 4 });
        assert_eq!(discard(blocked, true), Some(KeyState::Draining));
        assert_eq!(discard(blocked, false), blocked);
    }
}
