//! Orders that come together are one statement, and each has its own outcome all the same.

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::task::JoinHandle;
use waybill_http::idempotency::{IdempotencyKey, StoredResponse, key_insert_in_tx};
use waybill_runtime::config::PoolBounds;
use waybill_testkit::eventually;

use crate::world::{Answer, PATIENCE, World, new_key, send, usual_order};

/// Two statements at a time: once both are held up, all that come wait for the next one.
async fn world(hint: &str) -> World {
    let world = World::bounded(hint, PoolBounds { writes: 2, ..PoolBounds::default() }).await;
    // From here on the prices are known.
    world.place().await;
    world
}

fn request(world: &World, key: &str, body: &Value) -> RequestBuilder {
    world.customers(Method::POST, "/orders").header("Idempotency-Key", key).json(body)
}

fn cup() -> Value {
    json!({"lines": [{"sku": "CUP", "quantity": 1}], "currency": "EUR", "payment_token": "tok_approve"})
}

/// Requests on their way.
type Sent = Vec<JoinHandle<Answer>>;

/// Sends these requests while both statements that may be on their way are held up at the gate, one after the other.
/// Returns the two orders that are held up, and the others.
async fn gather(world: &World, requests: Vec<RequestBuilder>) -> (Sent, Sent) {
    world.gate_close("insert").await;
    let mut held = Vec::new();
    for count in 1..=2 {
        held.push(tokio::spawn(send(request(world, &new_key(), &cup()))));
        world.at_gate(count).await;
    }
    let mut waiting = Vec::new();
    for (request, before) in requests.into_iter().zip(0..) {
        waiting.push(tokio::spawn(send(request)));
        let all_wait = async || (world.context.placements.waiting() == before + 1).then_some(());
        eventually(PATIENCE, all_wait).await;
    }
    (held, waiting)
}

async fn answers(sent: Sent) -> Vec<Answer> {
    join_all(sent).await.into_iter().map(Result::unwrap).collect()
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status.as_u16()).collect()
}

/// Opens the gate; both orders that were held up there are placed.
async fn release(world: &World, held: Sent) {
    world.gate_open().await;
    assert_eq!(statuses(&answers(held).await), [202, 202]);
}

#[tokio::test]
async fn orders_that_wait_are_one_transaction_and_each_keeps_its_answer_and_its_trace() {
    let world = world("together").await;
    let trace = |number: usize| format!("{number:032x}");
    let requests = (1..=5).map(|number| {
        let mut body = usual_order();
        body["lines"][0]["quantity"] = json!(number);
        let traceparent = format!("00-{}-b7ad6b7169203331-01", trace(number));
        request(&world, &new_key(), &body).header("traceparent", traceparent)
    });
    let (held, waiting) = gather(&world, requests.collect()).await;
    let before = world.count("select count(*) from orders").await;
    release(&world, held).await;
    for (answer, number) in answers(waiting).await.iter().zip(1..) {
        assert_eq!((answer.status.as_u16(), answer.replayed), (202, false));
        let order = answer.order();
        assert_eq!(answer.json()["total_minor"], json!(1250 + 899 * number));
        assert_eq!(world.get(&format!("/orders/{order}")).await.bytes, answer.bytes);
        assert_eq!(world.said("orders.events", order).await, ["OrderPlaced"]);
        assert_eq!(world.said("inventory.commands", order).await, ["ReserveStock"]);
        let traced = "select headers->>'traceparent' from outbox where key = $1";
        let traced: Vec<String> = sqlx::query_scalar(traced)
            .bind(order.to_string().as_bytes())
            .fetch_all(world.pool())
            .await
            .unwrap();
        assert!(traced.iter().all(|traced| traced[3..35] == trace(number)), "{traced:?}");
    }
    assert_eq!(before, 1);
    let transactions = "select count(distinct xmin::text) from orders";
    assert_eq!(world.count(transactions).await, 4, "the first, the two held up, and the five together");
    assert_eq!(world.count("select count(*) from saga_instances where status = 'running'").await, 8);
    world.assert_sound().await;
}

#[tokio::test]
async fn of_equal_keys_in_one_statement_one_wins_and_the_others_get_its_bytes() {
    let world = world("together_keys").await;
    let (key, other) = (new_key(), new_key());
    let requests = vec![
        request(&world, &key, &usual_order()),
        request(&world, &other, &usual_order()),
        request(&world, &key, &usual_order()),
        request(&world, &key, &cup()),
    ];
    let (held, waiting) = gather(&world, requests).await;
    release(&world, held).await;
    let answers = answers(waiting).await;
    assert_eq!(statuses(&answers), [202, 202, 202, 422]);
    assert_eq!(answers.iter().map(|answer| answer.replayed).collect::<Vec<_>>(), [false, false, true, false]);
    assert_eq!((&answers[2].bytes, &answers[2].location), (&answers[0].bytes, &answers[0].location));
    assert_ne!(answers[1].order(), answers[0].order());
    assert_eq!(answers[3].refusal().1, "idempotency_key_reused");
    assert_eq!(world.count("select count(*) from orders").await, 5);
    assert_eq!(world.post(&key, &usual_order()).await.bytes, answers[0].bytes);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_price_that_changed_is_read_again_for_those_orders_alone() {
    let world = world("together_prices").await;
    let requests = vec![
        request(&world, &new_key(), &usual_order()),
        request(&world, &new_key(), &cup()),
        request(&world, &new_key(), &usual_order()),
    ];
    let (held, waiting) = gather(&world, requests).await;
    let change = "update catalogue set unit_price_minor = 1000, version = version + 1 where sku = 'TEA'";
    sqlx::query(change).execute(world.pool()).await.unwrap();
    release(&world, held).await;
    let answers = answers(waiting).await;
    assert_eq!(statuses(&answers), [202, 202, 202]);
    let totals: Vec<_> = answers.iter().map(|answer| answer.json()["total_minor"].as_i64()).collect();
    assert_eq!(totals, [Some(3250), Some(1250), Some(3250)]);
    assert_eq!(world.count("select count(*) from orders").await, 6);
    world.assert_sound().await;
}

#[tokio::test]
async fn only_the_order_at_fault_fails() {
    let world = world("together_fault").await;
    for statement in [
        "create function refuse() returns trigger language plpgsql as $$ begin
             if new.quantity = 77 then raise exception 'as planned'; end if;
             return new;
         end $$",
        "create trigger refuse before insert on order_lines for each row execute function refuse()",
    ] {
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(world.pool()).await.unwrap();
    }
    let mut wrong = usual_order();
    wrong["lines"][0]["quantity"] = json!(77);
    let key = new_key();
    let requests = vec![
        request(&world, &new_key(), &usual_order()),
        request(&world, &key, &wrong),
        request(&world, &new_key(), &cup()),
    ];
    let (held, waiting) = gather(&world, requests).await;
    release(&world, held).await;
    assert_eq!(statuses(&answers(waiting).await), [202, 500, 202]);
    assert_eq!(world.count("select count(*) from orders").await, 5);
    assert_eq!(world.count("select count(*) from outbox").await, 10);
    assert_eq!(world.count("select count(*) from idempotency_keys").await, 5);
    let mended = world.post(&key, &usual_order()).await;
    assert_eq!((mended.status.as_u16(), mended.replayed), (202, false), "its key is free");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_key_that_is_held_elsewhere_holds_up_its_own_order_alone() {
    let world = world("together_held").await;
    let key = IdempotencyKey::parse("held-elsewhere").unwrap();
    let answer = StoredResponse::new(reqwest::StatusCode::ACCEPTED, None, b"{}".to_vec());
    let (scope, hash) = (world.customer.to_string(), [0; 32]);
    let mut elsewhere = world.pool().begin().await.unwrap();
    let won = key_insert_in_tx(&mut *elsewhere, &scope, "POST /api/v1/orders", &key, &hash, &answer).await;
    assert!(won.unwrap());
    let requests =
        vec![request(&world, "held-elsewhere", &usual_order()), request(&world, &new_key(), &usual_order())];
    let (held, waiting) = gather(&world, requests).await;
    release(&world, held).await;
    let answers = answers(waiting).await;
    assert_eq!(answers[0].refusal(), (409, "idempotency_key_in_progress".to_owned(), vec![]));
    assert_eq!(answers[1].status, 202);
    elsewhere.rollback().await.unwrap();
    assert_eq!(world.post("held-elsewhere", &usual_order()).await.status, 202);
    world.assert_sound().await;
}

#[tokio::test]
async fn who_hangs_up_while_others_wait_too_takes_nobody_along_and_is_placed() {
    let world = world("together_hang_up").await;
    let (gone, stays) = (new_key(), new_key());
    let requests = vec![request(&world, &gone, &usual_order()), request(&world, &stays, &usual_order())];
    let (held, mut waiting) = gather(&world, requests).await;
    let hung_up = waiting.remove(0);
    hung_up.abort();
    assert!(hung_up.await.unwrap_err().is_cancelled());
    release(&world, held).await;
    assert_eq!(statuses(&answers(waiting).await), [202]);
    assert_eq!(world.count("select count(*) from orders").await, 5);
    let again = world.post(&gone, &usual_order()).await;
    assert_eq!((again.status.as_u16(), again.replayed), (202, true));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_storm_of_repeated_requests_makes_each_order_once() {
    let world = world("together_storm").await;
    let keys: Vec<String> = (0..20).map(|_| new_key()).collect();
    // Each key six times, in an order that differs from round to round.
    let sent: Vec<&String> = (0..6).flat_map(|round| keys.iter().cycle().skip(7 * round).take(20)).collect();
    let body = usual_order();
    let answers = join_all(sent.iter().map(|key| world.post(key, &body))).await;
    for key in &keys {
        let same = sent.iter().zip(&answers).filter(|(sent, _)| **sent == key).map(|(_, answer)| answer);
        let same: Vec<_> = same.collect();
        assert_eq!(same.iter().filter(|answer| !answer.replayed).count(), 1);
        assert!(same.iter().all(|answer| answer.status == 202 && answer.bytes == same[0].bytes), "{same:?}");
    }
    assert_eq!(world.count("select count(*) from orders").await, 21);
    world.assert_sound().await;
}

/// Planning costs more than the statement does.
#[tokio::test]
async fn the_statement_is_not_planned_anew_each_time() {
    let bounds = PoolBounds { writes: 1, ..PoolBounds::default() };
    let world = World::bounded("together_plans", bounds).await;
    for _ in 0..12 {
        world.place().await;
    }
    let plans: (i64, i64) = sqlx::query_as(
        "select custom_plans, generic_plans from pg_prepared_statements where statement like '%idempotency_claims%'
         and statement not like '%pg_prepared%'",
    )
    .fetch_one(&world.context.statements)
    .await
    .unwrap();
    // Postgres tries five before it compares.
    assert_eq!(plans, (5, 7));
}
