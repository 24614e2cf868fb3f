//! `waybillctl dead-letters ...`: one file a verb.

mod discard;
mod dry_run;
mod edit;
mod edit_headers;
mod look;
mod plan;
mod replay;
mod selection;
mod transform;
mod value;

use crate::cli::{DeadLetters, DeadLettersVerb};
use crate::exit::Exit;

/// Does what was asked for.
pub(crate) async fn run(letters: DeadLetters) -> anyhow::Result<Exit> {
    match letters.verb {
        DeadLettersVerb::List { filter, page, asking } => look::list(&filter, page, &asking).await,
        DeadLettersVerb::Groups { filter, page, asking } => look::groups(&filter, page, &asking).await,
        DeadLettersVerb::Show { id, asking } => look::show(&id, &asking).await,
        DeadLettersVerb::Plan { filter, asking } => plan::run(&filter, &asking).await,
        DeadLettersVerb::DryRun(options) => dry_run::run(options).await,
        DeadLettersVerb::Replay(options) => replay::run(options).await,
        DeadLettersVerb::Edit(options) => match &options.transform {
            Some(program) => transform::run(&options, program).await,
            None if !(options.headers.is_empty() && options.without_headers.is_empty()) => {
                edit_headers::run(options).await
            }
            None => edit::run(options).await,
        },
        DeadLettersVerb::Discard(options) => discard::run(options).await,
    }
}
