//! A small schema registry with Confluent's API, for tests: in memory, with or without import of ids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Held {
    /// By subject: id and schema of each version.
    pub(crate) subjects: BTreeMap<String, Vec<(u32, String)>>,
    importing: BTreeMap<String, bool>,
    knows_modes: bool,
}

#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) url: String,
    pub(crate) held: Arc<Mutex<Held>>,
}

type Answer = (StatusCode, Json<Value>);

impl Registry {
    /// Serves until the test's runtime ends.
    pub(crate) async fn serve(knows_modes: bool) -> Registry {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let held = Arc::new(Mutex::new(Held { knows_modes, ..Held::default() }));
        let registry = Registry { url, held };
        let routes = Router::new()
            .route("/subjects/{subject}/versions", get(versions).post(register))
            .route("/subjects/{subject}/versions/{version}", get(version))
            .route("/schemas/ids/{id}", get(schema))
            .route("/mode/{subject}", put(mode))
            .with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        registry
    }

    pub(crate) fn add(&self, subject: &str, id: u32, schema: &str) {
        let mut held = self.held.lock().unwrap();
        held.subjects.entry(subject.to_owned()).or_default().push((id, schema.to_owned()));
    }
}

fn not_found(code: i64) -> Answer {
    (StatusCode::NOT_FOUND, Json(json!({"error_code": code, "message": "not found"})))
}

async fn versions(State(registry): State<Registry>, Path(subject): Path<String>) -> Answer {
    match registry.held.lock().unwrap().subjects.get(&subject) {
        Some(versions) => (StatusCode::OK, Json(json!((1..=versions.len()).collect::<Vec<_>>()))),
        None => not_found(40401),
    }
}

async fn version(
    State(registry): State<Registry>,
    Path((subject, version)): Path<(String, usize)>,
) -> Answer {
    let held = registry.held.lock().unwrap();
    match held.subjects.get(&subject).and_then(|versions| versions.get(version - 1)) {
        Some((id, schema)) => {
            let body = json!({"subject": subject, "id": id, "version": version, "schema": schema});
            (StatusCode::OK, Json(body))
        }
        None => not_found(40402),
    }
}

async fn schema(State(registry): State<Registry>, Path(id): Path<u32>) -> Answer {
    let held = registry.held.lock().unwrap();
    match held.subjects.values().flatten().find(|(known, _)| *known == id) {
        Some((_, schema)) => (StatusCode::OK, Json(json!({ "schema": schema }))),
        None => not_found(40403),
    }
}

async fn mode(
    State(registry): State<Registry>,
    Path(subject): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let mut held = registry.held.lock().unwrap();
    if !held.knows_modes {
        return (StatusCode::NOT_FOUND, Json(json!({"error_code": 404, "message": "HTTP 404 Not Found"})));
    }
    held.importing.insert(subject, body["mode"] == "IMPORT");
    (StatusCode::OK, Json(body))
}

async fn register(
    State(registry): State<Registry>,
    Path(subject): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let mut held = registry.held.lock().unwrap();
    let highest = held.subjects.values().flatten().map(|(id, _)| *id).max().unwrap_or_default();
    let id = match (body["id"].as_u64(), held.importing.get(&subject)) {
        (Some(id), Some(true)) => u32::try_from(id).unwrap(),
        (Some(_), _) => {
            let refusal = json!({"error_code": 42205, "message": "Subject is not in import mode"});
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal));
        }
        (None, _) => highest + 1,
    };
    let schema = body["schema"].as_str().unwrap().to_owned();
    held.subjects.entry(subject).or_default().push((id, schema));
    (StatusCode::OK, Json(json!({ "id": id })))
}
