//! `cargo xtask chaos`: the long forms of tests that CI runs in short ones, seeded, on servers of their own.
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::arguments::{Choice, chosen, one_of, option, value};
use crate::test::{self, TestArgs};
use crate::{random, say};

/// Longest run, in minutes: a week.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// Arguments of `chaos`.
#[derive(Debug)]
pub(crate) struct ChaosArgs {
    what: What,
    minutes: u64,
    seed: Option<u64>,
}

impl ChaosArgs {
    pub(crate) fn describe(command: Command) -> Command {
        let minutes = option("minutes", "How long, for what runs round after round").default_value("10");
        let seed = option("seed", "Repeats a run; every run prints its own");
        command.args([
            Arg::new("what").required(true).value_parser(one_of::<What>()).help("What to torment"),
            minutes.value_parser(value_parser!(u64).range(1..=MINUTES_MAX)),
            seed.value_parser(value_parser!(u64)),
        ])
    }

    pub(crate) fn read(matches: &ArgMatches) -> Result<Self> {
        let what = chosen(matches, "what").pop().context("nothing to torment was named")?;
        Ok(Self { what, minutes: value(matches, "minutes"), seed: matches.get_one("seed").copied() })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Relay,
    RelayModel,
    RelayBrokers,
}

impl Choice for What {
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        (
            "relay",
            Self::Relay,
            "Writers of every kind beside relays that are killed and frozen, each round audited from the topics; and a \
             broker that is away for three minutes",
        ),
        ("relay-model", Self::RelayModel, "The relay's core, every interleaving of larger worlds"),
        ("relay-brokers", Self::RelayBrokers, "A cluster of three brokers, each of which is killed in turn"),
    ];
}

impl What {
    /// The test that does it.
    fn test(self) -> &'static str {
        match self {
            Self::Relay => "torture::long_form",
            Self::RelayModel => "model::order_and_completeness_hold_in_larger_worlds",
            Self::RelayBrokers => "brokers::each_of_three_brokers_is_killed",
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
    say::progress(&format!("to repeat: cargo xtask chaos {} {again}", args.what.word()));
    ended
}
