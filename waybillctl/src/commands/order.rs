//! `waybillctl order explain ID`: one order's whole story, joined from every service and topic.

use anyhow::bail;
use waybill_explain::{Limits, NotAsked, Places, Report, Story};

use crate::cli::{Explain, Order, OrderVerb};
use crate::exit::Exit;
use crate::operator::Services;
use crate::output;

/// Does what was asked for.
pub(crate) async fn run(order: Order) -> anyhow::Result<Exit> {
    match order.verb {
        OrderVerb::Explain(options) => explain(options).await,
    }
}

async fn explain(options: Explain) -> anyhow::Result<Exit> {
    let services = Services::new(&options.services)?;
    let id = options.id.to_string();
    let story = Story::gather(services.all(), &id).await;
    let places = if options.without_kafka {
        Places::default()
    } else {
        output::progress("looking for its messages on their topics");
        Places::find(&options.kafka.reader()?, &story, Limits::default()).await
    };
    let left_out = services.left_out().iter();
    let left_out = left_out.map(|name| NotAsked::left_out(Some(name), "left out by --service")).collect();
    let report = Report::new(&id, &story, &places, left_out);
    nothing_known(&report, &story)?;
    output::one(options.form, &serde_json::to_value(&report)?, || Ok(report.text()))?;
    // What was found is worth showing; that there may be more is worth an exit code.
    let is_missing_some = report.could_not_look() || !report.not_told.is_empty();
    Ok(if is_missing_some { Exit::Failed } else { Exit::Done })
}

/// Refuses an id that nobody knows. Where somebody could not be asked, it is not known that nobody does.
fn nothing_known(report: &Report, story: &Story) -> anyhow::Result<()> {
    let (id, asked) = (&report.correlation_id, report.asked.join(", "));
    let away = report.not_asked.iter().filter(|not_asked| !not_asked.by_choice);
    let away: Vec<&str> = away.map(|not_asked| not_asked.why.as_str()).collect();
    if report.asked.is_empty() {
        bail!("no service could be asked:\n  {}", away.join("\n  "));
    }
    if story.is_empty() && !away.is_empty() {
        bail!("{asked} know nothing of order {id}, and others could not be asked:\n  {}", away.join("\n  "));
    }
    if story.is_empty() {
        bail!("{asked} know nothing of order {id}: check the id{}", report.not_told_lines());
    }
    Ok(())
}
