//! `waybillctl verify` over much: its memory has a bound, however many messages and sagas there are.

use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;
use waybill_testkit::polling::eventually_named;
use waybill_testkit::process::peak_memory_kib;

use crate::shop::Shop;
use crate::system::{System, Verified};

/// Messages and sagas at the first look.
const FEW: (i64, i64) = (20_000, 5_000);
/// What comes on top until the second.
const MORE: (i64, i64) = (200_000, 45_000);
/// What it may ever take: 32 MiB for a pass over a topic (`published.rs`), as much for records that are fetched ahead and the
/// program itself; half as much again for what an allocator keeps.
const PEAK_KIB_MAX: u64 = 96 * 1024;
/// What a full pass takes more than one over few rows, doubled while its table grows. Beyond it there are more passes.
const GROWTH_KIB_MAX: u64 = 40 * 1024;
/// Longest wait until all that was written is published.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(180);
/// Between two looks at a process's memory.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_looks_at_hundreds_of_thousands_of_messages_and_sagas_in_bounded_memory() {
    let mut system = System::start("e2e_bounded").await;
    let shop = Shop::new(&system);
    shop.product("tea", 700, 1).await;
    let template = shop.order(&[("tea", 2)], "tok_approve").await;
    shop.becomes(&template, "REJECTED").await;
    // Nobody reads what is said from here on.
    for process in [&mut system.orders, &mut system.inventory, &mut system.payments] {
        assert_eq!(process.terminate().await, Some(0), "{}", process.output());
    }
    let few = grown(&system, &template, FEW, FEW).await;
    let all = grown(&system, &template, MORE, (FEW.0 + MORE.0, FEW.1 + MORE.1)).await;
    println!("at most {few} KiB with few, {all} KiB with many");
    assert!(all < PEAK_KIB_MAX, "{all} KiB");
    assert!(all < few + GROWTH_KIB_MAX, "{few} KiB with few, {all} KiB with many");
}

/// Writes so many messages and sagas more, and returns the most memory that a look at all of them took.
async fn grown(system: &System, template: &str, more: (i64, i64), all: (i64, i64)) -> u64 {
    messages(system, more.0).await;
    sagas(system, template, more.1).await;
    published(system).await;
    let (verified, peak_kib) = watched(system).await;
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    for (check, least) in
        [("topics", all.0), ("sequences", all.0), ("inbox origins", all.0), ("saga logs", all.1)]
    {
        let checks = verified.report["checks"].as_array().unwrap();
        let judged =
            checks.iter().find(|found| found["name"] == check).and_then(|found| found["judged"].as_i64());
        assert!(judged >= Some(least), "{check}: {judged:?}");
    }
    peak_kib
}

/// Commands for payments, each of its own key, and its inbox as if it had obeyed them. Their ids are of now, as those of the
/// services are: an inbox is cut by them.
async fn messages(system: &System, count: i64) {
    const MADE: &str =
        "select (left($1, 12) || '7' || substr(m, 1, 3) || '8' || substr(m, 4, 15))::uuid as id, m
                        from (select md5($1 || n) as m from generate_series(1, $2) n) made";
    let now = Uuid::now_v7().simple().to_string();
    let say = format!(
        "insert into outbox (message_id, topic, key, headers, payload)
         select id, $3, convert_to(m, 'UTF8'),
                json_build_object('ce_id', id, 'ce_source', '/waybill/orders', 'ce_type', 'AuthorizePayment',
                                  'ce_sequence', '1'),
                convert_to(repeat(m, 6), 'UTF8')
         from ({MADE}) made"
    );
    let say = sqlx::query(sqlx::AssertSqlSafe(say)).bind(&now).bind(count);
    let say = say.bind(system.topics.full("payments.commands"));
    say.execute(&system.orders_db.pool).await.unwrap();
    let take =
        format!("insert into inbox (consumer_group, message_id) select 'payments', id from ({MADE}) made");
    let take = sqlx::query(sqlx::AssertSqlSafe(take)).bind(&now).bind(count);
    take.execute(&system.payments_db.pool).await.unwrap();
}

/// Orders that were rejected as this one was, with their sagas and logs, two days ago, so that their keys may be forgotten.
async fn sagas(system: &System, template: &str, count: i64) {
    let copy = "with copies as materialized (select gen_random_uuid() as id from generate_series(1, $2)),
         placed as (
             insert into orders (id, customer_id, status, reason, currency, total_minor, version, created_at, updated_at)
             select c.id, o.customer_id, o.status, o.reason, o.currency, o.total_minor, o.version,
                    o.created_at - interval '2 days', o.updated_at - interval '2 days'
             from copies c cross join orders o where o.id = $1::uuid
         ), begun as (
             insert into saga_instances (saga, key, version, status, state, data, sequences, correlation_id)
             select i.saga, c.id, i.version, i.status, i.state, i.data, i.sequences, i.correlation_id
             from copies c cross join saga_instances i where i.key = $1::uuid
         )
         insert into saga_log (saga, key, entry)
         select l.saga, c.id, l.entry from copies c cross join saga_log l where l.key = $1::uuid
         order by c.id, l.number";
    sqlx::query(copy).bind(template).bind(count).execute(&system.orders_db.pool).await.unwrap();
}

async fn published(system: &System) {
    let waits = "select exists (select from outbox o, outbox_relay r where r.name = 'default'
                                and not pg_visible_in_snapshot(o.xid, r.position_from))";
    eventually_named("everything to be published", PUBLISH_TIMEOUT, async || {
        let waits: bool = sqlx::query_scalar(waits).fetch_one(&system.orders_db.pool).await.unwrap();
        (!waits).then_some(())
    })
    .await;
}

/// Has `waybillctl verify` look, and tells the most memory it had (KiB), as the kernel counts it.
async fn watched(system: &System) -> (Verified, u64) {
    let process = system.verifying(&["--json"]);
    let pid = process.pid().expect("it runs");
    let mut peak_kib = 0;
    let watch = async {
        loop {
            peak_kib = peak_memory_kib(pid).unwrap_or(peak_kib);
            sleep(LOOK_PAUSE).await;
        }
    };
    let verified = tokio::select! {
        verified = Verified::by(process) => verified,
        () = watch => unreachable!("it looks on until the process has ended"),
    };
    assert!(peak_kib > 0, "its memory was looked at");
    (verified, peak_kib)
}
