//! Starting a process so that it can not outlive this one unseen: its own group, another account when asked, and on
//! Linux a signal when its parent dies.
//!
//! The kernel takes the parent's-death signal only from the process itself, so this program starts itself again as
//! `xtask launch ... -- PROGRAM`, sets it, and becomes the program: same pid, no shim left between.
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{ArgAction, ArgMatches, Command as Line, value_parser};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, User, getppid, initgroups, setgid, setuid};

use crate::arguments::{option, passed_last, passed_on, value};
use crate::state::StopSignal;

/// What to start, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    /// Another account to run as; only root can change to one.
    pub(crate) account: Option<String>,
}

/// The hidden command line of the second start.
#[derive(Debug)]
pub(crate) struct LaunchArgs {
    /// The process whose death ends this one.
    parent: i32,
    parent_death: Signal,
    account: Option<String>,
    program: Vec<OsString>,
}

impl LaunchArgs {
    pub(crate) fn describe(line: Line) -> Line {
        let parent = option("parent", "The process whose death ends this one").required(true);
        let signal = option("parent-death", "How it ends this one").default_value("SIGTERM");
        line.hide(true).args([
            parent.value_parser(value_parser!(i32)),
            signal.value_parser(value_parser!(Signal)),
            option("account", "As whom to run"),
            passed_last("The program and its arguments").action(ArgAction::Append).required(true),
        ])
    }

    pub(crate) fn read(matches: &ArgMatches) -> Self {
        Self {
            parent: value(matches, "parent"),
            parent_death: value(matches, "parent-death"),
            account: matches.get_one("account").cloned(),
            program: passed_on(matches),
        }
    }
}

/// How processes are started: through this program, or directly (in tests, where this program is another).
#[derive(Debug, Clone)]
pub(crate) enum Launcher {
    Guarded(PathBuf),
    #[cfg(test)]
    Direct,
}

impl Launcher {
    /// Through this very program, also when its file was exchanged meanwhile.
    pub(crate) fn new() -> Result<Self> {
        let own = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe().context("could not find this program's own file")?
        };
        Ok(Self::Guarded(own))
    }

    /// Starts a program in a process group of its own with its output appended to `log`.
    ///
    /// The calling thread must live as long as the process: the kernel takes a thread's end for the parent's.
    pub(crate) fn start(&self, program: &Program, stop: StopSignal, log: &Path) -> Result<Child> {
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("could not open the log {}", log.display()))?;
        let errors = output.try_clone().context("could not share the log between stdout and stderr")?;
        let mut command = self.command(program, stop);
        command.current_dir(&program.cwd).envs(program.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        for name in cargo_variables() {
            command.env_remove(name);
        }
        command.spawn().with_context(|| format!("could not start {}", program.path.display()))
    }

    fn command(&self, program: &Program, stop: StopSignal) -> Command {
        match self {
            Self::Guarded(own) => {
                let mut command = Command::new(own);
                command.arg("launch").arg("--parent").arg(std::process::id().to_string());
                command.arg("--parent-death").arg(stop.signal().as_str());
                if let Some(account) = &program.account {
                    command.arg("--account").arg(account);
                }
                command.arg("--").arg(&program.path).args(&program.args);
                command
            }
            #[cfg(test)]
            Self::Direct => {
                let mut command = Command::new(&program.path);
                command.args(&program.args);
                command
            }
        }
    }
}

/// Becomes the program; returns only on failure.
pub(crate) fn launch(args: &LaunchArgs) -> Result<std::process::ExitCode> {
    if let Some(account) = &args.account {
        become_account(account)?;
    }
    die_with_parent(args)?;
    let (program, rest) = args.program.split_first().context("no program was named")?;
    let failed = Command::new(program).args(rest).exec();
    Err(anyhow!(failed).context(format!("could not start {}", program.display())))
}

fn become_account(name: &str) -> Result<()> {
    let found = User::from_name(name).with_context(|| format!("could not look up the account {name}"))?;
    let user = found.with_context(|| format!("there is no account {name}"))?;
    let c_name = std::ffi::CString::new(name).context("an account's name holds no zero byte")?;
    #[cfg(target_os = "linux")]
    initgroups(&c_name, user.gid).with_context(|| format!("could not take the groups of {name}"))?;
    #[cfg(not(target_os = "linux"))]
    let _ = c_name;
    setgid(user.gid).with_context(|| format!("could not take the group of {name}"))?;
    setuid(user.uid).with_context(|| format!("could not become {name}"))
}

/// After the change of account, which would clear it again.
fn die_with_parent(args: &LaunchArgs) -> Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(args.parent_death)
        .context("could not ask for a signal at the parent's death")?;
    if getppid() != Pid::from_raw(args.parent) {
        bail!("the command that started this process has already ended");
    }
    Ok(())
}

/// What `cargo run` sets for this program and the programs it starts must not inherit (a nested cargo would rebuild).
pub(crate) fn cargo_variables() -> Vec<OsString> {
    let of_cargo = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|start| name.starts_with(start))
            || matches!(name, "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
    };
    std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_str().is_some_and(of_cargo)).collect()
}
