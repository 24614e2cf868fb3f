//! Fills the outbox as commands would, and reads it back for the bare producer.

use sqlx::{PgPool, Row as _};

/// Rows of one transaction.
const TRANSACTION_ROWS: i64 = 1_000;

/// One record for the bare producer: the same bytes as the row's.
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) timestamp_ms: i64,
}

pub(crate) async fn load(pool: &PgPool, topic: &str, rows: i64, bytes: i32) {
    let statement = "
        select outbox_append(array_agg(id), array_agg($1), array_agg(convert_to(lpad((n % 10000)::text, 16, 'k'), 'UTF8')),
            array_agg(json_build_object('ce_id', id, 'ce_type', 'Measured')::text), array_agg(convert_to(payload, 'UTF8')))
        from (select n, gen_random_uuid() as id,
                     left(repeat(md5(random()::text || n), $2 / 32 + 1), $2) as payload
              from generate_series($3::bigint, $4::bigint) as n) as row";
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("set synchronous_commit = off").execute(&mut *connection).await.unwrap();
    let mut next = 0;
    while next < rows {
        let last = (next + TRANSACTION_ROWS).min(rows) - 1;
        sqlx::query(statement)
            .bind(topic)
            .bind(bytes)
            .bind(next)
            .bind(last)
            .execute(&mut *connection)
            .await
            .unwrap();
        next = last + 1;
    }
}

pub(crate) async fn read(pool: &PgPool) -> Vec<Record> {
    let statement =
        "select key, headers::text as headers, payload, (extract(epoch from created_at) * 1000)::bigint as at
                     from outbox order by id";
    let rows = sqlx::query(statement).fetch_all(pool).await.unwrap();
    let record = |row: &sqlx::postgres::PgRow| {
        let headers: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(row.get("headers")).unwrap();
        let headers =
            headers.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect();
        Record { key: row.get("key"), headers, payload: row.get("payload"), timestamp_ms: row.get("at") }
    };
    rows.iter().map(record).collect()
}

/// Statements that append rows of one transaction: topic, the transaction's name, payload bytes, rows. The name is in
/// a header of every record.
pub(crate) const APPEND: &str = "
    select outbox_append(array_agg(id), array_agg($1), array_agg(convert_to($2 || '-' || n, 'UTF8')),
        array_agg(json_build_object('ce_id', id, 'transaction', $2)::text),
        array_agg(convert_to(repeat('x', $3), 'UTF8')))
    from (select n, gen_random_uuid() as id from generate_series(1, $4::bigint) as n) as row";
/// The same into the peer's table.
pub(crate) const APPEND_FOR_PEER: &str = "
    insert into peer_outbox (id, aggregatetype, aggregateid, type, payload)
    select gen_random_uuid(), $1, $2 || '-' || n, $2, convert_to(repeat('x', $3), 'UTF8')
    from generate_series(1, $4::bigint) as n";

/// One transaction by one of these statements.
pub(crate) async fn transaction(
    pool: &PgPool,
    statement: &'static str,
    topic: &str,
    name: &str,
    rows: i64,
    bytes: i32,
) {
    sqlx::query(statement).bind(topic).bind(name).bind(bytes).bind(rows).execute(pool).await.unwrap();
}
