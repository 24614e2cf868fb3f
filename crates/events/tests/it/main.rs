//! The Rust face against the contract in schemas/: types, ids, topics, golden bytes, and another reader's opinion.

#![expect(clippy::unwrap_used, reason = "a test that can not go on ends there")]

mod golden;
mod independent;
mod manifest;
mod readme;
mod samples;
mod shapes;
mod types;

use std::path::PathBuf;

/// The folder schemas/.
fn schemas() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

/// A file under schemas/, as text.
fn schemas_text(path: &str) -> String {
    let path = schemas().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// schemas/ids.json: full name and id of every message.
fn pinned_ids() -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(&schemas_text("ids.json")).unwrap()
}
