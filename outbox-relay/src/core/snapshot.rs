//! Postgres snapshots: which transactions one sees, and how two differ.

use std::fmt;
use std::str::FromStr;

/// A transaction's 64-bit id (`xid8`); never used twice in one cluster.
pub type Xid = u64;

/// A `pg_snapshot`: sees every transaction that had ended before it was taken, and no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    xmin: Xid,
    xmax: Xid,
    /// In progress below `xmax`, ascending.
    running: Vec<Xid>,
}

/// A text that is no `pg_snapshot` (`xmin:xmax:xid,xid,...`).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no pg_snapshot: expected xmin:xmax:xid,xid,...")]
pub struct NoSnapshot(String);

impl Snapshot {
    /// The snapshot with this upper edge and these transactions in progress below it.
    #[must_use]
    pub fn new(xmax: Xid, mut running: Vec<Xid>) -> Self {
        running.retain(|xid| *xid < xmax);
        running.sort_unstable();
        running.dedup();
        Self { xmin: running.first().copied().unwrap_or(xmax), xmax, running }
    }

    /// The first transaction id that had not been given out, or had not ended, when everything below was known.
    #[must_use]
    pub fn xmax(&self) -> Xid {
        self.xmax
    }

    /// In progress below [`Snapshot::xmax`], ascending.
    #[must_use]
    pub fn running(&self) -> &[Xid] {
        &self.running
    }

    /// Whether this snapshot sees what transaction `xid` wrote, provided that it committed.
    #[must_use]
    pub fn sees(&self, xid: Xid) -> bool {
        xid < self.xmax && self.running.binary_search(&xid).is_err()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (place, xid) in self.running.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            write!(f, "{xid}")?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = NoSnapshot;

    fn from_str(text: &str) -> Result<Self, NoSnapshot> {
        let wrong = || NoSnapshot(text.to_owned());
        let number = |part: &str| part.parse::<Xid>().map_err(|_| wrong());
        let mut parts = text.splitn(3, ':');
        let (Some(xmin), Some(xmax), Some(list)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let (xmin, xmax) = (number(xmin)?, number(xmax)?);
        let running: Vec<Xid> =
            list.split(',').filter(|part| !part.is_empty()).map(number).collect::<Result<_, _>>()?;
        let ascending = running.is_sorted_by(|a, b| a < b);
        let inside = running.iter().all(|xid| (xmin..xmax).contains(xid));
        if xmin > xmax || !ascending || !inside {
            return Err(wrong());
        }
        Ok(Self { xmin, xmax, running })
    }
}

/// The transactions that one snapshot sees and an older one did not, in the shape two index reads need.
///
/// A transaction is in the difference when it *began* (took its id) after the older snapshot and had ended at the
/// newer one, or when the older snapshot saw it running and it had *finished* at the newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Begun: from this id ...
    pub begun_from: Xid,
    /// ... and below this one ...
    pub begun_below: Xid,
    /// ... without these, which still run.
    pub begun_except: Vec<Xid>,
    /// Finished in between, ascending.
    pub finished: Vec<Xid>,
}

impl Difference {
    /// What `to` sees and `from` does not. `to` is the newer one.
    #[must_use]
    pub fn between(from: &Snapshot, to: &Snapshot) -> Self {
        let begun_except = to.running.iter().copied().filter(|xid| *xid >= from.xmax).collect();
        let finished = from.running.iter().copied().filter(|xid| to.sees(*xid)).collect();
        Self { begun_from: from.xmax, begun_below: to.xmax, begun_except, finished }
    }

    /// Whether rows of this transaction belong to the difference.
    #[must_use]
    pub fn takes(&self, xid: Xid) -> bool {
        let begun = (self.begun_from..self.begun_below).contains(&xid)
            && self.begun_except.binary_search(&xid).is_err();
        begun || self.finished.binary_search(&xid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_what_postgres_does() {
        for text in ["1:1:", "790:200790:", "10:20:10,14,15"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        for text in
            ["", "1", "1:2", "a:2:", "5:4:", "1:9:9", "3:9:2", "1:9:3,3", "1:9:4,3", "1:9:4,x", "-1:2:"]
        {
            assert_eq!(text.parse::<Snapshot>(), Err(NoSnapshot(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn sees_what_had_ended() {
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        assert!([1, 9, 11, 19].iter().all(|xid| snapshot.sees(*xid)));
        assert!(![10, 14, 20, 21].iter().any(|xid| snapshot.sees(*xid)));
    }

    proptest! {
        /// Time passes between two snapshots: running ones may end, new ones begin. The two index reads take just
        /// what the definition takes.
        #[test]
        fn the_difference_is_what_one_sees_and_the_other_does_not(
            xmax in 1_u64..40, more in 0_u64..40, running in prop::collection::vec(0_u64..40, 0..12),
            ended in prop::collection::vec(any::<bool>(), 12), begun in prop::collection::vec(0_u64..80, 0..12),
        ) {
            let from = Snapshot::new(xmax, running);
            let still = from.running().iter().zip(&ended).filter(|(_, ended)| !**ended).map(|(xid, _)| *xid);
            let begun = begun.into_iter().filter(|xid| *xid >= xmax);
            let to = Snapshot::new(xmax + more, still.chain(begun).collect());
            let difference = Difference::between(&from, &to);
            for xid in 0..90 {
                prop_assert_eq!(difference.takes(xid), to.sees(xid) && !from.sees(xid), "{} {} {}", from, to, xid);
            }
            prop_assert_eq!(from.to_string().parse::<Snapshot>().unwrap(), from);
        }
    }
}
