//! `waybillctl events tail | get | decode`: messages, decoded with the schemas this program knows.

mod frames;
mod lines;
mod newest;

use std::io::Write as _;
use std::ops::ControlFlow;

use anyhow::Context as _;
use waybill_events::topics::topic;
use waybill_messaging::codec::untyped::Schemas;
use waybill_messaging::reader::Range;
use waybill_messaging::record::Record;

use self::newest::Newest;
use crate::cli::{Events, EventsVerb, Get, Look, Tail};
use crate::contract;
use crate::exit::Exit;
use crate::output;

/// Records of each partition that `tail` looks back: what it shows is found in one fetch or two.
const LOOK_BACK_RECORDS_MAX: i64 = 1_000;

/// Does what was asked for.
pub(crate) async fn run(events: Events) -> anyhow::Result<Exit> {
    match events.verb {
        EventsVerb::Tail(options) => tail(options).await,
        EventsVerb::Get(options) => get(options).await,
        EventsVerb::Decode(options) => frames::decode(options.input),
    }
}

/// The topics asked for, with prefix; the main topics when none are named.
fn topics(named: &[String], prefix: &str) -> Vec<String> {
    let main = [
        topic::ORDERS_EVENTS,
        topic::INVENTORY_COMMANDS,
        topic::INVENTORY_EVENTS,
        topic::PAYMENTS_COMMANDS,
        topic::PAYMENTS_EVENTS,
    ];
    if named.is_empty() {
        main.iter().map(|name| format!("{prefix}{name}")).collect()
    } else {
        named.iter().map(|name| format!("{prefix}{name}")).collect()
    }
}

async fn get(options: Get) -> anyhow::Result<Exit> {
    let mut shower = Shower::new(options.look)?;
    let reader = options.kafka.reader()?;
    let mut ranges = Vec::new();
    for topic in topics(&options.topics, &options.kafka.prefix) {
        ranges.extend(reader.ranges(&topic, options.filter.partition)?);
    }
    reader.within(&mut ranges, options.filter.since, options.filter.until)?;
    if let Some(offset) = options.offset {
        ranges.iter().try_for_each(|range| offset_is_there(range, offset))?;
        ranges.iter_mut().for_each(|range| range.from = offset);
    }
    let mut looked_at: u64 = 0;
    let mut shown: u64 = 0;
    let read = reader.read::<anyhow::Error>(&ranges, |record| {
        if shown >= options.limit {
            return Ok(ControlFlow::Break(()));
        }
        looked_at += 1;
        if lines::fits(&options.filter, &record) {
            shown += 1;
            shower.show(&record)?;
        }
        Ok(if shown >= options.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    read.await?;
    output::progress(&format!("{shown} shown of {looked_at} read in {} partitions", ranges.len()));
    Ok(shower.exit())
}

fn offset_is_there(range: &Range, offset: i64) -> anyhow::Result<()> {
    anyhow::ensure!(
        (range.from..range.to).contains(&offset),
        "{} partition {} has no offset {offset}: it holds {} to {} (the end, not included)",
        range.topic,
        range.partition,
        range.from,
        range.to
    );
    Ok(())
}

async fn tail(options: Tail) -> anyhow::Result<Exit> {
    let mut shower = Shower::new(options.look)?;
    let reader = options.kafka.reader()?;
    let mut ranges = Vec::new();
    for topic in topics(&options.topics, &options.kafka.prefix) {
        ranges.extend(reader.ranges(&topic, options.filter.partition)?);
    }
    let ends = ranges.clone();
    reader.within(&mut ranges, options.filter.since, options.filter.until)?;
    for range in &mut ranges {
        range.from = range.from.max(range.to - LOOK_BACK_RECORDS_MAX);
    }
    let mut newest = Newest::new(usize::try_from(options.lines).unwrap_or(usize::MAX));
    if options.lines > 0 {
        let read = reader.read::<anyhow::Error>(&ranges, |record| {
            if lines::fits(&options.filter, &record) {
                newest.take(record);
            }
            Ok(ControlFlow::Continue(()))
        });
        read.await?;
    }
    for record in newest.records() {
        shower.show(record)?;
    }
    if !options.follow {
        let (shown, at) = (newest.records().len(), ends.len());
        output::progress(&format!("{shown} shown of the last in {at} partitions"));
        return Ok(shower.exit());
    }
    let following = reader.follow::<anyhow::Error>(&ends, |record| {
        if lines::fits(&options.filter, &record) {
            shower.show(&record)?;
        }
        Ok(ControlFlow::Continue(()))
    });
    tokio::select! {
        ended = following => ended?,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("the interrupt key can not be listened to")?,
    }
    Ok(shower.exit())
}

/// Prints records, and remembers whether each could be decoded.
struct Shower {
    schemas: Schemas,
    look: Look,
    all_decoded: bool,
}

impl Shower {
    fn new(look: Look) -> anyhow::Result<Self> {
        Ok(Self { schemas: contract::schemas()?, look, all_decoded: true })
    }

    fn show(&mut self, record: &Record) -> anyhow::Result<()> {
        let line = lines::Line::new(&self.schemas, record);
        self.all_decoded &= line.is_decoded();
        let text = if self.look.text { line.text() } else { serde_json::to_string(&line)? };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").context(output::CLOSED)
    }

    fn exit(&self) -> Exit {
        if self.all_decoded { Exit::Done } else { Exit::Differs }
    }
}
