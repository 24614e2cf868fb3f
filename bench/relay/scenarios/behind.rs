//! Memory of a relay that has millions of rows to publish.

use waybill_testkit::TestDatabase;

use crate::arguments::Arguments;
use crate::audit::{self, Loaded};
use crate::findings::{Aim, Finding};
use crate::topic::Topic;
use crate::{load, relay};

/// Rows after which the memory is read: every buffer has been full many times by then.
const PUBLISHED_ROWS: i64 = 1_000_000;

pub(crate) async fn run(arguments: &Arguments) -> Vec<Finding> {
    let (topic, database) =
        (Topic::create("behind", arguments.partitions).await, TestDatabase::create("relay_behind").await);
    database.migrate(&[&waybill_outbox::MIGRATIONS]).await;
    arguments.say(&format!("behind: loading {} rows of {} B ...", arguments.many_rows, arguments.bytes));
    load::load(&database.pool, &topic.name, 0, arguments.many_rows, arguments.bytes).await;
    let before = topic.ends();
    let mut relay = relay::start(&[&database], None);
    relay::until_published(&relay, PUBLISHED_ROWS.min(arguments.many_rows)).await;
    let memory = relay::peak_memory_mib(relay.pid().unwrap_or_default());
    assert_eq!(relay.terminate().await, Some(0), "{}", relay.output());
    // It ended cleanly in the middle: the first rows came, whatever their number, and no other.
    let came = topic.records() - before.iter().sum::<i64>();
    assert!(came >= PUBLISHED_ROWS.min(arguments.many_rows), "{came} rows came: no number");
    audit::loaded(&topic, &before, Loaded::of_one(came));
    let figure = format!("resident memory with {} rows behind", arguments.many_rows);
    vec![Finding::aimed(figure, memory, "MiB", Aim::AtMost(64.0))]
}
