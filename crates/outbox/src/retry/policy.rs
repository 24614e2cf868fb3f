//! How a group retries: the tiers and their delays, how often, what a dead letter does to its key, and the bounds.

use std::time::Duration;

/// Delays of the default policy: a hiccup, a restart, an outage.
const DELAYS: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(300)];
/// Bytes of held messages per group: minutes of a busy topic, and little for a database.
const HELD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Distinct keys the failure-storm brake looks back at: more than a few unlucky keys, less than a topic.
const BRAKE_KEYS: usize = 50;
/// Share of them, in percent, that fail alike when something outside is broken rather than some messages.
const BRAKE_FAILING_PERCENT: usize = 80;
/// Most tiers of a policy: each is a topic per topic and group.
pub(crate) const TIERS_MAX: usize = 9;
/// Most attempts of a policy: an operator should hear of a message before this.
pub(crate) const ATTEMPTS_MAX: u16 = 1_000;
/// Longest delay of a tier: parked keys keep their followers in the database meanwhile.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(3600);

/// What a dead letter does to the later messages of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Poisoned {
    /// They wait until an operator replays or discards the dead letter.
    Block,
    /// They go on without it; order past a dead letter is not kept.
    Skip,
}

/// When the consumer pauses instead of parking key after key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrakePolicy {
    /// How many of the last distinct keys are looked at; 0 turns the brake off.
    pub keys: usize,
    /// It pauses when at least this share of them, in percent, asked to be retried with the same class.
    pub failing_percent: usize,
}

/// A group's retry policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The delay of each tier, from tier 1; none means that a retry is a dead letter at once.
    pub delays: Vec<Duration>,
    /// How often a message is tried before it becomes a dead letter, the first time included. With more attempts than
    /// tiers the last tier repeats.
    pub attempts_max: u16,
    /// What a dead letter does to its key.
    pub poisoned: Poisoned,
    /// Bytes that may be held for the group before its consumers pause. Soft: each member may add a batch, and one batch
    /// alone is never too much.
    pub held_bytes_max: u64,
    /// The failure-storm brake.
    pub brake: BrakePolicy,
    /// The group's retry topics that are declared, without prefix: all of them are read, also those above the present
    /// tiers, on which heads may lie that an earlier policy sent. Empty when it is not known: those of the tiers.
    pub declared: Vec<String>,
}

impl Default for Policy {
    /// 5 s, 30 s, 5 min, one attempt on each after the first; a dead letter blocks its key; 64 MiB held.
    fn default() -> Self {
        Self::with_delays(&DELAYS)
    }
}

impl Policy {
    /// The default with other tiers: one attempt at once, one on each tier.
    #[must_use]
    pub fn with_delays(delays: &[Duration]) -> Self {
        Self {
            delays: delays.to_vec(),
            attempts_max: u16::try_from(delays.len() + 1).unwrap_or(ATTEMPTS_MAX),
            poisoned: Poisoned::Block,
            held_bytes_max: HELD_BYTES_MAX,
            brake: BrakePolicy { keys: BRAKE_KEYS, failing_percent: BRAKE_FAILING_PERCENT },
            declared: Vec::new(),
        }
    }

    /// How many tiers, and so retry topics per topic, there are.
    #[must_use]
    pub fn tiers(&self) -> u8 {
        u8::try_from(self.delays.len().min(TIERS_MAX)).unwrap_or(u8::MAX)
    }

    /// How long a message waits on a tier (from 1); nothing on a tier that does not exist (any more).
    #[must_use]
    pub fn delay(&self, tier: u8) -> Duration {
        let delay = usize::from(tier).checked_sub(1).and_then(|place| self.delays.get(place));
        delay.copied().unwrap_or_default()
    }

    /// Whether it can work.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.delays.len() > TIERS_MAX {
            return Err(
                "there are more than 9 tiers; each is a topic, and a longer wait is an operator's matter",
            );
        }
        if self.delays.iter().any(|delay| *delay > DELAY_MAX) {
            return Err("a tier's delay is above one hour; its key's followers would be held that long");
        }
        if self.attempts_max == 0 || self.attempts_max > ATTEMPTS_MAX {
            return Err("attempts_max is not in 1..=1000");
        }
        if self.brake.failing_percent > 100 {
            return Err("the brake's failing_percent is above 100");
        }
        Ok(())
    }

    /// The retry topics of a group that reads `topic`, without prefix: `<topic>.<group>.retry.<n>`.
    #[must_use]
    pub fn topics(&self, topic: &str, group: &str) -> Vec<String> {
        (1..=self.tiers()).map(|tier| retry_topic(topic, group, tier)).collect()
    }

    /// The retry topics that a group which reads these `topics` has to read, without prefix, each once.
    #[must_use]
    pub fn topics_to_read(&self, topics: &[&str], group: &str) -> Vec<String> {
        let mut names: Vec<String> = topics.iter().flat_map(|topic| self.topics(topic, group)).collect();
        let above = self.declared.iter().filter(|name| !names.contains(name)).cloned();
        let above: Vec<String> = above.collect();
        names.extend(above);
        names
    }

    /// Whether there is this retry topic of the group, as far as it is known.
    pub(crate) fn has_topic(&self, name: &str) -> bool {
        self.declared.is_empty() || self.declared.iter().any(|declared| declared == name)
    }
}

pub(crate) fn retry_topic(topic: &str, group: &str, tier: u8) -> String {
    format!("{topic}.{group}.retry.{tier}")
}

/// The main topic of a record's topic, without prefix: what lay on a retry topic of the group belongs to the topic before
/// it. (A topic from elsewhere has no prefix to take off.)
pub(crate) fn main_topic<'a>(prefix: &str, topic: &'a str, group: &str) -> &'a str {
    let mut name = topic.strip_prefix(prefix).unwrap_or(topic);
    while let Some(before) = before_tier(name, group) {
        name = before;
    }
    name
}

fn before_tier<'a>(name: &'a str, group: &str) -> Option<&'a str> {
    let (before, tier) = name.rsplit_once(".retry.")?;
    let is_tier = tier.parse::<usize>().is_ok_and(|tier| (1..=TIERS_MAX).contains(&tier));
    before.strip_suffix(group)?.strip_suffix('.').filter(|topic| is_tier && !topic.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_the_documents_say() {
        let policy = Policy::default();
        policy.check().unwrap();
        assert_eq!((policy.tiers(), policy.attempts_max, policy.poisoned), (3, 4, Poisoned::Block));
        assert_eq!([0, 1, 2, 3, 4].map(|tier| policy.delay(tier).as_secs()), [0, 5, 30, 300, 0]);
        assert_eq!(policy.topics("a.events", "g")[2], "a.events.g.retry.3");
    }

    #[test]
    fn the_main_topic_of_a_retry_topic_is_the_one_before_it() {
        for (topic, main) in [
            ("t1.a.events", "a.events"),
            ("t1.a.events.g.retry.1", "a.events"),
            ("t1.a.events.g.retry.2.g.retry.1", "a.events"),
            ("t1.a.events.h.retry.1", "a.events.h.retry.1"),
            ("t1.a.events.g.retry.x", "a.events.g.retry.x"),
            ("t1.a.events.g.retry.0", "a.events.g.retry.0"),
            ("t2.a.events.g.dlq", "t2.a.events.g.dlq"),
            ("t1..g.retry.1", ".g.retry.1"),
            ("t1.g.retry.1", "g.retry.1"),
        ] {
            assert_eq!(main_topic("t1.", topic, "g"), main, "{topic}");
        }
    }

    #[test]
    fn every_declared_retry_topic_is_read_also_above_the_tiers() {
        let declared = ["a.g.retry.1", "a.g.retry.2", "a.g.retry.3"].map(str::to_owned).to_vec();
        let policy = Policy { declared, ..Policy::with_delays(&[Duration::ZERO]) };
        assert_eq!(policy.topics_to_read(&["a"], "g"), policy.declared);
        assert!(policy.has_topic("a.g.retry.2") && !policy.has_topic("b.g.retry.1"));
        let unknown = Policy::with_delays(&[Duration::ZERO; 2]);
        assert_eq!(unknown.topics_to_read(&["a"], "g"), ["a.g.retry.1", "a.g.retry.2"]);
        assert!(unknown.has_topic("b.g.retry.1"));
    }

    #[test]
    fn what_can_not_work_is_refused() {
        let mut policy = Policy { attempts_max: 0, ..Policy::default() };
        assert!(policy.check().unwrap_err().contains("attempts_max"));
        policy = Policy::with_delays(&[Duration::from_secs(3601)]);
        assert!(policy.check().unwrap_err().contains("one hour"));
        assert!(Policy::with_delays(&[Duration::ZERO; 10]).check().unwrap_err().contains("9 tiers"));
    }
}
