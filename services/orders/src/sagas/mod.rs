//! The two sagas of an order: `place-order` carries a new order to its end, `cancel-order` takes a confirmed one back.
//!
//! # Who is locked when
//! Every transaction that moves an order takes its locks in this order, each kind sorted by order id:
//! 1. its `place-order` instance, 2. its `cancel-order` instance, 3. its row in `orders`.
//!
//! The consumer, the deadline sweepers and the cancel command all do; so no two of them wait for each other in a ring.
//! It also keeps an order and its saga in step: an order's status changes only in a transaction that holds one of its
//! sagas, so whoever holds the `place-order` instance knows that the pivot will not pass meanwhile. A cancel that finds
//! the order PENDING therefore always turns the saga (or meets one that has turned already), and a cancel that finds it
//! CONFIRMED sees whether `place-order` has ended. A new order's instance, and a `cancel-order` instance that is being
//! started, are rows nobody else can know of before the commit: inserting them locks nothing anybody waits for.
//!
//! # One saga at a time
//! `cancel-order` starts when `place-order` has ended: in the cancel's own transaction, or in the one that ends
//! `place-order` and finds the order CANCELLING. It takes the message counters over, so `ce_sequence` in the
//! participants' command topics goes on from where `place-order` stopped.

pub mod cancel_order;
pub mod place_order;

use std::sync::Arc;
use std::time::Duration;

use waybill_saga::Runner;

use self::cancel_order::CancelOrder;
use self::place_order::PlaceOrder;

/// `ce_source` of everything this service says.
pub const SOURCE: &str = "/waybill/orders";

/// Which payment of the order the sagas speak of. There is one: a declined order is placed again as a new one.
pub const PAYMENT_ATTEMPT: i32 = 1;

/// How patient the sagas are. Only tests and demonstrations change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long one command may stay unanswered before it is sent again.
    pub step_deadline: Duration,
    /// How often a command before the pivot is sent before the saga turns back.
    pub step_attempts_max: u32,
    /// How often a command that must succeed (after the pivot, or on the way back) is sent before the saga is `stuck` until
    /// an operator looks, or the late reply comes.
    pub retry_attempts_max: u32,
    /// How long an order may stay PENDING before its saga turns back.
    pub saga_deadline: Duration,
}

impl Patience {
    /// 30 s: a participant answers within seconds of load; a restart or a failover of it takes less than this.
    pub const STEP_DEADLINE_MS_DEFAULT: u64 = 30_000;
    /// 5 times: with the deadline above, two and a half minutes of a participant being away.
    pub const STEP_ATTEMPTS_MAX_DEFAULT: u32 = 5;
    /// 10 times: the back-off between failures then adds up to some four minutes, silence to five.
    pub const RETRY_ATTEMPTS_MAX_DEFAULT: u32 = 10;
    /// 5 minutes: a customer who waits longer for an answer has gone; authorizations are held for days.
    pub const SAGA_DEADLINE_MS_DEFAULT: u64 = 300_000;
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            step_deadline: Duration::from_millis(Self::STEP_DEADLINE_MS_DEFAULT),
            step_attempts_max: Self::STEP_ATTEMPTS_MAX_DEFAULT,
            retry_attempts_max: Self::RETRY_ATTEMPTS_MAX_DEFAULT,
            saga_deadline: Duration::from_millis(Self::SAGA_DEADLINE_MS_DEFAULT),
        }
    }
}

/// The runners of both sagas.
#[derive(Clone)]
pub struct Sagas {
    /// Runs [`place_order`].
    pub place: Arc<Runner<PlaceOrder>>,
    /// Runs [`cancel_order`].
    pub cancel: Arc<Runner<CancelOrder>>,
}

impl Sagas {
    /// Runners of every version of both sagas that may still have instances.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            place: Arc::new(Runner::new(SOURCE, vec![place_order::definition(patience)])),
            cancel: Arc::new(Runner::new(SOURCE, vec![cancel_order::definition(patience)])),
        }
    }
}
