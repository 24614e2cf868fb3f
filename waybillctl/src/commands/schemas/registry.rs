//! A schema registry with Confluent's API, as far as the contract needs it.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::local::Message;
use crate::cli::Subjects;
use crate::exit::Usage;

/// How long one answer may take.
const REQUEST_MS_MAX: u64 = 15_000;
/// Versions of one message that are compared; more are a loop in somebody's build.
const VERSIONS_MAX: usize = 1_000;

pub(super) struct Registry {
    client: Client,
    url: String,
    subjects: Subjects,
}

/// A version of a message as the registry has it.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) id: u32,
    pub(super) schema: String,
    pub(super) version: u32,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

impl Registry {
    pub(super) fn new(url: &str, subjects: Subjects) -> anyhow::Result<Self> {
        let is_one = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        // Not shown: it may hold a password.
        ensure!(
            is_one,
            Usage("what --registry (SCHEMA_REGISTRY_URL) says is no http or https URL".to_owned())
        );
        let limit = Duration::from_millis(REQUEST_MS_MAX);
        let client = Client::builder().timeout(limit).build().context("no HTTP client can be made")?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), subjects })
    }

    /// Where it is, without a password.
    pub(super) fn url(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => self.url.clone(),
        }
    }

    /// The subject a message is registered under.
    pub(super) fn subject(&self, message: &Message) -> anyhow::Result<String> {
        match (self.subjects, &message.topic) {
            (Subjects::Record, _) => Ok(message.name.clone()),
            (Subjects::TopicRecord, Some(topic)) => Ok(format!("{topic}-{}", message.name)),
            (Subjects::TopicRecord, None) => bail!("{} is on no topic, and so has no subject", message.name),
        }
    }

    /// Every version of a message; none when it was never registered.
    pub(super) async fn versions(&self, message: &Message) -> anyhow::Result<Vec<Version>> {
        let subject = self.subject(message)?;
        let path = format!("subjects/{subject}/versions");
        let Some(numbers) = self.ask::<Vec<u32>>(Method::GET, &path, None).await? else {
            return Ok(Vec::new());
        };
        ensure!(numbers.len() <= VERSIONS_MAX, "{subject} has {} versions", numbers.len());
        let mut versions = Vec::with_capacity(numbers.len());
        for number in numbers {
            let version = self.ask(Method::GET, &format!("{path}/{number}"), None).await?;
            versions.push(version.with_context(|| format!("version {number} of {subject} went away"))?);
        }
        Ok(versions)
    }

    /// Whether any schema has this id already.
    pub(super) async fn id_is_taken(&self, id: u32) -> anyhow::Result<bool> {
        Ok(self.ask::<Json>(Method::GET, &format!("schemas/ids/{id}"), None).await?.is_some())
    }

    /// Lets the subject take ids that are given, or no more; `false` where the registry knows no such mode.
    pub(super) async fn import_mode(&self, subject: &str, on: bool) -> anyhow::Result<bool> {
        let mode = if on { "IMPORT" } else { "READWRITE" };
        let url = format!("{}/mode/{subject}", self.url);
        let answer = self.client.put(&url).json(&json!({ "mode": mode })).send().await;
        let answer = answer.with_context(|| self.unreachable())?;
        let status = answer.status();
        if matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            return Ok(false);
        }
        if !status.is_success() {
            let said = answer.text().await.unwrap_or_default();
            bail!("the registry refused mode {mode} for {subject} with {status}: {}", said.trim());
        }
        Ok(true)
    }

    /// Registers a schema, under this id and version where they are given; returns the id it has.
    pub(super) async fn register(
        &self,
        subject: &str,
        schema: &str,
        import: Option<(u32, u32)>,
    ) -> anyhow::Result<u32> {
        let mut body = json!({ "schema": schema, "schemaType": "AVRO" });
        if let Some((id, version)) = import {
            body["id"] = json!(id);
            body["version"] = json!(version);
        }
        let path = format!("subjects/{subject}/versions");
        let answer: Option<Registered> = self.ask(Method::POST, &path, Some(&body)).await?;
        Ok(answer.with_context(|| format!("the registry has no place {path}"))?.id)
    }

    /// One question; `None` for what is not found there.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> anyhow::Result<Option<T>> {
        let mut request = self.client.request(method, format!("{}/{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| self.unreachable())?;
        let status = answer.status();
        if status == StatusCode::NOT_FOUND {
            let said: Json = answer.json().await.unwrap_or_default();
            // The registry's own codes: no such subject, version, schema. Anything else is another server's 404.
            if matches!(said["error_code"].as_i64(), Some(40401..=40403)) {
                return Ok(None);
            }
            bail!("{} is no schema registry: it knows nothing of /{path}", self.url());
        }
        if !status.is_success() {
            let said = answer.text().await.unwrap_or_default();
            bail!("the registry at {} answers /{path} with {status}: {}", self.url(), said.trim());
        }
        let read = answer.json().await;
        Ok(Some(read.with_context(|| format!("the registry's answer to /{path} can not be read"))?))
    }

    fn unreachable(&self) -> String {
        format!("the registry at {} can not be asked; check --registry (SCHEMA_REGISTRY_URL)", self.url())
    }
}
