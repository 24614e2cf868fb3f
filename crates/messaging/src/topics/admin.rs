//! Asking the brokers about topics, and creating those that are missing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::TopicsError;
use super::manifest::{Manifest, Topic};
use super::plan::{Found, Plan, TopicPlan};

/// How long one question to the brokers may take. A healthy broker answers in milliseconds; this outlasts an election.
const REQUEST_MS_MAX: u64 = 15_000;
/// How often, and how many times, created topics are looked for until every partition has a leader: 20 s together.
const USABLE_POLL_MS: u64 = 100;
const USABLE_POLLS_MAX: u64 = 200;

/// Copies of each partition of a created topic where nobody says otherwise: a development broker is alone.
pub const REPLICATION_DEFAULT: i32 = 1;

/// A connection for looking after topics. Cheap to clone; all names it is given are without prefix.
#[derive(Clone)]
pub struct TopicAdmin {
    client: Arc<AdminClient<DefaultClientContext>>,
    brokers: String,
    prefix: String,
}

/// What [`TopicAdmin::apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Full names of the topics it created, in the manifest's order.
    pub created: Vec<String>,
    /// How the brokers differ from the manifest afterwards: in drift only.
    pub plan: Plan,
}

/// What metadata says of a topic.
struct Shape {
    partitions: i32,
    replication: i32,
    has_leaders: bool,
}

impl TopicAdmin {
    /// Makes the client; it connects when it is first used. `config` holds `bootstrap.servers` and security settings,
    /// `prefix` is put before every topic name as it is (`t1.` makes `t1.orders.events`).
    ///
    /// # Errors
    /// [`TopicsError::Client`] for settings librdkafka refuses.
    pub fn new(config: &ClientConfig, prefix: &str) -> Result<Self, TopicsError> {
        let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
        match config.create() {
            Ok(client) => Ok(Self { client: Arc::new(client), brokers, prefix: prefix.to_owned() }),
            Err(source) => Err(TopicsError::Client { brokers, source }),
        }
    }

    /// Compares every topic of the manifest with the brokers; changes nothing. The replication factor is compared when
    /// it is given.
    ///
    /// # Errors
    /// [`TopicsError::Brokers`] when they do not answer, [`TopicsError::Refused`] when they may not tell.
    pub async fn plan(&self, manifest: &Manifest, replication: Option<i32>) -> Result<Plan, TopicsError> {
        self.compare(manifest.topics().iter().collect(), replication).await
    }

    /// Creates the topics that are missing, waits until they can be used, and compares again. Existing topics are never
    /// changed. Doing it twice, or twice at the same time, does no harm. Without a replication factor, topics get
    /// [`REPLICATION_DEFAULT`] and that of existing ones is not compared.
    ///
    /// # Errors
    /// As [`Self::plan`]; [`TopicsError::Refused`] names the first topic the brokers did not create (others may have
    /// been: run it again after mending), [`TopicsError::NotUsable`] when they are too slow.
    pub async fn apply(&self, manifest: &Manifest, replication: Option<i32>) -> Result<Applied, TopicsError> {
        let shapes = self.shapes().await?;
        let missing: Vec<&Topic> = manifest
            .topics()
            .iter()
            .filter(|topic| !shapes.contains_key(&self.full_name(&topic.name)))
            .collect();
        let created = self.create(&missing, replication.unwrap_or(REPLICATION_DEFAULT)).await?;
        self.usable_wait(&missing).await?;
        let plan = self.plan(manifest, replication).await?;
        Ok(Applied { created, plan })
    }

    /// What a service asks before it works: are these topics there, shaped as declared?
    ///
    /// # Errors
    /// [`TopicsError::NotAsDeclared`] names each problem and its mend; [`TopicsError::Undeclared`] for a name that is
    /// not in the manifest; else as [`Self::plan`]. Where [`TopicsError::is_transient`], ask again later.
    pub async fn check(&self, manifest: &Manifest, names: &[&str]) -> Result<(), TopicsError> {
        let topics = names.iter().map(|name| manifest.topic(name)).collect::<Result<_, _>>()?;
        let plan = self.compare(topics, None).await?;
        if plan.is_as_declared() {
            Ok(())
        } else {
            Err(TopicsError::NotAsDeclared { problems: plan.problems() })
        }
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn compare(&self, topics: Vec<&Topic>, replication: Option<i32>) -> Result<Plan, TopicsError> {
        let mut found = self.found(&topics).await?;
        let compared = topics.into_iter().map(|topic| {
            let name = self.full_name(&topic.name);
            let found = found.remove(&name);
            TopicPlan::compare(topic, name, found.as_ref(), replication)
        });
        Ok(Plan { topics: compared.collect() })
    }

    /// Shape and settings of those of these topics that the brokers have, by full name.
    async fn found(&self, topics: &[&Topic]) -> Result<HashMap<String, Found>, TopicsError> {
        let shapes = self.shapes().await?;
        let names: Vec<String> = topics.iter().map(|topic| self.full_name(&topic.name)).collect();
        let present: Vec<&str> =
            names.iter().filter(|name| shapes.contains_key(*name)).map(String::as_str).collect();
        let mut settings = self.settings(&present).await?;
        let found = present.into_iter().filter_map(|name| {
            let Shape { partitions, replication, .. } = shapes[name];
            let found = Found { partitions, replication, settings: settings.remove(name)? };
            Some((name.to_owned(), found))
        });
        Ok(found.collect())
    }

    /// Shape of every topic the brokers have. All are asked for, since asking for one by name may create it.
    async fn shapes(&self) -> Result<HashMap<String, Shape>, TopicsError> {
        let client = Arc::clone(&self.client);
        let timeout = Duration::from_millis(REQUEST_MS_MAX);
        let asked = tokio::task::spawn_blocking(move || client.inner().fetch_metadata(None, timeout)).await;
        let metadata = match asked {
            Ok(answer) => answer.map_err(|source| self.brokers_error("list their topics", source))?,
            Err(_) => return Err(self.brokers_error("list their topics", KafkaError::Canceled)),
        };
        let shapes = metadata.topics().iter().map(|topic| {
            let partitions = topic.partitions();
            let shape = Shape {
                partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
                replication: partitions
                    .first()
                    .map_or(0, |p| i32::try_from(p.replicas().len()).unwrap_or(i32::MAX)),
                has_leaders: !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0),
            };
            (topic.name().to_owned(), shape)
        });
        Ok(shapes.collect())
    }

    /// The brokers' settings of these topics, by full name.
    async fn settings(
        &self,
        names: &[&str],
    ) -> Result<HashMap<String, BTreeMap<String, String>>, TopicsError> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let asked: Vec<ResourceSpecifier<'_>> =
            names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let answers = self.client.describe_configs(&asked, &options()).await;
        let answers = answers.map_err(|source| self.brokers_error("describe their topics", source))?;
        let mut settings = HashMap::new();
        for (answer, asked) in answers.into_iter().zip(names) {
            let resource = match answer {
                Ok(resource) => resource,
                // Deleted since it was listed: it is missing, like any other.
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => continue,
                Err(code) => {
                    return Err(TopicsError::Refused { topic: (*asked).to_owned(), doing: "describe", code });
                }
            };
            if let OwnedResourceSpecifier::Topic(name) = resource.specifier {
                let entries = resource.entries.into_iter();
                settings.insert(name, entries.filter_map(|entry| Some((entry.name, entry.value?))).collect());
            }
        }
        Ok(settings)
    }

    /// Creates these topics; returns the full names of those that were not there.
    async fn create(&self, topics: &[&Topic], replication: i32) -> Result<Vec<String>, TopicsError> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let named: Vec<_> = topics
            .iter()
            .map(|topic| (self.full_name(&topic.name), topic, topic.settings(replication)))
            .collect();
        let requests = named.iter().map(|(name, topic, settings)| NewTopic {
            name,
            num_partitions: topic.partitions,
            replication: TopicReplication::Fixed(replication),
            config: settings.iter().map(|(key, value)| (*key, value.as_str())).collect(),
        });
        let requests: Vec<NewTopic<'_>> = requests.collect();
        let answers = self.client.create_topics(&requests, &options()).await;
        let answers = answers.map_err(|source| self.brokers_error("create topics", source))?;
        let mut created = Vec::new();
        for answer in answers {
            match answer {
                Ok(name) => created.push(name),
                // Someone else was faster, which is as good.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(TopicsError::Refused { topic, doing: "create", code }),
            }
        }
        Ok(created)
    }

    /// Waits until every partition of these topics has a leader.
    async fn usable_wait(&self, topics: &[&Topic]) -> Result<(), TopicsError> {
        let mut waited_for: Vec<String> = topics.iter().map(|topic| self.full_name(&topic.name)).collect();
        for _ in 0..USABLE_POLLS_MAX {
            if waited_for.is_empty() {
                return Ok(());
            }
            let shapes = self.shapes().await?;
            waited_for.retain(|name| !shapes.get(name).is_some_and(|shape| shape.has_leaders));
            if !waited_for.is_empty() {
                tokio::time::sleep(Duration::from_millis(USABLE_POLL_MS)).await;
            }
        }
        let seconds = USABLE_POLL_MS * USABLE_POLLS_MAX / 1_000;
        Err(TopicsError::NotUsable { topics: waited_for.join(", "), seconds })
    }

    fn brokers_error(&self, doing: &'static str, source: KafkaError) -> TopicsError {
        TopicsError::Brokers { brokers: self.brokers.clone(), doing, source }
    }
}

fn options() -> AdminOptions {
    let limit = Duration::from_millis(REQUEST_MS_MAX);
    AdminOptions::new().request_timeout(Some(limit)).operation_timeout(Some(limit))
}
