//! Statements as Postgres counts them: `pg_stat_statements`, read before and after, never reset (others may use it).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::{FromRow, PgPool};

/// Characters of a statement shown in a report.
const TEXT_CHARS_MAX: usize = 110;

/// Who sent a statement, told by its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sender {
    /// The service whose database it is.
    Service,
    /// The relay.
    Relay,
}

/// One statement's counters; in a difference: what was added.
#[derive(Debug, Clone, Serialize)]
pub struct Counters {
    /// Its text, shortened.
    pub text: String,
    /// Who sends it.
    pub sender: Sender,
    /// Executions.
    pub calls: i64,
    /// WAL it wrote, in bytes, without the record of its commit.
    pub wal_bytes: i64,
    /// Time in the server, in milliseconds.
    pub exec_ms: f64,
}

/// Every statement of each database, by database name and query id.
#[derive(Debug, Clone, Default)]
pub struct Look(BTreeMap<(String, i64), Counters>);

#[derive(FromRow)]
struct StatementRow {
    database: String,
    queryid: i64,
    query: String,
    calls: i64,
    wal_bytes: i64,
    exec_ms: f64,
}

/// Makes the extension usable; `false` when the server does not preload it: then nothing can be said.
///
/// # Errors
/// When the server can not be asked.
pub async fn available(pool: &PgPool) -> Result<bool> {
    let preloaded: String = sqlx::query_scalar("select current_setting('shared_preload_libraries')")
        .fetch_one(pool)
        .await
        .context("asking for shared_preload_libraries")?;
    if !preloaded.contains("pg_stat_statements") {
        return Ok(false);
    }
    let made = sqlx::query("create extension if not exists pg_stat_statements").execute(pool).await;
    made.context("create extension pg_stat_statements")?;
    Ok(true)
}

impl Look {
    /// Reads the counters of these databases.
    ///
    /// # Errors
    /// When the view can not be read.
    pub async fn at(pool: &PgPool, databases: &[String]) -> Result<Self> {
        let rows: Vec<StatementRow> = sqlx::query_as(
            "select d.datname::text as database, s.queryid, min(s.query) as query, sum(s.calls)::bigint as calls,
                    sum(s.wal_bytes)::bigint as wal_bytes, sum(s.total_exec_time)::float8 as exec_ms
             from pg_stat_statements s join pg_database d on d.oid = s.dbid
             where d.datname::text = any($1) and s.toplevel and s.queryid is not null
             group by d.datname, s.queryid",
        )
        .bind(databases)
        .fetch_all(pool)
        .await
        .context("reading pg_stat_statements")?;
        let counted = rows.into_iter().map(|row| {
            let sender = sender(&row.query);
            let StatementRow { database, queryid, query, calls, wal_bytes, exec_ms } = row;
            let counters = Counters { text: shortened(&query), sender, calls, wal_bytes, exec_ms };
            ((database, queryid), counters)
        });
        Ok(Self(counted.collect()))
    }

    /// What was added in one database since an earlier look, most often called first.
    #[must_use]
    pub fn since(&self, earlier: &Self, database: &str) -> Vec<Counters> {
        let mut added: Vec<Counters> = self
            .0
            .iter()
            .filter(|((of, _), _)| of == database)
            .filter_map(|(key, now)| {
                let before = earlier.0.get(key);
                let calls = now.calls - before.map_or(0, |before| before.calls);
                (calls > 0).then(|| Counters {
                    calls,
                    wal_bytes: now.wal_bytes - before.map_or(0, |before| before.wal_bytes),
                    exec_ms: now.exec_ms - before.map_or(0.0, |before| before.exec_ms),
                    ..now.clone()
                })
            })
            .collect();
        added.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.text.cmp(&b.text)));
        added
    }
}

/// The relay's statements read the outbox by snapshot and write its position; the sweeper of sagas looks at the position
/// too, and nobody else does.
fn sender(query: &str) -> Sender {
    let query = query.to_ascii_lowercase();
    let relay = query.contains("update outbox_relay")
        || (query.contains("from outbox") && !query.contains("saga_instances"));
    if relay { Sender::Relay } else { Sender::Service }
}

fn shortened(query: &str) -> String {
    let mut text = String::new();
    for line in query.lines().filter(|line| !line.trim_start().starts_with("--")) {
        for word in line.split_whitespace() {
            text.push_str(word);
            text.push(' ');
        }
    }
    let text = text.trim_end();
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_s_statements_are_told_from_the_service_s() {
        assert_eq!(sender("UPDATE outbox_relay set x = 1"), Sender::Relay);
        assert_eq!(sender("select id from outbox where xid >= $1"), Sender::Relay);
        assert_eq!(sender("select from outbox_relay join saga_instances"), Sender::Service);
        assert_eq!(sender("select outbox_append($1)"), Sender::Service);
    }

    #[test]
    fn a_text_is_one_line_without_comments() {
        assert_eq!(shortened("select 1 -- why\n  -- because\n from  a"), "select 1 -- why from a");
        assert!(shortened(&"word ".repeat(100)).chars().count() <= TEXT_CHARS_MAX + 4);
    }
}
