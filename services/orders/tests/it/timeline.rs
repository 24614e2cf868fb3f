//! The timeline of an order: what its own database knows, for its owner and for the staff.

use reqwest::Method;
use serde_json::Value;

use crate::participants::Say;
use crate::world::{World, new_key, send, usual_order};

fn entries(timeline: &Value) -> Vec<(String, String)> {
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    let entries = timeline["entries"].as_array().unwrap().iter();
    entries.map(|entry| (text(entry, "what"), text(entry, "title"))).collect()
}

#[tokio::test]
async fn a_confirmed_orders_timeline_tells_every_step_in_order() {
    let world = World::new("timeline").await;
    let key = new_key();
    let order = world.post(&key, &usual_order()).await.order();
    world.reply(order, &[Say::Reserved]).await;
    world.reply(order, &[Say::Authorized]).await;
    world.reply(order, &[Say::Captured]).await;
    world.reply(order, &[Say::Committed]).await;
    let answer = world.get(&format!("/orders/{order}/timeline")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let timeline = answer.json();
    let times: Vec<&str> =
        timeline["entries"].as_array().unwrap().iter().map(|e| e["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let entries = entries(&timeline);
    let has = |what: &str, title: &str| entries.iter().any(|(w, t)| w == what && t == title);
    for kind in
        ["OrderPlaced", "ReserveStock", "AuthorizePayment", "OrderConfirmed", "CapturePayment", "CommitStock"]
    {
        assert!(has("message_out", kind), "{kind} in {entries:?}");
    }
    assert_eq!(entries.iter().filter(|(what, _)| what == "message_in").count(), 4, "{entries:?}");
    assert!(has("saga_step", "place-order: started"), "{entries:?}");
    let command = &timeline["entries"][0];
    assert_eq!(
        (&command["what"], &command["detail"]["idempotency_key"]),
        (&"command".into(), &key.as_str().into())
    );
}

#[tokio::test]
async fn a_dead_letter_is_in_the_timeline_and_its_text_is_for_the_staff() {
    let world = World::new("timeline_dead").await;
    let order = world.place().await;
    let mut broken = Say::Reserved.of(order);
    broken.payload.truncate(6);
    world.hear(&[broken]).await;
    let path = format!("/orders/{order}/timeline");
    let dead = |timeline: &Value| {
        let entries = timeline["entries"].as_array().unwrap().iter();
        entries
            .clone()
            .find(|entry| entry["what"] == "dead_letter")
            .unwrap_or_else(|| panic!("{timeline}"))
            .clone()
    };
    let own = dead(&world.get(&path).await.json());
    assert_eq!(
        (&own["detail"]["error_class"], &own["detail"]["error_message"]),
        (&"payload".into(), &Value::Null)
    );
    let staff = dead(&send(world.request("olga", "operator", Method::GET, &path)).await.json());
    assert!(staff["detail"]["error_message"].is_string(), "{staff}");
    let waits = entries(&world.get(&path).await.json());
    assert!(waits.iter().any(|(what, title)| what == "retry" && title.ends_with("blocked")), "{waits:?}");
}

#[tokio::test]
async fn somebody_elses_timeline_is_not_found() {
    let world = World::new("timeline_owner").await;
    let order = world.place().await;
    let stranger = uuid::Uuid::now_v7().to_string();
    let path = format!("/orders/{order}/timeline");
    let answer = send(world.request(&stranger, "customer", Method::GET, &path)).await;
    assert_eq!(answer.refusal().1, "order_not_found");
    assert_eq!(send(world.anonymous(Method::GET, &path)).await.status, 401);
}
