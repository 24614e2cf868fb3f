//! How large one order may be, and why. The OpenAPI document and the tests read these same numbers.

/// Lines of one order. With the longest SKUs, `OrderPlaced` then stays near 10 KB: far below what a topic takes.
pub const ORDER_LINES_MAX: usize = 100;

/// Pieces of one line: beyond it is a wholesale deal, or a slipped finger.
pub const LINE_QUANTITY_PIECES_MAX: i32 = 10_000;

/// Characters of a payment token: the sandbox's are below 32, real providers' below 64.
pub const PAYMENT_TOKEN_CHARS_MAX: usize = 64;

/// Minor units of an order's total: the largest integer that every JSON reader keeps exactly (2^53 - 1), as for prices.
pub const TOTAL_MINOR_MAX: i64 = 9_007_199_254_740_991;
