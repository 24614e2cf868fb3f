//! What `up` prints when everything is ready: addresses, and commands to copy.
use crate::say;
use crate::servers::{KAFKA_VARIABLE, POSTGRES_VARIABLE};
use crate::state::State;

use super::seed;

/// A customer for the printed commands.
const CUSTOMER: &str = "3f0c9b9e-6f1b-4b8e-9d3a-5a3c8f1f2b10";

/// Prints where everything answers and what to type next.
pub(super) fn print(state: &State) {
    for line in lines(state) {
        say::answer(&line);
    }
}

fn lines(state: &State) -> Vec<String> {
    let kafka = state.kafka.as_deref().unwrap_or("(starting)");
    let postgres = state.postgres.as_deref().unwrap_or("(starting)");
    let mut lines = vec![String::new()];
    for (name, url) in &state.services {
        let operator =
            state.operators.get(name).map_or_else(String::new, |url| format!("   operators: {url}"));
        lines.push(format!("  {name:<13} {url}{operator}"));
    }
    lines.push(format!("  {:<13} {kafka}", "Kafka"));
    lines.push(format!("  {:<13} {postgres}", "Postgres"));
    match state.services.get("orders") {
        Some(orders) => {
            lines.extend(order_commands(orders));
            lines.extend(event_commands(kafka));
        }
        None => lines.extend(server_commands(kafka, postgres)),
    }
    lines
}

fn order_commands(orders: &str) -> Vec<String> {
    let sku = seed::FIRST_SKU;
    let body = format!(
        r#"{{"lines":[{{"sku":"{sku}","quantity":2}}],"currency":"EUR","payment_token":"tok_approve"}}"#
    );
    vec![
        String::new(),
        "Place an order (typed twice it is the same order: the key makes it so):".to_owned(),
        format!("  TOKEN=$(cargo xtask token --sub {CUSTOMER} --role customer)"),
        format!("  curl -i {orders}/api/v1/orders -H \"Authorization: Bearer $TOKEN\" \\"),
        "    -H 'Idempotency-Key: my-first-order' -H 'Content-Type: application/json' \\".to_owned(),
        format!("    -d '{body}'"),
        "Watch it: the newest of your orders, its status and reason".to_owned(),
        format!("  curl -s {orders}/api/v1/orders -H \"Authorization: Bearer $TOKEN\""),
    ]
}

fn event_commands(kafka: &str) -> Vec<String> {
    vec![
        "See its events, with Kafka's console consumer (Ctrl-C ends it) or with kcat:".to_owned(),
        "  cargo xtask kafka console-consumer --topic orders.events --from-beginning \\".to_owned(),
        "    --formatter-property print.headers=true --formatter-property print.key=true \\".to_owned(),
        "    --formatter-property print.value=false".to_owned(),
        format!("  kcat -b {kafka} -C -t orders.events -o beginning -e -f '%t[%p]@%o k=%k h=%h\\n'"),
        "Values are Avro. Decoded, all topics, as they come (Ctrl-C ends it):".to_owned(),
        "  cargo xtask ctl events tail --follow --text".to_owned(),
        "Operate it (--help tells every verb): cargo xtask ctl verify | dead-letters list | saga list | outbox status".to_owned(),
        "More: cargo xtask status | logs | demo | psql orders | kafka topics --list | down".to_owned(),
    ]
}

/// For a system of servers alone: what tests run by hand need.
fn server_commands(kafka: &str, postgres: &str) -> Vec<String> {
    vec![
        String::new(),
        "Let tests that are run by hand use them:".to_owned(),
        format!("  export {KAFKA_VARIABLE}={kafka} {POSTGRES_VARIABLE}={postgres}"),
    ]
}
