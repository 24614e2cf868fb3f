//! The settings that every service shares, read once at start from environment variables.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub use crate::environment::{Asked, ConfigError, Environment};
use crate::pool;

/// Exit code of a process whose configuration has mistakes.
pub const EXIT_CODE_CONFIG: i32 = 2;

/// Where a service's Postgres is, and how many connections to it there may be.
#[derive(Clone)]
pub struct Postgres {
    /// `DATABASE_URL`: `postgres://user:password@host:port/database?sslmode=...`.
    pub url: String,
    /// The bounds of its pools.
    pub bounds: PoolBounds,
}

/// Connections at most, by what they are for, so that no kind of work takes those of another. The sum over all processes
/// stays under the server's `max_connections`; see [`crate::pool::Pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBounds {
    /// `WAYBILL_DATABASE_WRITES_MAX`: commands over HTTP; those of one statement and those of several each have so many.
    pub writes: u32,
    /// `WAYBILL_DATABASE_READS_MAX`: reads over HTTP.
    pub reads: u32,
    /// `WAYBILL_DATABASE_BACKGROUND_MAX`: consumers, sweepers, workers, upkeep, the operators' API.
    pub background: u32,
}

impl Default for PoolBounds {
    fn default() -> Self {
        Self { writes: 8, reads: 4, background: 8 }
    }
}

impl PoolBounds {
    fn read(env: &mut Environment) -> Self {
        let Self { writes, reads, background } = Self::default();
        Self {
            writes: env.parsed_in("WAYBILL_DATABASE_WRITES_MAX", writes, 1..=500),
            reads: env.parsed_in("WAYBILL_DATABASE_READS_MAX", reads, 1..=500),
            // A dry run of the operators' API takes two at a time.
            background: env.parsed_in("WAYBILL_DATABASE_BACKGROUND_MAX", background, 3..=500),
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("url", &redacted(&self.url)).field("bounds", &self.bounds).finish()
    }
}

/// What every service reads.
#[derive(Clone, Debug)]
pub struct Common {
    /// `WAYBILL_HTTP_ADDR`: where it listens.
    pub http_addr: SocketAddr,
    /// The service's own database.
    pub postgres: Postgres,
    /// `KAFKA_BOOTSTRAP_SERVERS`.
    pub kafka_bootstrap: String,
    /// `WAYBILL_TOPIC_PREFIX`: put before topic names and group ids.
    pub topic_prefix: String,
    /// `WAYBILL_JWKS`: file path or URL of the keys that access tokens are verified with.
    pub jwks: String,
    /// `WAYBILL_TOKEN_ISSUER`: required `iss` of access tokens.
    pub token_issuer: String,
    /// `WAYBILL_TOKEN_AUDIENCE`: required `aud` of access tokens.
    pub token_audience: String,
    /// `WAYBILL_LOG_FORMAT`: `json` or `pretty`.
    pub log_format: String,
    /// `RUST_LOG`.
    pub log_filter: String,
    /// `WAYBILL_SHUTDOWN_TIMEOUT_MS`: how long a signalled process may drain.
    pub shutdown_timeout: Duration,
}

impl Common {
    /// Reads the shared settings; `http_default` is the service's own default address.
    pub fn read(env: &mut Environment, http_default: &str) -> Self {
        let http_addr = read_http_addr(env, http_default);
        let url = read_database_url(env);
        let bounds = PoolBounds::read(env);
        let topic_prefix = env.text("WAYBILL_TOPIC_PREFIX", "");
        if !topic_prefix.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
            || topic_prefix.len() > 100
        {
            env.mistake("WAYBILL_TOPIC_PREFIX", "may hold at most 100 letters, digits, '.', '-' and '_'");
        }
        Self {
            http_addr,
            postgres: Postgres { url, bounds },
            kafka_bootstrap: env.text("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"),
            topic_prefix,
            jwks: env.required("WAYBILL_JWKS"),
            token_issuer: env.text("WAYBILL_TOKEN_ISSUER", "waybill"),
            token_audience: env.text("WAYBILL_TOKEN_AUDIENCE", "waybill"),
            log_format: read_log_format(env),
            log_filter: env.text("RUST_LOG", "info"),
            shutdown_timeout: read_shutdown_timeout(env),
        }
    }
}

/// `DATABASE_URL`, which the driver that will use it can read.
fn read_database_url(env: &mut Environment) -> String {
    const VARIABLE: &str = "DATABASE_URL";
    let url = env.required(VARIABLE);
    if url.is_empty() {
        return url;
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        env.mistake(VARIABLE, "is no Postgres URL: write postgres://user:password@host:port/database");
    } else if let Err(error) = pool::options(&url) {
        env.mistake(VARIABLE, format!("{:?} can not be used: {error}", redacted(&url)));
    }
    url
}

/// `WAYBILL_HTTP_ADDR`, or the given default.
pub fn read_http_addr(env: &mut Environment, default: &str) -> SocketAddr {
    let text = env.text("WAYBILL_HTTP_ADDR", default);
    text.parse().unwrap_or_else(|_| {
        env.mistake("WAYBILL_HTTP_ADDR", format!("{text:?} is no address: write IP:PORT, such as {default}"));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

/// `WAYBILL_LOG_FORMAT`: `json` (default) or `pretty`.
pub fn read_log_format(env: &mut Environment) -> String {
    let format = env.text("WAYBILL_LOG_FORMAT", "json");
    if !["json", "pretty"].contains(&format.as_str()) {
        env.mistake("WAYBILL_LOG_FORMAT", format!("{format:?} is unknown: write json or pretty"));
    }
    format
}

/// `WAYBILL_SHUTDOWN_TIMEOUT_MS`: 10 s by default, well under the 30 s that container platforms grant.
pub fn read_shutdown_timeout(env: &mut Environment) -> Duration {
    Duration::from_millis(env.parsed_in("WAYBILL_SHUTDOWN_TIMEOUT_MS", 10_000, 100..=120_000))
}

/// The value, or the end of the process: every mistake on standard error, exit code 2.
pub fn exit_on_mistakes<T>(result: Result<T, ConfigError>) -> T {
    result.unwrap_or_else(|mistakes| {
        use std::io::Write as _;
        // Nobody reads standard error: the exit code still tells.
        let _unread = writeln!(std::io::stderr(), "{mistakes}");
        std::process::exit(EXIT_CODE_CONFIG)
    })
}

/// The URL without its password, for logs.
#[must_use]
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    // A password may hold an '@': the last one before the path ends the user part.
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let path = path.split('?').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{path}")
        }
        None => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Common, ConfigError> {
        let mut env = Environment::from_map(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let common = Common::read(&mut env, "127.0.0.1:8083");
        env.finish().map(|()| common)
    }

    #[test]
    fn defaults_need_only_database_and_keys() {
        let common =
            read(&[("DATABASE_URL", "postgres://u:geheim@h/d"), ("WAYBILL_JWKS", "jwks.json")]).unwrap();
        assert_eq!(common.http_addr.port(), 8083);
        assert_eq!(common.kafka_bootstrap, "127.0.0.1:9092");
        assert!(!format!("{common:?}").contains("geheim"), "the password is not shown");
    }

    #[test]
    fn all_mistakes_are_named() {
        let error = read(&[
            ("DATABASE_URL", "mysql://x"),
            ("WAYBILL_HTTP_ADDR", "8083"),
            ("WAYBILL_DATABASE_WRITES_MAX", "-1"),
            ("WAYBILL_DATABASE_BACKGROUND_MAX", "2"),
            ("WAYBILL_TOPIC_PREFIX", "a b"),
            ("WAYBILL_LOG_FORMAT", "xml"),
            ("WAYBILL_SHUTDOWN_TIMEOUT_MS", "1"),
        ])
        .unwrap_err();
        assert_eq!(error.variables().count(), 8, "{error}");
    }

    #[test]
    fn a_database_url_that_the_driver_can_not_use_is_a_mistake() {
        for url in [
            "postgres://u:geheim@h:port/d",
            "postgres://u:geheim@h:99999/d",
            "postgres://u:geheim@h/d?sslmode=perhaps",
            "postgres://u:geheim@[h/d",
        ] {
            let error = read(&[("DATABASE_URL", url), ("WAYBILL_JWKS", "jwks.json")]).unwrap_err();
            assert_eq!(error.variables().collect::<Vec<_>>(), ["DATABASE_URL"], "{url}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }

    #[test]
    fn passwords_are_redacted_wherever_they_stand() {
        assert_eq!(redacted("postgres://u:p@ss@h:1/d?sslmode=require"), "postgres://u:***@h:1/d");
        assert_eq!(redacted("postgres://h/d?password=p"), "postgres://h/d");
        assert_eq!(redacted("nonsense"), "***");
    }
}
