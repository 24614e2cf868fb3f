//! The OpenAPI document of the operators' listener; committed as `operator-openapi.json`, which a test keeps current.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi as _, ToSchema};
use uuid::Uuid;
use waybill_http::openapi::Common;

use super::{audit, dead_letters, explain, facts, outbox, parked, replays, sagas, values};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Waybill operators' API",
        description = "What operators look at and mend, the same on every service (sagas: only where there are some). Every \
                       route needs the role operator; every change needs a reason and is kept in the audit."
    ),
    paths(
        dead_letters::list, dead_letters::show, dead_letters::failure_groups, dead_letters::plan,
        dead_letters::dry_run, dead_letters::edit, values::values, values::edit_many, dead_letters::discard,
        replays::create, replays::list, replays::show, replays::pause, replays::resume, replays::cancel,
        parked::list, parked::show, outbox::status, outbox::republish,
        sagas::list, sagas::show, sagas::retry, sagas::skip, sagas::abandon, facts::facts, explain::explain,
        audit::list,
    ),
    modifiers(&Common)
)]
struct Document;

/// The document, OpenAPI 3.1.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Documents the page of every list; read by `Listed`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documentation only")]
pub(super) struct PageQuery {
    /// Most rows of this page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which dead letters: all of it must hold.
// Documents `waybill_outbox::operate::Filter`; a test compares the fields.
#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documentation only")]
pub(super) struct Filter {
    /// The consumer group, without prefix.
    group: Option<String>,
    /// The topic it first lay on, with prefix.
    topic: Option<String>,
    /// `ce_type`.
    kind: Option<String>,
    /// The key, when it is text.
    key: Option<String>,
    /// The key, when it is not.
    key_base64: Option<String>,
    /// The class it failed with.
    error_class: Option<String>,
    /// 16 hexadecimal digits, from `/failure-groups`.
    failure_group: Option<String>,
    /// `open` (default), `replaying`, `resolved`, `discarded` or `any`.
    #[schema(default = "open")]
    #[param(default = "open")]
    state: Option<String>,
    /// `ce_id`.
    message_id: Option<Uuid>,
    /// The story it belongs to: for orders, the order's id.
    correlation_id: Option<Uuid>,
    /// Failed last at this time or later.
    from: Option<DateTime<Utc>>,
    /// Failed last before this time.
    to: Option<DateTime<Utc>>,
    /// Only these, in bodies only; at most 10,000.
    #[param(ignore)]
    ids: Option<Vec<Uuid>>,
}

/// Documents the filter of parked keys.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documentation only")]
pub(super) struct ParkedQuery {
    /// The consumer group.
    group: Option<String>,
    /// `retrying`, `draining` or `blocked`.
    state: Option<String>,
}

/// Documents the filter of sagas.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documentation only")]
pub(super) struct SagaQuery {
    /// `running`, `compensating`, `completed`, `compensated`, `stuck` or `abandoned`.
    state: Option<String>,
    /// The saga's name.
    name: Option<String>,
    /// Its key.
    key: Option<Uuid>,
}
