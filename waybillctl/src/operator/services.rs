//! Several services asked at once. One that can not be asked is an error: what is missing is not the same as nothing.

use anyhow::{Context as _, bail, ensure};
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::service::{Listed, Service};
use crate::cli;
use crate::exit::Usage;

/// The environment variable with the access token.
const TOKEN: &str = "WAYBILL_TOKEN";
/// How services are named.
const URLS_ARE: &str = "--operator-urls is orders=http://127.0.0.1:9083,...";

/// Those that are asked.
pub(crate) struct Services {
    all: Vec<Service>,
    /// Names of those that `--service` leaves out.
    left_out: Vec<String>,
}

/// Something that lies at one service.
pub(crate) struct Found<'a> {
    pub(crate) service: &'a Service,
    pub(crate) value: Value,
}

impl Services {
    pub(crate) fn new(options: &cli::Services) -> anyhow::Result<Self> {
        let token = token(options)?;
        let mut all = Vec::new();
        for named in options.operator_urls.split(',').map(str::trim).filter(|named| !named.is_empty()) {
            let (name, url) = named
                .split_once('=')
                .with_context(|| Usage(format!("{named:?} is no name=URL; {URLS_ARE}")))?;
            all.push(Service::new(name.trim(), url.trim(), &token)?);
        }
        ensure!(!all.is_empty(), Usage(format!("no service is named; {URLS_ARE}")));
        let mut left_out = Vec::new();
        if let Some(only) = &options.service {
            left_out.extend(all.iter().map(|service| service.name().to_owned()).filter(|name| name != only));
            all.retain(|service| service.name() == only);
            ensure!(!all.is_empty(), Usage(format!("--service {only} is none of {}", left_out.join(", "))));
        }
        Ok(Self { all, left_out })
    }

    /// Names of those that are not asked, by the operator's own choice.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    pub(crate) fn all(&self) -> &[Service] {
        &self.all
    }

    /// Asks each the same, all at once; an error names all that could not be asked.
    pub(crate) async fn each<'a, T, F: Future<Output = anyhow::Result<T>>>(
        &'a self,
        ask: impl Fn(&'a Service) -> F,
    ) -> anyhow::Result<Vec<(&'a Service, T)>> {
        let answers = join_all(self.all.iter().map(ask)).await;
        let mut given = Vec::new();
        let mut problems = Vec::new();
        for (service, answer) in self.all.iter().zip(answers) {
            match answer {
                Ok(answer) => given.push((service, answer)),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        match (problems.len(), given.len()) {
            (0, _) => Ok(given),
            (1, 0) => bail!(problems.remove(0)),
            (_, 0) => bail!("no service could be asked:\n  {}", problems.join("\n  ")),
            _ => bail!(
                "{} of {} services could not be asked (--service NAME asks one alone):\n  {}",
                problems.len(),
                self.all.len(),
                problems.join("\n  ")
            ),
        }
    }

    /// A list of each, at most `limit` rows a service.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: u64,
    ) -> anyhow::Result<Listed> {
        let lists = self.each(|service| service.list(path, query, limit)).await?;
        let mut all = Listed::default();
        for (_, list) in lists {
            all.complete &= list.complete;
            all.items.extend(list.items);
        }
        Ok(all)
    }

    /// The one thing of this path, wherever it is. `what` names it in the error.
    pub(crate) async fn find(&self, path: &[&str], what: &str) -> anyhow::Result<Found<'_>> {
        let answers = self.each(|service| service.get_optional::<Value>(path, &[])).await?;
        let mut found =
            answers.into_iter().filter_map(|(service, value)| Some(Found { service, value: value? }));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => {
                let names: Vec<&str> = self.all.iter().map(Service::name).collect();
                bail!("there is no {what} at {}", names.join(", "))
            }
            (Some(one), Some(other)) => bail!(
                "{} and {} both have {what}: name one with --service",
                one.service.name(),
                other.service.name()
            ),
        }
    }
}

impl Found<'_> {
    pub(crate) fn view<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        view(&self.value)
    }
}

/// A value as this program knows it.
pub(crate) fn view<T: DeserializeOwned>(value: &Value) -> anyhow::Result<T> {
    T::deserialize(value).with_context(|| {
        "a service's answer lacks what this program needs: it may be of another version".to_owned()
    })
}

fn token(options: &cli::Services) -> anyhow::Result<String> {
    let text = match &options.token_file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| Usage(format!("the token file {} can not be read", path.display())))?,
        None => std::env::var(TOKEN).unwrap_or_default(),
    };
    let token = text.trim();
    ensure!(
        !token.is_empty(),
        Usage(format!(
            "no access token: set {TOKEN} or give --token-file FILE (role operator; in development \
             `cargo xtask token --sub me --role operator` prints one)"
        ))
    );
    Ok(token.to_owned())
}
