//! Orders locked in a transaction: each change makes its event at once, all changes are saved in one statement.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;
use waybill_messaging::envelope::Cause;
use waybill_messaging::message::Message;
use waybill_runtime::failpoints;

use super::{CommandError, announce};
use crate::domain::order::{Order, OrderEvent, Refused};
use crate::{metrics, store};

/// Locked orders by id.
pub(super) struct LockedOrders {
    orders: BTreeMap<Uuid, Order>,
    changed: BTreeSet<Uuid>,
    now: DateTime<Utc>,
}

impl LockedOrders {
    /// Locks these orders, sorted; waits for each. Ids that are no order's are left out.
    pub(super) async fn lock(
        conn: &mut PgConnection,
        ids: &BTreeSet<Uuid>,
        now: DateTime<Utc>,
    ) -> Result<Self, CommandError> {
        let ids: Vec<Uuid> = ids.iter().copied().collect();
        let locked = store::orders::orders_lock(conn, &ids).await?;
        failpoints::reach("orders_locked");
        let orders = locked.into_iter().map(|order| (order.id.as_uuid(), order)).collect();
        Ok(Self { orders, changed: BTreeSet::new(), now })
    }

    /// A locked order, as it stands after the changes so far.
    pub(super) fn get(&self, id: Uuid) -> Result<&Order, CommandError> {
        self.orders.get(&id).ok_or(CommandError::OrderMissing { order: id })
    }

    /// Changes one order and pushes the change's event to `out`; no event, no change.
    ///
    /// The refusal is returned as it is: only the caller knows whether a customer or a saga asked.
    pub(super) fn change(
        &mut self,
        id: Uuid,
        cause: Cause,
        out: &mut Vec<Message>,
        change: impl FnOnce(&mut Order, DateTime<Utc>) -> Result<Option<OrderEvent>, Refused>,
    ) -> Result<Result<(), Refused>, CommandError> {
        let order = self.orders.get_mut(&id).ok_or(CommandError::OrderMissing { order: id })?;
        let event = match change(order, self.now) {
            Ok(event) => event,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(event) = event {
            out.push(announce::changed(order, &event, cause, self.now)?);
            self.changed.insert(id);
        }
        Ok(Ok(()))
    }

    /// Saves what changed, in one statement; nothing changed, no statement.
    pub(super) async fn save(self, conn: &mut PgConnection) -> Result<(), CommandError> {
        let changed: Vec<&Order> = self.changed.iter().filter_map(|id| self.orders.get(id)).collect();
        store::orders::orders_save(conn, &changed).await?;
        if !changed.is_empty() {
            failpoints::reach("orders_saved");
        }
        changed.iter().for_each(|order| metrics::changed_to(order.state.status()));
        Ok(())
    }
}
