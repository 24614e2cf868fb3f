//! The drain of an outbox against a bare producer of the same bytes, in turns; then the relay idles.

use std::time::Duration;

use waybill_testkit::TestDatabase;

use super::{audited, median_rate, position_reset};
use crate::arguments::Arguments;
use crate::findings::{Aim, Finding};
use crate::report::Run;
use crate::topic::Topic;
use crate::{bare, load, relay};

pub(crate) async fn run(arguments: &Arguments) -> Vec<Finding> {
    let rows = arguments.rows;
    let database = TestDatabase::create("relay_bench").await;
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    let relay_topic = Topic::create("relay", arguments.partitions).await;
    let bare_topic = Topic::create("bare", arguments.partitions).await;
    arguments.say(&format!("drain: loading {rows} rows of {} B ...", arguments.bytes));
    load::load(&database.pool, &relay_topic.name, 0, rows, arguments.bytes).await;
    let records = load::read(&database.pool).await;

    let (mut bare_runs, mut relay_runs) = (Vec::new(), Vec::new());
    for number in 1..=arguments.runs {
        let sending = async || bare::run(&bare_topic.name, &records, arguments.linger_ms);
        let run = audited(&bare_topic, rows, sending).await;
        arguments.say(&format!("run {number}, bare producer: {run}"));
        bare_runs.push(run);
        position_reset(&database.pool).await;
        let draining = async || relay::drain(&database, rows, arguments.linger_ms).await;
        let run = audited(&relay_topic, rows, draining).await;
        arguments.say(&format!("run {number}, relay:         {run}"));
        relay_runs.push(run);
    }
    arguments.say("watching it idle ...");
    let idle = relay::idle(&database, Duration::from_secs(arguments.seconds)).await;
    let dead = "select coalesce(sum(n_dead_tup) filter (where relname ~ '^outbox_\\d'), 0)::bigint,
                coalesce(sum(n_tup_upd) filter (where relname = 'outbox_relay'), 0)::bigint from pg_stat_user_tables";
    let (dead, renewals): (i64, i64) = sqlx::query_as(dead).fetch_one(&database.pool).await.unwrap();
    let most = |of: fn(&crate::report::Cost) -> f64| {
        relay_runs.iter().filter_map(|run| run.cost.as_ref()).map(of).fold(0.0, f64::max)
    };
    let what = format!("{rows} rows of {} B, {} partitions", arguments.bytes, arguments.partitions);
    vec![
        Finding::told(format!("drain of {what}"), median_rate(&relay_runs), "rows/s"),
        Finding::told("bare producer of the same bytes", median_rate(&bare_runs), "rows/s"),
        Finding::aimed(
            "drain against the bare producer",
            100.0 * median_rate(&relay_runs) / median_rate(&bare_runs),
            "%",
            Aim::AtLeast(50.0),
        ),
        Finding::told(
            "processor time of the relay, its least run",
            least_cpu_us(&relay_runs, rows),
            "us/row",
        ),
        Finding::told(
            "processor time of the bare producer, likewise",
            least_cpu_us(&bare_runs, rows),
            "us/row",
        ),
        Finding::aimed(
            "WAL of the relay, its worst run",
            most(|cost| cost.wal_bytes as f64) / rows as f64,
            "B/row",
            Aim::AtMost(1.0),
        ),
        Finding::aimed("dead tuples of the outbox", dead as f64, "", Aim::AtMost(0.0)),
        Finding::told("changes of the row of position and lease, all runs", renewals as f64, ""),
        Finding::aimed(
            "resident memory at full drain",
            most(|cost| cost.peak_memory_mib),
            "MiB",
            Aim::AtMost(64.0),
        ),
        Finding::aimed("statements when idle", idle.queries_per_second, "/s", Aim::AtMost(50.0)),
        Finding::told("WAL when idle", idle.wal_bytes_per_second, "B/s"),
    ]
}

/// What other work on the machine disturbs least.
fn least_cpu_us(runs: &[Run], rows: i64) -> f64 {
    runs.iter().map(|run| run.cpu_seconds).fold(f64::INFINITY, f64::min) * 1e6 / rows as f64
}
