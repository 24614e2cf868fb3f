//! Services' operator listeners with recorded answers, and what was asked of them.

use std::collections::HashMap;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::command;

/// What was asked: `POST /replays`, the query, the body.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) what: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Inside {
    /// Answers by `GET /path`; the last one stays.
    answers: HashMap<String, Vec<(u16, Value)>>,
    asked: Vec<Asked>,
}

/// One service.
#[derive(Clone)]
pub(crate) struct Double {
    pub(crate) url: String,
    inside: Arc<Mutex<Inside>>,
}

impl Double {
    /// Serves until the test's runtime ends; what has no answer is a 404 as services give it.
    pub(crate) async fn serve() -> Double {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let double = Double { url, inside: Arc::default() };
        let routes = Router::new().fallback(answer).with_state(double.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        double
    }

    /// Answers `what` (`GET /dead-letters`) with this from now on, after what was said before was given once.
    pub(crate) fn says(&self, what: &str, answer: Value) -> &Self {
        self.says_with(what, 200, answer)
    }

    pub(crate) fn says_with(&self, what: &str, status: u16, answer: Value) -> &Self {
        let mut inside = self.inside.lock().unwrap();
        inside.answers.entry(what.to_owned()).or_default().push((status, answer));
        self
    }

    /// Takes back what was said of this.
    pub(crate) fn forget(&self, what: &str) {
        self.inside.lock().unwrap().answers.remove(what);
    }

    /// A list of one page.
    pub(crate) fn lists(&self, what: &str, items: Value) -> &Self {
        self.says(what, json!({"items": items, "next_cursor": null}))
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.inside.lock().unwrap().asked.clone()
    }

    /// The bodies of what was posted there.
    pub(crate) fn posted(&self, path: &str) -> Vec<Value> {
        let what = format!("POST {path}");
        self.asked().into_iter().filter(|asked| asked.what == what).map(|asked| asked.body).collect()
    }
}

async fn answer(
    State(double): State<Double>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let problem = |status: u16, code: &str, message: &str| {
        let body = json!({"title": "t", "detail": message, "error": {"code": code, "message": message, "details": []}});
        (StatusCode::from_u16(status).unwrap(), Json(body))
    };
    if headers.get("authorization").is_none_or(|token| token != "Bearer let.me.in") {
        return problem(401, "unauthenticated", "the token is not valid");
    }
    let path = uri.path().strip_prefix("/operator/v1").unwrap_or("(not the operator's API)");
    let what = format!("{method} {path}");
    let mut inside = double.inside.lock().unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let query = uri.query().unwrap_or_default().to_owned();
    inside.asked.push(Asked { what: what.clone(), query, body });
    match inside.answers.get_mut(&what) {
        Some(answers) => {
            let (status, answer) = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            (StatusCode::from_u16(status).unwrap(), Json(answer))
        }
        None => problem(404, "not_found", "there is no such thing"),
    }
}

/// Orders, inventory and payments.
pub(crate) struct Doubles {
    pub(crate) orders: Double,
    pub(crate) inventory: Double,
    pub(crate) payments: Double,
}

impl Doubles {
    pub(crate) async fn serve() -> Doubles {
        Doubles {
            orders: Double::serve().await,
            inventory: Double::serve().await,
            payments: Double::serve().await,
        }
    }

    pub(crate) fn all(&self) -> [&Double; 3] {
        [&self.orders, &self.inventory, &self.payments]
    }

    /// The same empty list from each.
    pub(crate) fn list_nothing(&self, what: &str) {
        self.all().iter().for_each(|double| {
            double.lists(what, json!([]));
        });
    }

    /// `--operator-urls` of these three.
    pub(crate) fn urls(&self) -> String {
        let [orders, inventory, payments] = self.all().map(|double| double.url.clone());
        format!("orders={orders},inventory={inventory},payments={payments}")
    }

    /// The program against these services.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Output {
        let mut run = command(arguments);
        run.env("WAYBILL_OPERATOR_URLS", self.urls()).env("WAYBILL_TOKEN", "let.me.in").output().unwrap()
    }
}
