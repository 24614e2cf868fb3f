//! `Idempotency-Key`: the same key gets the first answer's bytes again; the key's row commits with the work.

mod answer;
mod claim;
mod key;
mod look;
mod prune;

pub use self::answer::StoredResponse;
pub use self::claim::{
    Claim, key_answer_in_tx, key_claim_in_tx, key_find, key_insert_in_tx, key_is_known, key_replay,
    key_reserve_in_tx,
};
pub use self::key::{IdempotencyKey, IdempotencyKeyParam, KEY_CHARS_MAX, request_hash, request_hash_of};
pub use self::look::{KeyUsed, key_of_location, keys_of};
pub use self::prune::{KEY_HOURS_MAX, keys_prune, run_pruning};
