//! The scenario: the whole at full load and each hop alone, in turn; audited at the end.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use uuid::Uuid;
use waybill_bench::costs::Instruments;
use waybill_bench::journal::Journal;
use waybill_bench::phases::closed;
use waybill_bench::report::Machine;
use waybill_bench::shop::Shop;
use waybill_bench::system::System;
use waybill_bench::{audit, progress};

use crate::arguments::Arguments;
use crate::figures::{Report, Turn};
use crate::hops;

/// Load before each later measured time of the whole: everybody has just been frozen and joins its group again.
const WARM_UP_AGAIN_S: u64 = 10;
/// Orders and the relay wait frozen for minutes here; it is not their patience that is measured, nor the bound on what
/// waits for a stopped relay. A relay whose lease has run out would publish its first round twice.
const PATIENT: [(&str, &str); 4] = [
    ("OUTBOX_RELAY_LEASE_MS", "600000"),
    ("WAYBILL_ORDERS_STEP_DEADLINE_MS", "3600000"),
    ("WAYBILL_ORDERS_SAGA_DEADLINE_MS", "36000000"),
    ("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "1000000"),
];

/// Measures; a report exists only when the audit holds.
///
/// # Errors
/// Whatever stopped it: no figure is told then.
pub(crate) async fn run(arguments: &Arguments) -> Result<Report> {
    progress("starting orders, inventory, payments and the relay");
    let mut system = System::start_with(&arguments.log_filter, &PATIENT).await?;
    let machine = Machine::look(&system.monitor.pool).await?;
    let spine = arguments.spine(arguments.warm_up_s);
    progress(&format!("stocking {} products", spine.skus));
    let shop = Shop::open(&system, &spine).await?;
    system.unmeter().await?;
    let shop = Arc::new(shop.moved(&system));
    let instruments = Instruments::of(&system).await?;
    let (mut accepted, mut turns) = (HashSet::new(), Vec::new());
    for run in 1..=arguments.runs {
        let warm_up_s = if run == 1 { arguments.warm_up_s } else { WARM_UP_AGAIN_S.min(arguments.warm_up_s) };
        progress(&format!("run {run} of {}: the whole at full load", arguments.runs));
        let (whole, placed) =
            closed::run(&system, Arc::clone(&shop), &instruments, &arguments.spine(warm_up_s)).await?;
        accepted.extend(ids(&placed));
        let placed = Arc::new(Journal::default());
        let hops = hops::turn(&system, &shop, &placed, arguments.clients, arguments.orders).await?;
        accepted.extend(ids(&placed));
        turns.push(Turn { whole, hops });
    }
    progress("auditing orders, money, stock and topics");
    let audit = audit::audit(&system, &accepted).await.context("the audit failed, so no figure is told")?;
    Ok(Report::of(machine, arguments.orders, turns, audit))
}

fn ids(journal: &Journal) -> HashSet<Uuid> {
    journal.accepted().into_iter().map(|order| order.id).collect()
}
