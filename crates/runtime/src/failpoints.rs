//! Failpoints: named places at which a program kills itself, so that a test can be sure where a crash hit.
//!
//! With the cargo feature `failpoints`, a program that comes to the place which `WAYBILL_FAILPOINT` names ends there by
//! SIGKILL, every thread of it: `after_produce`, or `acknowledged:7` for the seventh time; `sweep/saga_loaded` only where a
//! sweep comes to it ([`within`]). Without the feature none of it is compiled; with it a release build is refused.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!(
    "the feature `failpoints` lets programs kill themselves in tests: a release build must not have it"
);

/// Work whose places bear this caller's name too.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn within<F: Future>(_caller: &'static str, work: F) -> F {
    work
}

/// Work whose places bear this caller's name too.
#[cfg(feature = "failpoints")]
pub fn within<F: Future>(caller: &'static str, work: F) -> impl Future<Output = F::Output> {
    CALLER.scope(caller, work)
}

#[cfg(feature = "failpoints")]
tokio::task_local! {
    static CALLER: &'static str;
}

/// The program comes to this place.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn reach(_: &str) {}

/// The program comes to this place; it ends here when it was told to.
///
/// # Panics
/// When `WAYBILL_FAILPOINT` has no number after its colon.
#[cfg(feature = "failpoints")]
pub fn reach(place: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let told = crate::config::Environment::from_process().optional("WAYBILL_FAILPOINT")?;
        let (place, time) = told.split_once(':').unwrap_or((&told, "1"));
        let time =
            time.parse().unwrap_or_else(|_| panic!("WAYBILL_FAILPOINT={told}: write PLACE or PLACE:TIME"));
        Some((place.to_owned(), time))
    });
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let Some((armed, time)) = &*ARMED else { return };
    let is_here = match armed.split_once('/') {
        Some((caller, armed)) => armed == place && CALLER.try_with(|own| *own == caller).unwrap_or(false),
        None => armed == place,
    };
    if is_here && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == *time {
        let _unreturned = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
