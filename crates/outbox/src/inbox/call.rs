//! Calling the handler, and appending what it says: whatever goes wrong is sorted by whose fault it is.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use sqlx::PgConnection;
use waybill_messaging::message::Message;

use super::fault::{Trouble, chain};
use super::{Delivery, Group, Handler, Verdict, store};
use crate::append;

/// Calls the handler for one wave; a panic is trouble with a message. One verdict per delivery.
pub(crate) async fn handle<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    wave: &[Delivery<H::Message>],
    out: &mut Vec<Message>,
) -> Result<Vec<Verdict>, Trouble> {
    // Unwind safe: after a panic the transaction is rolled back and everything the handler touched is dropped.
    let handling = AssertUnwindSafe(this.handler.handle(conn, wave, out)).catch_unwind();
    let handled = match wave {
        // Alone, its lines are about it; among others the handler tells whose.
        [delivery] => delivery.envelope.story().follow(handling).await,
        _ => handling.await,
    };
    let verdicts = match handled {
        Ok(verdicts) => verdicts?,
        Err(panic) => return Err(Trouble::Message { class: "panic", why: panic_text(panic.as_ref()) }),
    };
    if verdicts.len() != wave.len() {
        let why = format!("the handler answered {} verdicts for {} messages", verdicts.len(), wave.len());
        return Err(Trouble::Message { class: "fault", why });
    }
    Ok(verdicts)
}

/// Appends what the handler wants to say.
pub(crate) async fn say<H: Handler>(
    this: &Group<H>,
    conn: &mut PgConnection,
    out: &[Message],
) -> Result<(), Trouble> {
    let said = if out.is_empty() {
        store::alive_in_tx(conn).await
    } else {
        append::append(conn, &this.prefix, out).await
    };
    said.map_err(|error| match error {
        // Too large: that is about the message.
        error @ sqlx::Error::Encode(_) => too_large(&error),
        error if is_aborted(&error) => swallowed(),
        error => Trouble::ours(error),
    })
}

/// Ends a part of the transaction whose effects stay, as far as they can be judged before the commit: what the handler
/// wants to say can be appended, it swallowed no error, and no constraint that is checked at the commit is broken.
pub(super) async fn keep(conn: &mut PgConnection, out: &[Message]) -> Result<(), Trouble> {
    append::limits_check(out).map_err(|error| too_large(&sqlx::Error::Encode(error.into())))?;
    store::part_keep_in_tx(conn).await.map_err(|error| match error {
        error if is_aborted(&error) => swallowed(),
        error => Trouble::commit(error),
    })
}

fn too_large(error: &sqlx::Error) -> Trouble {
    Trouble::Message { class: "fault", why: chain(error) }
}

/// Whether a statement before this one failed and nobody said so.
fn is_aborted(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("25P02"))
}

fn swallowed() -> Trouble {
    let why = "the handler went on after a failed statement instead of returning its error";
    Trouble::Message { class: "fault", why: why.to_owned() }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the handler panicked".to_owned())
}
