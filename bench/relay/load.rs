//! Fills the outbox as commands would, and reads it back for the bare producer.

use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::topic::TRANSACTION_HEADER;

/// Rows of one transaction.
const TRANSACTION_ROWS: i64 = 1_000;

/// Keys of a load, in turn.
pub(crate) const KEYS: i64 = 10_000;
/// Before a row's number in its id.
const ID_PREFIX: &str = "62656e63-0000-7000-8000";

/// One record for the bare producer: the same bytes as the row's.
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) timestamp_ms: i64,
}

/// Appends rows numbered from `first` on; their ids say their numbers.
pub(crate) async fn load(pool: &PgPool, topic: &str, first: i64, rows: i64, bytes: i32) {
    let statement = "
        select outbox_append(array_agg(id), array_agg($1), array_agg(convert_to(lpad((n % $5)::text, 16, 'k'), 'UTF8')),
            array_agg(json_build_object('ce_id', id, 'ce_type', 'Measured')::text), array_agg(convert_to(payload, 'UTF8')))
        from (select n, ($6 || '-' || lpad(to_hex(n), 12, '0'))::uuid as id,
                     left(repeat(md5(random()::text || n), $2 / 32 + 1), $2) as payload
              from generate_series($3::bigint, $4::bigint) as n) as row";
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("set synchronous_commit = off").execute(&mut *connection).await.unwrap();
    let mut next = first;
    while next < first + rows {
        let last = (next + TRANSACTION_ROWS).min(first + rows) - 1;
        sqlx::query(statement)
            .bind(topic)
            .bind(bytes)
            .bind(next)
            .bind(last)
            .bind(KEYS)
            .bind(ID_PREFIX)
            .execute(&mut *connection)
            .await
            .unwrap();
        next = last + 1;
    }
}

/// The number that a loaded row's id says.
pub(crate) fn number_of(id: &str) -> u64 {
    let number =
        id.strip_prefix(ID_PREFIX).and_then(|rest| u64::from_str_radix(rest.strip_prefix('-')?, 16).ok());
    number.unwrap_or_else(|| panic!("{id} is no id of a loaded row"))
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

/// The records of such a transaction as [`transaction`] writes, for who sends them without reading them.
pub(crate) fn records(name: &str, rows: i64, bytes: i32) -> Vec<Record> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let record = |number| Record {
        key: format!("{name}-{number}").into_bytes(),
        headers: vec![header("ce_id", &Uuid::now_v7().to_string()), header(TRANSACTION_HEADER, name)],
        payload: vec![b'x'; usize::try_from(bytes).unwrap()],
        timestamp_ms: 1,
    };
    (1..=rows).map(record).collect()
}

/// Whose table a transaction appends to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    /// The relay's, by its function.
    Outbox,
    /// The peer's, as its documentation describes it.
    Peer,
}

/// One transaction of so many rows, made by the client as a service makes them: in one statement, of arrays. Its name is
/// in a header of every record.
pub(crate) async fn transaction(pool: &PgPool, table: Table, topic: &str, name: &str, rows: i64, bytes: i32) {
    let numbered = 1..=rows;
    let ids: Vec<Uuid> = numbered.clone().map(|_| Uuid::now_v7()).collect();
    let keys: Vec<String> = numbered.map(|number| format!("{name}-{number}")).collect();
    let payloads = vec![vec![b'x'; usize::try_from(bytes).unwrap()]; keys.len()];
    let topics = vec![topic; keys.len()];
    let appended = match table {
        Table::Outbox => {
            let headers = ids.iter().map(|id| format!(r#"{{"ce_id":"{id}","transaction":"{name}"}}"#));
            let headers: Vec<String> = headers.collect();
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            sqlx::query("select outbox_append($1, $2, $3, $4, $5)")
                .bind(&ids)
                .bind(&topics)
                .bind(&keys)
                .bind(&headers)
                .bind(&payloads)
                .execute(pool)
                .await
        }
        Table::Peer => {
            let statement = "insert into peer_outbox (id, aggregatetype, aggregateid, type, payload)
                             select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[])";
            let names = vec![name; keys.len()];
            sqlx::query(statement)
                .bind(&ids)
                .bind(&topics)
                .bind(&keys)
                .bind(&names)
                .bind(&payloads)
                .execute(pool)
                .await
        }
    };
    appended.unwrap();
}
