//! A Kafka of a test's own: one node or a cluster, with any broker property; nodes stopped, killed, started again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::process::Command;

use super::{Folder, Running, required, run};
use crate::ports::free_port;

/// Kafka's jars.
const CLASS_PATH: &str = "WAYBILL_KAFKA_CLASSPATH";
/// A cluster of three fits beside everything else that a test run holds.
const HEAP: &str = "-Xmx256m";
/// These nodes live for seconds: the quick compiler and the small collector cost the machine least.
const QUICK: [&str; 2] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
/// Longest wait for one question whether the nodes answer.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Nodes, each broker and controller; ended and wiped together with this value.
#[derive(Debug)]
pub struct OwnKafka {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    port: u16,
    running: Option<Running>,
    folder: Folder,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct OwnKafkaBuilder {
    brokers: usize,
    properties: Vec<(String, String)>,
    listeners: Vec<(String, u16)>,
}

impl OwnKafkaBuilder {
    /// So many nodes; one unless told otherwise.
    #[must_use]
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// A broker property, of every node.
    #[must_use]
    pub fn property(mut self, name: &str, value: impl Into<String>) -> Self {
        self.properties.push((name.to_owned(), value.into()));
        self
    }

    /// One more listener of a single node: `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`, on this port of loopback. What it
    /// needs beside (keys, mechanisms) are properties.
    #[must_use]
    pub fn listener(mut self, protocol: &str, port: u16) -> Self {
        self.listeners.push((protocol.to_owned(), port));
        self
    }

    /// Formats the nodes, starts them and waits until all of them are in the cluster.
    ///
    /// # Panics
    /// When `WAYBILL_KAFKA_CLASSPATH` is missing or they do not come up.
    pub async fn start(self) -> OwnKafka {
        let controllers: Vec<u16> = (0..self.brokers).map(|_| free_port()).collect();
        let numbered = controllers.iter().enumerate();
        let voters: Vec<String> = numbered.map(|(at, port)| format!("{}@127.0.0.1:{port}", at + 1)).collect();
        let cluster_id = format!("waybill{:015x}", rand::random::<u64>() >> 4);
        let mut kafka = OwnKafka { nodes: Vec::new() };
        let mut formats = Vec::new();
        for (at, controller) in controllers.into_iter().enumerate() {
            let node = Node { port: free_port(), running: None, folder: Folder::make("kafka") };
            let text = self.server_properties(at + 1, node.port, controller, &voters, &node.folder.0);
            std::fs::write(node.properties(), text).expect("the folder is there");
            formats.push(tokio::spawn(run(format(&node.properties(), &cluster_id))));
            kafka.nodes.push(node);
        }
        for formatted in formats {
            formatted.await.expect("formatting a node");
        }
        for node in &mut kafka.nodes {
            node.start();
        }
        kafka.wait_ready(self.brokers).await;
        kafka
    }

    fn server_properties(
        &self,
        id: usize,
        port: u16,
        controller: u16,
        voters: &[String],
        folder: &Path,
    ) -> String {
        let copies = self.brokers.min(3);
        let more = |(protocol, port): &(String, u16)| format!(",{protocol}://127.0.0.1:{port}");
        let more: String = self.listeners.iter().map(more).collect();
        let mut lines = vec![
            "# A node of one test.".to_owned(),
            "process.roles=broker,controller".to_owned(),
            format!("node.id={id}"),
            format!("controller.quorum.voters={}", voters.join(",")),
            format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more}"),
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
             SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL"
                .to_owned(),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("log.dirs={}", folder.join("data").display()),
            "auto.create.topics.enable=false".to_owned(),
            "offsets.topic.num.partitions=1".to_owned(),
            format!("offsets.topic.replication.factor={copies}"),
            format!("transaction.state.log.replication.factor={copies}"),
            format!("share.coordinator.state.topic.replication.factor={copies}"),
            "transaction.state.log.min.isr=1".to_owned(),
            "share.coordinator.state.topic.min.isr=1".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
        ];
        if self.brokers == 1 {
            // A killed node is let in again after 4 s instead of 9. Several on a busy machine need the longer time, or
            // those that live are taken for dead.
            lines.push("broker.session.timeout.ms=4000".to_owned());
            lines.push("broker.heartbeat.interval.ms=1000".to_owned());
        }
        lines.extend(self.properties.iter().map(|(name, value)| format!("{name}={value}")));
        lines.join("\n") + "\n"
    }
}

impl OwnKafka {
    /// Begins with one node and nothing special.
    #[must_use]
    pub fn builder() -> OwnKafkaBuilder {
        OwnKafkaBuilder { brokers: 1, properties: Vec::new(), listeners: Vec::new() }
    }

    /// Addresses of all nodes, running or not.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        addresses.join(",")
    }

    /// Ends a node (0, 1, ...) as a restart does: it hands over what it leads first.
    pub async fn stop(&mut self, node: usize) {
        self.nodes[node].end("TERM").await;
    }

    /// Kills a node with SIGKILL.
    pub async fn kill9(&mut self, node: usize) {
        self.nodes[node].end("KILL").await;
    }

    /// Starts a node again after it ended, on the same port and data; [`OwnKafka::wait_ready`] waits for it.
    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].start();
    }

    /// Freezes a node (SIGSTOP): its connections stay open, nothing answers.
    pub async fn sigstop(&self, node: usize) {
        if let Some(running) = &self.nodes[node].running {
            running.signal("STOP", &[]).await;
        }
    }

    /// Lets a frozen node go on.
    pub async fn sigcont(&self, node: usize) {
        if let Some(running) = &self.nodes[node].running {
            running.signal("CONT", &[]).await;
        }
    }

    /// Waits until so many brokers are in the cluster.
    ///
    /// # Panics
    /// When they are not in time, or a node ended instead.
    pub async fn wait_ready(&mut self, brokers: usize) {
        let bootstrap = self.bootstrap();
        for node in &mut self.nodes {
            let Some(running) = &mut node.running else { continue };
            let there = running.answers(async || brokers_seen(bootstrap.clone()).await >= brokers).await;
            assert!(there, "a Kafka node ended at its start:\n{}", super::tail(&running.log));
        }
    }

    /// Runs one of Kafka's tools: its class and arguments. Returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let mut command = java();
        command.arg(class).args(["--bootstrap-server", &self.bootstrap()]).args(arguments);
        run(command).await
    }
}

impl Node {
    fn properties(&self) -> PathBuf {
        self.folder.0.join("server.properties")
    }

    fn start(&mut self) {
        let mut command = java();
        command.arg("kafka.Kafka").arg(self.properties()).current_dir(&self.folder.0);
        self.running = Some(Running::start(command, &self.folder.0.join("log")));
    }

    async fn end(&mut self, signal: &str) {
        if let Some(mut running) = self.running.take() {
            running.signal(signal, &[]).await;
            running.ended().await;
        }
    }
}

fn java() -> Command {
    let mut command = Command::new("java");
    let class_path = required(CLASS_PATH, "Kafka's jars, as `java -cp` takes them: /path/to/jars/*");
    command.arg(HEAP).args(QUICK).arg("-cp").arg(class_path);
    command
}

fn format(properties: &Path, cluster_id: &str) -> Command {
    let mut command = java();
    command.args(["kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config"]);
    command.arg(properties);
    command
}

/// How many brokers the metadata names; none when nobody answers.
async fn brokers_seen(bootstrap: String) -> usize {
    let asked = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("log_level", "0");
        let producer: BaseProducer = config.create().expect("a producer's settings");
        let metadata = producer.client().fetch_metadata(None, QUESTION_TIMEOUT);
        metadata.map_or(0, |metadata| metadata.brokers().len())
    });
    asked.await.unwrap_or(0)
}
