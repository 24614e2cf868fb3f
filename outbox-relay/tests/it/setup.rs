//! A test's own outbox and topics, and relays started on them.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;
use waybill_testkit::{Process, ProcessBuilder, TestDatabase, TestTopics};

/// Anything in these tests is done by then, on a slow machine too.
pub(crate) const SOON: Duration = Duration::from_secs(120);
/// A lease in milliseconds that no busy machine loses: it is held after half of it without an answer, and each statement that
/// keeps it is cut after a fifth. One that is lost publishes its last rows again.
const LEASE_LONG: &str = "60000";
/// For tests that wait until a killed relay's lease has run out: the shortest there is, and one that is lost less easily.
pub(crate) const LEASE_SHORT: &str = "500";
/// As [`LEASE_SHORT`].
pub(crate) const LEASE_SOON_OVER: &str = "2000";
/// The topic of most tests.
pub(crate) const TOPIC: &str = "t.events";
pub(crate) const PARTITIONS: i32 = 3;

/// A migrated database with counters to play aggregates, and topics.
pub(crate) struct Outbox {
    pub(crate) database: TestDatabase,
    pub(crate) topics: TestTopics,
}

impl Outbox {
    pub(crate) async fn new(hint: &str) -> Self {
        let outbox = Self { database: TestDatabase::create(hint).await, topics: TestTopics::new() };
        outbox.topics.add(&[(TOPIC, PARTITIONS)]).await;
        outbox.migrate().await;
        outbox
    }

    /// The tables, as the crate that owns them makes them.
    pub(crate) async fn migrate(&self) {
        self.database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
        let aggregates = "create table aggregate (id int primary key, version int not null default 0)";
        sqlx::raw_sql(aggregates).execute(&self.database.pool).await.unwrap();
        let fill = "insert into aggregate (id) select generate_series(1, 500)";
        sqlx::raw_sql(fill).execute(&self.database.pool).await.unwrap();
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.database.url).await.unwrap()
    }

    /// A relay on this database, its name `db`.
    pub(crate) fn relay(&self) -> ProcessBuilder {
        Process::named("outbox-relay")
            .env("OUTBOX_RELAY_DATABASES", format!("db={}", self.database.url))
            .env("OUTBOX_RELAY_LEASE_MS", LEASE_LONG)
            .env("OUTBOX_RELAY_POSITION_INTERVAL_MS", "50")
    }

    /// Appends `count` rows in one transaction, keys `k0..k9` in turn, `ce_sequence` going on per key.
    pub(crate) async fn bulk(&self, count: i64) {
        self.bulk_in(&mut self.connection().await, count).await;
    }

    /// [`Outbox::bulk`] in the caller's transaction.
    pub(crate) async fn bulk_in(&self, connection: &mut PgConnection, count: i64) {
        let statement = "
            with next as (select coalesce(max(id), 0) as base from outbox)
            select outbox_append(array_agg(gen_random_uuid()), array_agg($2), array_agg(convert_to('k' || (n % 10), 'UTF8')),
                array_agg(json_build_object('ce_sequence', ((base + n) / 10)::text)::text), array_agg('\\x00'::bytea))
            from next, generate_series(0, $1 - 1) as n";
        sqlx::query(statement).bind(count).bind(self.topics.full(TOPIC)).execute(connection).await.unwrap();
    }

    /// One value of the row of position and lease.
    pub(crate) async fn relay_row<T>(&self, column: &'static str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let query = sqlx::AssertSqlSafe(format!("select {column} from outbox_relay where name = 'default'"));
        sqlx::query_scalar(query).fetch_one(&self.database.pool).await.unwrap()
    }
}

/// Appends one message of an aggregate in the caller's transaction: locks it, counts its version up, appends.
pub(crate) async fn append(connection: &mut PgConnection, topic: &str, aggregate: i32) -> Uuid {
    append_sized(connection, topic, aggregate, 16).await
}

/// [`append`] with a payload of this many bytes.
pub(crate) async fn append_sized(
    connection: &mut PgConnection,
    topic: &str,
    aggregate: i32,
    bytes: i32,
) -> Uuid {
    try_append(connection, topic, aggregate, bytes).await.unwrap()
}

/// [`append_sized`] where the server may go away.
pub(crate) async fn try_append(
    connection: &mut PgConnection,
    topic: &str,
    aggregate: i32,
    bytes: i32,
) -> Result<Uuid, sqlx::Error> {
    let id = Uuid::now_v7();
    let statement = "
        with locked as (update aggregate set version = version + 1 where id = $1 returning version)
        select outbox_append(array[$2], array[$3], array[convert_to('a' || $1, 'UTF8')],
            array[json_build_object('ce_id', $2, 'ce_sequence', version::text)::text], array[convert_to(repeat('x', $4), 'UTF8')])
        from locked";
    sqlx::query(statement).bind(aggregate).bind(id).bind(topic).bind(bytes).execute(connection).await?;
    Ok(id)
}

/// The body of a relay's answer, whatever its status.
pub(crate) async fn ask(relay: &Process, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("{}{path}", relay.url)).await;
    match answer {
        Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
        Err(error) => (0, error.to_string()),
    }
}

/// A metric of database `db`, by its name and further labels.
pub(crate) async fn metric(relay: &Process, name: &str) -> f64 {
    let (_, text) = ask(relay, "/metrics").await;
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}
