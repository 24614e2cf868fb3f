//! `cargo xtask demo`: four orders' stories on the running system, told as they happen and checked.
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command, value_parser};

use crate::arguments::{option, value};
use crate::instance::Instance;
use crate::layout::Layout;
use crate::state::{Phase, State};
use crate::{say, up};

mod burst;
mod shop;
mod stories;
mod topics;

use shop::Shop;

/// Arguments of `demo`.
#[derive(Debug)]
pub(crate) struct DemoArgs {
    burst: u32,
}

impl DemoArgs {
    pub(crate) fn describe(command: Command) -> Command {
        let burst = option("burst", "Orders in the burst during which the relay is killed");
        command.arg(burst.default_value("500").value_parser(value_parser!(u32).range(1..=10_000)))
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self { burst: value(matches, "burst") }
    }
}

/// Tells the stories; fails when one does not end as it must.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let instance = Layout::find()?.dev();
    let started = ensure_up(&instance)?;
    let shop = Shop::open(&instance)?;
    let began = Instant::now();
    stories::confirmed(&shop)?;
    stories::too_little_stock(&shop)?;
    stories::declined(&shop)?;
    burst::relay_killed(&shop, args.burst)?;
    say::answer(&format!(
        "\nAll four stories ended as they must, after {:.1} s.",
        began.elapsed().as_secs_f64()
    ));
    if started {
        say::answer(
            "The system is still running: `cargo xtask status` shows it, `cargo xtask down` stops it.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// `true` when the system had to be started.
fn ensure_up(instance: &Instance) -> Result<bool> {
    let running = State::read(instance)?.filter(|state| state.owner.alive());
    match running.map(|state| state.phase) {
        Some(Phase::Ready) => Ok(false),
        Some(Phase::Starting) => {
            bail!("the system is just starting: try again when `cargo xtask status` says it is up")
        }
        Some(Phase::Stopping) => bail!("the system is just stopping: try again in a moment"),
        None => {
            say::progress("nothing runs yet: starting the system first");
            up::start_in_background(instance).context("could not start the system")?;
            Ok(true)
        }
    }
}
