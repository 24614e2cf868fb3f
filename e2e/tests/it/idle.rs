//! A system at which nobody has done anything yet: what it tells whoever watches and whoever checks it.

use std::time::Duration;

use serde_json::json;
use waybill_testkit::polling::eventually_named;

use crate::alerts::series_of_the_alerts;
use crate::system::System;

/// Counts of the database are taken every few seconds.
const WAIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_system_has_every_series_of_the_alerts_and_keeps_every_promise() {
    let system = System::start("e2e_idle").await;
    let wanted = series_of_the_alerts();
    assert!(wanted.len() > 15, "{wanted:?}");
    eventually_named("every series that an alert is about", WAIT, async || {
        let told = told(&system).await;
        let missing: Vec<_> = wanted.iter().filter(|series| !series.is_in(&told)).collect();
        if !missing.is_empty() {
            println!("not told: {missing:?}");
        }
        missing.is_empty().then_some(())
    })
    .await;
    let mut verified = system.verify().await;
    assert_eq!(verified.code, Some(0), "{}", verified.output);
    // What could not be judged differs from look to look, as the relay stores its position.
    for check in verified.report["checks"].as_array_mut().unwrap() {
        check["not_judged"] = json!({});
    }
    insta::assert_snapshot!("verify_json", without_numbers(&verified.report.to_string()));
    let text = system.verify_as_text().await;
    let judged = text.lines().filter(|line| !line.trim_start().starts_with("not judged: "));
    insta::assert_snapshot!("verify_text", without_numbers(&judged.collect::<Vec<_>>().join("\n")));
}

/// `/metrics` of every process.
async fn told(system: &System) -> String {
    let mut told = String::new();
    for process in [&system.orders, &system.inventory, &system.payments, &system.relay] {
        told += &reqwest::get(format!("{}/metrics", process.url)).await.unwrap().text().await.unwrap();
    }
    told
}

/// Every number as `N`: what was judged and how often differs from look to look, what is promised does not.
fn without_numbers(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if shown.ends_with('N') => {}
            '0'..='9' => shown.push('N'),
            other => shown.push(other),
        }
    }
    shown
}
