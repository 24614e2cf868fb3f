//! A group's retry policy from the environment, every mistake named.

use std::collections::HashSet;
use std::time::Duration;

use waybill_runtime::config::Environment;

use super::policy::{ATTEMPTS_MAX, DELAY_MAX, Poisoned, Policy, TIERS_MAX, retry_topic};

/// Least bound of held bytes: a batch and the record that filled it (4 MiB and 1 MiB), so that one batch alone is never
/// too much.
const HELD_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// Largest bound of held bytes: what a database holds beside its own.
const HELD_BYTES_LIMIT: u64 = 64 * 1024 * 1024 * 1024;
/// Most keys the brake looks back at: each message is compared with all of them.
const BRAKE_KEYS_MAX: usize = 1_000;

impl Policy {
    /// Reads `WAYBILL_RETRY_...`; mistakes are remembered in `env`. Nothing set is the default, with no more tiers than
    /// there are topics.
    pub fn read(env: &mut Environment, retry_topics: &RetryTopics) -> Self {
        let delays = delays(env, retry_topics.tiers);
        let mut policy = Self::with_delays(&delays);
        policy.declared.clone_from(&retry_topics.names);
        policy.attempts_max = env.parsed_in("WAYBILL_RETRY_ATTEMPTS", policy.attempts_max, 1..=ATTEMPTS_MAX);
        policy.poisoned = match env.text("WAYBILL_RETRY_EXHAUSTED", "block").as_str() {
            "block" => Poisoned::Block,
            "skip" => Poisoned::Skip,
            other => {
                let why =
                    format!("{other:?} is unknown: write block (its key waits) or skip (its key goes on)");
                env.mistake("WAYBILL_RETRY_EXHAUSTED", why);
                Poisoned::Block
            }
        };
        let held = HELD_BYTES_MIN..=HELD_BYTES_LIMIT;
        policy.held_bytes_max = env.parsed_in("WAYBILL_RETRY_HELD_BYTES_MAX", policy.held_bytes_max, held);
        let brake = &mut policy.brake;
        brake.keys = env.parsed_in("WAYBILL_RETRY_BRAKE_KEYS", brake.keys, 0..=BRAKE_KEYS_MAX);
        brake.failing_percent = env.parsed_in("WAYBILL_RETRY_BRAKE_PERCENT", brake.failing_percent, 1..=100);
        policy
    }
}

fn delays(env: &mut Environment, retry_topics: usize) -> Vec<Duration> {
    const NAME: &str = "WAYBILL_RETRY_DELAYS_MS";
    let Some(text) = env.optional(NAME) else {
        return Policy::default().delays.into_iter().take(retry_topics).collect();
    };
    if text.trim() == "none" {
        return Vec::new();
    }
    let read = text.split(',').map(|delay| delay.trim().parse().map(Duration::from_millis));
    let Ok(delays) = read.collect::<Result<Vec<Duration>, _>>() else {
        let why = format!("{text:?} is no list of milliseconds: write such as 5000,30000,300000, or none");
        env.mistake(NAME, why);
        return Vec::new();
    };
    if delays.len() > TIERS_MAX {
        env.mistake(NAME, format!("has {} tiers, and at most {TIERS_MAX} are possible", delays.len()));
    } else if delays.len() > retry_topics {
        env.mistake(
            NAME,
            format!(
                "has {} tiers, and the group's topics have {retry_topics} retry topics each: declare more in the manifest of \
                 topics, or write fewer delays",
                delays.len()
            ),
        );
    }
    if delays.iter().any(|delay| *delay > DELAY_MAX) {
        env.mistake(NAME, format!("has a delay above {} ms, one hour", DELAY_MAX.as_millis()));
    }
    delays
}

/// The retry topics of a group that the manifest declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryTopics {
    /// How many tiers are possible: as many as each topic that the group reads has, from tier 1 without a gap.
    pub tiers: usize,
    /// All of them, without prefix.
    pub names: Vec<String>,
}

impl RetryTopics {
    /// Those for the topics `reads` of this group among `declared`. All names without prefix.
    #[must_use]
    pub fn among<'a>(declared: impl IntoIterator<Item = &'a str>, reads: &[&str], group: &str) -> Self {
        let declared: HashSet<&str> = declared.into_iter().collect();
        let is_declared = |name: &String| declared.contains(name.as_str());
        let all = |topic: &str| {
            let tiers = 1..=u8::try_from(TIERS_MAX).unwrap_or(u8::MAX);
            tiers.map(|tier| retry_topic(topic, group, tier)).collect::<Vec<_>>()
        };
        let tiers = |topic: &&str| all(topic).iter().take_while(|name| is_declared(name)).count();
        Self {
            tiers: reads.iter().map(tiers).min().unwrap_or_default(),
            names: reads.iter().flat_map(|topic| all(topic)).filter(is_declared).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)], retry_topics: usize) -> (Policy, Vec<&'static str>) {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut env = Environment::from_map(pairs);
        let policy = Policy::read(&mut env, &RetryTopics { tiers: retry_topics, names: vec![] });
        (policy, env.finish().err().map(|error| error.variables().collect()).unwrap_or_default())
    }

    #[test]
    fn nothing_set_is_the_default_with_the_tiers_that_have_topics() {
        assert_eq!(read(&[], 3), (Policy::default(), vec![]));
        assert_eq!(read(&[], 9), (Policy::default(), vec![]));
        let (policy, mistakes) = read(&[], 1);
        assert_eq!((policy.tiers(), policy.attempts_max, mistakes), (1, 2, vec![]));
    }

    #[test]
    fn everything_can_be_set() {
        let (policy, mistakes) = read(
            &[
                ("WAYBILL_RETRY_DELAYS_MS", "100, 200"),
                ("WAYBILL_RETRY_ATTEMPTS", "7"),
                ("WAYBILL_RETRY_EXHAUSTED", "skip"),
                ("WAYBILL_RETRY_HELD_BYTES_MAX", "6000000"),
                ("WAYBILL_RETRY_BRAKE_KEYS", "0"),
                ("WAYBILL_RETRY_BRAKE_PERCENT", "50"),
            ],
            3,
        );
        assert_eq!(mistakes, Vec::<&str>::new());
        assert_eq!(policy.delays, [100, 200].map(Duration::from_millis));
        assert_eq!((policy.attempts_max, policy.poisoned), (7, Poisoned::Skip));
        assert_eq!(
            (policy.held_bytes_max, policy.brake.keys, policy.brake.failing_percent),
            (6_000_000, 0, 50)
        );
        assert_eq!(policy.check(), Ok(()));
        assert_eq!(read(&[("WAYBILL_RETRY_DELAYS_MS", "none")], 3).0.tiers(), 0);
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, mistakes) = read(
            &[
                ("WAYBILL_RETRY_DELAYS_MS", "1,2,3,4"),
                ("WAYBILL_RETRY_ATTEMPTS", "0"),
                ("WAYBILL_RETRY_EXHAUSTED", "perhaps"),
                ("WAYBILL_RETRY_HELD_BYTES_MAX", "5000000"),
                ("WAYBILL_RETRY_BRAKE_KEYS", "-1"),
                ("WAYBILL_RETRY_BRAKE_PERCENT", "101"),
            ],
            3,
        );
        assert_eq!(mistakes.len(), 6, "{mistakes:?}");
        for delays in ["5s", "3600001", "1,,2"] {
            assert_eq!(read(&[("WAYBILL_RETRY_DELAYS_MS", delays)], 3).1.len(), 1, "{delays}");
        }
    }

    #[test]
    fn tiers_are_counted_as_the_manifest_has_them() {
        let declared = ["a", "a.g.retry.1", "a.g.retry.2", "b.g.retry.1", "b.g.retry.3", "b.h.retry.2"];
        let tiers = |reads: &[&str], group| RetryTopics::among(declared, reads, group).tiers;
        assert_eq!(tiers(&["a"], "g"), 2);
        assert_eq!(tiers(&["a", "b"], "g"), 1);
        assert_eq!(tiers(&["a"], "h"), 0);
        assert_eq!(tiers(&[], "g"), 0);
        let all = ["a.g.retry.1", "a.g.retry.2", "b.g.retry.1", "b.g.retry.3"];
        assert_eq!(RetryTopics::among(declared, &["a", "b"], "g").names, all);
    }
}
