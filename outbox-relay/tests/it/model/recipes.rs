//! The usual recipes for reading an outbox, in the same worlds: each loses rows or turns an aggregate's versions round.

use super::explore::{Outcome, walk};
use super::world::{Row, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    /// `where id > $last order by id`.
    Cursor,
    /// `where xid < pg_snapshot_xmin(pg_current_snapshot()) and (xid, id) > ($x, $last) order by xid, id`.
    XminGateByXid,
    /// The same gate, `id > $last order by id`.
    XminGateById,
}

impl Recipe {
    pub(super) const ALL: [Recipe; 3] = [Recipe::Cursor, Recipe::XminGateByXid, Recipe::XminGateById];
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Reader {
    world: World,
    last: (u64, i64),
}

pub(super) fn explore(world: World, recipe: Recipe) -> Outcome {
    let steps = |reader: &Reader| {
        let worlds = reader.world.steps(true).into_iter();
        let mut next: Vec<Reader> = worlds.map(|world| Reader { world, ..reader.clone() }).collect();
        next.extend(read(reader, recipe)?);
        Ok(next)
    };
    walk(Reader { world, last: (0, 0) }, steps, |reader| reader.world.complete())
}

fn read(reader: &Reader, recipe: Recipe) -> Result<Option<Reader>, String> {
    let gate = reader.world.xmin();
    let order = |row: &Row| if recipe == Recipe::XminGateByXid { (row.xid, row.id) } else { (0, row.id) };
    let open = |row: &Row| recipe == Recipe::Cursor || row.xid < gate;
    let row = reader.world.rows().filter(|row| open(row) && order(row) > reader.last).min_by_key(order);
    let Some(row) = row else { return Ok(None) };
    let mut next = Reader { last: order(&row), ..reader.clone() };
    next.world.publish(row)?;
    Ok(Some(next))
}
