//! OpenAPI 3.1: serving a service's document, and the parts every document shares.

use std::collections::BTreeMap;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr, Response};
use utoipa::{IntoResponses, Modify, PartialSchema, ToSchema};

use crate::error::{ErrorEnvelope, FieldError, Problem};

/// Where every service serves its document.
pub const PATH: &str = "/api/v1/openapi.json";

/// Serves the document at [`PATH`]; merge it into the service's router.
///
/// # Panics
/// When the document can not be written as JSON: a fault of the program, seen at its first start.
pub fn route(document: OpenApi) -> Router {
    route_at(PATH, document)
}

/// Serves the document at another path: a second listener's.
///
/// # Panics
/// As [`route`].
pub fn route_at(path: &str, document: OpenApi) -> Router {
    let json = document.to_pretty_json().expect("an OpenAPI document is plain JSON");
    let body = axum::body::Bytes::from(json);
    let answer = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    Router::new().route(path, get(answer))
}

/// Adds what every document shares: the bearer token (required everywhere) and the schemas of the error body.
///
/// `use waybill_http::openapi::Common;` and `#[openapi(modifiers(&Common))]` (the macro takes a bare name only).
#[derive(Debug, Clone, Copy)]
pub struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.bearer_format = Some("JWT".to_owned());
        components.add_security_scheme("access_token", SecurityScheme::Http(bearer));
        for (name, schema) in [
            (Problem::name(), Problem::schema()),
            (ErrorEnvelope::name(), ErrorEnvelope::schema()),
            (FieldError::name(), FieldError::schema()),
        ] {
            components.schemas.insert(name.into_owned(), schema);
        }
        document.security = Some(vec![SecurityRequirement::new("access_token", Vec::<String>::new())]);
    }
}

/// The refusals of a read: name it in `responses(...)`.
#[derive(Debug, Clone, Copy)]
pub struct ReadRefusals;

impl IntoResponses for ReadRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[
            ("400", "A parameter is wrong; `error.details` names it."),
            ("401", "No access token, or one that does not hold."),
            ("403", "The caller's role may not do this."),
            ("404", "There is no such thing, or it is another's."),
            ("503", "A dependency is away or overloaded: try again after `Retry-After`."),
        ])
    }
}

/// The refusals of a write that takes an idempotency key: name it in `responses(...)`.
#[derive(Debug, Clone, Copy)]
pub struct WriteRefusals;

impl IntoResponses for WriteRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = ReadRefusals::responses();
        all.extend(refusals(&[
            ("400", "The body, a header or a parameter is wrong; `error.details` names each field."),
            ("409", "The first request with this key still runs, or the present state does not allow it."),
            ("413", "The body is over 64 KiB."),
            ("415", "The body is not `application/json`."),
            ("422", "The key was used with another body, or the request can not be done."),
        ]));
        all
    }
}

fn refusals(texts: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let one = |text: &str| {
        utoipa::openapi::ResponseBuilder::new()
            .description(text)
            .content(
                "application/problem+json",
                utoipa::openapi::ContentBuilder::new()
                    .schema(Some(utoipa::openapi::Ref::from_schema_name(Problem::name())))
                    .build(),
            )
            .build()
    };
    texts.iter().map(|(status, text)| ((*status).to_owned(), RefOr::T(one(text)))).collect()
}
