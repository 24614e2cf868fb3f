//! `cargo xtask ctl`: waybillctl with everything filled in for the system that is up.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::instance::Instance;
use crate::keys;
use crate::layout::Layout;
use crate::servers::{KAFKA_VARIABLE, wire};
use crate::services::SERVICES;
use crate::state::State;
use crate::token::{self, Role};
use crate::tools::{PassedArgs, become_tool};

/// How long the operator's token lives, in seconds: a command that watches a replay runs for hours.
const TOKEN_TTL_S: u64 = 12 * 60 * 60;

/// Becomes waybillctl.
pub(crate) fn run(args: &PassedArgs) -> Result<ExitCode> {
    let instance = Layout::find()?.dev();
    let state = running(&instance)?;
    let mut command = Command::new(program(&state)?);
    command.args(&args.args).envs(environment(&state)?).env("WAYBILL_TOKEN", token(&instance)?);
    Err(become_tool(command))
}

/// The system that is up.
pub(crate) fn running(instance: &Instance) -> Result<State> {
    let state = State::read(instance)?.filter(|state| state.owner.alive());
    state.context("no system is up: start one with `cargo xtask up`")
}

/// The waybillctl that was built with what runs.
pub(crate) fn program(state: &State) -> Result<PathBuf> {
    let folder = state.programs.as_ref();
    let folder = folder.context("only servers run (up --servers): waybillctl has nothing to ask")?;
    let program = folder.join("waybillctl");
    ensure!(program.is_file(), "{} is gone: `cargo xtask down`, then `up`, builds it", program.display());
    Ok(program)
}

/// A token of role operator, in the user's name.
pub(crate) fn token(instance: &Instance) -> Result<String> {
    let who = std::env::var("USER").ok().filter(|user| !user.is_empty());
    token::sign(&keys::ensure(instance)?, who.as_deref().unwrap_or("xtask"), Role::Operator, TOKEN_TTL_S)
}

/// Where waybillctl finds the system. What the caller's environment says already is for another system.
pub(crate) fn environment(state: &State) -> Result<Vec<(String, String)>> {
    let kafka = state.kafka.clone().context("Kafka has no address yet: wait until `up` is ready")?;
    let postgres =
        state.postgres.as_deref().context("Postgres has no address yet: wait until `up` is ready")?;
    let databases =
        SERVICES.iter().map(|name| Ok(format!("{name}={}", wire::with_database(postgres, name)?)));
    let databases = databases.collect::<Result<Vec<String>>>()?.join(",");
    let variables = [
        (KAFKA_VARIABLE, kafka),
        ("WAYBILL_OPERATOR_URLS", listed(&state.operators)),
        ("WAYBILL_VERIFY_DATABASES", databases),
    ];
    Ok(variables.map(|(name, value)| (name.to_owned(), value)).into())
}

/// `name=URL` of each, separated by commas.
pub(crate) fn listed(urls: &BTreeMap<String, String>) -> String {
    urls.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::scratch;
    use crate::state::Board;

    #[test]
    fn waybillctl_is_told_where_everything_is() {
        let instance = scratch("ctl");
        let _owned = instance.own().unwrap();
        let board = Board::open(&instance).unwrap();
        assert!(environment(&board.now()).is_err(), "a system without servers is told as such");
        let change = |state: &mut State| {
            state.kafka = Some("127.0.0.1:1".to_owned());
            state.postgres = Some("postgres://p@127.0.0.1:2/postgres".to_owned());
            for (name, port) in [("orders", 3), ("payments", 4)] {
                state.operators.insert(name.to_owned(), format!("http://127.0.0.1:{port}"));
            }
        };
        board.change(change).unwrap();
        let environment: BTreeMap<_, _> = environment(&board.now()).unwrap().into_iter().collect();
        assert_eq!(environment[KAFKA_VARIABLE], "127.0.0.1:1");
        assert_eq!(
            environment["WAYBILL_OPERATOR_URLS"],
            "orders=http://127.0.0.1:3,payments=http://127.0.0.1:4"
        );
        let databases = &environment["WAYBILL_VERIFY_DATABASES"];
        assert!(databases.starts_with("orders=postgres://p@127.0.0.1:2/orders,inventory="), "{databases}");
        std::fs::remove_dir_all(instance.dir()).unwrap();
    }
}
