//! The parts of the benchmark; each gives its figures.

mod behind;
mod debezium;
mod drain;
mod growth;
mod held;
mod latency;
mod tax;

use sqlx::PgPool;

use crate::arguments::{Arguments, What};
use crate::audit::{self, Loaded};
use crate::findings::Finding;
use crate::report::Run;
use crate::topic::Topic;

/// Measures one part.
pub(crate) async fn run(what: What, arguments: &Arguments) -> Vec<Finding> {
    match what {
        What::Drain => drain::run(arguments).await,
        What::Latency => latency::run(arguments).await,
        What::Held => held::run(arguments).await,
        What::Tax => tax::run(arguments).await,
        What::Behind => behind::run(arguments).await,
        What::Debezium => debezium::run(arguments).await,
        What::Growth => growth::run(arguments).await,
    }
}

/// A run counts only when the topic got each of these rows once, and those of a key in order.
async fn audited(topic: &Topic, rows: i64, run: impl AsyncFnOnce() -> Run) -> Run {
    let before = topic.ends();
    let run = run().await;
    audit::loaded(topic, &before, Loaded::of_one(rows));
    run
}

/// Everything is unpublished again.
async fn position_reset(pool: &PgPool) {
    let reset = "update outbox_relay set position_from = '1:1:', position_to = null, position_id = 0";
    sqlx::query(reset).execute(pool).await.unwrap();
}

fn median_rate(runs: &[Run]) -> f64 {
    let mut rates: Vec<f64> = runs.iter().map(|run| run.rows_per_second).collect();
    crate::findings::quantile(&mut rates, 0.5)
}
