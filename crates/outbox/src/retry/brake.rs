//! The failure-storm brake: when most of the last distinct keys fail alike, something outside is broken.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::policy::BrakePolicy;

/// How long it counts how a key fared. What is broken outside is met again and again meanwhile, by batches and by heads
/// that are retried; what is older tells of an outage that may be over. So a batch of few keys, which can not know about
/// any but them, is paused for so long at most.
const NOTE_AGE_MAX: Duration = Duration::from_secs(600);

/// How the last distinct keys of a group fared, as one member saw them.
#[derive(Debug)]
pub struct Brake {
    policy: BrakePolicy,
    /// Oldest first; each key once.
    last: VecDeque<Note>,
}

#[derive(Debug)]
struct Note {
    key: String,
    class: Option<&'static str>,
    at: Instant,
}

impl Brake {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(policy: BrakePolicy) -> Self {
        Self { policy, last: VecDeque::with_capacity(policy.keys) }
    }

    /// Remembers how a message of this key fared just now: the class it asked to be retried with, or `None`.
    pub fn note(&mut self, key: &str, class: Option<&'static str>) {
        self.note_at(key, class, Instant::now());
    }

    /// The class most of the last keys fail with, when there are enough of both.
    #[must_use]
    pub fn storm(&self) -> Option<&'static str> {
        self.storm_at(Instant::now())
    }

    /// As [`Self::note`]; times come in their order.
    pub fn note_at(&mut self, key: &str, class: Option<&'static str>, at: Instant) {
        if self.policy.keys == 0 {
            return;
        }
        if let Some(place) = self.last.iter().position(|note| note.key == key) {
            self.last.remove(place);
        }
        if self.last.len() == self.policy.keys {
            self.last.pop_front();
        }
        self.last.push_back(Note { key: key.to_owned(), class, at });
    }

    /// As [`Self::storm`].
    #[must_use]
    pub fn storm_at(&self, now: Instant) -> Option<&'static str> {
        let old = self.last.partition_point(|note| now.duration_since(note.at) > NOTE_AGE_MAX);
        let known = || self.last.iter().skip(old);
        if self.policy.keys == 0 || known().count() < self.policy.keys {
            return None;
        }
        let count = |class| known().filter(|note| note.class == Some(class)).count();
        let most = known().filter_map(|note| note.class).max_by_key(|class| count(class))?;
        (count(most) * 100 >= self.policy.failing_percent * self.policy.keys).then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_last_distinct_keys_failing_alike_is_a_storm() {
        let mut brake = Brake::new(BrakePolicy { keys: 5, failing_percent: 80 });
        for key in ["a", "b", "c", "d"] {
            brake.note(key, Some("down"));
            brake.note(key, Some("down"));
        }
        assert_eq!(brake.storm(), None, "four keys are not five, however often they fail");
        brake.note("e", None);
        assert_eq!(brake.storm(), Some("down"));
        brake.note("d", None);
        assert_eq!(brake.storm(), None, "what works again no longer counts");
        brake.note("d", Some("other"));
        assert_eq!(brake.storm(), None, "alike means with the same class");
        brake.note("f", Some("down"));
        assert_eq!(brake.storm(), None, "a went, f came: three of five");
        let mut off = Brake::new(BrakePolicy { keys: 0, failing_percent: 0 });
        off.note("a", Some("down"));
        assert_eq!(off.storm(), None);
    }

    #[test]
    fn an_outage_that_is_long_over_does_not_make_a_storm_of_one_key() {
        let mut brake = Brake::new(BrakePolicy { keys: 5, failing_percent: 80 });
        let began = Instant::now();
        brake.note_at("z", None, began);
        for key in ["a", "b", "c"] {
            brake.note_at(key, Some("down"), began);
        }
        let days_later = began + Duration::from_secs(200_000);
        brake.note_at("d", Some("down"), days_later);
        assert_eq!(brake.storm_at(days_later), None, "four of five, three of them long ago");
    }

    #[test]
    fn one_keys_batch_is_not_paused_for_ever() {
        let mut brake = Brake::new(BrakePolicy { keys: 5, failing_percent: 80 });
        let began = Instant::now();
        for key in ["a", "b", "c", "d", "e"] {
            brake.note_at(key, Some("down"), began);
        }
        // The batch that was paused is tried again and again, and has nothing but this key.
        let mut now = began;
        while brake.storm_at(now).is_some() {
            now += Duration::from_secs(5);
            brake.note_at("e", Some("down"), now);
            assert!(now < began + Duration::from_secs(700), "paused for ever");
        }
        assert!(now > began + NOTE_AGE_MAX, "but as long as it may be a storm");
        for key in ["a", "b", "c", "d", "e"] {
            brake.note_at(key, Some("down"), now);
        }
        assert_eq!(brake.storm_at(now), Some("down"), "many that still fail are one again");
    }
}
