//! `/api/v1/products`: the catalogue.

use axum::extract::State;
use axum::http::StatusCode;
use waybill_http::auth::Caller;
use waybill_http::detached::run_to_end;
use waybill_http::error::ApiError;
use waybill_http::idempotency::{IdempotencyKey, IdempotencyKeyParam, StoredResponse, request_hash_of};
use waybill_http::json::Json;
use waybill_http::openapi::{ReadRefusals, WriteRefusals};
use waybill_http::paging::{Cursor, Page, PageParams, Paged};

use super::AppState;
use super::access::{Admin, RequestCause};
use super::bodies::{NewPrice, NewProduct, ProductBody, ProductPage};
use super::parse::{self, SkuPath};
use super::refusals::unknown_sku;
use crate::commands::add_product::AddProduct;
use crate::commands::change_price::ChangePrice;
use crate::commands::once::{Claim, once};
use crate::domain::product::Product;
use crate::store::products::{product_find, product_list};

/// Adds a product to the catalogue, with no stock yet. Role `admin`.
#[utoipa::path(
    post, path = "/api/v1/products", tag = "products", operation_id = "products_add",
    params(IdempotencyKeyParam), request_body = NewProduct,
    responses((status = 201, description = "Added.", body = ProductBody), WriteRefusals)
)]
pub(super) async fn add(
    State(state): State<AppState>,
    Admin(caller): Admin,
    RequestCause(cause): RequestCause,
    key: IdempotencyKey,
    Json(body): Json<NewProduct>,
) -> Result<StoredResponse, ApiError> {
    let (sku, name, price) = parse::new_product(&body)?;
    let claim = Claim {
        scope: caller.subject,
        endpoint: "POST /api/v1/products",
        key,
        hash: request_hash_of(&body)?,
    };
    let work = AddProduct { sku, name, price, cause, answer: added };
    run_to_end(async move { Ok(once(&state.context, &claim, &work).await?) }).await
}

/// Lists the catalogue, newest first.
#[utoipa::path(
    get, path = "/api/v1/products", tag = "products", operation_id = "products_list",
    params(PageParams),
    responses((status = 200, description = "A page.", body = ProductPage), ReadRefusals)
)]
pub(super) async fn list(
    State(state): State<AppState>,
    _caller: Caller,
    page: Page,
) -> Result<Json<Paged<ProductBody>>, ApiError> {
    let after = page.cursor.map(|cursor| (cursor.created_at, cursor.id));
    let products = product_list(&state.reads, after, i64::from(page.limit) + 1).await?;
    let cursor = |product: &Product| Cursor { created_at: product.created_at, id: product.id };
    Ok(Json(Paged::from_rows(&page, products, cursor, |product| ProductBody::from(&product))))
}

/// Reads one product.
#[utoipa::path(
    get, path = "/api/v1/products/{sku}", tag = "products", operation_id = "products_read",
    params(("sku" = String, Path, description = "Stock keeping unit.")),
    responses((status = 200, description = "The product.", body = ProductBody), ReadRefusals)
)]
pub(super) async fn read(
    State(state): State<AppState>,
    _caller: Caller,
    SkuPath(sku): SkuPath,
) -> Result<Json<ProductBody>, ApiError> {
    let product = product_find(&state.reads, &sku).await?;
    let product = product.ok_or_else(|| unknown_sku(sku.as_str()))?;
    Ok(Json(ProductBody::from(&product)))
}

/// Changes the price for orders placed from now on; orders placed before keep theirs. Role `admin`.
#[utoipa::path(
    put, path = "/api/v1/products/{sku}/price", tag = "products", operation_id = "products_change_price",
    params(("sku" = String, Path, description = "Stock keeping unit."), IdempotencyKeyParam),
    request_body = NewPrice,
    responses((status = 200, description = "The product with this price.", body = ProductBody), WriteRefusals)
)]
pub(super) async fn change_price(
    State(state): State<AppState>,
    Admin(caller): Admin,
    RequestCause(cause): RequestCause,
    SkuPath(sku): SkuPath,
    key: IdempotencyKey,
    Json(body): Json<NewPrice>,
) -> Result<StoredResponse, ApiError> {
    let price = parse::new_price(&body)?;
    let claim = Claim {
        scope: caller.subject,
        endpoint: "PUT /api/v1/products/{sku}/price",
        key,
        hash: request_hash_of(&(sku.as_str(), &body))?,
    };
    let work = ChangePrice { sku, price, cause, answer: changed };
    run_to_end(async move { Ok(once(&state.context, &claim, &work).await?) }).await
}

fn added(product: &Product) -> Result<StoredResponse, ApiError> {
    let location = Some(format!("/api/v1/products/{}", product.sku));
    StoredResponse::json(StatusCode::CREATED, location, &ProductBody::from(product))
}

fn changed(product: &Product) -> Result<StoredResponse, ApiError> {
    StoredResponse::json(StatusCode::OK, None, &ProductBody::from(product))
}
