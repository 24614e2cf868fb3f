//! Where the servers of this test run are: two environment variables, and one clear sentence when they are missing.

const POSTGRES: &str = "WAYBILL_POSTGRES_URL";
const KAFKA: &str = "KAFKA_BOOTSTRAP_SERVERS";

/// URL of a PostgreSQL whose user may create databases, from `WAYBILL_POSTGRES_URL`.
///
/// # Panics
/// When the variable is missing: tests need a real server, and say how to get one.
#[must_use]
pub fn postgres_url() -> String {
    required(POSTGRES, "a real PostgreSQL")
}

/// Bootstrap address of a Kafka broker, from `KAFKA_BOOTSTRAP_SERVERS`.
///
/// # Panics
/// When the variable is missing: tests need a real broker, and say how to get one.
#[must_use]
pub fn kafka_bootstrap() -> String {
    required(KAFKA, "a real Kafka broker")
}

/// The URL of a server with another database name in it; query parameters are kept.
pub(crate) fn url_for(server: &str, database: &str) -> String {
    let mut url = reqwest::Url::parse(server).unwrap_or_else(|e| {
        panic!("the PostgreSQL of this test has no URL ({e}): write postgres://user@host:port/postgres")
    });
    url.set_path(database);
    url.into()
}

fn required(name: &str, what: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.trim().is_empty() => value,
        _ => panic!(
            "{name} is not set, and this test needs {what}: run `cargo xtask test`, which starts one, \
             or set {name} to a server of yours"
        ),
    }
}
