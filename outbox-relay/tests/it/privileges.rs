//! Least privilege: a role that reads the outbox and writes the row of the position is enough.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use waybill_testkit::eventually;

use super::audit::audit;
use super::setup::{Outbox, SOON, TOPIC, append, ask};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_the_outbox_and_writing_the_position_is_enough() {
    let outbox = Outbox::new("least").await;
    let role = format!("relay_{}", uuid::Uuid::now_v7().simple());
    let mut owner = outbox.connection().await;
    let make = format!("create role {role} login password 'relay'; grant select on outbox to {role}");
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut owner).await.unwrap();
    append(&mut owner, &outbox.topics.full(TOPIC), 1).await;
    let url = as_role(&outbox.database.url, &role);
    let mut relay = outbox.relay().env("OUTBOX_RELAY_DATABASES", format!("db={url}")).spawn();
    eventually(SOON, async || {
        let (status, body) = ask(&relay, "/ready").await;
        (status == 503 && body.contains("grant select on outbox and select, update on outbox_relay"))
            .then_some(())
    })
    .await;
    let grant = format!("grant select, update on outbox_relay to {role}");
    sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut owner).await.unwrap();
    relay.wait_ready(SOON).await;
    assert_eq!(audit(&outbox.topics, TOPIC, &outbox.database.pool).await.records, 1);
    assert_eq!(relay.terminate().await, Some(0));

    let mut as_relay = PgConnection::connect(&url).await.unwrap();
    for forbidden in [
        "delete from outbox",
        "update outbox set topic = 'x'",
        "insert into outbox (message_id, topic, headers) values (gen_random_uuid(), 'x', '{}')",
        "delete from outbox_relay",
        "insert into outbox_relay (name) values ('x')",
        "update aggregate set version = 0",
    ] {
        let refused = sqlx::raw_sql(forbidden).execute(&mut as_relay).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{forbidden}");
    }
    let gone = format!("drop owned by {role}; drop role {role}");
    sqlx::raw_sql(AssertSqlSafe(gone)).execute(&mut owner).await.unwrap();
}

fn as_role(url: &str, role: &str) -> String {
    let mut url = reqwest::Url::parse(url).unwrap();
    url.set_username(role).unwrap();
    url.set_password(Some("relay")).unwrap();
    url.into()
}
