//! How publishing ends: what is on its way is waited for or thrown away, the position stored, the lease given back.

use std::time::{Duration, Instant};

use super::Publishing;
use crate::core::lease::Duty;
use crate::core::position::Position;
use crate::worker::on_its_way::OnItsWay;
use crate::worker::tenure::{End, Tenure};

/// After a fault of Postgres: how long acknowledgements are waited for, which saves repeats.
const FAULT_DRAIN: Duration = Duration::from_secs(1);
/// After a refusal: how long the answers to all other rows are waited for, which are thrown away; they come at once, one
/// after the other, unless the processor is elsewhere.
const ANSWERS_WAIT: Duration = Duration::from_secs(2);

impl Publishing<'_> {
    /// Waits for what may still be acknowledged, stores the position, gives the lease back, ends the producer.
    pub(super) async fn close(mut self, why: End) -> Tenure {
        self.pieces.receiver.close();
        let drain = match &why {
            End::Shutdown | End::HandedOver => self.worker.drain,
            End::LeaseLost | End::Delivery(_) => Duration::ZERO,
            End::Reading(_) | End::Keeping(_) | End::Row(_) | End::Producer(_) => FAULT_DRAIN,
        };
        let drained = self.drain(Instant::now() + drain).await;
        if !drained && matches!(why, End::Shutdown | End::HandedOver) {
            tracing::warn!(
                rows = self.flight.rows(),
                "not acknowledged in time: these rows are published again by whoever is next"
            );
        }
        if !matches!(why, End::LeaseLost | End::Keeping(_))
            && let Err(error) = self.release().await
        {
            tracing::warn!(%error, "the position could not be stored at the end; some rows may be published again");
        }
        self.worker.metrics.in_flight_rows.set(0);
        self.worker.age.given_up(self.oldest_us());
        if matches!(why, End::Delivery(_)) {
            self.all_answered().await;
        }
        let (progress, refused) = (self.progress, self.landing.refused());
        self.producer.end();
        Tenure { why, progress, refused }
    }

    /// Throws away what is on its way and waits until every row handed over was answered: how many were refused together
    /// is known then.
    async fn all_answered(&self) {
        self.producer.purge();
        let waited = Instant::now();
        while self.landing.answered() < self.handed_over && waited.elapsed() < ANSWERS_WAIT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Until everything handed over is acknowledged, or something fails; the lease is kept meanwhile. `false` when it takes
    /// too long: the deadline is looked at between two statements, for one that was given up would end the session, which
    /// is to store the position yet.
    async fn drain(&mut self, deadline: Instant) -> bool {
        loop {
            self.take_landed();
            let landing = &self.landing;
            let waits = |piece: &OnItsWay| landing.outstanding(piece.slot) > piece.ids.len() - piece.sent;
            if self.landing.failed() || !self.on_its_way.iter().any(waits) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            let due = self.keeping.is_answered() || self.duty() == Duty::StepDown;
            if due && self.kept().await.is_err() {
                return true;
            }
            match self.duty() {
                Duty::StepDown => return true,
                Duty::Renew => self.keep(),
                Duty::Publish => {}
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stores how far everything is acknowledged and gives the lease back, behind what the connection is asked already.
    async fn release(&mut self) -> Result<(), End> {
        self.kept().await?;
        let reached = self.reached();
        self.keeping.keeper()?.release(self.lease.epoch(), reached.as_ref()).await?;
        Ok(())
    }

    /// How far everything is acknowledged without a gap, inside the oldest piece too.
    fn reached(&self) -> Option<Position> {
        let inside = self.on_its_way.front().and_then(|oldest| {
            let rows = self.landing.landed_without_gap(oldest.slot).min(oldest.ids.len());
            rows.checked_sub(1).map(|last| oldest.ids[last])
        });
        self.flight.reached_inside(inside).filter(|reached| *reached != self.stored)
    }
}
