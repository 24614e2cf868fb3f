//! `cargo xtask up`: the whole system on real servers, kept running until Ctrl-C.
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};

use crate::arguments::flag;
use crate::instance::Instance;
use crate::launch::Launcher;
use crate::layout::Layout;
use crate::prerequisites::Need;
use crate::servers::postgres::Tuning;
use crate::servers::{self, Addresses, Context, KAFKA, POSTGRES, Sources};
use crate::state::{Board, Phase, State};
use crate::stop::{Stop, Stopped};
use crate::supervisor::Supervisor;
use crate::{binaries, down, keys, logs, say, services};

mod detach;
mod seed;
mod welcome;

/// Exit code of a command that was interrupted before it was done, as shells count it.
const EXIT_CODE_INTERRUPTED: u8 = 130;

/// Arguments of `up`.
#[derive(Debug, Clone, Default)]
pub(crate) struct UpArgs {
    detach: bool,
    fresh: bool,
    docker: bool,
    release: bool,
    servers: bool,
    /// Set for the process that runs behind `--detach`.
    background: bool,
}

impl UpArgs {
    pub(crate) fn describe(command: Command) -> Command {
        command.args([
            flag("detach", "Returns once everything is ready; `down` stops it"),
            flag("fresh", "Begins with empty data: wipes target/dev"),
            flag("docker", "Takes Kafka and Postgres from docker-compose.kafka.yml"),
            flag("release", "Builds and runs optimized programs"),
            flag("servers", "Starts Kafka and Postgres alone, for tests run by hand"),
            flag("background", "Set for the process that runs behind `--detach`").hide(true),
        ])
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        let set = |name| matches.get_flag(name);
        Self {
            detach: set("detach"),
            fresh: set("fresh"),
            docker: set("docker"),
            release: set("release"),
            servers: set("servers"),
            background: set("background"),
        }
    }
}

/// Starts the system, or shows the one that already runs.
pub(crate) fn run(args: &UpArgs) -> Result<ExitCode> {
    let layout = Layout::find()?;
    let instance = layout.dev();
    if args.background {
        nix::unistd::setsid().context("could not leave the terminal's session")?;
    } else if let Some(state) = running(&instance)? {
        return join_running(args, &instance, &state);
    }
    if args.detach {
        return detach::run(args, &instance);
    }
    let Some(_owned) = instance.own()? else {
        bail!(
            "another `up` or `down` is just at work in {}: try again in a moment",
            instance.dir().display()
        );
    };
    down::mend(&layout, &instance)?;
    let stop = Stop::on_signals()?;
    if args.fresh {
        say::progress(&format!("--fresh: wiping {}", instance.dir().display()));
        instance.wipe()?;
        if args.docker {
            servers::wipe_containers(&layout, &stop)?;
        }
    }
    own(args, &layout, &instance, &stop)
}

/// Starts the system behind this command and returns once it is ready.
pub(crate) fn start_in_background(instance: &Instance) -> Result<()> {
    let args = UpArgs { detach: true, ..UpArgs::default() };
    if detach::run(&args, instance)? != ExitCode::SUCCESS {
        bail!(Stopped);
    }
    Ok(())
}

fn running(instance: &Instance) -> Result<Option<State>> {
    Ok(State::read(instance)?.filter(|state| state.owner.alive()))
}

/// A second `up` starts nothing: it shows where the first one answers, and its logs.
fn join_running(args: &UpArgs, instance: &Instance, state: &State) -> Result<ExitCode> {
    if args.fresh {
        bail!(
            "Waybill is already running (pid {}): `cargo xtask down` first, then `up --fresh`",
            state.owner.pid
        );
    }
    if state.phase == Phase::Ready && state.services.is_empty() && !args.servers {
        bail!("only the servers run (up --servers, pid {}): `cargo xtask down` first", state.owner.pid);
    }
    say::progress(&format!("Waybill is already running (pid {}); nothing was started.", state.owner.pid));
    welcome::print(state);
    if !args.detach {
        say::answer("\nFollowing its logs. Ctrl-C leaves it running; `cargo xtask down` stops it.");
        follow(instance, &Stop::on_signals()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything between owning the instance and leaving it empty.
fn own(args: &UpArgs, layout: &Layout, instance: &Instance, stop: &Stop) -> Result<ExitCode> {
    let board = Board::open(instance)?;
    let supervisor = Supervisor::new(Launcher::new()?, board.clone());
    let context = Context { layout, instance, supervisor: &supervisor, board: &board, stop };
    let ran = bring_up(context, args).and_then(|()| {
        follow(instance, stop)?;
        Ok(ExitCode::SUCCESS)
    });
    let stopped = stop_everything(context);
    match (ran, stopped) {
        (Err(error), stopped) if error.is::<Stopped>() => {
            stopped.map(|()| ExitCode::from(EXIT_CODE_INTERRUPTED))
        }
        (Err(error), Err(also)) => {
            // The first failure is the command's; the second is its consequence, and told too.
            say::error(&also);
            Err(error)
        }
        (ran, stopped) => stopped.and(ran),
    }
}

fn bring_up(context: Context<'_>, args: &UpArgs) -> Result<()> {
    let began = Instant::now();
    let sources = Sources::choose(args.docker);
    if args.servers {
        servers::ensure_prerequisites(context.layout, &sources, &[], context.stop)?;
        servers::start(context, &sources, Tuning::Development)?;
    } else {
        bring_up_system(context, args, &sources)?;
    }
    context.board.change(|state| state.phase = Phase::Ready)?;
    say::progress(&format!("Everything is ready after {:.1} s.", began.elapsed().as_secs_f64()));
    welcome::print(&context.board.now());
    if !args.background {
        say::answer("\nLogs follow. Ctrl-C stops everything.");
    }
    Ok(())
}

/// Servers and build side by side, then databases, topics, keys, services, catalogue.
fn bring_up_system(context: Context<'_>, args: &UpArgs, sources: &Sources) -> Result<()> {
    servers::ensure_prerequisites(context.layout, sources, &[Need::Compilers], context.stop)?;
    let addresses = std::thread::scope(|scope| {
        let servers = scope.spawn(|| servers::start(context, sources, Tuning::Development));
        let built = binaries::build(context.layout, args.release, context.stop);
        if built.is_err() {
            // Do not wait for servers that nothing will use.
            context.stop.ask();
        }
        let servers = servers.join().unwrap_or_else(|_| bail!("the thread that starts the servers failed"));
        built.and(servers)
    })?;
    servers::postgres::create_databases(&addresses.postgres, &services::SERVICES)?;
    services::apply_topics(context, &addresses, args.release)?;
    let key = keys::ensure(context.instance)?;
    let urls = start_services(context, &addresses, args.release)?;
    seed::run(context, &urls, &key)
}

fn start_services(
    context: Context<'_>,
    addresses: &Addresses,
    release: bool,
) -> Result<BTreeMap<String, String>> {
    say::progress("starting orders, inventory, payments and the relay ...");
    let urls = services::start(context, addresses, release)?;
    services::wait_ready(context, &urls)?;
    Ok(urls)
}

/// Prints logs until asked to stop; servers only when they complain.
fn follow(instance: &Instance, stop: &Stop) -> Result<()> {
    let names: Vec<&str> = services::NAMES.into_iter().chain([KAFKA, POSTGRES]).collect();
    let complains = |line: &str| {
        [" WARN ", " ERROR ", " FATAL ", "ERROR:", "FATAL:", "PANIC:"].iter().any(|word| line.contains(word))
    };
    logs::follow(instance, &names, |name, line| services::NAMES.contains(&name) || complains(line), stop)
}

/// Services first, while their servers still answer; a second Ctrl-C kills at once.
fn stop_everything(context: Context<'_>) -> Result<()> {
    let began = Instant::now();
    say::progress("stopping everything (Ctrl-C again kills at once) ...");
    context.board.change(|state| state.phase = Phase::Stopping)?;
    context.supervisor.stop(&services::NAMES, || context.stop.insisted());
    context.supervisor.stop(&[KAFKA, POSTGRES], || context.stop.insisted());
    context.supervisor.join();
    servers::stop_containers(context.layout, &context.board.now().containers)?;
    context.board.close()?;
    say::progress(&format!("stopped after {:.1} s; nothing is left running.", began.elapsed().as_secs_f64()));
    Ok(())
}
