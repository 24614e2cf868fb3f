//! Which messages of a batch that failed are tried together next, until what fails is alone: pure. How a part is tried is
//! not its matter: `search.rs` tries each behind a savepoint of one transaction, `process.rs` each in its own.

/// How what is left of a failed batch is cut: always its first messages, so that nothing is begun before all before it
/// is settled. What fails is halved; what does not is kept and known to be good, so that what is left of a half that
/// failed holds what is at fault. When that is alone, the rest is tried in larger parts again: after the first
/// fault all of it, and half as much after each further one.
///
/// A batch of n with k messages at fault takes at most `2 + k (log2 n + 2)` tries, log2 rounded up, the first failed one
/// included; and, whatever k, at most `2 n + (log2 n + 1) (log2 n + 2) / 2`: about as many as one by one.
#[derive(Debug)]
pub(super) struct Halving {
    /// The first so many failed together. 0: nothing is known of what is left.
    suspects: usize,
    /// How many are tried together of what nothing is known of.
    together: usize,
    together_max: usize,
    /// What is at fault is the first, and no longer handled: to be buried with what is tried next.
    is_found: bool,
}

impl Halving {
    /// Of a batch of so many messages, which failed.
    pub(super) fn of(failed: usize) -> Self {
        // Twice: halved at the first fault, it is still all of the rest.
        let together_max = failed.saturating_mul(2);
        Self { suspects: failed, together: together_max, together_max, is_found: false }
    }

    /// How many of the first of what is left are tried together now: at least one, unless nothing is left.
    pub(super) fn next(&self, left: usize) -> usize {
        let wanted = if self.suspects == 0 { self.together } else { self.suspects.div_ceil(2) };
        wanted.min(left)
    }

    /// The first so many were tried and stay as they are: they are left no more.
    pub(super) fn kept(&mut self, tried: usize) {
        let buried_only = self.is_found && tried == 1;
        self.is_found = false;
        if self.suspects > 0 {
            self.suspects = self.suspects.saturating_sub(tried);
        } else if !buried_only {
            self.together = self.together.saturating_mul(2).min(self.together_max);
        }
    }

    /// The first so many were tried and failed. `true`: it was one alone, so it is known what is at fault; it stays the
    /// first of what is left, and will fail no more.
    pub(super) fn failed(&mut self, tried: usize) -> bool {
        if tried > 1 {
            self.suspects = tried;
            return false;
        }
        self.suspects = 0;
        self.together = (self.together / 2).max(1);
        self.is_found = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What happened to a batch: whether each message was found at fault, the tries, and how many parts were kept.
    struct Redone {
        found: Vec<bool>,
        tries: usize,
        kept: usize,
    }

    /// Tries a batch as those two do; a part fails when it has a message at fault that was not found yet.
    fn redo(at_fault: &[bool]) -> Redone {
        let count = at_fault.len();
        let mut halving = Halving::of(count);
        let mut redone = Redone { found: vec![false; count], tries: 1, kept: 0 };
        let mut begun = 0;
        while begun < count {
            let tried = halving.next(count - begun);
            assert!((1..=count - begun).contains(&tried));
            redone.tries += 1;
            let part = begun..begun + tried;
            if part.clone().any(|place| at_fault[place] && !redone.found[place]) {
                redone.found[begun] |= halving.failed(tried);
            } else {
                halving.kept(tried);
                redone.kept += 1;
                begun = part.end;
            }
        }
        redone
    }

    fn log2_up(count: usize) -> usize {
        count.next_power_of_two().ilog2() as usize
    }

    /// Everything was settled, in order, only what is at fault was found so, and within the bounds.
    fn check(at_fault: &[bool]) -> Redone {
        let (count, faults) = (at_fault.len(), at_fault.iter().filter(|is| **is).count());
        let redone = redo(at_fault);
        assert_eq!(redone.found, at_fault);
        let log2 = log2_up(count);
        let few = 2 + faults * (log2 + 2);
        let many = 2 * count + (log2 + 1) * (log2 + 2) / 2;
        assert!(redone.tries <= few.min(many), "{faults} of {count}: {}", redone.tries);
        redone
    }

    #[test]
    fn every_batch_of_up_to_twelve_is_settled_within_the_bounds() {
        for count in 1..=12 {
            for mask in 1..1_u32 << count {
                check(&(0..count).map(|place| mask >> place & 1 == 1).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn one_of_a_hundred_takes_eleven_tries_at_most() {
        for place in 0..100 {
            let redone = check(&(0..100).map(|other| other == place).collect::<Vec<_>>());
            assert!(redone.tries <= 11 && redone.kept <= 8, "{place}: {}", redone.tries);
        }
    }

    #[test]
    fn what_failed_by_chance_is_kept_in_halves() {
        let mut halving = Halving::of(100);
        let mut left = 100;
        let mut parts = Vec::new();
        while left > 0 {
            let tried = halving.next(left);
            parts.push(tried);
            left -= tried;
            halving.kept(tried);
        }
        assert_eq!(parts, [50, 25, 13, 6, 3, 2, 1]);
    }

    proptest! {
        #[test]
        fn any_batch_is_settled_within_the_bounds(
            at_fault in (0.0..1.0_f64).prop_flat_map(|share| {
                prop::collection::vec(prop::bool::weighted(share), 1..500)
            })
        ) {
            prop_assume!(at_fault.contains(&true));
            check(&at_fault);
        }
    }
}
