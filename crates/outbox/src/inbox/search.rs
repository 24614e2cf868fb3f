//! Finds what is at fault in a batch that failed: in one transaction that takes its messages once, each part behind a
//! savepoint, so that one commit settles all of it.

use std::ops::Range;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tracing::Instrument as _;
use waybill_messaging::consumer::BatchError;
use waybill_messaging::message::Message;

use super::call;
use super::fault::{Trouble, is_conflict};
use super::halving::Halving;
use super::incoming::{Failure, Incoming};
use super::span::batch_span;
use super::store;
use super::transaction::{Taking, deliver, finish, judged, take};
use super::{Group, Handler};

/// Parts of one transaction. Postgres keeps 64 subtransactions of a session where others look first; with more, every
/// snapshot of every session pays. One message of 500 at fault takes 12, three of 100 take 28 at most.
const PARTS_MAX: usize = 40;
/// How long parts are begun: half of the time for which others wait for a lock of ours.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(1);

/// What came of the search.
pub(super) enum Searched {
    /// Every message is settled.
    Committed,
    /// Rolled back, and nothing is settled. What was found at fault is noted.
    GivenUp { why: &'static str },
    /// Likewise: a statement of a part ran into its time limit.
    TimedOut { why: String },
}

/// Settles a batch that failed, as if its parts were committed one after the other; or gives up, when it takes too many
/// of them, too long, or is in another's way.
pub(super) async fn in_one_transaction<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
) -> Result<Searched, BatchError> {
    let given_up = |why| Ok(Searched::GivenUp { why });
    match search(this, conn, incoming).await {
        Ok(searched) => Ok(searched),
        // Its locks come in the order of the parts, not of their keys, and it has all of them at once.
        Err(Trouble::Infrastructure(error)) if is_conflict(&error) => given_up("it lost a conflict"),
        Err(Trouble::Infrastructure(error)) => Err(error),
        Err(Trouble::ParkedMeanwhile) => given_up("another member parked a key meanwhile"),
        Err(Trouble::TimedOut { why }) => Ok(Searched::TimedOut { why }),
        Err(Trouble::Judged(_) | Trouble::Message { .. }) => given_up("its end failed, not a part of it"),
    }
}

async fn search<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
) -> Result<Searched, Trouble> {
    let started = Instant::now();
    let mut taking = take(this, conn, incoming).await?;
    let count = incoming.items.len();
    let mut halving = Halving::of(count);
    let (mut kept, mut parts, mut out) = (0, 0, Vec::new());
    while kept < count {
        let part = kept..kept + halving.next(count - kept);
        let places = to_deliver(this, &taking, incoming, &part);
        let tried = if places.is_empty() {
            // All of it is known to fail, or waits behind what does.
            Ok(Vec::new())
        } else {
            parts += 1;
            if parts > PARTS_MAX {
                return Ok(Searched::GivenUp { why: "it took too many parts" });
            }
            if started.elapsed() > SEARCH_TIME_MAX {
                return Ok(Searched::GivenUp { why: "it took too long" });
            }
            let span = batch_span(this.handler.group(), &incoming.items[part.clone()]);
            try_part(this, &mut taking.tx, incoming, &places).instrument(span).await
        };
        match tried {
            Ok(mut said) => {
                out.append(&mut said);
                halving.kept(part.len());
                kept = part.end;
            }
            // The same part again, without those.
            Err(Trouble::Judged(failures)) => {
                judged(this, incoming, failures).map_err(Trouble::Infrastructure)?
            }
            Err(Trouble::Message { class, why }) => {
                if halving.failed(part.len()) {
                    incoming.items[kept].failure = Some(Failure::at_fault(class, why));
                }
            }
            Err(trouble) => return Err(trouble),
        }
    }
    let plan = incoming.plan(&this.policy, &taking.parked);
    finish(this, taking, incoming, &plan, &out).await?;
    Ok(Searched::Committed)
}

/// The places of a part that the handler gets. What is known of those before the part does not change any more.
fn to_deliver<H: Handler>(
    this: &Group<H>,
    taking: &Taking<'_>,
    incoming: &Incoming<'_, H::Message>,
    part: &Range<usize>,
) -> Vec<usize> {
    let plan = incoming.plan(&this.policy, &taking.parked);
    plan.deliver.into_iter().filter(|place| part.contains(place)).collect()
}

/// Makes the effects of these items, or none of them; returns what the handler wants to say.
async fn try_part<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    incoming: &mut Incoming<'_, H::Message>,
    places: &[usize],
) -> Result<Vec<Message>, Trouble> {
    store::part_begin_in_tx(conn).await.map_err(Trouble::ours)?;
    let mut out = Vec::new();
    let made = match deliver(this, conn, incoming, places, &mut out).await {
        Ok(()) => call::keep(conn, &out).await,
        Err(trouble) => Err(trouble),
    };
    if let Err(Trouble::Judged(_) | Trouble::Message { .. }) = made {
        store::part_undo_in_tx(conn).await.map_err(Trouble::ours)?;
    }
    made.map(|()| out)
}
