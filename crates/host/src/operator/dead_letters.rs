//! `/dead-letters`, `/failure-groups`: look, plan, try dry, edit, give up.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_http::ApiError;
use waybill_http::detached::run_to_end;
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};
use waybill_http::params::Path;
use waybill_messaging::headers::CE_TYPE;
use waybill_outbox::operate::dead_letters::{self, DeadLetter, DeadLetterDetail, Edit, FailureGroup, Plan};
use waybill_outbox::operate::dry_run::{DRY_RUN_DEFAULT, Tried};
use waybill_outbox::operate::{Filter, Page};
use waybill_outbox::retry::header_changes::HeaderChanges;

use super::access::Operator;
use super::bodies::{self, Selected};
use super::listed::Listed;
use super::{Operated, openapi, refused};

/// Lists dead letters, newest first.
#[utoipa::path(get, path = "/operator/v1/dead-letters", tag = "dead letters", operation_id = "dead_letters_list",
    params(openapi::PageQuery, openapi::Filter),
    responses((status = 200, description = "A page.", body = Page<DeadLetter>), ReadRefusals))]
pub(super) async fn list(
    State(operated): State<Operated>,
    Listed { page, filter }: Listed<Filter>,
) -> Result<Json<Page<DeadLetter>>, ApiError> {
    dead_letters::list(&operated.pool, &filter, &page).await.map(Json).map_err(refused)
}

/// One dead letter with its headers, its bytes, its patch and its replays.
#[utoipa::path(get, path = "/operator/v1/dead-letters/{id}", tag = "dead letters", operation_id = "dead_letters_show",
    params(("id" = Uuid, Path, description = "The dead letter.")),
    responses((status = 200, description = "The dead letter.", body = DeadLetterDetail), ReadRefusals))]
pub(super) async fn show(
    State(operated): State<Operated>,
    Path(id): Path<Uuid>,
) -> Result<Json<DeadLetterDetail>, ApiError> {
    dead_letters::show(&operated.pool, id).await.map(Json).map_err(refused)
}

/// Dead letters by what they failed with; the most first.
#[utoipa::path(get, path = "/operator/v1/failure-groups", tag = "dead letters", operation_id = "failure_groups_list",
    params(openapi::PageQuery, openapi::Filter),
    responses((status = 200, description = "A page.", body = Page<FailureGroup>), ReadRefusals))]
pub(super) async fn failure_groups(
    State(operated): State<Operated>,
    Listed { page, filter }: Listed<Filter>,
) -> Result<Json<Page<FailureGroup>>, ApiError> {
    dead_letters::failure_groups(&operated.pool, &filter, &page).await.map(Json).map_err(refused)
}

/// What a replay of a selection would be; changes nothing.
#[utoipa::path(post, path = "/operator/v1/dead-letters/plan", tag = "dead letters", operation_id = "dead_letters_plan",
    request_body = Selected,
    responses((status = 200, description = "The plan.", body = Plan), ReadRefusals))]
pub(super) async fn plan(
    State(operated): State<Operated>,
    Json(body): Json<Selected>,
) -> Result<Json<Plan>, ApiError> {
    dead_letters::plan(&operated.pool, &body.filter).await.map(Json).map_err(refused)
}

/// A selection to be tried.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DryRunBody {
    /// All of it must hold; open ones unless said.
    #[serde(default)]
    #[schema(value_type = openapi::Filter)]
    filter: Filter,
    /// Letters at most.
    #[serde(default = "dry_run_default")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    limit: u32,
}

fn dry_run_default() -> u32 {
    DRY_RUN_DEFAULT
}

/// What became of each letter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TriedLetters {
    /// In the order in which a replay would send them.
    items: Vec<Tried>,
    /// How many dead letters the selection has: those beyond `items` were not tried.
    total: i64,
}

/// Has the real handler handle the first letters of a selection, in transactions that are rolled back.
///
/// Letters of one key are tried in one transaction: later ones see what earlier ones did. One dry run at a time: 503
/// `busy` with `Retry-After` while another has not ended.
#[utoipa::path(post, path = "/operator/v1/dead-letters/dry-run", tag = "dead letters",
    operation_id = "dead_letters_dry_run", request_body = DryRunBody,
    responses((status = 200, description = "What became of each.", body = TriedLetters), ReadRefusals))]
pub(super) async fn dry_run(
    State(operated): State<Operated>,
    Json(body): Json<DryRunBody>,
) -> Result<Json<TriedLetters>, ApiError> {
    // To its end: a hang-up in the middle would leave a transaction to the pool's guard.
    run_to_end(async move {
        let items = operated.dry_run.run(&body.filter, body.limit).await.map_err(refused)?;
        let total = dead_letters::plan(&operated.pool, &body.filter).await.map_err(refused)?.total;
        Ok(Json(TriedLetters { items, total }))
    })
    .await
}

/// Another payload, or other headers, for one letter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditBody {
    /// The whole framed value; null: the original's.
    #[serde(deserialize_with = "bodies::present")]
    #[schema(required)]
    payload_base64: Option<String>,
    /// Headers in place of the original's: a text is set, null takes the header away; all changes together, `{}` for none.
    /// Left out: those there are stay.
    #[schema(value_type = Option<std::collections::BTreeMap<String, Option<String>>>)]
    headers: Option<HeaderChanges>,
    /// `edited_at` of the patch that was seen, null when there was none: another one now is a 409. Left out: whatever
    /// there is.
    #[serde(default, deserialize_with = "bodies::given")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    expect_edited_at: Option<Option<DateTime<Utc>>>,
    /// Why.
    reason: String,
}

/// Puts a payload, or changes of headers, beside an open letter's original, for replays and dry runs. The original is never
/// changed. Headers that the protocol owns are refused: `ce_id`, `ce_subject`, `traceparent`, and all that begin with
/// `retry_`, `replay_` or `dlq_`.
///
/// 422 `unreadable` when the letter's group could not read it; 409 `edited_meanwhile` when the patch is not the expected
/// one.
#[utoipa::path(post, path = "/operator/v1/dead-letters/{id}/edit", tag = "dead letters",
    operation_id = "dead_letters_edit", request_body = EditBody,
    params(("id" = Uuid, Path, description = "The dead letter.")),
    responses((status = 200, description = "The dead letter.", body = DeadLetterDetail), WriteRefusals))]
pub(super) async fn edit(
    State(operated): State<Operated>,
    operator: Operator,
    Path(id): Path<Uuid>,
    Json(body): Json<EditBody>,
) -> Result<Json<DeadLetterDetail>, ApiError> {
    let change = operator.wishes(&body.reason)?;
    let payload = body.payload_base64.map(|base64| bodies::bytes("payload_base64", &base64)).transpose()?;
    let edit = Edit { id, payload, headers: body.headers, expect_edited_at: body.expect_edited_at };
    run_to_end(async move {
        readable(&operated, std::slice::from_ref(&edit)).await?;
        dead_letters::edit(&operated.pool, edit, &change).await.map(Json).map_err(refused)
    })
    .await
}

/// Refuses a payload that its letter's group could not read. (A letter whose type nobody could read is not held against
/// it.)
pub(super) async fn readable(operated: &Operated, edits: &[Edit]) -> Result<(), ApiError> {
    let ids: Vec<Uuid> = edits.iter().map(|edit| edit.id).collect();
    let kinds = dead_letters::kinds(&operated.pool, &ids).await.map_err(refused)?;
    for edit in edits {
        let other_kind = edit.headers.as_ref().and_then(|headers| headers.get(CE_TYPE)?.as_ref());
        let Some((payload, (group, kind))) = edit.payload.as_ref().zip(kinds.get(&edit.id)) else { continue };
        let Some(kind) = other_kind.or(kind.as_ref()) else { continue };
        if group != operated.dry_run.group() {
            continue;
        }
        let unreadable = |why| format!("group {group} could not read this {kind} for {}: {why}", edit.id);
        let checked = operated.dry_run.check(kind, payload);
        checked.map_err(|why| ApiError::unprocessable("unreadable", unreadable(why)))?;
    }
    Ok(())
}

/// A selection to be given up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiscardBody {
    /// All of it must hold; only open ones can be given up.
    #[schema(value_type = openapi::Filter)]
    filter: Filter,
    /// How many the plan said: another number now is a 409.
    expect: u64,
    /// Why.
    reason: String,
}

/// How many letters were given up.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Discarded {
    /// Letters.
    discarded: u64,
}

/// Gives open letters up; what waits behind them goes on.
#[utoipa::path(post, path = "/operator/v1/dead-letters/discard", tag = "dead letters",
    operation_id = "dead_letters_discard", request_body = DiscardBody,
    responses((status = 200, description = "How many.", body = Discarded), WriteRefusals))]
pub(super) async fn discard(
    State(operated): State<Operated>,
    operator: Operator,
    Json(body): Json<DiscardBody>,
) -> Result<Json<Discarded>, ApiError> {
    let change = operator.wishes(&body.reason)?;
    run_to_end(async move {
        let discarded = dead_letters::discard(&operated.pool, &body.filter, body.expect, &change).await;
        Ok(Json(Discarded { discarded: discarded.map_err(refused)? }))
    })
    .await
}
