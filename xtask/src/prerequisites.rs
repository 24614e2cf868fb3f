//! What the machine must offer: found, installed where we are root on a Debian, else named in one command.
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run::{self, on_path};
use crate::say;
use crate::stop::Stop;

/// The oldest Java that Kafka 4.3 runs on.
const JAVA_VERSION_MIN: u32 = 17;
/// The cargo-deny that the lint is written against.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// Something a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Java,
    Maven,
    Xz,
    Compilers,
    CargoDeny,
    Python,
}

/// One missing piece: what, why, and the package that brings it.
struct Missing {
    what: &'static str,
    why: &'static str,
    get: Get,
}

#[derive(Clone, Copy)]
enum Get {
    /// Debian's package and Homebrew's.
    Package(&'static str, &'static str),
    Cargo(&'static str),
}

/// Makes sure that all needs are met, or fails with one sentence for each missing piece and the command that gets it.
pub(crate) fn ensure(needs: &[Need], stop: &Stop) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    for piece in &missing {
        say::progress(&format!("missing: {}, {}", piece.what, piece.why));
    }
    install(&missing, stop)?;
    let still = self::missing(needs);
    if let Some(piece) = still.first() {
        bail!("{} is still missing after the installation, {}", piece.what, piece.why);
    }
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<Missing> {
    needs.iter().flat_map(|need| need.missing()).collect()
}

impl Need {
    fn missing(self) -> Vec<Missing> {
        match self {
            Self::Java => java_missing().into_iter().collect(),
            Self::Maven => absent(
                "mvn",
                "Maven (mvn)",
                "it fetches Kafka and PostgreSQL",
                Get::Package("maven", "maven"),
            ),
            Self::Xz => {
                absent("xz", "xz", "PostgreSQL's archive is packed with it", Get::Package("xz-utils", "xz"))
            }
            Self::Compilers => compilers_missing(),
            Self::Python => python_missing().into_iter().collect(),
            Self::CargoDeny => {
                let why = "the lint checks licences, bans and sources with it";
                absent("cargo-deny", "cargo-deny", why, Get::Cargo(CARGO_DENY))
            }
        }
    }
}

fn absent(program: &str, what: &'static str, why: &'static str, get: Get) -> Vec<Missing> {
    if on_path(program) { Vec::new() } else { vec![Missing { what, why, get }] }
}

fn java_missing() -> Option<Missing> {
    let found = java_version();
    let enough = found.is_some_and(|version| version >= JAVA_VERSION_MIN);
    let get = Get::Package("default-jre-headless", "openjdk@17");
    (!enough).then_some(Missing { what: "Java 17 or newer", why: "Kafka and its tools run on it", get })
}

/// The major version of the `java` that would run.
pub(crate) fn java_version() -> Option<u32> {
    let told = Command::new(java()).arg("-version").output().ok()?;
    parse_java_version(&String::from_utf8_lossy(&told.stderr))
}

fn parse_java_version(told: &str) -> Option<u32> {
    let quoted = told.split('"').nth(1)?;
    let mut numbers = quoted.split(['.', '-', '+', '_']).map(|part| part.parse().ok());
    match numbers.next()?? {
        1 => numbers.next()?,
        major => Some(major),
    }
}

/// The Java of JAVA_HOME, else of the PATH.
pub(crate) fn java() -> std::path::PathBuf {
    let home = std::env::var_os("JAVA_HOME").map(|home| std::path::PathBuf::from(home).join("bin/java"));
    home.filter(|java| java.is_file()).unwrap_or_else(|| "java".into())
}

/// A Python that can make virtual environments.
fn python_missing() -> Option<Missing> {
    let able = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    let able = able.is_ok_and(|output| output.status.success());
    let why = "a test reads our topics with an Avro implementation that is not ours";
    (!able).then_some(Missing {
        what: "python3 with venv",
        why,
        get: Get::Package("python3-venv", "python3"),
    })
}

/// What building librdkafka and its TLS from source takes.
fn compilers_missing() -> Vec<Missing> {
    let why = "librdkafka is built from source";
    let tools = [
        ("cc", "a C compiler (cc)", Get::Package("gcc", "gcc")),
        ("c++", "a C++ compiler (c++)", Get::Package("g++", "gcc")),
        ("make", "make", Get::Package("make", "make")),
        ("pkg-config", "pkg-config", Get::Package("pkg-config", "pkg-config")),
    ];
    let mut missing: Vec<Missing> =
        tools.into_iter().flat_map(|(program, what, get)| absent(program, what, why, get)).collect();
    let libraries = [
        ("openssl", "OpenSSL's headers", Get::Package("libssl-dev", "openssl")),
        ("zlib", "zlib's headers", Get::Package("zlib1g-dev", "zlib")),
    ];
    let absent = |library: &str| {
        !Command::new("pkg-config").args(["--exists", library]).status().is_ok_and(|s| s.success())
    };
    missing.extend(
        libraries.into_iter().filter(|(library, ..)| absent(library)).map(|(_, what, get)| Missing {
            what,
            why,
            get,
        }),
    );
    missing
}

fn install(missing: &[Missing], stop: &Stop) -> Result<()> {
    let debian: Vec<&str> =
        packages(missing, |get| if let Get::Package(debian, _) = get { Some(debian) } else { None });
    let brew: Vec<&str> =
        packages(missing, |get| if let Get::Package(_, brew) = get { Some(brew) } else { None });
    let cargo: Vec<&str> =
        packages(missing, |get| if let Get::Cargo(name) = get { Some(name) } else { None });
    let may_apt = nix::unistd::geteuid().is_root() && on_path("apt-get");
    if !debian.is_empty() && !may_apt {
        bail!("install what is missing with:\n  {}", package_command(&debian, &brew));
    }
    if !debian.is_empty() {
        apt_install(&debian, stop)?;
    }
    for name in cargo {
        say::progress(&format!("installing {name} with cargo (some minutes) ..."));
        run::tool(Command::new("cargo").args(["install", "--locked", name]), stop).with_context(|| {
            format!("could not install {name}: try `cargo install --locked {name}` by hand")
        })?;
    }
    Ok(())
}

fn packages<'a>(missing: &[Missing], pick: impl Fn(Get) -> Option<&'a str>) -> Vec<&'a str> {
    missing.iter().filter_map(|piece| pick(piece.get)).collect()
}

/// The one command for somebody who may install.
fn package_command(debian: &[&str], brew: &[&str]) -> String {
    if cfg!(target_os = "macos") {
        format!("brew install {}", brew.join(" "))
    } else {
        format!("sudo apt-get update && sudo apt-get install -y {}", debian.join(" "))
    }
}

fn apt_install(packages: &[&str], stop: &Stop) -> Result<()> {
    say::progress(&format!("installing {} with apt-get ...", packages.join(", ")));
    let by_hand = || format!("try `apt-get update && apt-get install -y {}` by hand", packages.join(" "));
    run::tool(Command::new("apt-get").args(["-q", "update"]), stop).with_context(by_hand)?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["-q", "install", "-y", "--no-install-recommends"]).args(packages);
    run::tool(&mut install, stop).with_context(by_hand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_are_read_in_their_old_and_new_forms() {
        assert_eq!(parse_java_version("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(parse_java_version("openjdk version \"21-ea\" 2023-09-19\n"), Some(21));
        assert_eq!(parse_java_version("java version \"1.8.0_402\"\n"), Some(8));
        assert_eq!(parse_java_version("command not found"), None);
    }

    #[test]
    fn the_command_names_every_missing_package() {
        let command = package_command(&["maven", "xz-utils"], &["maven", "xz"]);
        assert!(command.contains("maven") && command.contains("xz"), "{command}");
    }
}
