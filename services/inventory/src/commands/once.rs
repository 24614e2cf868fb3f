//! A write that happens at most once per idempotency key: work, events and the stored answer commit together.

use sqlx::PgConnection;
use waybill_http::idempotency::{IdempotencyKey, StoredResponse, key_find, key_insert_in_tx, key_replay};

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
/// Two requests with one key at the same time: the work's own locks or the key's row make the second wait, and it finds
/// the first one's answer; its own work is rolled back.
///
/// # Errors
/// [`CommandError`]; nothing was written, and the key is still free.
pub async fn once(
    context: &Context,
    claim: &Claim,
    work: &impl Write,
) -> Result<StoredResponse, CommandError> {
    let Claim { scope, endpoint, key, hash } = claim;
    let mut tx = context.pool.begin().await?;
    if let Some(answer) = key_find(&mut *tx, scope, endpoint, key, hash).await? {
        return Ok(answer);
    }
    match work.write(context, &mut tx).await {
        Ok(answer) => {
            if key_insert_in_tx(&mut *tx, scope, endpoint, key, hash, &answer).await? {
                tx.commit().await?;
                return Ok(answer);
            }
            tx.rollback().await?;
            Ok(key_replay(&context.pool, scope, endpoint, key, hash).await?)
        }
        Err(refusal) if refusal.is_refusal() => {
            tx.rollback().await?;
            key_find(&context.pool, scope, endpoint, key, hash).await?.ok_or(refusal)
        }
        Err(error) => Err(error),
    }
}
