//! A write that happens at most once per idempotency key: work, events and the stored answer commit together.

use sqlx::PgConnection;
use waybill_http::idempotency::{
    IdempotencyKey, StoredResponse, key_answer_in_tx, key_replay, key_reserve_in_tx,
};
use waybill_runtime::pool::round;

use super::{CommandError, Context};

/// Which request this is, as its sender names it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose key: the caller's subject.
    pub scope: String,
    /// Method and route.
    pub endpoint: &'static str,
    /// The sender's name for the request.
    pub key: IdempotencyKey,
    /// Tells another request under the same key.
    pub hash: [u8; 32],
}

/// The work of one write.
pub trait Write: Send + Sync {
    /// Does it in the given transaction and says how to answer.
    ///
    /// # Errors
    /// [`CommandError`]; the transaction is rolled back.
    fn write(
        &self,
        context: &Context,
        conn: &mut PgConnection,
    ) -> impl Future<Output = Result<StoredResponse, CommandError>> + Send;
}

/// Does the work unless the key has its answer already, which is then given again.
///
/// The key is taken first of all: of two requests with one key at the same time the second waits for the first one's end
/// and hears its answer, or after a while that it still runs. A refusal leaves the key free.
///
/// # Errors
/// [`CommandError`]; nothing was written, and the key is still free, or (a connection lost in the commit, or no answer within
/// [`waybill_runtime::pool::ROUND_TIME_MAX`]) nobody knows; the same key tells.
pub async fn once(
    context: &Context,
    claim: &Claim,
    work: &impl Write,
) -> Result<StoredResponse, CommandError> {
    round(in_one_transaction(context, claim, work)).await
}

async fn in_one_transaction(
    context: &Context,
    claim: &Claim,
    work: &impl Write,
) -> Result<StoredResponse, CommandError> {
    let Claim { scope, endpoint, key, hash } = claim;
    let mut tx = context.pool.begin().await?;
    if !key_reserve_in_tx(&mut *tx, scope, endpoint, key, hash).await? {
        tx.rollback().await?;
        return Ok(key_replay(&context.pool, scope, endpoint, key, hash).await?);
    }
    let answer = work.write(context, &mut tx).await?;
    key_answer_in_tx(&mut *tx, scope, endpoint, key, &answer).await?;
    tx.commit().await?;
    Ok(answer)
}
