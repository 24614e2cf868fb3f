//! The world around the relay: concurrent transactions on a database, the topics, and what may still go wrong.

use outbox_relay::core::snapshot::{Snapshot, Xid};

/// An outbox row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) xid: Xid,
    pub(super) aggregate: char,
    pub(super) version: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Running,
    Committed,
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transaction {
    step: usize,
    xid: Option<Xid>,
    state: State,
    rows: Vec<Row>,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Relay crashes and takeovers.
    pub(super) crashes: u8,
    /// Deliveries that fail.
    pub(super) failures: u8,
    /// Crashes of the database.
    pub(super) restarts: u8,
    /// Partitions that are dropped.
    pub(super) drops: u8,
}

/// What is in the topics: which rows, and the last version of each aggregate. A row that is there already is a
/// repeat, which consumers drop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Topics {
    ids: u32,
    versions: Vec<(char, u8)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    programs: &'static [&'static str],
    transactions: Vec<Transaction>,
    next_xid: Xid,
    next_id: i64,
    /// The newest transaction id that has ended.
    completed: Xid,
    topics: Topics,
    /// Rows up to this id went with their partition.
    dropped: i64,
    pub(super) budget: Budget,
}

impl World {
    pub(super) fn new(programs: &'static [&'static str], budget: Budget) -> Self {
        let transaction = Transaction { step: 0, xid: None, state: State::Running, rows: Vec::new() };
        Self {
            programs,
            transactions: vec![transaction; programs.len()],
            next_xid: 1,
            next_id: 1,
            completed: 0,
            topics: Topics::default(),
            dropped: 0,
            budget,
        }
    }

    /// What `pg_current_snapshot()` would say now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let running = self.transactions.iter().filter(|t| t.state == State::Running).filter_map(|t| t.xid);
        Snapshot::new(self.completed + 1, running.collect())
    }

    /// The oldest transaction id still running, or the next: what the xmin gate waits for.
    pub(super) fn xmin(&self) -> Xid {
        let running = self.transactions.iter().filter(|t| t.state == State::Running).filter_map(|t| t.xid);
        running.min().unwrap_or(self.next_xid)
    }

    /// The committed rows that are still in the table.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.committed().filter(|row| row.id > self.dropped)
    }

    fn committed(&self) -> impl Iterator<Item = Row> + '_ {
        self.transactions.iter().filter(|t| t.state == State::Committed).flat_map(|t| t.rows.iter().copied())
    }

    /// The oldest partition goes, here the row with the lowest id: when the position sees it, as retention asks. Rows
    /// that are not committed are in no partition that is old enough.
    pub(super) fn drop_partition(&self, published: impl Fn(&Row) -> bool) -> Option<World> {
        let running = self.transactions.iter().filter(|t| t.state == State::Running);
        let oldest = self.rows().min_by_key(|row| row.id)?;
        if running.flat_map(|t| &t.rows).any(|row| row.id < oldest.id) || !published(&oldest) {
            return None;
        }
        let mut next = self.clone();
        next.budget.drops = self.budget.drops.checked_sub(1)?;
        next.dropped = oldest.id;
        Some(next)
    }

    /// The broker appends a row; an error when it comes out of order.
    pub(super) fn publish(&mut self, row: Row) -> Result<(), String> {
        let bit = 1 << row.id;
        if self.topics.ids & bit != 0 {
            return Ok(());
        }
        self.topics.ids |= bit;
        let versions = &mut self.topics.versions;
        let place =
            versions.iter().position(|(aggregate, _)| *aggregate == row.aggregate).unwrap_or_else(|| {
                versions.push((row.aggregate, 0));
                versions.sort_unstable();
                versions.iter().position(|(aggregate, _)| *aggregate == row.aggregate).unwrap()
            });
        let last = &mut versions[place].1;
        if row.version != *last + 1 {
            return Err(format!("inverted: {row:?} comes after version {last}"));
        }
        *last = row.version;
        Ok(())
    }

    /// At the end of everything: an error when a committed row is in no topic.
    pub(super) fn complete(&self) -> Result<(), String> {
        let lost = self.committed().find(|row| self.topics.ids & (1 << row.id) == 0);
        lost.map_or(Ok(()), |row| Err(format!("lost: {row:?}")))
    }

    /// Every step that some transaction may take. `locks`: an append waits for the lock of its aggregate.
    pub(super) fn steps(&self, locks: bool) -> Vec<World> {
        let mut next = Vec::new();
        for (place, transaction) in self.transactions.iter().enumerate() {
            if transaction.state != State::Running {
                continue;
            }
            match self.programs[place].chars().nth(transaction.step) {
                Some('x') => next.push(self.with(place, |world, t| world.take_xid(t))),
                Some(aggregate) if locks && self.locked(place, aggregate) => {
                    next.push(self.with(place, World::abort));
                }
                Some(aggregate) => next.push(self.append(place, aggregate, locks)),
                None => {
                    next.push(self.with(place, |world, t| world.end(t, State::Committed)));
                    if locks {
                        next.push(self.with(place, World::abort));
                    }
                }
            }
        }
        next
    }

    /// The database crashes: running transactions are gone, and transaction ids of which nothing durable speaks are
    /// given out again. `position_xmax`: the edge of the stored position, which is durable.
    pub(super) fn restart(&self, position_xmax: Xid) -> World {
        let mut next = self.clone();
        next.budget.restarts -= 1;
        for t in next.transactions.iter_mut().filter(|t| t.state == State::Running) {
            *t = Transaction { step: usize::MAX, xid: None, state: State::Aborted, rows: Vec::new() };
        }
        let committed =
            self.transactions.iter().filter(|t| t.state == State::Committed).filter_map(|t| t.xid);
        next.next_xid = committed.max().unwrap_or(0).max(position_xmax - 1) + 1;
        next.completed = next.next_xid - 1;
        // Programs that had not begun run after the restart.
        for (t, before) in next.transactions.iter_mut().zip(&self.transactions) {
            if before.state == State::Running && before.step == 0 {
                *t = before.clone();
            }
        }
        next
    }

    fn with(&self, place: usize, change: impl Fn(&mut World, &mut Transaction)) -> World {
        let mut world = self.clone();
        let mut transaction = self.transactions[place].clone();
        transaction.step += 1;
        change(&mut world, &mut transaction);
        world.transactions[place] = transaction;
        world
    }

    fn take_xid(&mut self, transaction: &mut Transaction) {
        if transaction.xid.is_none() {
            transaction.xid = Some(self.next_xid);
            self.next_xid += 1;
        }
    }

    fn append(&self, place: usize, aggregate: char, locks: bool) -> World {
        let version = 1 + self.versions_seen(place, aggregate, locks);
        self.with(place, |world, transaction| {
            world.take_xid(transaction);
            let xid = transaction.xid.unwrap();
            transaction.rows.push(Row { id: world.next_id, xid, aggregate, version });
            world.next_id += 1;
        })
    }

    fn versions_seen(&self, place: usize, aggregate: char, locks: bool) -> u8 {
        let visible = |(at, t): &(usize, &Transaction)| *at == place || t.state == State::Committed || !locks;
        let all = self.transactions.iter().enumerate().filter(visible);
        let rows = all.flat_map(|(_, t)| t.rows.iter()).filter(|row| row.aggregate == aggregate);
        u8::try_from(rows.count()).unwrap()
    }

    fn locked(&self, place: usize, aggregate: char) -> bool {
        let others =
            self.transactions.iter().enumerate().filter(|(at, t)| *at != place && t.state == State::Running);
        others.into_iter().any(|(_, t)| t.rows.iter().any(|row| row.aggregate == aggregate))
    }

    fn abort(&mut self, transaction: &mut Transaction) {
        self.end(transaction, State::Aborted);
    }

    fn end(&mut self, transaction: &mut Transaction, state: State) {
        transaction.step = usize::MAX;
        transaction.state = state;
        self.completed = self.completed.max(transaction.xid.unwrap_or(0));
        if state == State::Aborted {
            transaction.rows.clear();
        }
    }
}
