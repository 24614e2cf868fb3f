//! Ports of an instance: chosen free once, remembered, so that a second start has the same addresses.
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::instance::Instance;
use crate::state::replace_file;

/// The range to choose from: below Linux's ephemeral ports, which any outgoing connection may hold for a while.
const PORTS: std::ops::Range<u16> = 17_000..32_000;

/// A port for each name: the remembered one when it is free, else another free one. The choice is remembered.
pub(crate) fn choose(instance: &Instance, names: &[&str]) -> Result<BTreeMap<String, u16>> {
    let path = instance.ports_file();
    let mut ports = remembered(&path);
    let mut taken = Vec::new();
    for name in names {
        let port = match ports.get(*name) {
            Some(port) if free(*port) && !taken.contains(port) => *port,
            _ => next_free(instance.dir(), &ports, &taken)?,
        };
        taken.push(port);
        ports.insert((*name).to_owned(), port);
    }
    let text = serde_json::to_string_pretty(&ports).context("could not write the ports as JSON")?;
    replace_file(&path, &text)?;
    Ok(ports)
}

/// A missing or damaged file means no choice was made yet.
fn remembered(path: &Path) -> BTreeMap<String, u16> {
    fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The first free port from a start that differs between checkouts, so that two seldom try the same.
fn next_free(dir: &Path, ports: &BTreeMap<String, u16>, taken: &[u16]) -> Result<u16> {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    let span = u64::from(PORTS.end - PORTS.start);
    let first = u16::try_from(hasher.finish() % span).expect("less than the span of a u16 range");
    let all =
        (0..PORTS.end - PORTS.start).map(|step| PORTS.start + (first + step) % (PORTS.end - PORTS.start));
    let chosen = |port: &u16| taken.contains(port) || ports.values().any(|other| other == port);
    all.filter(|port| !chosen(port))
        .find(|port| free(*port))
        .with_context(|| format!("no port between {} and {} is free on 127.0.0.1", PORTS.start, PORTS.end))
}

fn free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::scratch;

    #[test]
    fn ports_are_remembered_and_exchanged_when_taken() {
        let instance = scratch("ports");
        let _owned = instance.own().unwrap();
        let first = choose(&instance, &["kafka", "postgres"]).unwrap();
        assert_ne!(first["kafka"], first["postgres"]);
        assert_eq!(choose(&instance, &["kafka", "postgres"]).unwrap(), first);

        let _stranger = TcpListener::bind(("127.0.0.1", first["kafka"])).unwrap();
        let second = choose(&instance, &["kafka", "postgres"]).unwrap();
        assert_ne!(second["kafka"], first["kafka"], "never a port that somebody else serves");
        assert_eq!(second["postgres"], first["postgres"]);
        fs::remove_dir_all(instance.dir()).unwrap();
    }
}
