//! The figures of the hops: medians of the turns, their sum, and how near the whole comes to what the sum allows.

use std::fmt::Write as _;

use serde::Serialize;
use waybill_bench::audit::Audited;
use waybill_bench::costs::real;
use waybill_bench::findings::{self, Aim, Finding, quantile};
use waybill_bench::phases::closed::Throughput;
use waybill_bench::report::Machine;

use crate::hops::{Alone, PLACE, SERVERS};
use crate::stages::PLACED;

/// Percent of the sum's rate that the whole is to reach.
const AIM_PERCENT: f64 = 50.0;
/// Resident memory that a service may have at full load.
const MEMORY_MIB_MAX: f64 = 128.0;
/// The load, as it is watched.
const LOAD: &str = "spine";

/// One turn of both.
pub(crate) struct Turn {
    pub(crate) whole: Throughput,
    pub(crate) hops: Vec<(&'static str, Alone)>,
}

/// Everything a run found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// Orders of each hop's backlog.
    orders: u32,
    /// By hop, in the order of the flow: medians of the turns.
    hops: Vec<Figure>,
    findings: Vec<Finding>,
    audit: Audited,
}

#[derive(Debug, Serialize)]
struct Figure {
    hop: &'static str,
    /// The order is not CONFIRMED, and its event not published, before it.
    until_confirmed: bool,
    #[serde(flatten)]
    alone: Alone,
    sum_ms: f64,
}

impl Report {
    pub(crate) fn of(machine: Machine, orders: u32, turns: Vec<Turn>, audit: Audited) -> Self {
        let names =
            std::iter::once((PLACE, true)).chain(PLACED.iter().map(|hop| (hop.name, hop.until_confirmed)));
        let hops: Vec<Figure> = names
            .map(|(hop, until_confirmed)| {
                let of_hop = turns.iter().flat_map(|turn| &turn.hops).filter(|(name, _)| *name == hop);
                let alone = median(of_hop.map(|(_, alone)| *alone).collect());
                Figure { hop, until_confirmed, sum_ms: alone.sum_ms(), alone }
            })
            .collect();
        let findings = compared(&machine, &hops, &turns);
        Self { machine, orders, hops, findings, audit }
    }

    /// For a person.
    pub(crate) fn table(&self) -> String {
        let machine = &self.machine;
        let mut out = format!(
            "{} cores, {}; {}\nprograms: {}; {} orders through each hop alone; processor milliseconds by order\n\n",
            machine.cores, machine.processor, machine.postgres, machine.programs, self.orders
        );
        let _never = writeln!(
            out,
            "{:<42} {:>8} {:>9} {:>7} {:>7}  {:>8}  {:>8}",
            "hop, alone", "process", "postgres", "kafka", "sum", "orders/s", "strangers"
        );
        for Figure { hop, alone, sum_ms, .. } in &self.hops {
            let Alone { process_ms, postgres_ms, kafka_ms, rate, others_s, .. } = alone;
            let _never = writeln!(
                out,
                "{hop:<42} {process_ms:>8.3} {postgres_ms:>9.3} {kafka_ms:>7.3} {sum_ms:>7.3}  {rate:>8.0}  {others_s:>7.1} s"
            );
        }
        let audit = &self.audit;
        let _never = write!(
            out,
            "\n{}\n\naudit: {} orders CONFIRMED, paid and shipped; {} messages, each in its topic and in order; {} repeats",
            findings::table(&self.findings),
            audit.orders,
            audit.messages,
            audit.repeats
        );
        out
    }
}

/// The sum, the rates that it allows, the whole's.
fn compared(machine: &Machine, hops: &[Figure], turns: &[Turn]) -> Vec<Finding> {
    let sum_ms: f64 = hops.iter().map(|hop| hop.sum_ms).sum();
    let confirmed_ms: f64 = hops.iter().filter(|hop| hop.until_confirmed).map(|hop| hop.sum_ms).sum();
    let rate = of(turns, |turn| turn.whole.confirmed_per_s);
    let cores = real(i64::try_from(machine.cores).unwrap_or(i64::MAX));
    let (one_core, all_cores) = (1_000.0 / sum_ms, cores * 1_000.0 / sum_ms);
    let in_whole = |load: bool| {
        of(turns, |turn| {
            let used = turn.whole.spent.processes.iter().filter(|(name, _)| (**name == LOAD) == load);
            let cpu_s: f64 = used.map(|(_, used)| used.cpu_s).sum();
            1_000.0 * cpu_s / (turn.whole.confirmed_per_s * turn.whole.seconds).max(1.0)
        })
    };
    let least = Aim::AtLeast(AIM_PERCENT);
    vec![
        Finding::told("sum of all hops alone", sum_ms, "ms"),
        Finding::told("of it until CONFIRMED and its event published", confirmed_ms, "ms"),
        Finding::told("processor time by order in the whole, the load's not counted", in_whole(false), "ms"),
        Finding::told("the load's own in the whole", in_whole(true), "ms"),
        Finding::told("placed -> CONFIRMED at full load", rate, "/s"),
        Finding::told("1 / sum: what one core could do", one_core, "/s"),
        Finding::told(format!("{cores} / sum: what the {cores} cores could do"), all_cores, "/s"),
        Finding::aimed("the whole, of what one core could do", 100.0 * rate / one_core, "%", least),
        Finding::aimed(
            "the whole, of what all cores could do (the harder reading)",
            100.0 * rate / all_cores,
            "%",
            least,
        ),
        Finding::aimed(
            "most memory of a service or the relay",
            most_memory_mib(turns),
            "MiB",
            Aim::AtMost(MEMORY_MIB_MAX),
        ),
        Finding::told(
            "strangers' processor seconds in the whole's turn that was disturbed most",
            turns.iter().map(|turn| turn.whole.spent.others_cpu_s).fold(0.0, f64::max),
            "s",
        ),
    ]
}

/// Resident, at full load.
fn most_memory_mib(turns: &[Turn]) -> f64 {
    let uses = turns.iter().flat_map(|turn| &turn.whole.spent.processes);
    let ours = uses.filter(|(name, _)| **name != LOAD && !SERVERS.contains(name));
    let bytes = ours.filter_map(|(_, used)| used.peak_rss_bytes).max().unwrap_or_default();
    real(i64::try_from(bytes).unwrap_or(i64::MAX)) / (1024.0 * 1024.0)
}

fn of(turns: &[Turn], value: impl Fn(&Turn) -> f64) -> f64 {
    quantile(&mut turns.iter().map(value).collect::<Vec<_>>(), 0.5)
}

/// Each part's own median.
fn median(all: Vec<Alone>) -> Alone {
    let of = |value: fn(&Alone) -> f64| quantile(&mut all.iter().map(value).collect::<Vec<_>>(), 0.5);
    Alone {
        process_ms: of(|alone| alone.process_ms),
        postgres_ms: of(|alone| alone.postgres_ms),
        kafka_ms: of(|alone| alone.kafka_ms),
        load_ms: of(|alone| alone.load_ms),
        rate: of(|alone| alone.rate),
        others_s: of(|alone| alone.others_s),
    }
}
