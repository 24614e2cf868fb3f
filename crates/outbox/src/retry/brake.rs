//! The failure-storm brake: when most of the last distinct keys fail alike, something outside is broken.

use std::collections::VecDeque;

use super::policy::BrakePolicy;

/// How the last distinct keys of a group fared, as one member saw them.
#[derive(Debug)]
pub struct Brake {
    policy: BrakePolicy,
    /// Oldest first; each key once.
    last: VecDeque<(String, Option<&'static str>)>,
}

impl Brake {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(policy: BrakePolicy) -> Self {
        Self { policy, last: VecDeque::with_capacity(policy.keys) }
    }

    /// Remembers how a message of this key fared: the class it asked to be retried with, or `None`.
    pub fn note(&mut self, key: &str, class: Option<&'static str>) {
        if self.policy.keys == 0 {
            return;
        }
        if let Some(place) = self.last.iter().position(|(known, _)| known == key) {
            self.last.remove(place);
        }
        if self.last.len() == self.policy.keys {
            self.last.pop_front();
        }
        self.last.push_back((key.to_owned(), class));
    }

    /// The class most of the last keys fail with, when there are enough of both.
    #[must_use]
    pub fn storm(&self) -> Option<&'static str> {
        if self.policy.keys == 0 || self.last.len() < self.policy.keys {
            return None;
        }
        let count = |class| self.last.iter().filter(|(_, c)| *c == Some(class)).count();
        let most = self.last.iter().filter_map(|(_, class)| *class).max_by_key(|class| count(class))?;
        (count(most) * 100 >= self.policy.failing_percent * self.last.len()).then_some(most)
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
}
