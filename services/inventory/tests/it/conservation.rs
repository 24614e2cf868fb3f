//! No piece appears or vanishes, whatever comes in whatever order how often: the domain alone, by random histories.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use waybill_events::{OrderId, Sku};
use waybill_inventory::domain::reservation::{Reply, Reservation, StockCommand};
use waybill_inventory::domain::shelf::{Lines, Shelf};
use waybill_inventory::domain::stock::{Levels, Line, MovementKind, Pieces};
use waybill_inventory::domain::wave::{Movement, Numbered, Wave, skus_needed};

const ORDERS: usize = 5;
const SKUS: usize = 4;

#[derive(Debug, Clone)]
enum Happening {
    Receipt { sku: usize, pieces: i32 },
    Wave(Vec<(usize, Kind)>),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Reserve,
    ReserveOther,
    Release,
    Commit,
    Restock,
}

/// What the database would hold.
#[derive(Default)]
struct World {
    levels: BTreeMap<Sku, Levels>,
    received: BTreeMap<Sku, i64>,
    reservations: HashMap<OrderId, Numbered>,
    ledger: Vec<Movement>,
}

fn sku(number: usize) -> Sku {
    format!("SKU-{number}").parse().unwrap()
}

fn order(number: usize) -> OrderId {
    OrderId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
}

/// Each order asks for the same SKUs every time; order 3 for one that does not exist.
fn lines(order: usize, quantity: i32) -> Lines {
    let line = |number: usize| Line { sku: sku(number), pieces: Pieces::ordered(quantity).unwrap() };
    let second = if order == 3 { SKUS } else { (order + 1) % SKUS };
    Lines::new(vec![line(order % SKUS), line(second)]).unwrap()
}

fn command(order: usize, kind: Kind) -> StockCommand {
    let quantity = i32::try_from(order).unwrap() + 1;
    match kind {
        Kind::Reserve => StockCommand::Reserve(lines(order, quantity)),
        Kind::ReserveOther => StockCommand::Reserve(lines(order, quantity + 1)),
        Kind::Release => StockCommand::Release,
        Kind::Commit => StockCommand::Commit,
        Kind::Restock => StockCommand::Restock,
    }
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let kind = prop_oneof![
        4 => Just(Kind::Reserve),
        1 => Just(Kind::ReserveOther),
        2 => Just(Kind::Release),
        2 => Just(Kind::Commit),
        2 => Just(Kind::Restock),
    ];
    let wave = proptest::collection::vec((0..ORDERS, kind), 1..ORDERS).prop_map(|mut commands| {
        let mut seen = HashSet::new();
        commands.retain(|(order, _)| seen.insert(*order));
        Happening::Wave(commands)
    });
    let receipt = (0..SKUS, 1..8).prop_map(|(sku, pieces)| Happening::Receipt { sku, pieces });
    proptest::collection::vec(prop_oneof![1 => receipt, 3 => wave], 1..60)
}

impl World {
    fn receive(&mut self, sku: Sku, pieces: i32) {
        let levels = self.levels.get_mut(&sku).unwrap();
        *levels = levels.after(MovementKind::Receive, Pieces::ordered(pieces).unwrap()).unwrap();
        *self.received.entry(sku).or_default() += i64::from(pieces);
    }

    /// One wave as the command does it: load, decide, write the differences.
    fn obey(&mut self, commands: &[(OrderId, StockCommand)]) {
        let orders: HashSet<OrderId> = commands.iter().map(|(order, _)| *order).collect();
        let loaded: HashMap<_, _> = self
            .reservations
            .iter()
            .filter(|(o, _)| orders.contains(o))
            .map(|(o, n)| (*o, n.clone()))
            .collect();
        let locked = skus_needed(commands, &loaded);
        let levels = self.levels.iter().filter(|(sku, _)| locked.contains(sku)).map(|(s, l)| (s.clone(), *l));
        let mut wave = Wave::new(loaded.clone(), Shelf::new(levels.collect()));
        let mut answered = HashSet::new();
        for (order, command) in commands {
            let before = loaded.get(order).map_or(0, |found| found.version);
            if let Ok(answer) = wave.obey(*order, command) {
                assert_eq!(answer.version, before + 1, "replies are numbered without gaps");
                answered.insert(*order);
                if let (Reply::Rejected(_), Some(found)) = (&answer.reply, loaded.get(order)) {
                    assert!(
                        !matches!(found.reservation, Reservation::Reserved { .. }),
                        "a held order hears so"
                    );
                }
            }
        }
        let changes = wave.into_changes();
        let saved: HashSet<OrderId> = changes.reservations.iter().map(|(order, _)| *order).collect();
        assert_eq!(saved, answered, "who is answered is saved, who is not is unchanged");
        self.reservations.extend(changes.reservations);
        self.ledger.extend(changes.movements);
        for change in changes.levels {
            let levels = self.levels.get_mut(&change.sku).unwrap();
            levels.available += change.available;
            levels.reserved += change.reserved;
            levels.shipped += change.shipped;
        }
    }

    fn check(&self) {
        let mut keys = HashSet::new();
        for movement in &self.ledger {
            let key = (movement.order_id, movement.sku.clone(), movement.kind.as_str());
            assert!(keys.insert(key), "the ledger's natural key holds: {movement:?}");
        }
        for (sku, levels) in &self.levels {
            assert!(
                levels.available >= 0 && levels.reserved >= 0 && levels.shipped >= 0,
                "{sku}: {levels:?}"
            );
            let received = self.received.get(sku).copied().unwrap_or_default();
            assert_eq!(levels.available + levels.reserved + levels.shipped, received, "{sku}: {levels:?}");
            assert_eq!(levels.reserved, self.held(sku, "reserved"), "{sku}: reserved is what orders hold");
            assert_eq!(levels.shipped, self.held(sku, "committed"), "{sku}: shipped is what orders took");
        }
    }

    fn held(&self, sku: &Sku, state: &str) -> i64 {
        let reservations = self.reservations.values().map(|numbered| &numbered.reservation);
        let lines = reservations.filter(|r| r.state() == state).filter_map(Reservation::lines);
        lines.flat_map(Lines::iter).filter(|line| line.sku == *sku).map(|l| i64::from(l.pieces.get())).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_are_conserved(history in happenings()) {
        let mut world = World::default();
        world.levels.extend((0..SKUS).map(|number| (sku(number), Levels::default())));
        for happening in history {
            match happening {
                Happening::Receipt { sku: number, pieces } => world.receive(sku(number), pieces),
                Happening::Wave(commands) => {
                    let commands: Vec<_> =
                        commands.iter().map(|(number, kind)| (order(*number), command(*number, *kind))).collect();
                    world.obey(&commands);
                }
            }
            world.check();
        }
    }
}
