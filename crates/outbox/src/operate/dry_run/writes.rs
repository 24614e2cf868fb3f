//! Which rows a transaction wrote, without triggers: the server counts the changes of each table, a row's `xmin` tells
//! which transaction wrote it, and how the row was before, another connection still sees.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Write;

/// Rows shown of one table and letter.
const ROWS_MAX: usize = 200;
/// Largest table that is searched for changed rows, which reads all of it: some hundred milliseconds from memory. What the
/// handler has locked is locked meanwhile, and consumers wait for it.
const TABLE_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// How long one table may be searched, whatever its size; far below the consumers' `lock_timeout`.
const SEARCH_MAX: &str = "500ms";
/// What Postgres says when `statement_timeout` is over.
const QUERY_CANCELED: &str = "57014";
/// Characters of one text of a row that are shown.
const TEXT_CHARS_MAX: usize = 2_000;

/// The tables this transaction has changed, with how many rows so far.
pub(super) struct Tables(HashMap<i64, Table>);

#[derive(Clone, sqlx::FromRow)]
struct Table {
    oid: i64,
    /// For statements, quoted.
    name: String,
    /// For people; a partition goes by its whole table's name.
    shown: String,
    inserted: i64,
    updated: i64,
    deleted: i64,
    bytes: i64,
    /// Columns of the primary key, quoted as names; none when it has none.
    key: Vec<String>,
    /// `'name', t.name` of each, quoted.
    key_object: Option<String>,
}

impl Tables {
    pub(super) async fn counted(conn: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let tables: Vec<Table> = sqlx::query_as(
            "select c.oid::bigint as oid, format('%I.%I', n.nspname, c.relname) as name,
                    regexp_replace(format('%I.%I', rn.nspname, r.relname), '^public\\.', '') as shown,
                    s.n_tup_ins as inserted, s.n_tup_upd as updated, s.n_tup_del as deleted,
                    pg_relation_size(c.oid) as bytes, k.key, k.key_object
             from pg_stat_xact_user_tables s
             join pg_class c on c.oid = s.relid
             join pg_namespace n on n.oid = c.relnamespace
             join pg_class r on r.oid = coalesce(pg_partition_root(c.oid)::oid, c.oid)
             join pg_namespace rn on rn.oid = r.relnamespace
             cross join lateral (
                 select coalesce(array_agg(format('%I', a.attname)), '{}') as key,
                        string_agg(format('%L, t.%I', a.attname, a.attname), ', ') as key_object
                 from pg_index x join pg_attribute a on a.attrelid = x.indrelid and a.attnum = any(x.indkey)
                 where x.indrelid = c.oid and x.indisprimary) k
             where c.relkind = 'r' and s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0",
        )
        .fetch_all(conn)
        .await?;
        Ok(Self(tables.into_iter().map(|table| (table.oid, table)).collect()))
    }
}

impl Table {
    /// Place and writer (together one version of a row and no other), primary key, and the row.
    fn version(&self) -> String {
        let key = match &self.key_object {
            Some(pairs) => format!("jsonb_build_object({pairs})"),
            None => "null::jsonb".to_owned(),
        };
        format!("t.ctid::text || '/' || t.xmin::text, {key}, to_jsonb(t)")
    }

    fn minus(&self, before: Option<&Table>) -> (i64, i64, i64) {
        let (inserted, updated, deleted) = before.map_or((0, 0, 0), |b| (b.inserted, b.updated, b.deleted));
        (self.inserted - inserted, self.updated - updated, self.deleted - deleted)
    }

    fn write(&self, operation: &str, before: Option<Value>, after: Option<Value>) -> Write {
        let (before, after) = (before.map(shortened), after.map(shortened));
        Write { table: self.shown.clone(), operation: operation.to_owned(), before, after, note: None }
    }

    /// Counts alone, and why there is no more.
    fn counted(&self, (inserted, updated, deleted): (i64, i64, i64), why: &str) -> Write {
        self.untold(format!("{inserted} inserted, {updated} updated, {deleted} deleted; {why}"))
    }

    fn untold(&self, note: String) -> Write {
        Write { note: Some(note), ..self.write("unknown", None, None) }
    }
}

/// See [`Table::version`].
type Version = (String, Option<Value>, Value);

/// What earlier letters of the same transaction wrote.
#[derive(Default)]
pub(super) struct Seen {
    versions: HashSet<(i64, String)>,
    /// The newest version of a row, by table and primary key.
    rows: HashMap<(i64, String), Value>,
}

/// The rows written between the two counts.
pub(super) async fn between(
    inside: &mut PgConnection,
    outside: &mut PgConnection,
    (before, after): (&Tables, &Tables),
    seen: &mut Seen,
) -> Result<Vec<Write>, sqlx::Error> {
    let mut changed: Vec<(&Table, (i64, i64, i64))> =
        after.0.values().map(|table| (table, table.minus(before.0.get(&table.oid)))).collect();
    changed.retain(|(_, more)| *more != (0, 0, 0));
    changed.sort_by(|(one, _), (other, _)| (&one.shown, &one.name).cmp(&(&other.shown, &other.name)));
    let mut writes = Vec::new();
    for (table, more) in changed {
        if table.bytes > TABLE_BYTES_MAX {
            writes.push(table.counted(more, "the table is too large to be searched for them"));
            continue;
        }
        match searched(inside, outside, (table, more), seen).await {
            Ok(found) => writes.extend(found),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(QUERY_CANCELED) => {
                let why = format!("it took longer than {SEARCH_MAX} to search the table for them");
                writes.push(table.counted(more, &why));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(writes)
}

/// What was written to one table, looked for no longer than [`SEARCH_MAX`] a statement.
async fn searched(
    inside: &mut PgConnection,
    outside: &mut PgConnection,
    (table, more): (&Table, (i64, i64, i64)),
    seen: &mut Seen,
) -> Result<Vec<Write>, sqlx::Error> {
    // Both are rolled back, the inner one to its savepoint: the bound ends there, and so does a canceled statement.
    let mut inside = inside.begin().await?;
    let mut outside = outside.begin().await?;
    for conn in [&mut *inside, &mut *outside] {
        let bound = format!("set local statement_timeout = '{SEARCH_MAX}'");
        sqlx::query(AssertSqlSafe(bound)).execute(conn).await?;
    }
    let mut writes = Vec::new();
    let found = async {
        written(&mut inside, &mut outside, (table, more.1 > 0), seen, &mut writes).await?;
        if more.2 > 0 {
            deleted(&mut inside, &mut outside, table, more.2, &mut writes).await?;
        }
        Ok::<(), sqlx::Error>(())
    };
    let found = found.await;
    inside.rollback().await?;
    outside.rollback().await?;
    found.map(|()| writes)
}

/// New versions of rows, beside the old ones.
async fn written(
    inside: &mut PgConnection,
    outside: &mut PgConnection,
    (table, has_updates): (&Table, bool),
    seen: &mut Seen,
    writes: &mut Vec<Write>,
) -> Result<(), sqlx::Error> {
    // The transaction's own number is smaller than its savepoints'. A row that another one committed meanwhile, or whose
    // writer's number has come round, falls out below: the other connection sees the same version.
    let query = format!("select {} from {} t where age(t.xmin) <= 0", table.version(), table.name);
    let mut new: Vec<Version> = sqlx::query_as(AssertSqlSafe(query)).fetch_all(inside).await?;
    new.retain(|(version, ..)| !seen.versions.contains(&(table.oid, version.clone())));
    let old = old_rows(outside, table, &new).await?;
    let others: HashSet<&String> = old.iter().map(|(version, ..)| version).collect();
    new.retain(|(version, ..)| !others.contains(version));
    if new.len() > ROWS_MAX {
        writes.push(table.untold(format!("{} rows written: too many to be shown", new.len())));
        return Ok(());
    }
    let old: HashMap<String, Value> =
        old.into_iter().filter_map(|(_, key, row)| Some((key?.to_string(), row))).collect();
    for (version, key, row) in new {
        seen.versions.insert((table.oid, version));
        let Some(key) = key.map(|key| key.to_string()) else {
            let mut write = table.write("insert", None, Some(row));
            if has_updates {
                write.operation = "unknown".to_owned();
                write.note =
                    Some("the table has no primary key: what the row was before is not known".to_owned());
            }
            writes.push(write);
            continue;
        };
        let known = seen.rows.insert((table.oid, key.clone()), row.clone());
        let before = known.or_else(|| old.get(&key).cloned());
        writes.push(table.write(if before.is_some() { "update" } else { "insert" }, before, Some(row)));
    }
    Ok(())
}

/// The rows of the same primary keys (or, without one, the same versions) as everybody else sees them.
async fn old_rows(
    outside: &mut PgConnection,
    table: &Table,
    new: &[Version],
) -> Result<Vec<Version>, sqlx::Error> {
    let version = table.version();
    if table.key.is_empty() {
        let places: Vec<String> =
            new.iter().filter_map(|(v, ..)| Some(v.split('/').next()?.to_owned())).collect();
        let query = format!("select {version} from {} t where t.ctid = any($1::text[]::tid[])", table.name);
        return sqlx::query_as(AssertSqlSafe(query)).bind(places).fetch_all(outside).await;
    }
    let keys: Vec<&Value> = new.iter().filter_map(|(_, key, _)| key.as_ref()).collect();
    let equal = table.key.iter().map(|c| format!("t.{c} = r.{c}")).collect::<Vec<_>>().join(" and ");
    let query = format!(
        "select {version} from jsonb_populate_recordset(null::{name}, $1) r join {name} t on {equal}",
        name = table.name
    );
    sqlx::query_as(AssertSqlSafe(query)).bind(sqlx::types::Json(keys)).fetch_all(outside).await
}

/// Rows that everybody else sees with this transaction as the one that ends them, and that it does not see any more.
async fn deleted(
    inside: &mut PgConnection,
    outside: &mut PgConnection,
    table: &Table,
    count: i64,
    writes: &mut Vec<Write>,
) -> Result<(), sqlx::Error> {
    let told = writes.len();
    if !table.key.is_empty() {
        let xid: i64 = sqlx::query_scalar("select pg_current_xact_id()::xid::text::bigint")
            .fetch_one(&mut *inside)
            .await?;
        let query = format!(
            "select {} from {} t
             where t.xmax::text <> '0' and (t.xmax::text::bigint - $1 + 4294967296) % 4294967296 < 2147483648 limit $2",
            table.version(),
            table.name
        );
        let touched: Vec<Version> =
            sqlx::query_as(AssertSqlSafe(query)).bind(xid).bind(ROWS_MAX as i64).fetch_all(outside).await?;
        let there = old_rows(inside, table, &touched).await?;
        let there: HashSet<Option<&Value>> = there.iter().map(|(_, key, _)| key.as_ref()).collect();
        let gone = touched.iter().filter(|(_, key, _)| !there.contains(&key.as_ref()));
        writes.extend(gone.map(|(.., row)| table.write("delete", Some(row.clone()), None)));
    }
    let missing = count - (writes.len() - told) as i64;
    if missing > 0 {
        writes.push(table.untold(format!("{missing} more rows deleted, which are not shown")));
    }
    Ok(())
}

/// Long texts cut, wherever they stand.
fn shortened(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > TEXT_CHARS_MAX && text.chars().count() > TEXT_CHARS_MAX => {
            let kept: String = text.chars().take(TEXT_CHARS_MAX).collect();
            Value::String(format!("{kept}... ({} characters)", text.chars().count()))
        }
        Value::Array(values) => Value::Array(values.into_iter().map(shortened).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(n, v)| (n, shortened(v))).collect()),
        other => other,
    }
}
