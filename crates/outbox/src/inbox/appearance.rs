//! Which appearance of a message is being handled.

use sqlx::PgConnection;
use uuid::Uuid;

/// The hop of a message's latest appearance that its group has taken, the one being handled included: 0 is the main
/// topic's, each retry and each replay adds one. For handlers, inside their transaction.
///
/// # Errors
/// What the database said.
pub async fn appearance_in_tx(
    conn: &mut PgConnection,
    group: &str,
    message_id: Uuid,
) -> Result<i16, sqlx::Error> {
    let hop: Option<i16> =
        sqlx::query_scalar("select max(hop) from inbox where consumer_group = $1 and message_id = $2")
            .bind(group)
            .bind(message_id)
            .fetch_one(conn)
            .await?;
    Ok(hop.unwrap_or(0))
}
