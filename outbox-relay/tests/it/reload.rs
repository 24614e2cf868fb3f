//! Databases come and go by the configuration file while the others are served; a broken file changes nothing.

use std::path::PathBuf;

use sqlx::Connection as _;
use waybill_testkit::{Process, TestTopics, eventually};

use super::audit::audit;
use super::setup::{Outbox, SOON, TOPIC, append, ask, metric};
use super::steady::Steady;

/// A configuration file of one test.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("relay-{}.toml", uuid::Uuid::now_v7())))
    }

    fn write(&self, databases: &[(&str, &str)]) {
        let entry = |(name, url): &(&str, &str)| format!("[[databases]]\nname = '{name}'\nurl = '{url}'\n");
        std::fs::write(&self.0, databases.iter().map(entry).collect::<String>()).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

async fn served(relay: &Process, name: &str) -> bool {
    ask(relay, "/ready").await.1.contains(&format!("\"{name}\""))
}

async fn leases(relay: &Process, name: &str) -> f64 {
    metric(relay, &format!("outbox_relay_leases_total{{database=\"{name}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_come_and_go_while_the_others_are_served() {
    let (stays, comes) = (Outbox::new("stays").await, Outbox::new("comes").await);
    let mut in_stays = stays.connection().await;
    let mut in_comes = comes.connection().await;
    let topic = |outbox: &Outbox| outbox.topics.full(TOPIC);
    append(&mut in_comes, &topic(&comes), 1).await;
    let file = File::new();
    file.write(&[("stays", &stays.database.url)]);
    let mut relay = Process::named("outbox-relay")
        .env("OUTBOX_RELAY_CONFIG", file.0.display().to_string())
        .env("OUTBOX_RELAY_LEASE_MS", "60000")
        .spawn();
    relay.wait_ready(SOON).await;
    assert!(served(&relay, "stays").await && !served(&relay, "comes").await);

    // Added: found by the file's change alone.
    file.write(&[("stays", &stays.database.url), ("comes", &comes.database.url)]);
    assert_eq!(audit(&comes.topics, TOPIC, &comes.database.pool).await.records, 1);
    append(&mut in_stays, &topic(&stays), 1).await;
    audit(&stays.topics, TOPIC, &stays.database.pool).await;

    // Broken: refused, told, nothing changes.
    for broken in ["[[databases]", "", "[[databases]]\nname = 'x'\nurl = 'mysql://x'\n"] {
        std::fs::write(&file.0, broken).unwrap();
        eventually(SOON, async || (metric(&relay, "outbox_relay_config_refused").await == 1.0).then_some(()))
            .await;
        append(&mut in_comes, &topic(&comes), 1).await;
        audit(&comes.topics, TOPIC, &comes.database.pool).await;
        file.write(&[("stays", &stays.database.url), ("comes", &comes.database.url)]);
        eventually(SOON, async || (metric(&relay, "outbox_relay_config_refused").await == 0.0).then_some(()))
            .await;
    }

    // Removed: what is on its way is published, the lease of a minute is given back, the metrics are gone.
    append(&mut in_comes, &topic(&comes), 2).await;
    audit(&comes.topics, TOPIC, &comes.database.pool).await;
    file.write(&[("stays", &stays.database.url)]);
    eventually(SOON, async || (!served(&relay, "comes").await).then_some(())).await;
    eventually(SOON, async || comes.relay_row::<Option<String>>("owner").await.is_none().then_some(())).await;
    eventually(SOON, async || leases(&relay, "comes").await.is_nan().then_some(())).await;
    append(&mut in_comes, &topic(&comes), 1).await;
    let mut heir = comes.relay().spawn();
    let taken_over = audit(&comes.topics, TOPIC, &comes.database.pool).await;
    assert_eq!(taken_over.repeats, 0, "the position was stored when it was handed over");
    assert_eq!(leases(&relay, "stays").await, 1.0, "the one that stays was not touched");
    assert_eq!(heir.terminate().await, Some(0));
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_url_is_taken_up_on_sighup_when_the_old_worker_has_ended() {
    let (old, new) = (Outbox::new("moved_from").await, Outbox::new("moved_to").await);
    let file = File::new();
    file.write(&[("db", &old.database.url)]);
    let mut relay = Process::named("outbox-relay").arg("--config").arg(file.0.display().to_string()).spawn();
    relay.wait_ready(SOON).await;
    let mut in_new = new.connection().await;
    append(&mut in_new, &new.topics.full(TOPIC), 1).await;
    file.write(&[("db", &new.database.url)]);
    let pid = relay.pid().unwrap().to_string();
    let sent = tokio::process::Command::new("kill").args(["-HUP", &pid]).status().await.unwrap();
    assert!(sent.success());
    audit(&new.topics, TOPIC, &new.database.pool).await;
    assert_eq!(old.relay_row::<Option<String>>("owner").await, None, "handed over");
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_name_waits_until_the_old_one_has_handed_over() {
    let outbox = Outbox::new("renamed").await;
    let file = File::new();
    file.write(&[("old", &outbox.database.url)]);
    // The row lingers in the producer while the old worker ends: the new one could take a lease of its process's name.
    let mut relay = Process::named("outbox-relay")
        .arg("--config")
        .arg(file.0.display().to_string())
        .env("OUTBOX_RELAY_LINGER_MS", "1000")
        .spawn();
    relay.wait_ready(SOON).await;
    let mut connection = outbox.connection().await;
    append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
    eventually(SOON, async || (metric(&relay, "outbox_relay_in_flight_rows").await == 1.0).then_some(()))
        .await;
    file.write(&[("new", &outbox.database.url)]);
    let pid = relay.pid().unwrap().to_string();
    let sent = tokio::process::Command::new("kill").args(["-HUP", &pid]).status().await.unwrap();
    assert!(sent.success());
    append(&mut connection, &outbox.topics.full(TOPIC), 1).await;
    eventually(SOON, async || (leases(&relay, "new").await == 1.0).then_some(())).await;
    let audit = audit(&outbox.topics, TOPIC, &outbox.database.pool).await;
    assert_eq!((audit.records, audit.repeats), (2, 0));
    assert!(!relay.output().contains("the lease is lost"), "{}", relay.output());
    assert_eq!(outbox.relay_row::<i64>("epoch").await, 2);
    assert_eq!(relay.terminate().await, Some(0));
}

/// Rows of the large backlog: many times what is on its way at once.
const BACKLOG: i64 = 90_000;
/// Rows of the small one that comes with it.
const SMALL: i64 = BACKLOG / 6;
/// While the small one is published, of the large one no more than so many times its rows: with equal shares it is as many,
/// on two cores up to twice as many, and here there is room for a busy machine.
const SHARE_MAX: f64 = 4.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_delays_no_other_database_beyond_its_share() {
    let (behind, brisk) = (Outbox::new("behind").await, Outbox::new("brisk").await);
    let databases = format!("behind={},brisk={}", behind.database.url, brisk.database.url);
    // Written all the time, however far the relay is.
    let steady = Steady::start(&brisk.database.url, &brisk.topics.full(TOPIC), 2);
    // Bounds that are a small part of either backlog: by how much the one is ahead at a moment is not its share.
    let mut relay = brisk
        .relay()
        .env("OUTBOX_RELAY_DATABASES", databases)
        .env("OUTBOX_RELAY_PIECE_ROWS_MAX", "200")
        .env("OUTBOX_RELAY_IN_FLIGHT_ROWS_MAX", "600")
        .spawn();
    relay.wait_ready(SOON).await;
    let published = async |name: &str| {
        metric(&relay, &format!("outbox_relay_published_rows_total{{database=\"{name}\"}}")).await
    };
    append(&mut behind.connection().await, &behind.topics.full(TOPIC), 1).await;
    eventually(SOON, async || (published("behind").await == 1.0).then_some(())).await;
    // Both begin at once.
    let (mut in_behind, mut in_brisk) = (behind.connection().await, brisk.connection().await);
    let (mut large, mut small) = (in_behind.begin().await.unwrap(), in_brisk.begin().await.unwrap());
    behind.bulk_in(&mut large, BACKLOG).await;
    brisk.bulk_in(&mut small, SMALL).await;
    let before = published("brisk").await;
    large.commit().await.unwrap();
    small.commit().await.unwrap();
    let of_large = eventually(SOON, async || {
        let through = published("brisk").await >= before + SMALL as f64;
        Some(published("behind").await).filter(|_| through)
    })
    .await;
    println!("of the large backlog {of_large} rows while {SMALL} of the small one were published");
    assert!(of_large <= SHARE_MAX * SMALL as f64, "{of_large} rows of the large backlog came before");
    // Rows that come then do not wait for it.
    let mut through = 0;
    while published("behind").await < BACKLOG as f64 && through < 5 {
        // Each has two rows.
        let goal = SMALL + 2 * i64::try_from(steady.so_far()).unwrap();
        eventually(SOON, async || (published("brisk").await >= goal as f64).then_some(())).await;
        through += 1;
    }
    steady.end().await;
    assert!(through > 0, "the backlog was through before a sixth of it in another database");
    let topics: &TestTopics = &behind.topics;
    topics.read_all(TOPIC, |records| records.len() as i64 > BACKLOG, SOON).await;
    assert_eq!(relay.terminate().await, Some(0));
}
