//! The files that belong to the project: what git tracks, and what it would track if added.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::layout::Layout;

/// Paths relative to the root, sorted, without those that were removed meanwhile.
pub(super) fn files(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(&layout.root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output =
        git.output().context("could not run git: the lint asks it which files belong to the project")?;
    if !output.status.success() {
        bail!("`git ls-files` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut files: Vec<PathBuf> =
        names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())).collect();
    files.retain(|file| layout.root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

/// A file's text; bytes that are no UTF-8 are replaced.
pub(super) fn text(layout: &Layout, file: &Path) -> Result<String> {
    let bytes =
        fs::read(layout.root.join(file)).with_context(|| format!("could not read {}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The Rust sources with their text.
pub(super) fn rust_sources(layout: &Layout) -> Result<Vec<(PathBuf, String)>> {
    let sources = files(layout)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs"));
    sources.map(|file| text(layout, &file).map(|text| (file, text))).collect()
}
