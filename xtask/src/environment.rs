//! `cargo xtask env`: the running system's addresses as variables for a shell, with the operators' tools on its path.
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::instance::Instance;
use crate::layout::Layout;
use crate::services::{RELAY, SERVICES};
use crate::state::State;
use crate::{ctl, say, servers, tools};

/// Prints `export NAME='value'` lines.
pub(crate) fn run() -> Result<ExitCode> {
    let instance = Layout::find()?.dev();
    let state = ctl::running(&instance)?;
    let mut variables = ctl::environment(&state)?;
    if state.pid(servers::KAFKA).is_some() {
        let own = state.kafka.clone().context("Kafka has no address yet")?;
        variables.push((servers::OWN_KAFKA_VARIABLE.to_owned(), own));
    }
    variables.push(("WAYBILL_TOKEN".to_owned(), ctl::token(&instance)?));
    let postgres = state.postgres.as_deref().context("Postgres has no address yet")?;
    for name in SERVICES {
        let url = servers::wire::with_database(postgres, name)?;
        variables.push((format!("{}_DATABASE_URL", name.to_uppercase()), url));
    }
    for (name, url) in &state.services {
        let name = if name == RELAY { "relay" } else { name };
        variables.push((format!("{}_URL", name.to_uppercase()), url.clone()));
    }
    // Any service's will do.
    variables.extend(state.operators.get(SERVICES[0]).map(|url| ("OPERATOR_URL".to_owned(), url.clone())));
    let folder = programs(&instance, &state)?;
    for (name, value) in variables {
        say::answer(&format!("export {name}={}", quoted(&value)));
    }
    say::answer(&format!("export PATH={}:\"$PATH\"", quoted(&folder.display().to_string())));
    Ok(ExitCode::SUCCESS)
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// A folder with waybillctl, and Kafka's tools under the names of their scripts.
fn programs(instance: &Instance, state: &State) -> Result<PathBuf> {
    let folder = instance.dir().join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let waybillctl = folder.join("waybillctl");
    // It may be one of another build, or none.
    let _ = fs::remove_file(&waybillctl);
    // With servers only (`up --servers`) there is none: it would have nobody to ask.
    if state.programs.is_some() {
        symlink(ctl::program(state)?, &waybillctl)
            .with_context(|| format!("could not make {}", waybillctl.display()))?;
    }
    let own = std::env::current_exe().context("could not find this program's own file")?;
    for (name, _) in tools::TOOLS {
        let text = format!(
            "#!/bin/sh\n# Kafka's own tool, by cargo xtask kafka.\nexec {} kafka {name} \"$@\"\n",
            quoted(&own.display().to_string())
        );
        write_program(&folder.join(format!("kafka-{name}.sh")), &text)?;
    }
    Ok(folder)
}

fn write_program(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)
        .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("could not write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::scratch;
    use crate::state::Board;

    #[test]
    fn servers_alone_have_kafkas_tools_and_no_waybillctl() {
        let instance = scratch("environment");
        let _owned = instance.own().unwrap();
        let board = Board::open(&instance).unwrap();
        let folder = programs(&instance, &board.now()).unwrap();
        assert!(folder.join("kafka-topics.sh").is_file());
        assert!(!folder.join("waybillctl").exists());
        fs::remove_dir_all(instance.dir()).unwrap();
    }

    #[test]
    fn values_are_quoted_for_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
