//! Whether numbered records came once each, and those of a key in order: a bit for each number, and the newest of each key,
//! so that ten million of them fit into a few megabytes.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

/// Bits of a word of the map of records that came.
const WORD_BITS: u64 = u64::BITS as u64;

/// Records looked at, of those that must come.
#[derive(Debug)]
pub struct Tally {
    expected: Range<u64>,
    came: Vec<u64>,
    count: u64,
    newest: HashMap<Vec<u8>, u64>,
}

/// Why a run has no number.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not one of those that must come.
    Invented(u64),
    /// It had come before.
    Doubled(u64),
    /// A newer one of its key, the second, came before it.
    Inverted(u64, u64),
    /// It did not come.
    Lost(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invented(number) => write!(f, "record {number} was never written"),
            Self::Doubled(number) => write!(f, "record {number} came twice"),
            Self::Inverted(number, newest) => write!(f, "record {number} came behind {newest} of its key"),
            Self::Lost(number) => write!(f, "record {number} never came"),
        }
    }
}

impl Tally {
    /// Nothing has come of these yet.
    #[must_use]
    pub fn of(expected: Range<u64>) -> Self {
        let words = (expected.end - expected.start).div_ceil(WORD_BITS);
        let came = vec![0; usize::try_from(words).unwrap_or(usize::MAX)];
        Self { expected, came, count: 0, newest: HashMap::new() }
    }

    /// A record came; `ordered` by its key among those of the same, where it has one.
    ///
    /// # Errors
    /// [`Fault`], but for what is lost.
    pub fn take(&mut self, number: u64, ordered: Option<&[u8]>) -> Result<(), Fault> {
        if !self.expected.contains(&number) {
            return Err(Fault::Invented(number));
        }
        let place = number - self.expected.start;
        let (word, bit) =
            (usize::try_from(place / WORD_BITS).unwrap_or(usize::MAX), 1 << (place % WORD_BITS));
        if self.came[word] & bit != 0 {
            return Err(Fault::Doubled(number));
        }
        self.came[word] |= bit;
        self.count += 1;
        let Some(key) = ordered else { return Ok(()) };
        match self.newest.get_mut(key) {
            Some(newest) if *newest > number => return Err(Fault::Inverted(number, *newest)),
            Some(newest) => *newest = number,
            None => {
                self.newest.insert(key.to_vec(), number);
            }
        }
        Ok(())
    }

    /// Everything came.
    ///
    /// # Errors
    /// [`Fault::Lost`] with the first that did not.
    pub fn finish(self) -> Result<(), Fault> {
        if self.count == self.expected.end - self.expected.start {
            return Ok(());
        }
        let gap = self.came.iter().zip(0_u64..).find(|(word, _)| **word != u64::MAX);
        let place = gap.map_or(0, |(word, at)| at * WORD_BITS + u64::from(word.trailing_ones()));
        Err(Fault::Lost(self.expected.start + place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(records: &[(u64, &str)], expected: Range<u64>) -> Result<(), Fault> {
        let mut tally = Tally::of(expected);
        for (number, key) in records {
            tally.take(*number, Some(key.as_bytes()))?;
        }
        tally.finish()
    }

    #[test]
    fn each_fault_is_seen() {
        assert_eq!(look(&[(10, "a"), (12, "b"), (11, "a")], 10..13), Ok(()));
        let doubled = look(&[(10, "a"), (11, "a"), (11, "a")], 10..13);
        assert_eq!(doubled, Err(Fault::Doubled(11)), "as many as there must be, and one of them twice");
        assert_eq!(look(&[(10, "a"), (12, "b")], 10..13), Err(Fault::Lost(11)));
        assert_eq!(look(&[(11, "a"), (10, "a")], 10..12), Err(Fault::Inverted(10, 11)));
        assert_eq!(look(&[(13, "a")], 10..13), Err(Fault::Invented(13)));
        let all_but_the_last: Vec<(u64, &str)> = (0..129).map(|number| (number, "a")).collect();
        assert_eq!(look(&all_but_the_last, 0..130), Err(Fault::Lost(129)));
    }
}
