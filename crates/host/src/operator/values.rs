//! `/dead-letters/values`, `/dead-letters/edit`: many letters' values read and patched, some hundreds in a request.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use waybill_http::ApiError;
use waybill_http::detached::run_to_end;
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};
use waybill_outbox::operate::dead_letters::{self, Edit, LetterValue};

use super::access::Operator;
use super::dead_letters::readable;
use super::{Operated, bodies, refused};

/// Whose values.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ValuesBody {
    /// 1 to 500 dead letters.
    #[schema(min_items = 1, max_items = 500)]
    ids: Vec<Uuid>,
}

/// Values, in the order in which they were asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LetterValues {
    /// The first of those asked for, as many as have about 4 MiB together, at least one: ask again for the rest.
    items: Vec<LetterValue>,
}

/// What a replay would send of many letters; changes nothing.
#[utoipa::path(post, path = "/operator/v1/dead-letters/values", tag = "dead letters",
    operation_id = "dead_letters_values", request_body = ValuesBody,
    responses((status = 200, description = "The values.", body = LetterValues), ReadRefusals))]
pub(super) async fn values(
    State(operated): State<Operated>,
    Json(body): Json<ValuesBody>,
) -> Result<Json<LetterValues>, ApiError> {
    let items = dead_letters::values(&operated.pool, &body.ids).await.map_err(refused)?;
    Ok(Json(LetterValues { items }))
}

/// Other payloads for many letters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditManyBody {
    /// At most 500, and at most 8 MiB together.
    #[schema(max_items = 500)]
    items: Vec<EditItem>,
    /// Why.
    reason: String,
}

/// A payload for one of many letters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditItem {
    /// The letter.
    id: Uuid,
    /// The whole framed value; null: the original's. Changes of headers stay.
    #[serde(deserialize_with = "bodies::present")]
    #[schema(required)]
    payload_base64: Option<String>,
    /// `edited_at` of the patch that was seen, null when there was none: another one now is a 409. Left out: whatever
    /// there is.
    #[serde(default, deserialize_with = "bodies::given")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    expect_edited_at: Option<Option<DateTime<Utc>>>,
}

/// How many letters have another payload now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Edited {
    /// Letters.
    edited: u64,
}

/// Puts payloads beside open letters' originals, all or none; refused as one edit is.
#[utoipa::path(post, path = "/operator/v1/dead-letters/edit", tag = "dead letters",
    operation_id = "dead_letters_edit_many", request_body = EditManyBody,
    responses((status = 200, description = "How many.", body = Edited), WriteRefusals))]
pub(super) async fn edit_many(
    State(operated): State<Operated>,
    operator: Operator,
    Json(body): Json<EditManyBody>,
) -> Result<Json<Edited>, ApiError> {
    let change = operator.wishes(&body.reason)?;
    let edits = body.items.into_iter().enumerate().map(|(place, item)| {
        let path = format!("items[{place}].payload_base64");
        let payload = item.payload_base64.map(|base64| bodies::bytes(&path, &base64)).transpose()?;
        Ok(Edit { id: item.id, payload, headers: None, expect_edited_at: item.expect_edited_at })
    });
    let edits = edits.collect::<Result<Vec<_>, ApiError>>()?;
    run_to_end(async move {
        readable(&operated, &edits).await?;
        let edited = dead_letters::edit_many(&operated.pool, &edits, &change).await.map_err(refused)?;
        Ok(Json(Edited { edited }))
    })
    .await
}
