//! `cargo xtask bench`: figures of release programs on a Kafka and a Postgres of its own, which keep what they say.
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgMatches, Command as Line};

use crate::arguments::{Choice, chosen, one_of, passed_last, passed_on};
use crate::instance::Instance;
use crate::launch::Launcher;
use crate::layout::Layout;
use crate::prerequisites::Need;
use crate::servers::postgres::Tuning;
use crate::servers::{self, Addresses, Context, KAFKA_VARIABLE, POSTGRES_VARIABLE, Sources};
use crate::state::{Board, Phase};
use crate::stop::{Stop, Stopped};
use crate::supervisor::Supervisor;
use crate::{binaries, down, run, say, test};

/// Arguments of `bench`.
#[derive(Debug)]
pub(crate) struct BenchArgs {
    what: What,
    args: Vec<OsString>,
}

impl BenchArgs {
    pub(crate) fn describe(line: Line) -> Line {
        let what = Arg::new("what").default_value(What::Spine.word()).value_parser(one_of::<What>());
        line.arg(what.help("What to measure"))
            .arg(passed_last("Passed to the measuring program: `-- --json`, `-- --clients 32` ..."))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Result<Self> {
        let what = chosen(matches, "what").pop().context("nothing to measure was named")?;
        Ok(Self { what, args: passed_on(matches) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Spine,
    Relay,
    Consumer,
    Saga,
}

/// The words are the names of the measuring programs.
impl Choice for What {
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        (
            "spine",
            Self::Spine,
            "One order's whole path: statements, round trips, WAL, orders per second, latency",
        ),
        (
            "relay",
            Self::Relay,
            "The relay alone, against the broker's own limit; `-- debezium` against Debezium",
        ),
        (
            "consumer",
            Self::Consumer,
            "A consumer's transactions: batches, repeats, failing messages, beside pgbench; `-- beside`: other keys while some fail",
        ),
        (
            "saga",
            Self::Saga,
            "Each hop of an order alone and the whole at full load; `-- place`: the place-order endpoint beside pgbench",
        ),
    ];
}

impl What {
    /// The packages whose programs it starts.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Spine | Self::Saga => &binaries::PACKAGES,
            Self::Relay | Self::Consumer => &["outbox-relay"],
        }
    }
}

/// An argument of the relay's benchmark that needs logical decoding.
const PEER: &str = "debezium";

/// Builds, starts the servers, measures, stops them; ends as the measuring program ends.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let layout = Layout::find()?;
    let instance = Instance::new(layout.root.join("target/bench-servers"));
    let Some(_owned) = instance.own()? else {
        bail!(
            "another benchmark is at work in this checkout: its servers are in {}",
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
    let measured = measure(context, args);
    test::stop_servers(context)?;
    match measured {
        Err(error) if error.is::<Stopped>() => Ok(ExitCode::from(130)),
        measured => measured,
    }
}

/// One after the other: a compiler beside the servers would be measured too.
fn measure(context: Context<'_>, args: &BenchArgs) -> Result<ExitCode> {
    let sources = Sources::own();
    servers::ensure_prerequisites(context.layout, &sources, &[Need::Compilers], context.stop)?;
    say::progress("building release programs (the first time takes minutes) ...");
    run::tool(&mut build(context.layout, args.what), context.stop)
        .context("could not build the benchmark")?;
    let tuning = if args.args.iter().any(|arg| arg == PEER) { Tuning::Peers } else { Tuning::Benchmarks };
    let addresses = servers::start(context, &sources, tuning)?;
    context.board.change(|state| state.phase = Phase::Ready)?;
    say::progress("measuring: leave the machine alone meanwhile");
    let mut program = program(context.layout, args, &addresses);
    // One part starts a server of its own.
    program.envs(servers::programs(context)?);
    let status = run::status(&mut program, context.stop)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Programs and benchmark in one command: one choice of features, so that nothing is compiled twice. No tests are
/// built: what they alone have must not be measured.
fn build(layout: &Layout, what: What) -> Command {
    let mut cargo = binaries::cargo(layout);
    cargo.args(["build", "--release", "--bins", "--package", "waybill-bench"]);
    for package in what.packages() {
        cargo.args(["--package", package]);
    }
    cargo
}

fn program(layout: &Layout, args: &BenchArgs, addresses: &Addresses) -> Command {
    let mut command = Command::new(binaries::path(layout, args.what.word(), true));
    command.args(&args.args).current_dir(&layout.root);
    command.env(POSTGRES_VARIABLE, &addresses.postgres).env(KAFKA_VARIABLE, &addresses.kafka);
    command.env("WAYBILL_BIN_DIR", binaries::dir(layout, true));
    command
}
