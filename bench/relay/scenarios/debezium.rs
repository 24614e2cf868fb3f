//! The same rows through Debezium's outbox event router: rate, processor time, memory, latency, and ours beside them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::message::Message as _;
use sqlx::PgPool;
use waybill_bench::tally::Tally;
use waybill_testkit::{TestDatabase, kafka_bootstrap};

use super::latency;
use crate::arguments::Arguments;
use crate::findings::{Aim, Finding, quantile};
use crate::load::{self, Table};
use crate::open_loop::{self, Publisher};
use crate::relay;
use crate::report::cpu_seconds;
use crate::topic::Topic;

const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/debezium/pom.xml");
const WORKER: &str = include_str!("../../peers/debezium/worker.properties");
const CONNECTOR: &str = include_str!("../../peers/debezium/connector.properties");
/// The table that its documentation describes.
const TABLE: &str = "create table peer_outbox (id uuid primary key, aggregatetype varchar(255) not null,
                     aggregateid varchar(255) not null, type varchar(255) not null, payload bytea)";
/// Rows of one transaction of the load, as of the relay's.
const TRANSACTION_ROWS: i64 = 1_000;
const START_MAX: Duration = Duration::from_secs(180);
const DRAIN_MAX: Duration = Duration::from_secs(600);
/// Rows per second of the open loop when no rate is given: what both keep up with.
const RATE: f64 = 2_000.0;

/// What is compared.
struct Measured {
    rows_per_second: f64,
    rows_per_cpu_second: f64,
    memory_mib: f64,
    p50_ms: f64,
}

impl Measured {
    /// Of each figure.
    fn medians(turns: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| quantile(&mut turns.iter().map(value).collect::<Vec<_>>(), 0.5);
        Self {
            rows_per_second: of(|turn| turn.rows_per_second),
            rows_per_cpu_second: of(|turn| turn.rows_per_cpu_second),
            memory_mib: of(|turn| turn.memory_mib),
            p50_ms: of(|turn| turn.p50_ms),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Vec<Finding> {
    let (mut of_peers, mut of_relays) = (Vec::new(), Vec::new());
    for number in 1..=arguments.runs {
        arguments.say(&format!("run {number}"));
        of_peers.push(of_peer(arguments).await);
        of_relays.push(of_relay(arguments).await);
    }
    let (peer, ours) = (Measured::medians(&of_peers), Measured::medians(&of_relays));
    let told = |who: &str, measured: &Measured| {
        [
            Finding::told(format!("{who}: drain"), measured.rows_per_second, "rows/s"),
            Finding::told(
                format!("{who}: rows per second of its processor time"),
                measured.rows_per_cpu_second,
                "",
            ),
            Finding::told(format!("{who}: resident memory at most"), measured.memory_mib, "MiB"),
            Finding::told(format!("{who}: commit to append, p50"), measured.p50_ms, "ms"),
        ]
    };
    let aimed =
        |figure: &str, value: f64, least: f64| Finding::aimed(figure, value, "times", Aim::AtLeast(least));
    let mut findings: Vec<Finding> =
        told("Debezium", &peer).into_iter().chain(told("relay", &ours)).collect();
    findings.extend([
        aimed("relay's rows per processor second", ours.rows_per_cpu_second / peer.rows_per_cpu_second, 5.0),
        aimed("relay's rate", ours.rows_per_second / peer.rows_per_second, 3.0),
        aimed("Debezium's memory, in relays", peer.memory_mib / ours.memory_mib, 10.0),
        aimed("Debezium's latency, in relay's", peer.p50_ms / ours.p50_ms, 5.0),
    ]);
    findings
}

async fn of_relay(arguments: &Arguments) -> Measured {
    let database = latency::prepared().await;
    let topic = Topic::stamped_by_broker("ours", arguments.partitions).await;
    let loaded = Topic::create("ours-drain", arguments.partitions).await;
    load::load(&database.pool, &loaded.name, 0, arguments.rows, arguments.bytes).await;
    let draining = async || relay::drain(&database, arguments.rows, arguments.linger_ms).await;
    let run = super::audited(&loaded, arguments.rows, draining).await;
    arguments.say(&format!("relay: {run}"));
    let databases = [database];
    let rate = arguments.rate.unwrap_or(RATE);
    let mut found = open_loop::by_relay(&databases, &topic, rate, arguments).await.since_commit_ms;
    Measured {
        rows_per_second: run.rows_per_second,
        rows_per_cpu_second: arguments.rows as f64 / run.cpu_seconds,
        memory_mib: run.cost.map(|cost| cost.peak_memory_mib).unwrap_or(f64::NAN),
        p50_ms: quantile(&mut found, 0.5),
    }
}

/// The connector is warm and idle, stopped while the rows are loaded, then goes on: its start is not counted.
async fn of_peer(arguments: &Arguments) -> Measured {
    let database = TestDatabase::create("relay_peer").await;
    let level: String = sqlx::query_scalar("show wal_level").fetch_one(&database.pool).await.unwrap();
    assert_eq!(level, "logical", "Debezium needs a Postgres with wal_level = logical");
    sqlx::query(TABLE).execute(&database.pool).await.unwrap();
    let topic = Topic::stamped_by_broker("peer", arguments.partitions).await;
    let mut peer = Peer::start(&database, &arguments.peer_jars);
    peer.wait_streaming(&database.pool).await;
    load_rows(&database.pool, &topic.name, 10_000, arguments.bytes).await;
    peer.wait_records(&topic, 10_000).await;

    let (before, ends) = (topic.records(), topic.ends());
    let cpu_before = cpu_seconds(peer.child.id());
    peer.signal("STOP");
    arguments.say(&format!("Debezium: loading {} rows of {} B ...", arguments.rows, arguments.bytes));
    load_rows(&database.pool, &topic.name, arguments.rows, arguments.bytes).await;
    let started = Instant::now();
    peer.signal("CONT");
    peer.wait_records(&topic, before + arguments.rows).await;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds(peer.child.id()) - cpu_before;
    each_once(&topic, &ends, arguments.rows);
    arguments
        .say(&format!("Debezium: {:.0} rows/s, {cpu:.1} s of processor", arguments.rows as f64 / seconds));
    let databases = [database];
    let rate = arguments.rate.unwrap_or(RATE);
    let reader = Publisher::Reader(Table::Peer);
    let mut found = open_loop::measure(&databases, reader, &topic, rate, arguments).await.since_commit_ms;
    Measured {
        rows_per_second: arguments.rows as f64 / seconds,
        rows_per_cpu_second: arguments.rows as f64 / cpu,
        memory_mib: relay::peak_memory_mib(peer.child.id()),
        p50_ms: quantile(&mut found, 0.5),
    }
}

/// The records behind these offsets are those of [`load_rows`], each once. Each has a key of its own: there is no order.
fn each_once(topic: &Topic, before: &[i64], rows: i64) {
    let mut tally = Tally::of(0..rows as u64);
    topic.read_each(before, rows, |record| {
        let key = String::from_utf8(record.key().unwrap_or_default().to_vec()).unwrap();
        let mut parts = key.split('-').skip(1).map(|part| part.parse::<i64>().unwrap());
        let (left, place) = (parts.next().unwrap(), parts.next().unwrap());
        let number = u64::try_from(rows - left + place - 1).unwrap();
        tally.take(number, None).unwrap_or_else(|fault| panic!("Debezium: {fault}: no number"));
    });
    tally.finish().unwrap_or_else(|fault| panic!("Debezium: {fault}: no number"));
}

async fn load_rows(pool: &PgPool, topic: &str, rows: i64, bytes: i32) {
    let mut left = rows;
    while left > 0 {
        let now = left.min(TRANSACTION_ROWS);
        load::transaction(pool, Table::Peer, topic, &format!("load-{left}"), now, bytes).await;
        left -= now;
    }
}

/// Kafka Connect, standalone, with the connector in it. Ended with this value, its slot with the database.
struct Peer {
    child: Child,
    dir: tempdir::Dir,
}

impl Peer {
    fn start(database: &TestDatabase, jars: &Path) -> Self {
        fetch(jars);
        let dir = tempdir::Dir::create();
        let url = reqwest::Url::parse(&database.url).unwrap();
        let filled = |text: &str| {
            text.replace("$${", "\u{1}")
                .replace("${bootstrap}", &kafka_bootstrap())
                .replace("${dir}", &dir.0.display().to_string())
                .replace("${host}", url.host_str().unwrap())
                .replace("${pg_port}", &url.port().unwrap_or(5432).to_string())
                .replace("${user}", url.username())
                .replace("${password}", url.password().unwrap_or("none"))
                .replace("${database}", database.name())
                .replace('\u{1}', "${")
        };
        std::fs::write(dir.0.join("worker.properties"), filled(WORKER)).unwrap();
        std::fs::write(dir.0.join("connector.properties"), filled(CONNECTOR)).unwrap();
        let log = std::fs::File::create(dir.0.join("connect.log")).unwrap();
        // Heap as Kafka's own connect-standalone.sh sets it.
        let child = Command::new("java")
            .args(["-Xms256M", "-Xmx2G", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
            .arg(format!("{}/*", jars.display()))
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .args([dir.0.join("worker.properties"), dir.0.join("connector.properties")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    async fn wait_streaming(&mut self, pool: &PgPool) {
        let active =
            "select exists (select from pg_replication_slots where database = current_database() and active)";
        let started = Instant::now();
        while !sqlx::query_scalar::<_, bool>(active).fetch_one(pool).await.unwrap() {
            assert!(started.elapsed() < START_MAX, "Debezium does not stream:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn wait_records(&self, topic: &Topic, records: i64) {
        let started = Instant::now();
        while topic.records() < records {
            assert!(started.elapsed() < DRAIN_MAX, "Debezium takes too long:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success(), "Kafka Connect can not be signalled");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.0.join("connect.log")).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn fetch(jars: &Path) {
    if jars.is_dir() {
        return;
    }
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "-f", POM, "initialize"])
        .arg(format!("-Djars.dir={}", std::path::absolute(jars).unwrap().display()))
        .status();
    assert!(fetched.unwrap().success(), "Maven could not fetch Debezium");
}

mod tempdir {
    //! A folder of its own, removed at the end.
    pub(super) struct Dir(pub(super) std::path::PathBuf);

    impl Dir {
        pub(super) fn create() -> Self {
            let dir = std::env::temp_dir().join(format!("relay-peer-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }
}
