//! Reading: whose orders are found, and lists page by page.

use reqwest::Method;
use uuid::Uuid;
use waybill_events::CustomerId;

use crate::world::{World, send};

#[tokio::test]
async fn anothers_order_is_not_found_and_staff_find_every_one() {
    let world = World::new("read_owner").await;
    let order = world.place().await;
    let (own, cancel) = (format!("/orders/{order}"), format!("/orders/{order}/cancel"));
    let stranger = CustomerId::generate().to_string();
    let none = format!("/orders/{}", Uuid::now_v7());
    for (method, path, sub) in [
        (Method::GET, &own, &stranger),
        (Method::POST, &cancel, &stranger),
        (Method::GET, &none, &world.customer.to_string()),
    ] {
        let answer = send(world.request(sub, "customer", method.clone(), path)).await;
        assert_eq!(answer.refusal().1, "order_not_found", "{method} {path}");
        assert_eq!(answer.status, 404);
    }
    for role in ["admin", "operator"] {
        assert_eq!(send(world.request("staff", role, Method::GET, &own)).await.order(), order, "{role}");
    }
    assert_eq!(send(world.anonymous(Method::GET, &own)).await.status, 401);
    assert_eq!(world.standing(order).await, ("PENDING".to_owned(), None, 1));
}

#[tokio::test]
async fn the_list_is_ones_own_newest_first_and_complete_over_pages() {
    let world = World::new("read_list").await;
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(world.place().await);
    }
    // The same instant for three of them: the id decides, no row is left out or told twice.
    sqlx::query("update orders set created_at = (select min(created_at) from orders) where id = any($1)")
        .bind(&placed[1..4])
        .execute(world.pool())
        .await
        .unwrap();
    let mut told = Vec::new();
    let mut path = "/orders?limit=2".to_owned();
    loop {
        let page = world.get(&path).await.json();
        for item in page["items"].as_array().unwrap() {
            told.push(item["id"].as_str().unwrap().parse::<Uuid>().unwrap());
            assert_eq!(item["lines"].as_array().unwrap().len(), 2);
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/orders?limit=2&cursor={cursor}");
    }
    let mut expected: Vec<Uuid> = sqlx::query_scalar("select id from orders order by created_at, id")
        .fetch_all(world.pool())
        .await
        .unwrap();
    expected.reverse();
    assert_eq!(told, expected);
    let stranger = CustomerId::generate().to_string();
    let theirs = send(world.request(&stranger, "customer", Method::GET, "/orders")).await.json();
    assert_eq!(theirs["items"].as_array().unwrap().len(), 0);
    assert!(theirs["next_cursor"].is_null());
    assert_eq!(send(world.request("staff", "admin", Method::GET, "/orders")).await.status, 403);
}
