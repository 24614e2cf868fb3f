//! `cargo xtask test`: every test, with one Kafka and one Postgres for the whole run, never the development ones.
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

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
use crate::{binaries, down, promtool, run, say};

mod side_by_side;
mod suites;
mod summary;

use suites::Suite;

/// How cargo ends when tests failed.
const FAILED: u8 = 101;

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
    let promtool = promtool::ensure(context.layout, context.stop)?;
    let (addresses, suites) = std::thread::scope(|scope| {
        let servers = scope.spawn(|| servers::start(context, &sources, Tuning::Tests));
        let built = build(context, args);
        if built.is_err() {
            context.stop.ask();
        }
        let servers = servers.join().unwrap_or_else(|_| bail!("the thread that starts the servers failed"));
        let suites = built?;
        servers.map(|addresses| (addresses, suites))
    })?;
    context.board.change(|state| state.phase = Phase::Ready)?;
    let mut variables = variables(context, &addresses)?;
    variables.push((promtool::VARIABLE.into(), promtool));
    variables.extend(args.told.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    if suites.is_empty() { selected(context, args, variables) } else { all(context, &suites, &variables) }
}

/// Builds what the tests start, and all tests too unless some were selected: those cargo builds itself, and there are
/// no suites. The programs lie apart from then on: a build beside the run does not exchange them.
fn build(context: Context<'_>, args: &TestArgs) -> Result<Vec<Suite>> {
    let (layout, stop) = (context.layout, context.stop);
    let suites = if args.args.is_empty() {
        suites::build(layout, &context.instance.log("build-messages"), stop)?
    } else {
        binaries::build_for_tests(layout, stop)?;
        Vec::new()
    };
    binaries::set_apart(layout)?;
    Ok(suites)
}

/// Every suite, two at a time, and the table of them.
fn all(context: Context<'_>, suites: &[Suite], variables: &[(OsString, OsString)]) -> Result<ExitCode> {
    let began = Instant::now();
    let outcomes = side_by_side::run(suites, variables, &context.instance.logs(), context.stop)?;
    say::answer(&format!("\n{}", summary::table(&outcomes, began.elapsed())));
    let passed = outcomes.len() == suites.len() && outcomes.iter().all(summary::Outcome::passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What the arguments select, by cargo itself.
fn selected(context: Context<'_>, args: &TestArgs, variables: Vec<(OsString, OsString)>) -> Result<ExitCode> {
    let mut cargo = binaries::cargo(context.layout);
    let status = run::status(cargo.arg("test").args(selection(&args.args)).envs(variables), context.stop)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Arguments for cargo: of the whole workspace unless they name packages.
fn selection(args: &[OsString]) -> Vec<OsString> {
    let names_packages = args.iter().take_while(|arg| *arg != "--").any(|arg| {
        arg.to_str()
            .is_some_and(|arg| arg.starts_with("-p") || arg.starts_with("--package") || arg == "--workspace")
    });
    let workspace = (!names_packages).then(|| OsString::from("--workspace"));
    workspace.into_iter().chain(args.iter().cloned()).collect()
}

/// What tests read: where the servers answer, where programs are.
fn variables(context: Context<'_>, addresses: &Addresses) -> Result<Vec<(OsString, OsString)>> {
    let mut variables: Vec<(OsString, OsString)> = vec![
        (POSTGRES_VARIABLE.into(), addresses.postgres.clone().into()),
        (KAFKA_VARIABLE.into(), addresses.kafka.clone().into()),
        ("WAYBILL_BIN_DIR".into(), binaries::dir_apart(context.layout).into()),
    ];
    let programs = servers::programs(context)?;
    variables.extend(programs.map(|(name, value)| (name.into(), value)));
    Ok(variables)
}

/// Says nothing on success, so that the tests' own summary stays the last word.
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
    fn arguments_select_from_the_workspace_unless_they_name_packages() {
        let by_package = ["-p", "waybill-orders"].map(OsString::from);
        assert_eq!(selection(&by_package), by_package);
        let by_name = ["place_order", "--", "-p"].map(OsString::from);
        assert_eq!(selection(&by_name)[0], "--workspace");
        assert_eq!(selection(&by_name)[1..], by_name);
    }
}
