//! One service's operator listener: requests, pages, and what its refusals mean.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use waybill_explain::Source;

use crate::exit::Usage;

/// How long one answer may take: longer than a service gives itself (75 s), so that it can say why it was not done.
const REQUEST_MS_MAX: u64 = 90_000;
/// How long connecting may take: a listener that is there answers at once.
const CONNECT_MS_MAX: u64 = 5_000;
/// Rows of one page; the API gives no more.
const PAGE_ROWS_MAX: u64 = 500;
/// How every listener answers for a path that it does not know.
const ROUTE_NOT_FOUND: &str = "route_not_found";

pub(crate) struct Service {
    name: String,
    url: Url,
    client: Client,
    token: HeaderValue,
}

/// Rows of one or several services; each is an object with the member `service`.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) items: Vec<Value>,
    /// Whether there are no more.
    pub(crate) complete: bool,
}

impl Default for Listed {
    fn default() -> Self {
        Self { items: Vec::new(), complete: true }
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next_cursor: Option<String>,
}

/// The one error body of every service, as far as it is shown.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    detail: String,
    error: Envelope,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope {
    code: String,
    message: String,
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    path: String,
    message: String,
}

impl Service {
    pub(crate) fn new(name: &str, url: &str, token: &str) -> anyhow::Result<Self> {
        let limits = Client::builder()
            .timeout(Duration::from_millis(REQUEST_MS_MAX))
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX));
        let client = limits.build().context("no HTTP client can be made")?;
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = parsed.with_context(|| Usage(format!("{name}: {url:?} is no http or https URL")))?;
        let token = HeaderValue::try_from(format!("Bearer {token}"));
        let mut token =
            token.map_err(|_| Usage("the access token has characters no token has".to_owned()))?;
        token.set_sensitive(true);
        Ok(Self { name: name.to_owned(), url, client, token })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// An answer to GET; `None` for what is not there.
    pub(crate) async fn get_optional<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<Option<T>> {
        self.send(self.request(Method::GET, path, query)?, path).await
    }

    /// An answer to GET.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        let answer = self.get_optional(path, query).await?;
        answer.with_context(|| format!("{} has no {}", self.name, path.join("/")))
    }

    /// An answer to POST.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &Value) -> anyhow::Result<T> {
        let answer = self.send(self.request(Method::POST, path, &[])?.json(body), path).await?;
        answer.with_context(|| format!("{} has no {}", self.name, path.join("/")))
    }

    /// At most `limit` rows of a list, page after page.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: u64,
    ) -> anyhow::Result<Listed> {
        let list = self.list_optional(path, query, limit).await?;
        list.with_context(|| format!("{} has no list of {}", self.name, path.join("/")))
    }

    /// The same, `None` where the service has no such list.
    pub(crate) async fn list_optional(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: u64,
    ) -> anyhow::Result<Option<Listed>> {
        let mut listed = Listed::default();
        let mut cursor: Option<String> = None;
        loop {
            let have = listed.items.len() as u64;
            let mut query = query.to_vec();
            query.push(("limit", (limit - have).min(PAGE_ROWS_MAX).to_string()));
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let Some(page) = self.get_optional::<Page>(path, &query).await? else { return Ok(None) };
            let is_empty = page.items.is_empty();
            listed.items.extend(page.items.into_iter().map(|item| self.named(item)));
            match page.next_cursor {
                None => return Ok(Some(listed)),
                Some(_) if is_empty => bail!("{} gives page after page without rows", self.name),
                Some(_) if listed.items.len() as u64 >= limit => {
                    listed.complete = false;
                    return Ok(Some(listed));
                }
                next => cursor = next,
            }
        }
    }

    /// The object with the service's name in it.
    pub(crate) fn named(&self, mut item: Value) -> Value {
        if let Value::Object(object) = &mut item {
            object.insert("service".to_owned(), Value::String(self.name.clone()));
        }
        item
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<RequestBuilder> {
        let mut url = self.url.clone();
        let segments = url.path_segments_mut();
        let mut segments = segments.map_err(|()| anyhow!("{} has an URL that takes no path", self.name))?;
        segments.pop_if_empty().extend(["operator", "v1"]).extend(path);
        drop(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.client.request(method, url).header(AUTHORIZATION, &self.token))
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        path: &[&str],
    ) -> anyhow::Result<Option<T>> {
        let (name, url) = (&self.name, &self.url);
        let answer = request.send().await.with_context(|| {
            format!("{name} can not be asked at {url} (--operator-urls, WAYBILL_OPERATOR_URLS)")
        })?;
        let status = answer.status();
        if status.is_success() {
            let read = answer.json().await;
            let read =
                read.with_context(|| format!("the answer of {name} to {} can not be read", path.join("/")));
            return read.map(Some);
        }
        let problem: Problem = answer.json().await.unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND if problem.is_of_the_path_asked() => Ok(None),
            StatusCode::NOT_FOUND => {
                bail!("{url} is no operator listener: it knows nothing of {}", path.join("/"))
            }
            StatusCode::UNAUTHORIZED => bail!(
                "{name} does not accept the access token: {}; take another (in development \
                 `cargo xtask token --sub me --role operator` prints one)",
                problem.text()
            ),
            StatusCode::FORBIDDEN => {
                bail!("{name} lets only operators in: {}; the token needs the role operator", problem.text())
            }
            status => bail!("{name} refused {} with {status}: {}", path.join("/"), problem.text()),
        }
    }
}

impl Source for Service {
    fn name(&self) -> &str {
        &self.name
    }

    async fn facts(&self, correlation_id: &str, message_ids: &str) -> Result<Value, String> {
        let ids = Some(message_ids).filter(|ids| !ids.is_empty());
        let query: Vec<_> = ids.map(|ids| ("message_ids", ids.to_owned())).into_iter().collect();
        self.get(&["facts", correlation_id], &query).await.map_err(|error| format!("{error:#}"))
    }
}

impl Problem {
    /// Whether a 404 is about what lies at a path that the listener knows. Any other server's 404 says nothing of it, and
    /// so does that of a service's other listener, which has the same body.
    fn is_of_the_path_asked(&self) -> bool {
        let told = !self.error.code.is_empty() || !self.detail.is_empty();
        told && self.error.code != ROUTE_NOT_FOUND
    }

    fn text(&self) -> String {
        let what = if self.error.message.is_empty() { &self.detail } else { &self.error.message };
        let what = if what.is_empty() { "it does not say why" } else { what };
        let details = self.error.details.iter().map(|detail| format!("{}: {}", detail.path, detail.message));
        let details: Vec<String> = details.collect();
        if details.is_empty() { what.to_owned() } else { format!("{what} ({})", details.join("; ")) }
    }
}
