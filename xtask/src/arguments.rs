//! The words that command lines are described with: flags, options, choices, and what is passed on.
//!
//! clap's derive macros would say the same; they and what they are made of take longer to compile than all the rest.
use std::ffi::OsString;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches, value_parser};

/// `--name`: set or not.
pub(crate) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// `--name VALUE`: text, unless it is given another parser.
pub(crate) fn option(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help)
}

/// The value of an option with a default or one that is required.
///
/// # Panics
/// When the option is described otherwise: a fault of the program that the first use shows.
pub(crate) fn value<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> T {
    matches.get_one::<T>(name).cloned().expect("the option has a default or is required")
}

/// The rest of the line, whatever it is, for another program.
pub(crate) fn passed(help: &'static str) -> Arg {
    Arg::new(PASSED)
        .value_name("ARGS")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(value_parser!(OsString))
        .help(help)
}

/// What stands behind `--`, for another program.
pub(crate) fn passed_last(help: &'static str) -> Arg {
    Arg::new(PASSED)
        .value_name("ARGS")
        .num_args(0..)
        .last(true)
        .value_parser(value_parser!(OsString))
        .help(help)
}

/// What was passed on.
pub(crate) fn passed_on(matches: &ArgMatches) -> Vec<OsString> {
    matches.get_many::<OsString>(PASSED).into_iter().flatten().cloned().collect()
}

const PASSED: &str = "args";

/// A value that is one of a few words.
pub(crate) trait Choice: Copy + PartialEq + 'static {
    /// Each word, what it means, and its help.
    const WORDS: &'static [(&'static str, Self, &'static str)];

    /// The word of this value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value, _)| *value == self).map_or("", |(word, ..)| word)
    }

    /// The value of this word.
    fn of_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, ..)| *known == word).map(|(_, value, _)| *value)
    }
}

/// Accepts the words of a choice.
pub(crate) fn one_of<C: Choice>() -> PossibleValuesParser {
    C::WORDS.iter().map(|(word, _, help)| PossibleValue::new(*word).help(*help)).into()
}

/// Every value that was chosen, in order.
pub(crate) fn chosen<C: Choice>(matches: &ArgMatches, name: &str) -> Vec<C> {
    matches.get_many::<String>(name).into_iter().flatten().filter_map(|word| C::of_word(word)).collect()
}
