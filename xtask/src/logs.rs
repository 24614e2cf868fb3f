//! `cargo xtask logs`, the prefixed output of `up`, and the bound on each log's size.
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::arguments::{flag, option, value};
use crate::instance::Instance;
use crate::layout::Layout;
use crate::services;
use crate::stop::Stop;
use crate::{say, servers};

/// Past this size a log is copied to `NAME.log.1` and begun anew, in bytes: a day of development, seconds to search.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// How much of one log is printed before the next has its turn, in bytes.
const TURN_BYTES_MAX: u64 = 256 << 10;
/// How often logs are looked at for news, in milliseconds.
const FOLLOW_INTERVAL_MS: u64 = 100;

/// Arguments of `logs`.
#[derive(Debug)]
pub(crate) struct LogsArgs {
    service: Option<String>,
    follow: bool,
    lines: usize,
}

impl LogsArgs {
    pub(crate) fn describe(command: Command) -> Command {
        let service = Arg::new("service").value_name("SERVICE");
        let lines = option("lines", "How many of the last lines of each log to begin with").short('n');
        command.args([
            service
                .help("orders, inventory, payments, outbox-relay, kafka, postgres or up; all when left out"),
            flag("follow", "Goes on printing as lines arrive, until Ctrl-C").short('f'),
            lines.default_value("50").value_parser(value_parser!(usize)),
        ])
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        let service = matches.get_one("service").cloned();
        Self { service, follow: matches.get_flag("follow"), lines: value(matches, "lines") }
    }
}

/// Prints logs of the development system, whether or not it runs.
pub(crate) fn run(args: &LogsArgs) -> Result<ExitCode> {
    let instance = Layout::find()?.dev();
    let names = names(args.service.as_deref())?;
    let logs: Vec<PathBuf> = names.iter().map(|name| instance.log(name)).collect();
    if !logs.iter().any(|log| log.exists()) {
        bail!("no log in {} yet: `cargo xtask up` writes them", instance.logs().display());
    }
    for (name, log) in names.iter().zip(&logs) {
        print_last_lines(name, log, args.lines)?;
    }
    if args.follow {
        follow(&instance, &names, |_, _| true, &Stop::on_signals()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn names(wanted: Option<&str>) -> Result<Vec<&'static str>> {
    let all = [servers::POSTGRES, servers::KAFKA].into_iter().chain(services::NAMES).chain(["up"]);
    let Some(wanted) = wanted else { return Ok(all.collect()) };
    let wanted = services::canonical(wanted);
    match all.clone().find(|name| *name == wanted) {
        Some(name) => Ok(vec![name]),
        None => bail!("there is no log of `{wanted}`: choose one of {}", all.collect::<Vec<_>>().join(", ")),
    }
}

fn print_last_lines(name: &str, log: &Path, lines: usize) -> Result<()> {
    let bytes = match fs::read(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        bytes => bytes.with_context(|| format!("could not read {}", log.display()))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        say::prefixed(name, line);
    }
    Ok(())
}

/// Prints what is appended to the named logs from now on, each line prefixed, until asked to stop.
pub(crate) fn follow(
    instance: &Instance,
    names: &[&'static str],
    shown: impl Fn(&str, &str) -> bool,
    stop: &Stop,
) -> Result<()> {
    let mut tails: BTreeMap<&str, Tail> = BTreeMap::new();
    for name in names {
        tails.insert(name, Tail::at_end(instance.log(name)));
    }
    while stop.pause(Duration::from_millis(FOLLOW_INTERVAL_MS)).is_ok() {
        for (name, tail) in &mut tails {
            for line in tail.new_lines()?.iter().filter(|line| shown(name, line)) {
                say::prefixed(name, line);
            }
        }
    }
    Ok(())
}

/// A place in a growing file.
struct Tail {
    log: PathBuf,
    offset: u64,
    unfinished: Vec<u8>,
}

impl Tail {
    fn at_end(log: PathBuf) -> Self {
        let offset = fs::metadata(&log).map(|file| file.len()).unwrap_or(0);
        Self { log, offset, unfinished: Vec::new() }
    }

    /// The whole lines since the last look, at most a turn's worth. A file that shrank was begun anew.
    fn new_lines(&mut self) -> Result<Vec<String>> {
        let Ok(mut file) = File::open(&self.log) else { return Ok(Vec::new()) };
        let length = file.metadata().context("could not read a log's size")?.len();
        if length < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset)).context("could not seek in a log")?;
        let read = file.take(TURN_BYTES_MAX).read_to_end(&mut self.unfinished);
        self.offset += read.with_context(|| format!("could not read {}", self.log.display()))? as u64;
        let Some(end) = self.unfinished.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.unfinished.drain(..=end).collect();
        Ok(String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect())
    }
}

/// Begins a log anew when it is too long, keeping the old one beside it. Writers append, so they go on at the start.
pub(crate) fn bound(log: &Path) -> Result<()> {
    let too_long = fs::metadata(log).is_ok_and(|file| file.len() > LOG_BYTES_MAX);
    if too_long {
        let old = log.with_extension("log.1");
        fs::copy(log, &old)
            .and_then(|_| OpenOptions::new().write(true).open(log)?.set_len(0))
            .with_context(|| format!("could not begin {} anew", log.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_tail_gives_whole_lines_and_survives_a_log_begun_anew() {
        let log = std::env::temp_dir().join(format!("waybill-xtask-tail-{}.log", std::process::id()));
        fs::write(&log, "before\n").unwrap();
        let mut tail = Tail::at_end(log.clone());
        let mut writer = OpenOptions::new().append(true).open(&log).unwrap();
        write!(writer, "one\ntw").unwrap();
        assert_eq!(tail.new_lines().unwrap(), ["one"]);
        writeln!(writer, "o").unwrap();
        assert_eq!(tail.new_lines().unwrap(), ["two"]);
        writer.set_len(0).unwrap();
        writeln!(writer, "new").unwrap();
        assert_eq!(tail.new_lines().unwrap(), ["new"]);
        fs::remove_file(log).unwrap();
    }
}
