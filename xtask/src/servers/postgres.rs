//! One PostgreSQL server: initialized once, never run as root, asked until it answers.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hmac_sha256::Hash;

use super::wire::{Connection, Url};
use super::{Context, Fetched, POSTGRES, account, make_dir, wait_for};
use crate::account::Account;
use crate::launch::Program;
use crate::state::StopSignal;
use crate::supervisor::{self, Spec};
use crate::{random, run, say};

/// How long it may take to stop before SIGKILL, in seconds: the fast shutdown writes one checkpoint.
const STOP_TIMEOUT_S: u64 = 12;
/// Where root's copies live that another account must reach.
const SHARED_CACHE: &str = "/var/cache/waybill";

/// What the server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// Keeps what it says it keeps.
    Development,
    /// Many databases at once, whose data nobody misses after a power cut: no fsync.
    Tests,
    /// As in development, with statements counted.
    Benchmarks,
    /// As for benchmarks, for a peer that reads the WAL by logical decoding.
    Peers,
}

impl Tuning {
    fn settings(self) -> Vec<String> {
        let common = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // A killed client's locks go within a second, not when its statement ends.
            "client_connection_check_interval=1s",
            "idle_in_transaction_session_timeout=60s",
            "shared_buffers=256MB",
            "max_wal_size=2GB",
            // Two-phase commit is off by default; the outbox and its relay work with it too.
            "max_prepared_transactions=32",
            "log_lock_waits=on",
            "log_line_prefix=%m [%p] %q%d %a: ",
        ];
        let own: &[&str] = match self {
            Self::Development => &["max_connections=200"],
            Self::Tests => &[
                "max_connections=400",
                "fsync=off",
                "full_page_writes=off",
                // Tests hold transactions open while much is done elsewhere; what is under test sets its own limit.
                "idle_in_transaction_session_timeout=600s",
            ],
            Self::Benchmarks => &["max_connections=200", "shared_preload_libraries=pg_stat_statements"],
            Self::Peers => &["max_connections=200", "wal_level=logical"],
        };
        common.iter().chain(own).map(|setting| (*setting).to_owned()).collect()
    }
}

/// Where this server's programs and data are, and who runs it.
struct Home {
    programs: PathBuf,
    data: PathBuf,
    account: Option<Account>,
}

/// Initializes the data folder when it is new, and starts the server.
pub(crate) fn start(context: Context<'_>, fetched: &Fetched, port: u16, tuning: Tuning) -> Result<()> {
    let home = home(context, fetched)?;
    initialize(context, &home)?;
    let mut args: Vec<std::ffi::OsString> =
        vec!["-D".into(), home.data.clone().into(), "-p".into(), port.to_string().into()];
    for setting in tuning.settings() {
        args.extend(["-c".into(), setting.into()]);
    }
    let program = home.program("postgres", args);
    let log = context.instance.log(POSTGRES);
    let spec = supervisor::spec(POSTGRES, program, &log, Duration::from_secs(STOP_TIMEOUT_S));
    context.supervisor.start(Spec { stop_signal: StopSignal::Int, ..spec })
}

/// The folder of `initdb` and `postgres` that the server's account can run, for tests with a server of their own.
pub(crate) fn bin(context: Context<'_>, fetched: &Fetched) -> Result<PathBuf> {
    Ok(home(context, fetched)?.programs.join("bin"))
}

/// Waits until the server lets a client in.
pub(crate) fn wait_ready(context: Context<'_>, url: &str) -> Result<()> {
    let url = Url::parse(url)?;
    wait_for(context, POSTGRES, || Connection::open(&url).map(drop))
}

/// Makes the databases that do not exist yet.
pub(crate) fn create_databases(url: &str, names: &[&str]) -> Result<()> {
    let mut connection =
        Connection::open(&Url::parse(url)?).context("could not log in to make the databases")?;
    for name in names {
        let there = connection.query(&format!("select 1 from pg_database where datname = '{name}'"))?;
        if there.is_empty() {
            connection
                .query(&format!("create database {name}"))
                .with_context(|| format!("could not make the database {name}: the account needs createdb"))?;
        }
    }
    Ok(())
}

impl Home {
    fn program(&self, name: &str, args: Vec<std::ffi::OsString>) -> Program {
        Program {
            path: self.programs.join("bin").join(name),
            args,
            env: Vec::new(),
            cwd: self.data.parent().unwrap_or(Path::new("/")).to_path_buf(),
            account: self.account.as_ref().map(|account| account.name().to_owned()),
        }
    }
}

/// Chooses folders that the server's account can reach.
fn home(context: Context<'_>, fetched: &Fetched) -> Result<Home> {
    let own = context.instance.dir().join(POSTGRES);
    let Some(account) = account()? else {
        make_dir(&own)?;
        return Ok(Home { programs: fetched.postgres(), data: own.join("data"), account: None });
    };
    let programs = if account.reaches(&fetched.postgres()) {
        fetched.postgres()
    } else {
        reachable_copy(fetched, &account, context)?
    };
    let parent = if account.reaches(context.instance.dir()) { own } else { outside_data(context, &account)? };
    make_dir(&parent)?;
    Ok(Home { programs, data: parent.join("data"), account: Some(account) })
}

/// A copy of the programs where every account can run them: root's own cache is closed to others.
fn reachable_copy(fetched: &Fetched, account: &Account, context: Context<'_>) -> Result<PathBuf> {
    let goal = Path::new(SHARED_CACHE).join(fetched.name());
    if goal.is_dir() {
        return Ok(goal);
    }
    let (from, name) = (fetched.postgres(), account.name());
    say::progress(&format!(
        "the account {name} can not reach {}: copying it to {}",
        from.display(),
        goal.display()
    ));
    make_dir(Path::new(SHARED_CACHE))?;
    let beside = goal.with_extension(std::process::id().to_string());
    run::tool(Command::new("cp").arg("-R").arg(&from).arg(&beside), context.stop)?;
    match fs::rename(&beside, &goal) {
        Err(_) if goal.is_dir() => drop(fs::remove_dir_all(&beside)),
        placed => placed.with_context(|| format!("could not move the copy to {}", goal.display()))?,
    }
    Ok(goal)
}

/// A data folder outside a checkout that the account can not reach (a home closed to others).
///
/// It belongs to this life of the instance: the id beside the other data goes when those are wiped, and the folders
/// of earlier lives are removed.
fn outside_data(context: Context<'_>, account: &Account) -> Result<PathBuf> {
    let dir = context.instance.dir();
    let checkout: String = Hash::hash(dir.as_os_str().as_encoded_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let lives = Path::new(SHARED_CACHE).join("data").join(checkout);
    let mark = dir.join("postgres-data.txt");
    let data = match fs::read_to_string(&mark) {
        Ok(data) => PathBuf::from(data.trim()),
        Err(_) => {
            if lives.exists() {
                fs::remove_dir_all(&lives)
                    .with_context(|| format!("could not remove {}", lives.display()))?;
            }
            let data = lives.join(random::hex::<8>());
            fs::write(&mark, data.display().to_string())
                .context("could not note where PostgreSQL's data is")?;
            data
        }
    };
    let name = account.name();
    say::progress(&format!(
        "the account {name} can not reach {}: PostgreSQL's data is in {}",
        dir.display(),
        data.display()
    ));
    Ok(data)
}

/// Makes the cluster. A folder without its version file was interrupted and is begun anew.
fn initialize(context: Context<'_>, home: &Home) -> Result<()> {
    if home.data.join("PG_VERSION").exists() {
        return Ok(());
    }
    let data = &home.data;
    if data.exists() {
        fs::remove_dir_all(data).with_context(|| format!("could not remove {}", data.display()))?;
    }
    let beside = data.with_extension("new");
    if beside.exists() {
        fs::remove_dir_all(&beside).with_context(|| format!("could not remove {}", beside.display()))?;
    }
    match &home.account {
        Some(account) => account.own_dir(&beside)?,
        None => make_dir(&beside)?,
    }
    let options = [
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ];
    let mut args: Vec<std::ffi::OsString> = vec!["-D".into(), beside.clone().into()];
    args.extend(options.map(Into::into));
    args.push("--locale=C".into());
    let program = home.program("initdb", args);
    let mut command = Command::new(&program.path);
    command.args(&program.args).current_dir(&program.cwd);
    if let Some(account) = &home.account {
        account.run_as(&mut command);
    }
    run::logged(&mut command, &context.instance.log("initdb"), context.stop)
        .context("could not make a database cluster")?;
    fs::rename(&beside, data).with_context(|| format!("could not move the cluster to {}", data.display()))
}
