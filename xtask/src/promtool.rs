//! Prometheus' `promtool`, which tries the alerts: the machine's own, else taken out of Debian's package into the cache.
//! Nothing is installed, so that no Prometheus starts, and nobody need be root.
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::layout::Layout;
use crate::run::{self, on_path};
use crate::say;
use crate::servers::make_dir;
use crate::stop::Stop;

/// Where it is, for the tests.
pub(crate) const VARIABLE: &str = "WAYBILL_PROMTOOL";

const PROGRAM: &str = "promtool";
const PACKAGE: &str = "prometheus";

/// Finds it, or fetches it once.
pub(crate) fn ensure(layout: &Layout, stop: &Stop) -> Result<OsString> {
    let kept = layout.cache.join(PROGRAM);
    if on_path(PROGRAM) {
        return Ok(PROGRAM.into());
    }
    if !kept.is_file() {
        if !on_path("apt-get") {
            bail!(
                "missing: {PROGRAM}, tests try the alerts with it: install Prometheus, or put it on the PATH"
            );
        }
        say::progress(&format!("fetching {PROGRAM} out of Debian's {PACKAGE} (19 MB, once) ..."));
        let building = layout.cache.join(format!("{PROGRAM}-{}", std::process::id()));
        let fetched = fetch_into(&building, stop).and_then(|program| {
            fs::rename(&program, &kept).with_context(|| format!("could not move it to {}", kept.display()))
        });
        // What is left is of no use, whether it was fetched or not.
        let _ = fs::remove_dir_all(&building);
        fetched?;
    }
    Ok(kept.into())
}

fn fetch_into(building: &Path, stop: &Stop) -> Result<PathBuf> {
    make_dir(building)?;
    let apt = |words: &[&str]| {
        let log = building.join("apt.log");
        run::logged(Command::new("apt-get").args(words).current_dir(building), &log, stop)
    };
    if let Err(error) = apt(&["-qq", "download", PACKAGE]) {
        // On a bare Debian nobody has told apt yet which packages there are.
        if !nix::unistd::geteuid().is_root() {
            return Err(error.context(format!(
                "could not fetch {PROGRAM}: try again after `sudo apt-get update`, or put it on the PATH"
            )));
        }
        apt(&["-qq", "update"])?;
        apt(&["-qq", "download", PACKAGE])?;
    }
    let entries = fs::read_dir(building).with_context(|| format!("could not read {}", building.display()))?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let package = paths.find(|path| path.extension().is_some_and(|ending| ending == "deb"));
    let package = package.with_context(|| format!("apt-get left no package in {}", building.display()))?;
    run::tool(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(building), stop)?;
    Ok(building.join("usr/bin").join(PROGRAM))
}
