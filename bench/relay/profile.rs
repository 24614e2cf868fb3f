//! What an open loop is made of: processor time by process, and the relay's own parts by its metrics.

use std::time::Duration;

use waybill_bench::cpu::{Look, Watched, Whole};
use waybill_bench::system::watch_servers;
use waybill_testkit::Process;

use crate::findings::Finding;
use crate::open_loop::WARM_UP;

/// What is known at one moment.
struct Moment {
    look: Look,
    metrics: String,
}

/// What happened between two moments.
pub(crate) struct Profile {
    before: Moment,
    after: Moment,
    seconds: f64,
}

impl Profile {
    /// Of the seconds after the warm-up of a loop that begins now.
    pub(crate) async fn of(relay: &Process, seconds: u64) -> Vec<Finding> {
        let mut watched = Watched::default();
        watched.add("the relay", relay.pid(), Whole::Alone);
        watch_servers(&mut watched);
        watched.add("the load", Some(std::process::id()), Whole::Alone);
        tokio::time::sleep(WARM_UP).await;
        let before = Moment::now(&watched, relay).await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let after = Moment::now(&watched, relay).await;
        Self { before, after, seconds: seconds as f64 }.findings()
    }

    fn findings(&self) -> Vec<Finding> {
        let spent = self.after.look.since(&self.before.look);
        let share = |cpu_s: f64| 100.0 * cpu_s / self.seconds;
        let mut findings: Vec<_> = spent
            .processes
            .iter()
            .map(|(name, used)| Finding::told(format!("a core's time of {name}"), share(used.cpu_s), "%"))
            .collect();
        let rounds = |size: &str| {
            self.more(&format!("outbox_relay_rounds_total{{database=\"bench0\",size=\"{size}\"}}"))
        };
        let pieces = self.more("outbox_relay_piece_rows_count{database=\"bench0\"}");
        let mean = |name: &str| self.more(&format!("{name}_sum{{database=\"bench0\"}}")) / pieces;
        let ms = 1e3;
        findings.extend([
            Finding::told("a core's time of everything else", share(spent.others_cpu_s), "%"),
            Finding::told("looks that found rows", pieces / self.seconds, "/s"),
            Finding::told("looks that found none", rounds("empty") / self.seconds, "/s"),
            Finding::told("rows of a look that found some, mean", mean("outbox_relay_piece_rows"), ""),
            Finding::told("such a look, mean", ms * mean("outbox_relay_read_seconds"), "ms"),
            Finding::told(
                "from its rows' hand-over to their last acknowledgement, mean",
                ms * mean("outbox_relay_acknowledged_seconds"),
                "ms",
            ),
        ]);
        findings
    }

    /// How much a value has grown.
    fn more(&self, metric: &str) -> f64 {
        self.after.value(metric) - self.before.value(metric)
    }
}

impl Moment {
    async fn now(watched: &Watched, relay: &Process) -> Self {
        let look = watched.look();
        let answer = reqwest::get(format!("{}/metrics", relay.url)).await.unwrap();
        Self { look, metrics: answer.text().await.unwrap() }
    }

    fn value(&self, metric: &str) -> f64 {
        let line = self.metrics.lines().find_map(|line| line.strip_prefix(metric));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    }
}
