//! The database server restarted, killed, hung, failed over to a streaming standby, under load: the reason is told, nothing is
//! lost or turned round.

use waybill_testkit::{OwnPostgres, TcpSwitch, TestDatabase, TestTopics, eventually};

use super::audit::audit;
use super::setup::{Outbox, PARTITIONS, SOON, TOPIC, ask, metric};
use super::steady::Steady;

/// Commits wait for the standby: what the relay has read is on it.
const SYNCHRONOUS: &str = "alter system set synchronous_standby_names = '*'";
/// What the log says of an outage, whichever of its causes is met first.
const FAULT: &str = "\"fault\":\"postgres\"";
/// Restarted, killed, hung, stopped for the copy, failed over.
const OUTAGES: usize = 5;
/// What is said of a server that hangs once connecting to it was tried again.
const SILENT_ANEW: &str = "gave no answer within 5s";

/// An outbox on a server of the test's own, reached through the switch.
async fn outbox_on(server: &OwnPostgres, switch: &TcpSwitch) -> Outbox {
    let through = server.url("postgres").replace(&server.port().to_string(), &switch.port().to_string());
    let database = TestDatabase::create_on(&through, "outage").await;
    let outbox = Outbox { database, topics: TestTopics::new() };
    outbox.topics.add(&[(TOPIC, PARTITIONS)]).await;
    outbox.migrate().await;
    outbox
}

/// Waits until `/ready` and the metrics say that Postgres is away.
async fn away(relay: &waybill_testkit::Process) {
    eventually(SOON, async || {
        let (status, body) = ask(relay, "/ready").await;
        let fault = metric(relay, "outbox_relay_fault{database=\"db\",kind=\"postgres\"}").await;
        (status == 503 && body.contains("postgres") && fault == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_server_is_restarted_killed_hung_and_failed_over() {
    let mut first = OwnPostgres::start().await;
    let switch = TcpSwitch::to(first.port()).await;
    let outbox = outbox_on(&first, &switch).await;
    // A statement that keeps it is cut after a fifth: a server that only begins again slowly is no outage of its own.
    let mut relay = outbox.relay().env("OUTBOX_RELAY_LEASE_MS", "5000").spawn();
    relay.wait_ready(SOON).await;
    let steady = Steady::start(&outbox.database.url, &outbox.topics.full(TOPIC), 4);

    for killed in [false, true] {
        steady.committed(50).await;
        if killed {
            first.kill9().await;
        } else {
            first.stop().await;
        }
        away(&relay).await;
        first.start_again().await;
        relay.wait_ready(SOON).await;
        steady.committed(50).await;
    }

    // It hangs: connections stay open, neither they nor new ones are answered.
    first.sigstop().await;
    eventually(SOON, async || {
        let (status, body) = ask(&relay, "/ready").await;
        (status == 503 && body.contains(SILENT_ANEW)).then_some(())
    })
    .await;
    first.sigcont().await;
    relay.wait_ready(SOON).await;
    steady.committed(50).await;

    let standby = first.standby().await;
    first.execute("postgres", SYNCHRONOUS).await;
    first.execute("postgres", "select pg_reload_conf()").await;
    let streams = "select count(*) from pg_stat_replication where sync_state = 'sync'";
    eventually(SOON, async || {
        let found = sqlx::query_scalar::<_, i64>(streams).fetch_one(&outbox.database.pool).await;
        (found.is_ok_and(|count| count == 1)).then_some(())
    })
    .await;
    relay.wait_ready(SOON).await;
    steady.committed(100).await;
    first.kill9().await;
    away(&relay).await;
    standby.promote().await;
    switch.turn_to(Some(standby.port()));
    relay.wait_ready(SOON).await;
    steady.committed(50).await;
    steady.end().await;

    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    println!("restarted, killed, hung, failed over: {audit:?}");
    assert!(audit.records >= 600, "{audit:?}");
    // All that it wrote is read once it has ended.
    assert_eq!(relay.terminate().await, Some(0));
    let output = relay.output();
    let told = output.lines().filter(|line| line.contains("\"ERROR\"") && line.contains(FAULT)).count();
    assert_eq!(told, OUTAGES, "each outage is told once:\n{output}");
}
