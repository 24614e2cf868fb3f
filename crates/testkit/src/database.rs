//! A PostgreSQL database of its own for each test, dropped when the test ends.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection};

use crate::polling::eventually;
use crate::servers::{postgres_url, url_for};

/// Connections one test's pool may hold: many tests run at once on one server of a few hundred connections.
const POOL_CONNECTIONS_MAX: u32 = 8;
/// Characters of the hint kept in the name: PostgreSQL cuts names at 63 bytes, and the suffix must survive.
const HINT_CHARS_MAX: usize = 24;
/// How long a test waits for a connection: the machine may be busy with other tests.
const ACQUIRE_WAIT: Duration = Duration::from_secs(60);
/// How long the end of a test waits for its database to be dropped; a database left over harms nobody.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// A fresh, empty database; dropped (best effort, with force) together with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Connection URL of this database, for processes that a test starts.
    pub url: String,
    /// A small pool on it.
    pub pool: PgPool,
    name: String,
    /// URL of another database of the same server.
    server: String,
}

impl TestDatabase {
    /// Makes an empty database whose name contains `name_hint`, so that a left-over tells whose it was.
    ///
    /// # Panics
    /// When the server is away or refuses: the test can not run.
    pub async fn create(name_hint: &str) -> TestDatabase {
        Self::create_on(&postgres_url(), name_hint).await
    }

    /// The same on a server of the test's own, given as the URL of one of its databases.
    ///
    /// # Panics
    /// When the server is away or refuses.
    pub async fn create_on(server: &str, name_hint: &str) -> TestDatabase {
        let name = unique_name(name_hint);
        let mut admin = PgConnection::connect(server).await.expect("connecting to the test's PostgreSQL");
        sqlx::query(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await
            .unwrap_or_else(|e| panic!("creating database {name}: {e}"));
        let _ = admin.close().await;
        let url = url_for(server, &name);
        let pool = PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_WAIT)
            .connect_lazy(&url)
            .unwrap_or_else(|e| panic!("the URL of database {name} is not usable: {e}"));
        TestDatabase { url, pool, name, server: server.to_owned() }
    }

    /// Runs each migrator in the order given; migrations of the others are ignored, as in a service.
    ///
    /// # Panics
    /// When a migration fails.
    pub async fn migrate(&self, migrators: &[&Migrator]) {
        for migrator in migrators {
            let mut migrator =
                Migrator { migrations: Cow::Owned(migrator.migrations.to_vec()), ..Migrator::DEFAULT };
            migrator.set_ignore_missing(true);
            migrator.run(&self.pool).await.unwrap_or_else(|e| panic!("migrating {}: {e}", self.name));
        }
    }

    /// Waits until so many sessions of this database wait for a lock.
    ///
    /// # Panics
    /// When they do not for a long time.
    pub async fn locks_waited_for(&self, count: i64) {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        eventually(ACQUIRE_WAIT, async || {
            let waiting: i64 =
                sqlx::query_scalar(waiting).fetch_one(&self.pool).await.expect("the test's database answers");
            (waiting >= count).then_some(())
        })
        .await;
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    /// Drops the database from a thread with its own runtime, since the test's runtime may already be ending.
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let server = self.server.clone();
        let (done, finished) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async {
                    if let Ok(mut admin) = PgConnection::connect(&server).await {
                        let _ = sqlx::query(AssertSqlSafe(statement)).execute(&mut admin).await;
                    }
                });
            }
            drop(done);
        });
        let _ = finished.recv_timeout(DROP_WAIT);
    }
}

fn unique_name(hint: &str) -> String {
    let hint: String = hint
        .chars()
        .take(HINT_CHARS_MAX)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    format!("test_{hint}_{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff)
}
