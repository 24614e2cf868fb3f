//! What every service's process reads beside the settings that all processes share.

use std::net::SocketAddr;
use std::time::Duration;

use waybill_outbox::retry::Policy;
use waybill_runtime::config::{Common, Environment};

use crate::faults::Faults;

/// Unpublished rows at which new commands are turned away, unless told otherwise: minutes of a relay that is away at a
/// hundred orders a second, seconds of its work once it is back, and some hundred megabytes.
const UNPUBLISHED_ROWS_DEFAULT: u32 = 100_000;
/// Most that can be set: more are not counted, the look each second must stay cheap.
const UNPUBLISHED_ROWS_MAX: u32 = 1_000_000;
/// Longest age that can be set: a day.
const UNPUBLISHED_AGE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The settings of a service's process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What every process reads.
    pub common: Common,
    /// `WAYBILL_OPERATOR_ADDR`: where the operators' API listens.
    pub operator_addr: SocketAddr,
    /// `WAYBILL_RETRY_...`: how the consumer group retries.
    pub retry: Policy,
    /// `WAYBILL_OUTBOX_UNPUBLISHED_MAX`, `WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX`.
    pub outbox: OutboxBound,
    /// `WAYBILL_FAULTS`: failures on purpose; never in a release build.
    pub faults: Faults,
}

/// How much may wait to be published before new commands are turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBound {
    /// Rows.
    pub rows_max: u32,
    /// Age of the oldest row; `None`: however old.
    pub age_max: Option<Duration>,
}

impl Default for OutboxBound {
    fn default() -> Self {
        Self { rows_max: UNPUBLISHED_ROWS_DEFAULT, age_max: None }
    }
}

impl Settings {
    /// Reads the environment; mistakes are remembered in `env`. The defaults are the service's own addresses.
    pub fn read(env: &mut Environment, http_default: &str, operator_default: &str) -> Self {
        Self {
            common: Common::read(env, http_default),
            operator_addr: operator_addr(env, operator_default),
            retry: Policy::default(),
            outbox: OutboxBound::read(env),
            faults: Faults::read(env),
        }
    }
}

impl OutboxBound {
    fn read(env: &mut Environment) -> Self {
        let rows_max = env.parsed_in(
            "WAYBILL_OUTBOX_UNPUBLISHED_MAX",
            UNPUBLISHED_ROWS_DEFAULT,
            1..=UNPUBLISHED_ROWS_MAX,
        );
        let age_ms = env.parsed_in("WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX", 0, 0..=UNPUBLISHED_AGE_MS_MAX);
        Self { rows_max, age_max: (age_ms > 0).then(|| Duration::from_millis(age_ms)) }
    }
}

fn operator_addr(env: &mut Environment, default: &str) -> SocketAddr {
    let text = env.text("WAYBILL_OPERATOR_ADDR", default);
    text.parse().unwrap_or_else(|_| {
        env.mistake(
            "WAYBILL_OPERATOR_ADDR",
            format!("{text:?} is no address: write IP:PORT, such as {default}"),
        );
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<&'static str>) {
        let required = [("DATABASE_URL", "postgres://h/d"), ("WAYBILL_JWKS", "jwks.json")];
        let pairs =
            required.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut env = Environment::from_map(pairs);
        let settings = Settings::read(&mut env, "127.0.0.1:8083", "127.0.0.1:9083");
        let mistakes = env.finish().err().map(|error| error.variables().collect()).unwrap_or_default();
        (settings, mistakes)
    }

    #[test]
    fn defaults_are_safe() {
        let (settings, mistakes) = read(&[]);
        assert_eq!(mistakes, Vec::<&str>::new());
        assert_eq!(settings.operator_addr.to_string(), "127.0.0.1:9083");
        assert_eq!(settings.outbox, OutboxBound { rows_max: 100_000, age_max: None });
        assert!(settings.faults.is_none());
    }

    #[test]
    fn bounds_can_be_set() {
        let (settings, mistakes) = read(&[
            ("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "50"),
            ("WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX", "1500"),
            ("WAYBILL_OPERATOR_ADDR", "127.0.0.1:0"),
        ]);
        assert_eq!(mistakes, Vec::<&str>::new());
        let bound = OutboxBound { rows_max: 50, age_max: Some(Duration::from_millis(1500)) };
        assert_eq!(settings.outbox, bound);
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, mistakes) = read(&[
            ("WAYBILL_OPERATOR_ADDR", "9083"),
            ("WAYBILL_OUTBOX_UNPUBLISHED_MAX", "0"),
            ("WAYBILL_OUTBOX_UNPUBLISHED_AGE_MS_MAX", "-1"),
            ("WAYBILL_FAULTS", "always"),
        ]);
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    }
}
