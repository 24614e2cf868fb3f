//! Which path is which handler.

use axum::Router;
use axum::routing::{get, post};

use super::{Operated, audit, dead_letters, explain, facts, outbox, parked, replays, sagas, values};

pub(super) fn all() -> Router<Operated> {
    Router::new().nest("/operator/v1", letters().merge(rest()))
}

fn letters() -> Router<Operated> {
    Router::new()
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/dead-letters/plan", post(dead_letters::plan))
        .route("/dead-letters/dry-run", post(dead_letters::dry_run))
        .route("/dead-letters/edit", post(values::edit_many))
        .route("/dead-letters/values", post(values::values))
        .route("/dead-letters/{id}/edit", post(dead_letters::edit))
        .route("/dead-letters/discard", post(dead_letters::discard))
        .route("/failure-groups", get(dead_letters::failure_groups))
        .route("/replays", get(replays::list).post(replays::create))
        .route("/replays/{id}", get(replays::show))
        .route("/replays/{id}/pause", post(replays::pause))
        .route("/replays/{id}/resume", post(replays::resume))
        .route("/replays/{id}/cancel", post(replays::cancel))
        .route("/parked", get(parked::list))
        .route("/parked/{group}/{key}", get(parked::show))
}

fn rest() -> Router<Operated> {
    Router::new()
        .route("/outbox", get(outbox::status))
        .route("/outbox/republish", post(outbox::republish))
        .route("/sagas", get(sagas::list))
        .route("/sagas/{name}/{key}", get(sagas::show))
        .route("/sagas/{name}/{key}/retry", post(sagas::retry))
        .route("/sagas/{name}/{key}/skip", post(sagas::skip))
        .route("/sagas/{name}/{key}/abandon", post(sagas::abandon))
        .route("/facts/{correlation_id}", get(facts::facts))
        .route("/explain/{correlation_id}", get(explain::explain))
        .route("/audit", get(audit::list))
}
