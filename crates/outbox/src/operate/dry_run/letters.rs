//! The letters of a dry run: chosen, ordered as a replay would send them, read with their patches.

use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;
use waybill_messaging::record::Record;

use crate::operate::{Filter, OperateError};
use crate::retry::operate::{letter_record, patch_apply};

/// A letter to be tried.
pub(super) struct Letter {
    pub(super) id: Uuid,
    pub(super) hop: i16,
    pub(super) message_id: Option<Uuid>,
    pub(super) key: Option<Vec<u8>>,
}

/// The group's letters that fulfil the filter, key by key, each key's in the order of a replay.
pub(super) async fn chosen(
    conn: &mut PgConnection,
    group: &str,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Letter>, OperateError> {
    let mut query = QueryBuilder::new(
        "select t.id, t.hop, t.message_id, t.key
         from (select d.id, d.hop, d.message_id, d.key, d.topic, d.partition, d.\"offset\" as place,
                      coalesce(p.dead_letter_id = d.id, false) as blocks,
                      max(d.record_time) over (partition by d.key, d.topic, d.partition order by d.\"offset\") as reached
               from dead_letters d
               left join parked_keys p on p.consumer_group = d.consumer_group and p.key = d.key
               where d.consumer_group = ",
    );
    query.push_bind(group);
    filter.push(&mut query)?;
    query.push(
        ") t order by min(t.reached) over (partition by t.key), t.key, t.blocks desc, t.reached, t.topic, t.partition,
                  t.place limit ",
    );
    query.push_bind(i64::from(limit));
    type Row = (Uuid, i16, Option<Uuid>, Option<Vec<u8>>);
    let rows: Vec<Row> = query.build_query_as().fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id, hop, message_id, key)| Letter { id, hop, message_id, key }).collect())
}

/// The record a replay of this letter would send, and whether it is patched.
pub(super) async fn read(conn: &mut PgConnection, id: Uuid) -> Result<(Record, bool), sqlx::Error> {
    let mut record = letter_record(conn, id).await?;
    let patched = patch_apply(conn, id, &mut record).await?;
    crate::retry::operate::story_begin(&mut record, None);
    Ok((record, patched))
}
