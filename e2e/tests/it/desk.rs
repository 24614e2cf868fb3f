//! Where an operator sits: the tools on the path, the variables that docs/runbooks/README.md names, and a shell.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use waybill_testkit::TestDatabase;
use waybill_testkit::process::binary_path;

use crate::system::System;

/// Longest that a runbook may take: each of Kafka's tools starts a Java machine.
const RUNBOOK_TIMEOUT: Duration = Duration::from_secs(300);
/// Kafka's tools by the names of their scripts.
const TOOLS: [(&str, &str); 5] = [
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-console-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-get-offsets.sh", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
];

/// One operator's; the folder of its tools goes with it.
pub(crate) struct Desk {
    tools: PathBuf,
    variables: BTreeMap<&'static str, String>,
}

impl Desk {
    pub(crate) fn new(system: &System, kafka: &str) -> Self {
        let services =
            [("orders", &system.orders), ("inventory", &system.inventory), ("payments", &system.payments)];
        let operators = services.map(|(name, process)| format!("{name}={}", process.operator_url)).join(",");
        let names = services.map(|(name, _)| name).into_iter().zip(system.databases());
        let named = |(name, database): (&str, &TestDatabase)| format!("{name}={}", database.url);
        let databases = names.map(named).collect::<Vec<_>>().join(",");
        let variables = [
            ("KAFKA_BOOTSTRAP_SERVERS", kafka.to_owned()),
            ("WAYBILL_TOPIC_PREFIX", String::new()),
            ("WAYBILL_OPERATOR_URLS", operators),
            ("OPERATOR_URL", system.orders.operator_url.clone()),
            // It leaves the text as it is.
            ("EDITOR", "true".to_owned()),
            ("WAYBILL_TOKEN", system.tokens.token("on-call", "operator")),
            ("WAYBILL_VERIFY_DATABASES", databases),
            ("ORDERS_DATABASE_URL", system.orders_db.url.clone()),
            ("RELAY_URL", system.relay.url.clone()),
        ];
        Self { tools: tools(), variables: variables.into() }
    }

    /// Runs every block of a runbook, one after the other in one shell, and returns what they said. `turns` are other
    /// orders: from the block that says the first text on, `ORDER` is the second.
    pub(crate) async fn follow(
        &self,
        runbook: &str,
        blocks: &[String],
        order: &str,
        turns: &[(&str, &str)],
    ) -> Said {
        let mut script = String::new();
        for (number, block) in (1..).zip(blocks) {
            let turn = turns.iter().find(|(text, _)| block.contains(text));
            let turn = turn.map_or_else(String::new, |(_, order)| format!("ORDER={order}\n"));
            script += &format!("printf '\\n=== block {number}\\n'\n{turn}{block}\n");
        }
        let said = self.run(runbook, &script, order).await;
        let ran = said.text.lines().filter(|line| line.starts_with("=== block ")).count();
        assert_eq!(ran, blocks.len(), "{runbook}: a block ended the others:\n{}", said.text);
        for (text, _) in turns {
            assert!(script.contains(text), "{runbook}: no block says `{text}`");
        }
        said
    }

    /// Runs commands in one shell, which stops at the first that fails.
    pub(crate) async fn run(&self, runbook: &str, script: &str, order: &str) -> Said {
        let path = format!("{}:{}", self.tools.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("exec 2>&1\nset -euo pipefail\n{script}")])
            .env("PATH", path)
            .env("ORDER", order);
        // What they write into the folder they are in goes with the tools.
        shell.envs(&self.variables).current_dir(&self.tools).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(RUNBOOK_TIMEOUT, shell.output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("{runbook} takes longer than {RUNBOOK_TIMEOUT:?}")).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{runbook}: the last block failed ({}):\n{text}", output.status);
        Said { runbook: runbook.to_owned(), text }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.tools);
    }
}

/// What a runbook's commands printed.
pub(crate) struct Said {
    runbook: String,
    pub(crate) text: String,
}

impl Said {
    pub(crate) fn contains(&self, words: &[&str]) {
        for word in words {
            assert!(self.text.contains(word), "{}: nothing says `{word}`:\n{}", self.runbook, self.text);
        }
    }
}

/// A folder with waybillctl and Kafka's tools under their usual names.
fn tools() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("waybill-runbooks-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(binary_path("waybillctl"), folder.join("waybillctl")).unwrap();
    for (name, class) in TOOLS {
        let file = folder.join(name);
        let java = "exec java -Xmx256m -XX:TieredStopAtLevel=1 -cp \"$WAYBILL_KAFKA_CLASSPATH\"";
        std::fs::write(&file, format!("#!/bin/sh\n{java} {class} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}
