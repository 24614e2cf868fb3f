//! Where things are: the checkout, the build output, the user's cache.
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::instance::Instance;

/// The folders of this checkout and this user.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The root of the checkout.
    pub(crate) root: PathBuf,
    /// Cargo's build output.
    pub(crate) build: PathBuf,
    /// Downloads shared by all checkouts of this user.
    pub(crate) cache: PathBuf,
}

impl Layout {
    /// Finds the folders from where this program was built and from the environment.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in no folder: build it inside the checkout")?
            .to_path_buf();
        let build = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { build, cache: cache()?, root })
    }

    /// The development system: `cargo xtask up`. `WAYBILL_DEV_DIR` names another folder, for a second one beside it.
    pub(crate) fn dev(&self) -> Instance {
        let dir = env::var_os("WAYBILL_DEV_DIR")
            .map_or_else(|| self.root.join("target/dev"), |dir| self.root.join(dir));
        Instance::new(dir)
    }

    /// The servers of a test run: `cargo xtask test`.
    pub(crate) fn test_servers(&self) -> Instance {
        Instance::new(self.root.join("target/test-servers"))
    }
}

fn cache() -> Result<PathBuf> {
    let given = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = given
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor HOME is set: set one, downloads are kept there")?;
    Ok(base.join("waybill"))
}
