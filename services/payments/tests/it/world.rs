//! One payments service without Kafka: commands are delivered by the test, replies are read from the outbox.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;
use waybill_events::payments::{AuthorizePayment, CapturePayment, RefundPayment, VoidPayment};
use waybill_events::{CustomerId, OrderId, Published};
use waybill_messaging::codec;
use waybill_messaging::envelope::{Cause, Envelope};
use waybill_outbox::inbox::{Delivery, Handler as _, Verdict};
use waybill_payments::consumers::payment_commands::PaymentCommands;
use waybill_payments::provider::sandbox::Sandbox;
use waybill_payments::worker::{self, Worker};
use waybill_runtime::clock::SystemClock;
use waybill_runtime::lifecycle::Shutdown;
use waybill_testkit::{TestDatabase, eventually};

/// Longest wait for a reply: many times what one takes.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const AMOUNT: i64 = 4_250;

pub(crate) struct World {
    pub(crate) database: TestDatabase,
    handler: PaymentCommands,
    due: Arc<Notify>,
    shutdown: Shutdown,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl World {
    /// Tables, no worker.
    pub(crate) async fn new(hint: &str) -> Self {
        let database = TestDatabase::create(hint).await;
        database.migrate(&[&waybill_outbox::MIGRATIONS, &waybill_payments::store::MIGRATIONS]).await;
        let due = Arc::new(Notify::new());
        let handler = PaymentCommands::new(Arc::new(SystemClock), Arc::clone(&due));
        Self { database, handler, due, shutdown: Shutdown::manual() }
    }

    /// Starts a worker with the sandbox.
    pub(crate) fn start_worker(&self) {
        self.start_worker_with(worker::CALL_TIMEOUT);
    }

    /// Starts a worker that waits so long for an answer.
    pub(crate) fn start_worker_with(&self, call_timeout: Duration) {
        let provider = Arc::new(Sandbox::new(self.pool()));
        let clock = Arc::new(SystemClock);
        let due = Arc::clone(&self.due);
        let worker =
            Worker { pool: self.pool(), topic_prefix: String::new(), provider, clock, due, call_timeout };
        tokio::spawn(worker.run(self.shutdown.clone()));
    }

    pub(crate) fn pool(&self) -> PgPool {
        self.database.pool.clone()
    }

    /// Delivers one command in a transaction of its own, as the inbox does with a new message.
    pub(crate) async fn deliver<T: Published>(&self, order: OrderId, command: &T) -> Verdict {
        let payload = codec::encode(command).unwrap();
        let message = self.handler.decode(T::TYPE, &payload).unwrap().expect("a command of payments");
        let cause = Cause { correlation_id: order.as_uuid(), causation_id: None, trace: None };
        let envelope = Envelope {
            id: Uuid::now_v7(),
            source: "/waybill/orders".to_owned(),
            kind: T::TYPE.to_owned(),
            time: Utc::now(),
            subject: order.to_string(),
            cause,
            sequence: 1,
        };
        let mut tx = self.database.pool.begin().await.unwrap();
        let mut out = Vec::new();
        let verdicts =
            self.handler.handle(&mut tx, &[Delivery { envelope, message }], &mut out).await.unwrap();
        waybill_outbox::append::append(&mut tx, "", &out).await.unwrap();
        tx.commit().await.unwrap();
        self.handler.committed();
        verdicts.into_iter().next().unwrap()
    }

    /// The replies to an order so far: type and sequence, in outbox order.
    pub(crate) async fn replies(&self, order: OrderId) -> Vec<(String, i64)> {
        sqlx::query_as(
            "select headers ->> 'ce_type', (headers ->> 'ce_sequence')::bigint from outbox
             where key = convert_to($1, 'UTF8') and topic = 'payments.events' order by id",
        )
        .bind(order.to_string())
        .fetch_all(&self.database.pool)
        .await
        .unwrap()
    }

    /// Waits until an order was told this often, and returns the types.
    pub(crate) async fn told(&self, order: OrderId, count: usize) -> Vec<String> {
        let replies = eventually(REPLY_TIMEOUT, async || {
            let replies = self.replies(order).await;
            (replies.len() >= count).then_some(replies)
        })
        .await;
        let sequences: Vec<i64> = replies.iter().map(|(_, sequence)| *sequence).collect();
        assert_eq!(
            sequences,
            (1..).take(sequences.len()).collect::<Vec<i64>>(),
            "1..n without a gap: {replies:?}"
        );
        replies.into_iter().map(|(kind, _)| kind).collect()
    }

    /// Waits until the worker has nothing to do for the order any more, and returns the payment's state.
    pub(crate) async fn settled(&self, order: OrderId) -> String {
        eventually(REPLY_TIMEOUT, async || {
            sqlx::query_scalar("select state from payments where order_id = $1 and due_at is null")
                .bind(order.as_uuid())
                .fetch_optional(&self.database.pool)
                .await
                .unwrap()
        })
        .await
    }

    /// What the sandbox holds and has taken for an order: (state, captured, refunded, calls).
    pub(crate) async fn sandbox(&self, order: OrderId) -> Option<(String, i64, i64, i32)> {
        sqlx::query_as(
            "select state, captured_minor, refunded_minor, calls from sandbox_authorizations where key = $1",
        )
        .bind(format!("{order}:1"))
        .fetch_optional(&self.database.pool)
        .await
        .unwrap()
    }
}

pub(crate) fn authorize(order_id: OrderId, token: &str) -> AuthorizePayment {
    AuthorizePayment {
        order_id,
        customer_id: CustomerId::from_uuid(Uuid::from_u128(1)),
        attempt: 1,
        amount_minor: AMOUNT,
        currency: "EUR".parse().unwrap(),
        payment_token: token.to_owned(),
    }
}

pub(crate) fn void(order_id: OrderId) -> VoidPayment {
    VoidPayment { order_id, attempt: 1 }
}

pub(crate) fn capture(order_id: OrderId) -> CapturePayment {
    CapturePayment { order_id, attempt: 1 }
}

pub(crate) fn refund(order_id: OrderId, amount_minor: i64) -> RefundPayment {
    RefundPayment { order_id, attempt: 1, amount_minor }
}
