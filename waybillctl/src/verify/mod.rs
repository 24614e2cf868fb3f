//! `waybillctl verify`: the promises, held against the databases and the topics of a system that may be running.
//!
//! | module | what it holds |
//! |---|---|
//! | [`stock`] | shelves, ledger and reservations of one snapshot of inventory's database |
//! | [`books`] | orders against payments and reservations: three streams merged by order id |
//! | [`provider`] | payments against what the sandbox provider remembers |
//! | [`sagas`], [`history`] | each saga has an owner or an end, and its log is a path |
//! | [`keys`] | one order per idempotency key, and the other way round |
//! | [`outbox`] | each key's sequence in an outbox |
//! | [`published`] | outboxes against topics |
//! | [`taken`] | inboxes against topics and outboxes |
//! | [`letters`] | parked keys, held messages, dead letters |
//! | [`relay`] | leases and positions of the relays |
//! | [`sessions`] | nobody sits in an open transaction |
//!
//! It only reads. Nothing is held whole in memory: rows and records come as streams, and where two sets must be compared
//! it is done by merging sorted streams or in passes of a bounded number of rows. A system that moves gives no false
//! alarm: positions are read before what they speak of, only what has settled is judged, and what looks wrong across two
//! databases is looked at a second time. What was not judged is told with the reason.

mod books;
mod databases;
#[cfg(test)]
mod dropped;
mod history;
mod kafka;
mod keys;
mod letters;
mod outbox;
mod provider;
mod published;
mod relay;
mod report;
mod sagas;
mod sessions;
mod stock;
mod taken;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use databases::Databases;
pub(crate) use kafka::Topics;
pub(crate) use report::Report;

use databases::{Looks, Owner};
use report::Check;

/// Steps that the bar counts, topics not among them.
const STEPS: u64 = 10;

/// What a look needs beside its own transaction.
pub(crate) struct Around<'a> {
    databases: &'a Databases,
    topics: &'a Topics,
    bar: ProgressBar,
}

/// Looks at everything.
///
/// # Errors
/// When something could not be looked at: then nothing is known, whatever was seen before.
pub(crate) async fn verify(databases: &Databases, topics: &Topics) -> anyhow::Result<Report> {
    let bar = ProgressBar::new(STEPS);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let around = Around { databases, topics, bar };
    let mut report = Report::default();
    let relays = one_database(&around, &mut report).await?;
    report.add(around.step("orders, money and stock", books::check(&around)).await?);
    for check in around.step("topics and inboxes", messages(&around, relays)).await? {
        report.add(check);
    }
    report.add(around.step("inboxes and outboxes", taken::nobody_took_what_nobody_said(&around)).await?);
    report.add(around.step("sessions", sessions::check(&around)).await?);
    around.bar.finish_and_clear();
    Ok(report)
}

/// What one snapshot of one database can tell; and the relays' rows in it, which are looked at once more later.
async fn one_database(around: &Around<'_>, report: &mut Report) -> anyhow::Result<relay::Before> {
    let mut looks = Looks::take(around.databases).await?;
    report.add(around.step("stock", stock::shelves(looks.of(Owner::Inventory))).await?);
    report.add(around.step("reservations", stock::reservations(looks.of(Owner::Inventory))).await?);
    report.add(around.step("the provider", provider::check(looks.of(Owner::Payments))).await?);
    let sagas = sagas::check(looks.of(Owner::Orders), &mut report.waits_for_operator);
    let sagas = around.step("sagas", sagas).await?;
    report.add(sagas);
    report.add(around.step("saga logs", history::check(looks.of(Owner::Orders))).await?);
    report.add(around.step("keys", keys::check(looks.of(Owner::Orders))).await?);
    let mut letters = letters::new_check();
    let mut sequences = outbox::new_check();
    for owner in Owner::ALL {
        letters::check(looks.of(owner), &mut letters, &mut report.waits_for_operator).await?;
        outbox::check(looks.of(owner), around.topics, owner, &mut sequences).await?;
    }
    report.add(letters);
    report.add(sequences);
    relay::before(&mut looks).await
}

/// Outboxes and inboxes against the topics, which are read once for both.
async fn messages(around: &Around<'_>, relays: relay::Before) -> anyhow::Result<Vec<Check>> {
    // The order matters: what was read to and what was there, then the snapshots, then how far the topics go now.
    let before = around.topics.survey()?;
    let mut looks = Looks::take(around.databases).await?;
    let after = around.topics.survey()?;
    let relays = relay::check(&mut looks, relays).await?;
    let mut published = published::new_check();
    let mut taken = taken::new_check();
    for topic in around.topics.all() {
        around.bar.set_message(topic.name.clone());
        let (Some(before), Some(after)) = (before.get(&topic.name), after.get(&topic.name)) else {
            anyhow::bail!(
                "the topic {} is missing: see `waybillctl topics plan`",
                around.topics.full(&topic.name)
            );
        };
        let audit = published::Audit { topics: around.topics, topic, before, after };
        audit.check(&mut looks, &mut published, &mut taken).await?;
    }
    Ok(vec![published, taken, relays])
}

impl Around<'_> {
    async fn step<T>(
        &self,
        what: &'static str,
        look: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.bar.set_message(what);
        let seen = look.await.with_context(|| format!("{what} could not be looked at"))?;
        self.bar.inc(1);
        Ok(seen)
    }
}
