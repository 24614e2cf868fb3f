//! The fourth story: the relay is killed in the middle of a burst, and nothing is lost, invented or out of order.
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::shop::{Shop, Stock, eventually};
use super::topics;
use crate::process::ProcessId;
use crate::say;
use crate::services::RELAY;
use crate::state::State;
use crate::token;

/// Requests at a time.
const AT_ONCE: u32 = 16;

pub(super) fn relay_killed(shop: &Shop, burst: u32) -> Result<()> {
    say::answer(&format!("\nd) The relay is killed (-9) in the middle of a burst of {burst} orders."));
    let sku = shop.product("BURST", i64::from(burst) + 1)?;
    // The first order waits until the price is known; then all others are accepted at once.
    let first = shop.order(&sku, 1, "tok_approve")?;
    let began = Instant::now();
    let accepted = &AtomicU32::new(0);
    let (ids, killed) = std::thread::scope(|scope| {
        let killer = scope.spawn(move || kill_relay_after(shop, burst.div_ceil(2), accepted));
        let ids = place_all(shop, &sku, burst, accepted);
        // Whatever became of the orders, the killer ends: nobody waits for a number that is never reached.
        accepted.store(burst, Ordering::Relaxed);
        let killed = killer.join().unwrap_or_else(|_| bail!("the thread that kills the relay failed"));
        Ok::<_, anyhow::Error>((ids?, killed?))
    })?;
    say::answer(&format!("   {} orders accepted in {:.1} s", ids.len(), began.elapsed().as_secs_f64()));
    let back = eventually("the relay to be started again", || Ok(relay(shop)?.filter(|now| *now != killed)))?;
    say::answer(&format!("   the relay is back as pid {}", back.pid));
    all_confirmed(shop, &ids, began)?;
    shop.stock_becomes(&sku, Stock { available: 0, reserved: 0, shipped: i64::from(burst) + 1 })?;
    topics::check(&ids.into_iter().chain([first]).collect())
}

/// Places all orders from several threads; each must be accepted.
fn place_all(shop: &Shop, sku: &str, burst: u32, accepted: &AtomicU32) -> Result<BTreeSet<String>> {
    let (next, ids) = (AtomicU32::new(0), Mutex::new(BTreeSet::new()));
    let worker = || -> Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < burst {
            let answer = shop.place(sku, 1, "tok_approve", &token::random_uuid())?;
            let order = answer.json(&[202]).context("an order of the burst was refused")?;
            let id = order["id"].as_str().context("an order has an id")?.to_owned();
            ids.lock().expect("no panic while held").insert(id);
            accepted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE.min(burst)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| bail!("a thread that places orders failed"))
        })
    })?;
    let ids = ids.into_inner().expect("no panic while held");
    ensure!(ids.len() == burst as usize, "{} orders were accepted, {burst} placed", ids.len());
    Ok(ids)
}

/// Kills the relay once so many orders were accepted; returns whom it killed.
fn kill_relay_after(shop: &Shop, count: u32, accepted: &AtomicU32) -> Result<ProcessId> {
    let running = eventually("the relay to run", || relay(shop))?;
    eventually("half of the burst", || Ok((accepted.load(Ordering::Relaxed) >= count).then_some(())))?;
    ensure!(running.signal(Signal::SIGKILL), "the relay (pid {}) could not be killed", running.pid);
    let so_far = accepted.load(Ordering::Relaxed);
    say::answer(&format!("   killed the relay (pid {}) after {so_far} orders", running.pid));
    Ok(running)
}

fn relay(shop: &Shop) -> Result<Option<ProcessId>> {
    let state = State::read(&shop.instance)?.context("the system was stopped meanwhile")?;
    Ok(state.processes.get(RELAY).map(|running| running.process.clone()).filter(ProcessId::alive))
}

/// Waits until every order has ended; each must be confirmed.
fn all_confirmed(shop: &Shop, ids: &BTreeSet<String>, began: Instant) -> Result<()> {
    let mut pending: Vec<&String> = ids.iter().collect();
    eventually("every order to end", || {
        let mut still = Vec::new();
        for id in &pending {
            let order = shop.read(id)?;
            match order["status"].as_str() {
                Some("CONFIRMED") => {}
                Some("PENDING") => still.push(*id),
                _ => bail!("order {id} ended as {} {}", order["status"], order["reason"]),
            }
        }
        pending = still;
        Ok(pending.is_empty().then_some(()))
    })?;
    say::answer(&format!(
        "   all {} are CONFIRMED {:.1} s after the first was placed",
        ids.len(),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}
