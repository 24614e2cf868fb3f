//! A run: the phases in their order, the audit, the report.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use uuid::Uuid;

use crate::arguments::Arguments;
use crate::costs::Instruments;
use crate::journal::Journal;
use crate::phases::{closed, open, single};
use crate::report::{Machine, Report};
use crate::shop::Shop;
use crate::system::System;
use crate::{audit, progress, tuples};

/// Measures everything; a report exists only when the audit holds.
///
/// # Errors
/// Whatever stopped it: no figure is told then.
pub async fn run(arguments: &Arguments) -> Result<Report> {
    progress("starting orders, inventory, payments and the relay");
    let mut system = System::start(&arguments.log_filter).await?;
    let machine = Machine::look(&system.monitor.pool).await?;
    progress(&format!("stocking {} products", arguments.skus));
    let shop = Shop::open(&system, arguments).await?;
    let instruments = Instruments::of(&system).await?;
    if !instruments.statements {
        progress("statements can not be counted: the server does not preload pg_stat_statements");
    }
    if !instruments.wal {
        progress("WAL can not be read: create extension pg_walinspect is not allowed here");
    }
    let alone = Journal::default();
    let single = single::run(&mut system, &shop, &instruments, &alone, arguments.single_orders).await?;
    let mut accepted = ids(&alone);

    progress("starting the services again, their round trips no longer counted");
    system.unmeter().await?;
    let shop = Arc::new(shop.moved(&system));
    let (throughput, closed) = closed::run(&system, Arc::clone(&shop), &instruments, arguments).await?;
    accepted.extend(ids(&closed));
    let open_loop = if arguments.open_loop_s > 0 {
        let rate = arguments.rate.unwrap_or(throughput.confirmed_per_s * arguments.rate_fraction);
        let (open_loop, open) = open::run(&system, shop, &instruments, arguments, rate.max(1.0)).await?;
        accepted.extend(ids(&open));
        Some(open_loop)
    } else {
        None
    };
    progress("auditing orders, money, stock and topics");
    let audit = audit::audit(&system, &accepted).await.context("the audit failed, so no figure is told")?;
    tuples::settle().await;
    let mut counters = Vec::new();
    for service in system.services() {
        counters.push((service.name, tuples::look(&service.database.pool).await?));
    }
    Ok(Report {
        machine,
        statements_counted: instruments.statements,
        wal_read: instruments.wal,
        single,
        throughput,
        open_loop,
        tuples: counters,
        audit,
    })
}

fn ids(journal: &Journal) -> HashSet<Uuid> {
    journal.accepted().into_iter().map(|order| order.id).collect()
}
