//! Zombies: a member stands still in the middle of a batch until its group has given its partitions away, and wakes.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use waybill_testkit::Process;
use waybill_testkit::polling::eventually_named;

use crate::faults::blocked;
use crate::invariants;
use crate::load::{self, Load};
use crate::shop::Shop;
use crate::system::{READY_TIMEOUT, Service, System};

/// Longest wait until a group has settled: its members' session timeout (6 s) and a debug build on a busy machine.
const GROUP_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for one answer of the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(30);
/// What each service's batches write.
const WRITTEN: [(Service, &str); 3] = [
    (Service::Inventory, "reservations"),
    (Service::Payments, "payments"),
    (Service::Orders, "saga_instances"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_wakes_after_others_took_its_partitions_does_no_harm() {
    let system = System::start("e2e_zombies").await;
    load::stock_up(&Shop::new(&system)).await;
    let load = Load::start(&system, load::seed());
    for (service, table) in WRITTEN {
        let zombie = system.process_of(service);
        let before = members(&system, service).await;
        frozen_in_a_batch(&system, service, table, zombie).await;
        let mut second = system.member(service);
        eventually_named("another member to have all partitions", GROUP_TIMEOUT, async || {
            let now = members(&system, service).await;
            (!now.is_empty() && now.is_disjoint(&before)).then_some(())
        })
        .await;
        // No partition is stuck, those of the zombie among them, nor what its open transaction had taken.
        invariants::hears(&system, service).await;
        zombie.sigcont().await;
        eventually_named("the zombie to be a member again", GROUP_TIMEOUT, async || {
            (members(&system, service).await.len() == 2).then_some(())
        })
        .await;
        invariants::hears(&system, service).await;
        invariants::hold_meanwhile(&system).await;
        second.wait_ready(READY_TIMEOUT).await;
        assert_eq!(second.terminate().await, Some(0), "{}", second.output());
    }
    invariants::hold(&system, &load.stop().await).await;
}

/// Stops the process where a statement of its batch waits; when that has ended, the transaction stays open.
async fn frozen_in_a_batch(system: &System, service: Service, table: &str, process: &Process) {
    let mut blocker = PgConnection::connect(&system.database(service).url).await.unwrap();
    let mut locked = blocker.begin().await.unwrap();
    let lock = format!("lock table {table} in exclusive mode");
    sqlx::query(AssertSqlSafe(lock)).execute(&mut *locked).await.unwrap();
    blocked(system.database(service)).await;
    process.sigstop().await;
    locked.rollback().await.unwrap();
}

/// The ids of the group's members, when it is at rest; none while its partitions change hands.
async fn members(system: &System, service: Service) -> BTreeSet<String> {
    let (bootstrap, group) =
        (system.topics.bootstrap.clone(), format!("{}{}", system.topics.prefix, service.name()));
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
        let groups = client.fetch_group_list(Some(&group), BROKER_TIMEOUT).unwrap();
        let stable = groups.groups().iter().filter(|group| group.state() == "Stable");
        stable.flat_map(|group| group.members()).map(|member| member.id().to_owned()).collect()
    });
    asked.await.unwrap()
}
