//! The figures, for people.

use std::fmt::Write as _;

use crate::costs::Cost;
use crate::cpu::Spent;
use crate::phases::closed::Throughput;
use crate::phases::open::OpenLoop;
use crate::phases::single::Single;
use crate::report::{Latency, Report};
use crate::statements::Sender;

/// Statements listed of each database.
const DETAILS_MAX: usize = 12;
/// Tables listed by their WAL.
const TABLES_MAX: usize = 14;
/// Statements listed by their time under load.
const HEAVIEST_MAX: usize = 16;
/// Bytes in a mebibyte.
const MIB: u64 = 1024 * 1024;

/// Everything as text of several lines.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let machine = &report.machine;
    line(&mut out, format_args!("{} cores, {}; {}", machine.cores, machine.processor, machine.postgres));
    line(
        &mut out,
        format_args!("programs: {}; everything on this machine, this program included", machine.programs),
    );
    if !report.statements_counted {
        line(&mut out, format_args!("statements: could not look (pg_stat_statements is not preloaded)"));
    }
    if !report.wal_read {
        line(&mut out, format_args!("WAL: could not look (pg_walinspect is not allowed)"));
    }
    single(&mut out, &report.single);
    throughput(&mut out, &report.throughput);
    if let Some(open_loop) = &report.open_loop {
        open(&mut out, open_loop);
    }
    relay(&mut out, report);
    let audit = &report.audit;
    line(
        &mut out,
        format_args!(
            "\naudit: {} orders CONFIRMED, paid and shipped; {} messages, each in its topic and in order; {} repeats",
            audit.orders, audit.messages, audit.repeats
        ),
    );
    out
}

fn single(out: &mut String, single: &Single) {
    line(out, format_args!("\nONE ORDER ALONE (average of {})", single.orders));
    costs(out, "placed, nobody reacting", &single.placed[..1]);
    details(out, &single.placed[..1]);
    costs(out, "the whole path", &single.whole);
    details(out, &single.whole);
    for table in single.wal_by_table.iter().flatten().take(TABLES_MAX) {
        line(out, format_args!("      WAL {:<10}{:<24}{:>8.0} B", table.database, table.table, table.bytes));
    }
    for idle in &single.idle {
        line(
            out,
            format_args!(
                "  idle, taken off above: {:<9} {} statements/s, {:.1} round trips/s; relay {} statements/s",
                idle.database,
                number(idle.statements_per_s, 1),
                idle.round_trips_per_s,
                number(idle.relay_statements_per_s, 1)
            ),
        );
    }
    latency_head(out);
    latency(out, "202 -> OrderConfirmed read", &single.confirmed_seen);
}

fn throughput(out: &mut String, throughput: &Throughput) {
    line(
        out,
        format_args!(
            "\nCLOSED LOOP, {:.1} s: {:.1} orders/s accepted, {:.1} orders/s CONFIRMED; last order ended {:.1} s after \
             the end",
            throughput.seconds, throughput.accepted_per_s, throughput.confirmed_per_s, throughput.drain_s
        ),
    );
    refused(out, &throughput.refused);
    latency_head(out);
    latency(out, "sent -> 202", &throughput.place);
    costs(out, "by confirmed order, under load", &throughput.costs);
    heaviest(out, &throughput.costs);
    spent(out, &throughput.spent, throughput.seconds, throughput.confirmed_per_s * throughput.seconds);
}

fn open(out: &mut String, open: &OpenLoop) {
    line(out, format_args!("\nOPEN LOOP, {:.1} s at {:.1} orders/s", open.seconds, open.rate_per_s));
    refused(out, &open.refused);
    latency_head(out);
    latency(out, "arrival -> 202", &open.place);
    latency(out, "202 -> CONFIRMED", &open.confirmed);
    latency(out, "202 -> OrderConfirmed read", &open.confirmed_seen);
    for hop in &open.hops {
        latency(out, &format!("  -> {}", hop.until), &hop.took);
    }
    costs(out, "by confirmed order, at this rate", &open.costs);
    spent(out, &open.spent, open.seconds, open.rate_per_s * open.seconds);
}

fn relay(out: &mut String, report: &Report) {
    line(
        out,
        format_args!(
            "\nRELAY: {} WAL bytes per published event under load",
            number(report.throughput.relay_wal_bytes_per_event, 2)
        ),
    );
    line(
        out,
        format_args!(
            "{:<12}{:>13}{:>13}{:>11}{:>15}{:>10}{:>10}{:>13}",
            "database", "outbox rows", "changed", "dead", "position writes", "HOT", "dead", "table KiB"
        ),
    );
    for (database, tuples) in &report.tuples {
        line(
            out,
            format_args!(
                "{database:<12}{:>13}{:>13}{:>11}{:>15}{:>10}{:>10}{:>13}",
                tuples.outbox_inserted,
                tuples.outbox_changed,
                tuples.outbox_dead,
                tuples.relay_updated,
                tuples.relay_hot_updated,
                tuples.relay_dead,
                tuples.relay_table_bytes / 1024
            ),
        );
    }
}

fn costs(out: &mut String, title: &str, costs: &[Cost]) {
    line(
        out,
        format_args!(
            "{title:<32}{:>12}{:>12}{:>14}{:>12}{:>14}{:>12}",
            "statements", "round trips", "WAL bytes", "relay stmts", "relay WAL", "page images"
        ),
    );
    for cost in costs {
        line(
            out,
            format_args!(
                "  {:<30}{:>12}{:>12}{:>14}{:>12}{:>14}{:>12}",
                cost.database,
                number(cost.statements, 2),
                number(cost.round_trips, 2),
                number(cost.wal_bytes, 0),
                number(cost.relay_statements, 2),
                number(cost.relay_wal_bytes, 0),
                number(cost.page_image_bytes, 0),
            ),
        );
    }
    if costs.len() > 1 {
        let sum = |of: fn(&Cost) -> Option<f64>| costs.iter().map(of).sum::<Option<f64>>();
        line(
            out,
            format_args!(
                "  {:<30}{:>12}{:>12}{:>14}{:>12}{:>14}{:>12}",
                "together",
                number(sum(|cost| cost.statements), 2),
                number(sum(|cost| cost.round_trips), 2),
                number(sum(|cost| cost.wal_bytes), 0),
                number(sum(|cost| cost.relay_statements), 2),
                number(sum(|cost| cost.relay_wal_bytes), 0),
                number(sum(|cost| cost.page_image_bytes), 0),
            ),
        );
    }
}

/// The statements that kept Postgres busy longest.
fn heaviest(out: &mut String, costs: &[Cost]) {
    let mut all: Vec<_> =
        costs.iter().flat_map(|cost| cost.details.iter().map(|detail| (cost.database, detail))).collect();
    all.sort_by(|(_, a), (_, b)| b.exec_ms.total_cmp(&a.exec_ms));
    for (database, detail) in all.into_iter().take(HEAVIEST_MAX) {
        line(
            out,
            format_args!(
                "      {database:<10}{:>7.3} x {:>7.3} ms {:>7.0} B  {}",
                detail.calls, detail.exec_ms, detail.wal_bytes, detail.text
            ),
        );
    }
}

/// The statements as they were counted, polls that run anyway among them.
fn details(out: &mut String, costs: &[Cost]) {
    for cost in costs {
        let service = cost.details.iter().filter(|detail| detail.sender == Sender::Service);
        for detail in service.take(DETAILS_MAX) {
            line(
                out,
                format_args!(
                    "      {:<10}{:>7.2} x {:>7.3} ms {:>7.0} B  {}",
                    cost.database, detail.calls, detail.exec_ms, detail.wal_bytes, detail.text
                ),
            );
        }
    }
}

fn spent(out: &mut String, spent: &Spent, seconds: f64, orders: f64) {
    line(
        out,
        format_args!("{:<32}{:>12}{:>12}{:>16}{:>14}", "CPU", "seconds", "cores", "ms per order", "peak MiB"),
    );
    for (name, used) in &spent.processes {
        let peak = used.peak_rss_bytes.map_or_else(|| "-".to_owned(), |bytes| (bytes / MIB).to_string());
        line(
            out,
            format_args!(
                "  {name:<30}{:>12.2}{:>12.2}{:>16.3}{peak:>14}",
                used.cpu_s,
                used.cpu_s / seconds,
                used.cpu_s * 1_000.0 / orders.max(1.0)
            ),
        );
    }
    let others = spent.others_cpu_s;
    line(out, format_args!("  {:<30}{others:>12.2}{:>12.2}", "(everything else)", others / seconds));
}

fn latency_head(out: &mut String) {
    line(
        out,
        format_args!(
            "{:<32}{:>12}{:>12}{:>12}{:>12}{:>12}",
            "milliseconds", "p50", "p90", "p99", "max", "count"
        ),
    );
}

fn latency(out: &mut String, name: &str, latency: &Latency) {
    let Latency { count, p50_ms, p90_ms, p99_ms, max_ms } = latency;
    line(
        out,
        format_args!("  {name:<30}{p50_ms:>12.1}{p90_ms:>12.1}{p99_ms:>12.1}{max_ms:>12.1}{count:>12}"),
    );
}

fn refused(out: &mut String, refused: &std::collections::HashMap<String, u64>) {
    for (why, count) in refused {
        line(out, format_args!("  {count} requests were not accepted: {why}"));
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}
