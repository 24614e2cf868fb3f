//! One Kafka node in KRaft mode: formatted once, started with a class-data archive, asked until it answers.
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::postgres::Tuning;
use super::{Context, Fetched, KAFKA, make_dir, wait_for};
use crate::launch::Program;
use crate::supervisor;
use crate::{prerequisites, random, run};

/// The broker's heap: enough for development and tests; it is 370 MB resident.
const HEAP: &str = "-Xmx512m";
/// For a broker that lives for a run of tests: the thorough compiler takes a third of its processor time and is never
/// paid back.
const QUICK: &str = "-XX:TieredStopAtLevel=1";
/// How long it may take to stop before SIGKILL, in seconds: usually 1, the first time 5 more for the archive.
const STOP_TIMEOUT_S: u64 = 14;
/// How long a probe waits for an answer, in seconds.
const PROBE_TIMEOUT_S: u64 = 2;
/// The longest answer a probe believes, in bytes: the list of request versions is 600.
const PROBE_ANSWER_BYTES_MAX: u32 = 64 << 10;

const LOGGING: &str = include_str!("../../servers/log4j2.properties");

/// Formats the data folder when it is new, and starts the broker.
pub(crate) fn start(
    context: Context<'_>,
    fetched: &Fetched,
    [port, controller]: [u16; 2],
    tuning: Tuning,
) -> Result<()> {
    let dir = context.instance.dir().join(KAFKA);
    make_dir(&dir)?;
    let properties = dir.join("server.properties");
    let text = server_properties(&dir.join("data"), port, controller);
    fs::write(&properties, text).with_context(|| format!("could not write {}", properties.display()))?;
    let logging = dir.join("log4j2.properties");
    fs::write(&logging, LOGGING).with_context(|| format!("could not write {}", logging.display()))?;
    format(context, fetched, &dir, &properties)?;

    let mut args: Vec<_> = vec![HEAP.into(), logging_flag(&logging).into(), archive_flag(fetched).into()];
    if tuning == Tuning::Tests {
        args.push(QUICK.into());
    }
    args.extend(["-cp".into(), class_path(fetched).into(), "kafka.Kafka".into(), properties.into()]);
    let program = Program { path: prerequisites::java(), args, env: Vec::new(), cwd: dir, account: None };
    let log = context.instance.log(KAFKA);
    context.supervisor.start(supervisor::spec(KAFKA, program, &log, Duration::from_secs(STOP_TIMEOUT_S)))
}

/// Waits until a broker answers a request.
pub(crate) fn wait_ready(context: Context<'_>, bootstrap: &str) -> Result<()> {
    wait_for(context, KAFKA, || probe(bootstrap))
}

/// The class path of Kafka's programs.
pub(crate) fn class_path(fetched: &Fetched) -> String {
    format!("{}/*", fetched.jars().display())
}

/// Java's flag for a log configuration.
pub(crate) fn logging_flag(file: &Path) -> String {
    format!("-Dlog4j2.configurationFile={}", file.display())
}

/// The archive of loaded classes: read when there is one for this Java, else written when the broker ends.
///
/// It is written under another name and taken into use by the next start, so that a half-written one is never read.
fn archive_flag(fetched: &Fetched) -> String {
    let archive = archive(fetched);
    let written = archive.with_extension("written");
    if !archive.exists() && written.exists() {
        // Losing the race against another checkout is as good as winning it.
        let _ = fs::rename(&written, &archive);
    }
    if archive.exists() {
        format!("-XX:SharedArchiveFile={}", archive.display())
    } else {
        format!("-XX:ArchiveClassesAtExit={}", written.display())
    }
}

/// The archive of this Java for these jars; it may not exist yet.
pub(crate) fn archive(fetched: &Fetched) -> PathBuf {
    fetched.beside(&format!("kafka-java{}.jsa", prerequisites::java_version().unwrap_or_default()))
}

fn server_properties(data: &Path, port: u16, controller: u16) -> String {
    let lines = [
        "# One node for development, written anew by each start.".to_owned(),
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.bootstrap.servers=127.0.0.1:{controller}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("log.dirs={}", data.display()),
        "auto.create.topics.enable=false".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "offsets.topic.num.partitions=4".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "share.coordinator.state.topic.replication.factor=1".to_owned(),
        "share.coordinator.state.topic.min.isr=1".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        // A killed broker is let in again once its last life has expired: after 4 s instead of 9.
        "broker.session.timeout.ms=4000".to_owned(),
        "broker.heartbeat.interval.ms=1000".to_owned(),
        // Groups of a system that was down over a holiday keep their places.
        "offsets.retention.minutes=43200".to_owned(),
    ];
    lines.join("\n") + "\n"
}

/// Gives a new data folder its cluster id. A folder without its meta file was interrupted and is begun anew.
fn format(context: Context<'_>, fetched: &Fetched, dir: &Path, properties: &Path) -> Result<()> {
    let data = dir.join("data");
    if data.join("meta.properties").exists() {
        return Ok(());
    }
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("could not remove {}", data.display()))?;
    }
    let cluster = BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<16>());
    let mut command = Command::new(prerequisites::java());
    command.args([
        "-XX:TieredStopAtLevel=1",
        "-cp",
        &class_path(fetched),
        "kafka.tools.StorageTool",
        "format",
    ]);
    // The = keeps an id that begins with a dash from being taken for an option.
    command.args(["--standalone", &format!("--cluster-id={cluster}"), "--config"]).arg(properties);
    run::logged(&mut command, &context.instance.log("kafka-format"), context.stop)
        .context("could not format Kafka's data folder")
}

/// Asks for the supported request versions: the first thing a broker answers once it serves clients.
fn probe(bootstrap: &str) -> Result<()> {
    let first = bootstrap.split(',').next().unwrap_or(bootstrap).trim();
    let mut addresses = first.to_socket_addrs().with_context(|| format!("`{first}` is no host:port"))?;
    let address = addresses.next().with_context(|| format!("`{first}` has no address"))?;
    let timeout = Duration::from_secs(PROBE_TIMEOUT_S);
    let mut stream = TcpStream::connect_timeout(&address, timeout).context("no connection")?;
    stream.set_read_timeout(Some(timeout)).context("could not set a timeout")?;
    // ApiVersions (18) version 0, correlation id 7, no client id.
    let request = [0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let length = u32::try_from(request.len()).expect("ten bytes");
    stream
        .write_all(&length.to_be_bytes())
        .and_then(|()| stream.write_all(&request))
        .context("no request sent")?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("connected, no answer yet")?;
    let length = u32::from_be_bytes(length);
    ensure!((6..PROBE_ANSWER_BYTES_MAX).contains(&length), "what answers there is not Kafka");
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).context("the answer broke off")?;
    ensure!(answer[..4] == [0, 0, 0, 7] && answer[4..6] == [0, 0], "what answers there is not Kafka");
    Ok(())
}
