//! How much waits to be published: exact when it matters, whatever ids are in between.

use sqlx::PgPool;
use waybill_outbox::backlog::look;
use waybill_testkit::TestDatabase;

async fn said(pool: &PgPool, count: i32) {
    sqlx::query(
        "select outbox_append(array_agg(gen_random_uuid()), array_agg('t'::text), array_agg('k'::bytea), array_agg('{}'::text),
                              array_agg('x'::bytea)) from generate_series(1, $1)",
    )
    .bind(count)
    .execute(pool)
    .await
    .unwrap();
}

async fn published(pool: &PgPool) {
    let statement = "update outbox_relay set position_from = pg_current_snapshot(), position_to = null";
    sqlx::query(statement).execute(pool).await.unwrap();
}

#[tokio::test]
async fn what_waits_is_estimated_when_low_and_counted_when_high() {
    let database = TestDatabase::create("backlog").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    let pool = &database.pool;
    let empty = look(pool, 10).await.unwrap();
    assert_eq!((empty.rows, empty.oldest_age), (0, None));
    said(pool, 7).await;
    let few = look(pool, 10).await.unwrap();
    assert!(few.rows == 7 && few.oldest_age.is_some(), "{few:?}");
    said(pool, 20).await;
    assert_eq!(look(pool, 10).await.unwrap().rows, 11, "not counted further than one above the bound");
    published(pool).await;
    assert_eq!(look(pool, 10).await.unwrap().rows, 0);
}

#[tokio::test]
async fn a_long_transactions_old_ids_are_no_backlog() {
    let database = TestDatabase::create("backlog_long").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    let pool = &database.pool;
    let mut long = pool.begin().await.unwrap();
    sqlx::query("select outbox_append(array[gen_random_uuid()], array['t'], array['k'::bytea], array['{}'], array['x'::bytea])")
        .execute(&mut *long)
        .await
        .unwrap();
    said(pool, 50).await;
    published(pool).await;
    long.commit().await.unwrap();
    let one = look(pool, 10).await.unwrap();
    assert_eq!(one.rows, 1, "its id is fifty below the newest, and it alone waits");
}

#[tokio::test]
async fn what_a_round_has_published_does_not_wait() {
    let database = TestDatabase::create("backlog_round").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    let pool = &database.pool;
    said(pool, 40).await;
    let inside = "update outbox_relay set position_to = pg_current_snapshot(), position_id = (select max(id) - 5 from outbox)";
    sqlx::query(inside).execute(pool).await.unwrap();
    assert_eq!(look(pool, 10).await.unwrap().rows, 5);
}
