//! `waybillctl order explain ID`: one order's whole story, joined from every service and topic.

mod facts;
mod places;
mod steps;
mod text;
mod timeline;

use serde_json::json;

use self::facts::Story;
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
    let story = Story::gather(&services, &options.id).await?;
    let places = if options.without_kafka {
        places::Places::default()
    } else {
        output::progress("looking for its messages on their topics");
        places::find(&options.kafka, &story).await?
    };
    let steps = steps::of(&story);
    let timeline = timeline::of(&story, &places, &steps);
    let report = json!({
        "order": options.id,
        "trace_ids": story.trace_ids(),
        "timeline": timeline,
        "steps": steps,
        "not_found_on_topics": places.missing(&story),
        "looked_on_topics": !options.without_kafka,
        "services": story.raw(),
    });
    output::one(options.form, &report, || {
        Ok(text::of(&options.id, &story, &places, &steps, &timeline, !options.without_kafka))
    })?;
    Ok(Exit::Done)
}
