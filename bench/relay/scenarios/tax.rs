//! What the outbox adds to a transaction: an order with and without its message, in turns, no relay at work.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;
use waybill_testkit::TestDatabase;

use crate::arguments::Arguments;
use crate::findings::{Aim, Finding, quantile};

/// Sessions that write at once: more than the processors, fewer than would only queue.
const SESSIONS: u32 = 8;

const TABLES: &str = "
    create table orders (id uuid primary key, customer uuid not null, status text not null, total bigint not null,
                         created_at timestamptz not null default now());
    create table lines (order_id uuid not null references orders (id), number int not null, sku text not null,
                        quantity int not null, price bigint not null, primary key (order_id, number));";

/// Both are one statement in one round trip, its transaction its own.
const ORDER: &str = "
    with placed as (insert into orders (id, customer, status, total) values ($1, $2, 'PENDING', 4200)),
         lined as (insert into lines select $1, n, 'sku-' || n, 2, 1050 from generate_series(1, 2) as n)
    select $3::text is null, $4::text is null, $5::bytea is null";
const ORDER_AND_OUTBOX: &str = "
    with placed as (insert into orders (id, customer, status, total) values ($1, $2, 'PENDING', 4200)),
         lined as (insert into lines select $1, n, 'sku-' || n, 2, 1050 from generate_series(1, 2) as n)
    select outbox_append(array[$1], array[$3], array[convert_to($1::text, 'UTF8')], array[$4], array[$5])";

pub(crate) async fn run(arguments: &Arguments) -> Vec<Finding> {
    let database = TestDatabase::create("relay_tax").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    sqlx::raw_sql(TABLES).execute(&database.pool).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(SESSIONS).connect(&database.url).await.unwrap();
    let (mut plain, mut with_outbox) = (Vec::new(), Vec::new());
    let (mut orders, mut messages) = (0, 0);
    for number in 1..=arguments.runs {
        let (rate, done) = turn(&pool, ORDER, arguments).await;
        plain.push(rate);
        orders += done;
        let (rate, done) = turn(&pool, ORDER_AND_OUTBOX, arguments).await;
        with_outbox.push(rate);
        orders += done;
        messages += done;
        let (order, both) = (plain[number - 1], with_outbox[number - 1]);
        arguments.say(&format!("tax, run {number}: {order:.0} orders/s, {both:.0} orders/s with the outbox"));
    }
    let committed: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(&pool).await.unwrap();
    let appended: i64 = sqlx::query_scalar("select count(*) from outbox").fetch_one(&pool).await.unwrap();
    assert_eq!((committed, appended), (orders, messages), "not what the sessions did: no number");
    let (plain, with_outbox) = (quantile(&mut plain, 0.5), quantile(&mut with_outbox, 0.5));
    vec![
        Finding::told("transactions of an order of two lines", plain, "/s"),
        Finding::told("the same with one message of 200 B", with_outbox, "/s"),
        Finding::aimed(
            "with the outbox against without",
            100.0 * with_outbox / plain,
            "%",
            Aim::AtLeast(75.0),
        ),
    ]
}

/// Transactions per second of all sessions together, and how many they were.
async fn turn(pool: &PgPool, statement: &'static str, arguments: &Arguments) -> (f64, i64) {
    let (started, time) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let sessions = (0..SESSIONS).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut connection = pool.acquire().await.unwrap();
            let payload = vec![7_u8; 200];
            let headers = r#"{"ce_id":"00000000-0000-0000-0000-000000000000","ce_type":"Measured"}"#;
            let mut done = 0_i64;
            while started.elapsed() < time {
                sqlx::query(statement)
                    .bind(Uuid::now_v7())
                    .bind(Uuid::now_v7())
                    .bind("measured")
                    .bind(headers)
                    .bind(&payload)
                    .execute(&mut *connection)
                    .await
                    .unwrap();
                done += 1;
            }
            done
        })
    });
    let done = futures_util::future::join_all(sessions).await;
    let done: i64 = done.into_iter().map(Result::unwrap).sum();
    (done as f64 / started.elapsed().as_secs_f64(), done)
}
