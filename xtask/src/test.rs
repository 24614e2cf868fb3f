//! `cargo xtask test`: every test, with one Kafka and one Postgres for the whole run, never the development ones.
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command as Line};

use crate::arguments::{passed, passed_on};
use crate::instance::Instance;
use crate::launch::Launcher;
use crate::layout::Layout;
use crate::prerequisites::Need;
use crate::servers::postgres::Tuning;
use crate::servers::{self, Addresses, Context, KAFKA, KAFKA_VARIABLE, POSTGRES, POSTGRES_VARIABLE, Sources};
use crate::state::{Board, Phase};
use crate::stop::{Stop, Stopped};
use crate::supervisor::Supervisor;
use crate::{binaries, down, run};

/// Arguments of `test`.
#[derive(Debug)]
pub(crate) struct TestArgs {
    args: Vec<OsString>,
    /// Further variables of the tests, from other commands.
    told: Vec<(&'static str, String)>,
}

impl TestArgs {
    pub(crate) fn describe(line: Line) -> Line {
        line.arg(passed("Passed to `cargo test`: `-p waybill-orders`, a test's name, `-- --nocapture` ..."))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self::selected(passed_on(matches), Vec::new())
    }

    /// Just these tests, told something.
    pub(crate) fn selected(args: Vec<OsString>, told: Vec<(&'static str, String)>) -> Self {
        Self { args, told }
    }
}

/// Runs the tests and ends as cargo ends.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let layout = Layout::find()?;
    let instance = layout.test_servers();
    let Some(_owned) = instance.own()? else {
        bail!(
            "another test run is at work in this checkout: its servers are in {}",
            instance.dir().display()
        );
    };
    down::mend(&layout, &instance)?;
    instance.wipe()?;
    let stop = Stop::on_signals()?;
    let board = Board::open(&instance)?;
    let supervisor = Supervisor::new(Launcher::new()?, board.clone());
    let context =
        Context { layout: &layout, instance: &instance, supervisor: &supervisor, board: &board, stop: &stop };
    let tested = with_servers(context, args);
    stop_servers(context)?;
    match tested {
        Err(error) if error.is::<Stopped>() => Ok(ExitCode::from(130)),
        tested => tested,
    }
}

fn with_servers(context: Context<'_>, args: &TestArgs) -> Result<ExitCode> {
    let sources = Sources::own();
    let more = [Need::Compilers, Need::Python, Need::Kcat, Need::Psql, Need::Faketime, Need::Openssl];
    servers::ensure_prerequisites(context.layout, &sources, &more, context.stop)?;
    let addresses = std::thread::scope(|scope| {
        let servers = scope.spawn(|| servers::start(context, &sources, Tuning::Tests));
        let built = match args.args.is_empty() {
            true => binaries::build_with_tests(context.layout, context.stop),
            false => binaries::build_for_tests(context.layout, context.stop),
        };
        if built.is_err() {
            context.stop.ask();
        }
        let servers = servers.join().unwrap_or_else(|_| bail!("the thread that starts the servers failed"));
        built.and(servers)
    })?;
    context.board.change(|state| state.phase = Phase::Ready)?;
    for selection in selections(&args.args) {
        let status =
            run::status(cargo_test(context, &addresses, &selection)?.envs(args.told.clone()), context.stop)?;
        if !status.success() {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The cargo runs: all of the workspace (documentation first, so that the output ends with the real tests' summary),
/// or what the arguments select.
fn selections(args: &[OsString]) -> Vec<Vec<OsString>> {
    let of = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    if args.is_empty() {
        return vec![
            of(&["--workspace", "--doc"]),
            of(&["--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"]),
        ];
    }
    let names_packages = args.iter().take_while(|arg| *arg != "--").any(|arg| {
        arg.to_str()
            .is_some_and(|arg| arg.starts_with("-p") || arg.starts_with("--package") || arg == "--workspace")
    });
    let workspace = if names_packages { Vec::new() } else { of(&["--workspace"]) };
    vec![workspace.into_iter().chain(args.iter().cloned()).collect()]
}

fn cargo_test(context: Context<'_>, addresses: &Addresses, selection: &[OsString]) -> Result<Command> {
    let mut cargo = binaries::cargo(context.layout);
    cargo.arg("test").args(selection);
    cargo.env(POSTGRES_VARIABLE, &addresses.postgres).env(KAFKA_VARIABLE, &addresses.kafka);
    cargo.env("WAYBILL_BIN_DIR", binaries::dir(context.layout, false));
    cargo.envs(servers::programs(context)?);
    Ok(cargo)
}

/// Says nothing on success, so that cargo's own summary stays the last word.
pub(crate) fn stop_servers(context: Context<'_>) -> Result<()> {
    context.supervisor.stop(&[KAFKA, POSTGRES], || context.stop.insisted());
    context.supervisor.join();
    context.board.close().context("the test servers were stopped, their state file was not removed")?;
    wipe_data(context.instance)
}

/// The data of finished tests is of no use; the logs stay.
fn wipe_data(instance: &Instance) -> Result<()> {
    for name in [KAFKA, POSTGRES] {
        let dir = instance.dir().join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("could not remove {}", dir.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_select_and_none_means_everything() {
        assert_eq!(selections(&[]).len(), 2);
        let selected = selections(&["-p".into(), "waybill-orders".into()]);
        assert_eq!(selected, [["-p", "waybill-orders"].map(OsString::from).to_vec()]);
        let by_name = selections(&["place_order".into(), "--".into(), "-p".into()]);
        assert_eq!(by_name[0][0], "--workspace");
    }
}
