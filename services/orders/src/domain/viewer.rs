//! Who looks at orders, as far as it decides which ones they find.

use waybill_events::CustomerId;

/// Somebody who asks for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Finds their own orders.
    Customer(CustomerId),
    /// Has the admin or operator role: finds every order.
    Staff,
}
