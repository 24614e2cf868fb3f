//! `cargo xtask chaos`: the long forms of tests that CI runs in short ones, seeded, on servers of their own.
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::test::{self, TestArgs};
use crate::{random, say};

/// Longest run, in minutes: a week.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// Arguments of `chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// What to torment.
    #[arg(value_enum)]
    what: What,
    /// How long, for what runs round after round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: u64,
    /// Repeats a run; every run prints its own.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Writers of every kind beside relays that are killed and frozen; each round is audited from the topics.
    Relay,
    /// The relay's core, every interleaving of larger worlds.
    RelayModel,
    /// A cluster of three brokers, one of which is killed.
    RelayBrokers,
}

impl What {
    /// The test that does it.
    fn test(self) -> &'static str {
        match self {
            Self::Relay => "torture::long_form",
            Self::RelayModel => "model::order_and_completeness_hold_in_larger_worlds",
            Self::RelayBrokers => "brokers::one_of_three_brokers_is_killed",
        }
    }
}

/// Runs the test with its output shown, and ends as it ends.
pub(crate) fn run(args: &ChaosArgs) -> Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| u64::from(u32::from_be_bytes(random::bytes::<4>())));
    let again = format!("--minutes {} --seed {seed}", args.minutes);
    say::progress(&format!("{} ({again} does the same again)", args.what.test()));
    let words = ["-p", "outbox-relay", "--test", "it", args.what.test(), "--"];
    let more = ["--ignored", "--exact", "--nocapture"];
    let selection = words.iter().chain(&more).map(OsString::from).collect();
    let told =
        [("WAYBILL_CHAOS_MINUTES", args.minutes.to_string()), ("WAYBILL_CHAOS_SEED", seed.to_string())];
    let ended = test::run(&TestArgs::selected(selection, told.into()));
    say::progress(&format!("to repeat: cargo xtask chaos {} {again}", args.what.name()));
    ended
}

impl What {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
