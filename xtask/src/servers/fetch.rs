//! Kafka's jars and PostgreSQL's binaries: fetched with Maven once, kept in the user's cache for every checkout.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use hmac_sha256::Hash;

use super::make_dir;
use crate::layout::Layout;
use crate::stop::Stop;
use crate::{run, say};

const POM: &str = include_str!("../../servers/pom.xml");

/// The unpacked servers.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    dir: PathBuf,
}

impl Fetched {
    /// What is in the cache already, for this pom.
    pub(crate) fn find(layout: &Layout) -> Option<Self> {
        let dir = dir(layout);
        dir.is_dir().then_some(Self { dir })
    }

    /// The folder of Kafka's jars.
    pub(crate) fn jars(&self) -> PathBuf {
        self.dir.join("kafka")
    }

    /// The folder that holds PostgreSQL's `bin`, `lib` and `share`.
    pub(crate) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// The whole, for copies of a part of it.
    pub(crate) fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where files made from the jars are kept beside them (Kafka's class-data archive).
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Kafka's jars, for the tools; fails with the way to get them.
pub(crate) fn kafka_jars(layout: &Layout) -> Result<Fetched> {
    Fetched::find(layout).context("Kafka's tools are not in the cache yet: `cargo xtask up` fetches them")
}

/// The cache's folder for exactly these versions.
fn dir(layout: &Layout) -> PathBuf {
    let hash = Hash::hash(POM.as_bytes());
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    layout.cache.join(format!("servers-{hash}"))
}

/// Fetches what is not in the cache yet.
pub(crate) fn ensure(layout: &Layout, stop: &Stop) -> Result<Fetched> {
    if let Some(fetched) = Fetched::find(layout) {
        return Ok(fetched);
    }
    let goal = dir(layout);
    say::progress(&format!(
        "fetching Kafka 4.3.1 and PostgreSQL 18.3 with Maven (70 MB, once) into {}",
        goal.display()
    ));
    let building = layout.cache.join(format!("building-{}", std::process::id()));
    let built = fetch_into(&building, stop);
    let placed = built.and_then(|()| place(&building, &goal));
    // What is left is of no use, whether it was placed or not.
    let _ = fs::remove_dir_all(&building);
    placed?;
    Fetched::find(layout).with_context(|| format!("{} was fetched and is gone again", goal.display()))
}

fn fetch_into(building: &Path, stop: &Stop) -> Result<()> {
    make_dir(building)?;
    let pom = building.join("pom.xml");
    fs::write(&pom, POM).with_context(|| format!("could not write {}", pom.display()))?;
    let out = building.join("out");
    let archive = building.join("archive");
    let mut maven = Command::new("mvn");
    maven.args(["-B", "-f"]).arg(&pom).arg("initialize").arg(format!("-Dpostgres.platform={}", platform()?));
    maven.arg(format!("-Djars.dir={}", out.join("kafka").display()));
    maven.arg(format!("-Dpostgres.dir={}", archive.display()));
    run::logged(&mut maven, &building.join("maven.log"), stop).context(
        "could not fetch the servers: Maven needs Maven Central or a mirror of it in ~/.m2/settings.xml",
    )?;
    unpack(&archive, &out.join("postgres"), stop)
}

/// Unpacks the one `.txz` that PostgreSQL's jar holds.
fn unpack(archive: &Path, goal: &Path, stop: &Stop) -> Result<()> {
    make_dir(goal)?;
    let entries = fs::read_dir(archive).with_context(|| format!("could not read {}", archive.display()))?;
    let packed = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "txz"));
    let packed = packed.with_context(|| format!("PostgreSQL's jar holds no .txz: {}", archive.display()))?;
    say::progress("unpacking PostgreSQL ...");
    run::tool(Command::new("tar").arg("-xJf").arg(&packed).arg("-C").arg(goal), stop)
}

/// Moves the finished folder to its place; another checkout may have been faster.
fn place(building: &Path, goal: &Path) -> Result<()> {
    match fs::rename(building.join("out"), goal) {
        Err(_) if goal.is_dir() => Ok(()),
        placed => placed.with_context(|| format!("could not move the servers to {}", goal.display())),
    }
}

/// The classifier of PostgreSQL's binaries for this machine.
fn platform() -> Result<&'static str> {
    Ok(match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-amd64",
        ("linux", "aarch64") => "linux-arm64v8",
        ("macos", "x86_64") => "darwin-amd64",
        ("macos", "aarch64") => "darwin-arm64v8",
        (os, arch) => bail!(
            "there are no PostgreSQL binaries for {os} on {arch}: start one yourself and set WAYBILL_POSTGRES_URL, or use --docker"
        ),
    })
}
