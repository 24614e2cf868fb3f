//! Kafka behind SASL and TLS with its authorizer, Postgres behind TLS: what is refused is told, no secret is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;
use waybill_messaging::config::consumer;
use waybill_messaging::security::Security;
use waybill_runtime::config::Environment;
use waybill_testkit::ports::free_port;
use waybill_testkit::{OwnKafka, OwnPostgres, Process, eventually};

use super::setup::{Outbox, SOON, append, ask, metric};

const TOPIC: &str = "secure.events";
const PASSWORD: &str = "Geheimnis-7";
/// A broker with an authorizer and TLS starts slowly beside others that do.
const REFUSED_WAIT: Duration = Duration::from_secs(180);

/// An authority of this test and the servers' certificate for 127.0.0.1, in a folder of their own.
struct Certificates(PathBuf);

impl Certificates {
    async fn make() -> Self {
        let folder = std::env::temp_dir().join(format!("relay-tls-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let this = Self(folder);
        std::fs::write(this.file("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        for authority in ["ca", "stranger"] {
            let files = ["-keyout", &format!("{authority}.key"), "-out", &format!("{authority}.pem")];
            let subject = format!("/CN=test {authority}");
            let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
            this.openssl(&[&make[..], &["-days", "2", "-subj", &subject], &files[..]].concat()).await;
        }
        let request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"];
        this.openssl(
            &[&request[..], &["/CN=server", "-keyout", "server.key", "-out", "server.csr"]].concat(),
        )
        .await;
        let sign =
            ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        this.openssl(&[&sign[..], &["-days", "2", "-extfile", "san", "-out", "server.pem"]].concat()).await;
        this
    }

    async fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(&self.0).output().await.unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

async fn guarded_kafka(certificates: &Certificates, scram: u16, tls: u16) -> OwnKafka {
    let both =
        ["server.key", "server.pem"].map(|name| std::fs::read_to_string(certificates.file(name)).unwrap());
    std::fs::write(certificates.file("keystore.pem"), both.concat()).unwrap();
    let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    OwnKafka::builder()
        .listener("SASL_PLAINTEXT", scram)
        .listener("SASL_SSL", tls)
        .property("sasl.enabled.mechanisms", "SCRAM-SHA-512")
        .property("listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config", login)
        .property("listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config", login)
        .property("ssl.keystore.type", "PEM")
        .property("ssl.keystore.location", certificates.path("keystore.pem"))
        .property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        // The listener without SASL is the test's own: it makes topics, users and rights.
        .property("super.users", "User:ANONYMOUS")
        .start()
        .await
}

async fn with_topic_and_user(kafka: &OwnKafka) {
    let topic = ["--create", "--topic", TOPIC, "--partitions", "1", "--replication-factor", "1"];
    kafka.tool("org.apache.kafka.tools.TopicCommand", &topic).await;
    let credentials = format!("SCRAM-SHA-512=[iterations=4096,password={PASSWORD}]");
    let user = ["--alter", "--add-config", &credentials, "--entity-type", "users", "--entity-name", "relay"];
    kafka.tool("kafka.admin.ConfigCommand", &user).await;
}

async fn allow(kafka: &OwnKafka, operation: &str) {
    let grant = ["--add", "--allow-principal", "User:relay", "--operation", operation, "--topic", TOPIC];
    kafka.tool("org.apache.kafka.tools.AclCommand", &grant).await;
}

/// A member that has not asked for so long is no member any more.
const READING_MAX: Duration = Duration::from_secs(120);

/// Reads the topic as a service does: with the same variables and the settings of its consumers, in a group.
async fn consumed(variables: &[(&str, &str)], count: usize) -> Vec<Vec<u8>> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut env = Environment::from_map(owned);
    let security = Security::read(&mut env);
    let mut config = consumer(&env.text("KAFKA_BOOTSTRAP_SERVERS", ""), "readers", "test", READING_MAX);
    env.finish().unwrap();
    security.apply(&mut config);
    let reader: StreamConsumer = config.create().unwrap();
    reader.subscribe(&[TOPIC]).unwrap();
    let reading = async {
        let mut keys = Vec::new();
        while keys.len() < count {
            keys.push(reader.recv().await.unwrap().key().unwrap().to_vec());
        }
        keys
    };
    tokio::time::timeout(SOON, reading).await.unwrap()
}

/// A service's consumer, over the listener with SASL and TLS.
async fn a_service_reads(kafka: &OwnKafka, certificates: &Certificates, tls: u16, secret: &str) {
    allow(kafka, "Read").await;
    let group = ["--add", "--allow-principal", "User:relay", "--operation", "Read", "--group", "readers"];
    kafka.tool("org.apache.kafka.tools.AclCommand", &group).await;
    let variables = [
        ("KAFKA_BOOTSTRAP_SERVERS", &*format!("127.0.0.1:{tls}")),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
        ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
        ("KAFKA_SASL_USERNAME", "relay"),
        ("KAFKA_SASL_PASSWORD_FILE", secret),
        ("KAFKA_SSL_CA_LOCATION", &certificates.path("ca.pem")),
    ];
    assert_eq!(consumed(&variables, 3).await, [b"a1", b"a2", b"a1"]);
}

fn records(bootstrap: &str) -> i64 {
    let reader: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    reader.fetch_watermarks(TOPIC, 0, Duration::from_secs(60)).map_or(-1, |(_, high)| high)
}

/// Waits until the fault is there and its reason is told: on `/ready`, or in a line of the log when another attempt has
/// met another error meanwhile.
async fn until_refused(relay: &Process, kind: &str, says: &str) {
    let fault = format!("outbox_relay_fault{{database=\"db\",kind=\"{kind}\"}}");
    let mut last = String::new();
    let began = Instant::now();
    eventually(REFUSED_WAIT, async || {
        assert!(began.elapsed() < REFUSED_WAIT - SOON / 10, "no {says:?} in:\n{}", relay.output());
        let (status, body) = ask(relay, "/ready").await;
        if body != last {
            println!("{kind}: {body}");
            last.clone_from(&body);
        }
        let told = body.contains(says) || relay.output().contains(says);
        (status == 503 && told && metric(relay, &fault).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_with_scram_tls_and_rights_is_published_to() {
    let certificates = Certificates::make().await;
    let (scram, tls) = (free_port(), free_port());
    let kafka = guarded_kafka(&certificates, scram, tls).await;
    with_topic_and_user(&kafka).await;
    let outbox = Outbox::new("secure").await;
    let mut connection = outbox.connection().await;
    append(&mut connection, TOPIC, 1).await;
    append(&mut connection, TOPIC, 2).await;
    let base = |port: u16, protocol: &str, mechanism: &str| {
        outbox
            .relay()
            .env("KAFKA_BOOTSTRAP_SERVERS", format!("127.0.0.1:{port}"))
            .env("KAFKA_SECURITY_PROTOCOL", protocol)
            .env("KAFKA_SASL_MECHANISM", mechanism)
            .env("KAFKA_SASL_USERNAME", "relay")
            // What librdkafka tells is looked through for the password too.
            .env("RUST_LOG", "info,librdkafka=trace")
    };
    let secret = certificates.file("password");
    std::fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let secret = secret.display().to_string();

    let wrong = "not-the-password-5";
    let mut relay = base(scram, "SASL_PLAINTEXT", "SCRAM-SHA-512").env("KAFKA_SASL_PASSWORD", wrong).spawn();
    until_refused(&relay, "kafka", "uthentication failed").await;
    assert_eq!(relay.terminate().await, Some(0));
    assert!(!relay.output().contains(wrong), "the password is not told");

    // Proven who it is, but not allowed to know the topic; then to know, not to write; then to write.
    let mut relay = base(scram, "SASL_PLAINTEXT", "SCRAM-SHA-512")
        .env("KAFKA_SASL_PASSWORD_FILE", &secret)
        .env("RUST_LOG", "info")
        .spawn();
    until_refused(&relay, "topic", TOPIC).await;
    allow(&kafka, "Describe").await;
    // It may not even begin to write: the producer ends without a word about a row, again and again.
    until_refused(&relay, "delivery", "uthorization").await;
    let errors = metric(&relay, "outbox_relay_produce_errors_total").await;
    eventually(SOON, async || {
        (metric(&relay, "outbox_relay_produce_errors_total").await >= errors + 2.0).then_some(())
    })
    .await;
    let told = relay.output().matches("\"fault\":\"delivery\"").count();
    assert_eq!(told, 1, "told once:\n{}", relay.output());
    assert_eq!(relay.output().matches("librdkafka").count(), 0, "in our words:\n{}", relay.output());
    assert_eq!(records(&kafka.bootstrap()), 0, "nothing passes");
    allow(&kafka, "Write").await;
    relay.wait_ready(SOON).await;
    eventually(SOON, async || (records(&kafka.bootstrap()) == 2).then_some(())).await;
    assert_eq!(relay.terminate().await, Some(0));

    // Over TLS: who signed the broker's certificate is looked at.
    let over_tls = |ca: &str| {
        base(tls, "SASL_SSL", "SCRAM-SHA-512")
            .env("KAFKA_SASL_PASSWORD_FILE", &secret)
            .env("KAFKA_SSL_CA_LOCATION", certificates.path(ca))
    };
    append(&mut connection, TOPIC, 1).await;
    let mut deceived = over_tls("stranger.pem").spawn();
    until_refused(&deceived, "kafka", "certificate").await;
    assert_eq!(deceived.terminate().await, Some(0));
    assert_eq!(records(&kafka.bootstrap()), 2);
    let mut relay = over_tls("ca.pem").spawn();
    relay.wait_ready(SOON).await;
    eventually(SOON, async || (records(&kafka.bootstrap()) == 3).then_some(())).await;
    assert_eq!(relay.terminate().await, Some(0));
    assert!(!relay.output().contains(PASSWORD), "the password is not told");

    a_service_reads(&kafka, &certificates, tls, &secret).await;
}

/// Gives the server a certificate: written by itself, so that the files are its own.
async fn with_tls(postgres: &OwnPostgres, certificates: &Certificates) {
    for name in ["server.key", "server.pem"] {
        let text = std::fs::read_to_string(certificates.file(name)).unwrap();
        let write = format!(
            "copy (select unnest(string_to_array('{}', E'\\n'))) to program 'umask 077; cat > {name}'",
            text.trim_end()
        );
        postgres.execute("postgres", &write).await;
    }
    for setting in ["ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.key'", "ssl = on"] {
        postgres.execute("postgres", &format!("alter system set {setting}")).await;
    }
    postgres.execute("postgres", "select pg_reload_conf()").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_behind_tls_is_read_and_its_certificate_looked_at() {
    let certificates = Certificates::make().await;
    let postgres = OwnPostgres::start().await;
    with_tls(&postgres, &certificates).await;
    let url = postgres.url("postgres");
    let mut owner = PgConnection::connect(&url).await.unwrap();
    for migration in waybill_outbox::MIGRATIONS.iter() {
        sqlx::raw_sql(migration.sql.clone()).execute(&mut owner).await.unwrap();
    }
    let relay = |mode: &str, host: &str, ca: &str| {
        let url = url.replace("127.0.0.1", host);
        let ca = certificates.path(ca);
        Process::named("outbox-relay")
            .env("OUTBOX_RELAY_DATABASES", format!("db={url}?sslmode={mode}&sslrootcert={ca}"))
            .spawn()
    };
    let mut deceived = relay("verify-ca", "127.0.0.1", "stranger.pem");
    until_refused(&deceived, "postgres", "certificate").await;
    assert_eq!(deceived.terminate().await, Some(0));
    // The certificate is good, and another host's.
    let mut elsewhere = relay("verify-full", "localhost", "ca.pem");
    until_refused(&elsewhere, "postgres", "certificate").await;
    assert_eq!(elsewhere.terminate().await, Some(0));
    let mut relay = relay("verify-full", "127.0.0.1", "ca.pem");
    relay.wait_ready(SOON).await;
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid)
                     where application_name = 'outbox-relay'";
    let encrypted: Option<bool> = sqlx::query_scalar(encrypted).fetch_one(&mut owner).await.unwrap();
    assert_eq!(encrypted, Some(true));
    assert_eq!(relay.terminate().await, Some(0));
}
