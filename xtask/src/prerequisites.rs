//! What the machine must offer: found, installed where we are root on a Debian, else named in one command.
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::on_path;
use crate::say;
use crate::stop::Stop;

mod install;

/// The oldest Java that Kafka 4.3 runs on.
const JAVA_VERSION_MIN: u32 = 17;

/// Something a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Java,
    Maven,
    Xz,
    Compilers,
    CargoDeny,
    RustTools,
    Git,
    Python,
    Kcat,
    Psql,
    Faketime,
    Openssl,
}

/// One piece of a need: what, why, how it is looked for, and what brings it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    need: Need,
    what: &'static str,
    why: &'static str,
    look: Look,
    get: Get,
}

/// How a piece is looked for.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// A program of this name on the PATH.
    Program(&'static str),
    /// A library that pkg-config knows.
    Library(&'static str),
    /// A command that succeeds.
    Succeeds(&'static str, &'static [&'static str]),
    /// A Java that is new enough.
    Java,
}

/// What brings a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Get {
    /// Debian's packages and Homebrew's.
    Package(&'static [&'static str], &'static str),
    /// `cargo install`.
    Cargo(&'static str),
    /// `rustup component add`.
    Rustup(&'static str),
}

const LIBRDKAFKA: &str = "librdkafka is built from source";

/// Everything that any command needs. The script `.cargo/cc` names the same Debian packages.
const PIECES: [Piece; 19] = [
    piece(
        Need::Compilers,
        "a C++ compiler (c++)",
        LIBRDKAFKA,
        Look::Program("c++"),
        Get::Package(&["g++"], "gcc"),
    ),
    piece(
        Need::Compilers,
        "a C compiler (cc)",
        LIBRDKAFKA,
        Look::Program("cc"),
        Get::Package(&["gcc", "libc6-dev"], "gcc"),
    ),
    piece(Need::Compilers, "make", LIBRDKAFKA, Look::Program("make"), Get::Package(&["make"], "make")),
    piece(
        Need::Compilers,
        "pkg-config",
        "librdkafka's libraries are found with it",
        Look::Program("pkg-config"),
        Get::Package(&["pkg-config"], "pkg-config"),
    ),
    piece(
        Need::Compilers,
        "OpenSSL's headers",
        "librdkafka's TLS is built with them",
        Look::Library("openssl"),
        Get::Package(&["libssl-dev"], "openssl"),
    ),
    piece(
        Need::Compilers,
        "zlib's headers",
        "librdkafka's compression is built with them",
        Look::Library("zlib"),
        Get::Package(&["zlib1g-dev"], "zlib"),
    ),
    piece(
        Need::Java,
        "Java 17 or newer",
        "Kafka and its tools run on it",
        Look::Java,
        Get::Package(&["default-jre-headless"], "openjdk@17"),
    ),
    piece(
        Need::Maven,
        "Maven (mvn)",
        "it fetches Kafka and PostgreSQL",
        Look::Program("mvn"),
        Get::Package(&["maven"], "maven"),
    ),
    piece(
        Need::Xz,
        "xz",
        "PostgreSQL's archive is packed with it",
        Look::Program("xz"),
        Get::Package(&["xz-utils"], "xz"),
    ),
    piece(
        Need::Python,
        "python3 with venv",
        "a test reads our topics with an Avro implementation that is not ours",
        Look::Succeeds("python3", &["-c", "import venv, ensurepip"]),
        Get::Package(&["python3-venv"], "python3"),
    ),
    piece(
        Need::Kcat,
        "kcat",
        "it shows what is in the topics",
        Look::Program("kcat"),
        Get::Package(&["kcat"], "kcat"),
    ),
    piece(
        Need::Psql,
        "psql",
        "it shows what is in the databases",
        Look::Program("psql"),
        Get::Package(&["postgresql-client"], "libpq"),
    ),
    piece(
        Need::Faketime,
        "faketime",
        "tests set the clock of a process with it",
        Look::Program("faketime"),
        Get::Package(&["faketime"], "libfaketime"),
    ),
    piece(
        Need::Openssl,
        "openssl",
        "tests make certificates with it",
        Look::Program("openssl"),
        Get::Package(&["openssl"], "openssl"),
    ),
    piece(
        Need::Git,
        "git",
        "the lint asks it which files belong to the project",
        Look::Program("git"),
        Get::Package(&["git"], "git"),
    ),
    piece(
        Need::RustTools,
        "rustfmt",
        "the lint checks the format with it",
        Look::Succeeds("cargo", &["fmt", "--version"]),
        Get::Rustup("rustfmt"),
    ),
    piece(
        Need::RustTools,
        "clippy",
        "the lint reads the code with it",
        Look::Succeeds("cargo", &["clippy", "--version"]),
        Get::Rustup("clippy"),
    ),
    piece(
        Need::CargoDeny,
        "cargo-deny",
        "the lint checks licences, bans and sources with it",
        Look::Program("cargo-deny"),
        Get::Cargo("cargo-deny@0.20.2"),
    ),
    piece(
        Need::CargoDeny,
        "a C compiler (cc)",
        "Rust programs are linked with it",
        Look::Program("cc"),
        Get::Package(&["gcc", "libc6-dev"], "gcc"),
    ),
];

const fn piece(need: Need, what: &'static str, why: &'static str, look: Look, get: Get) -> Piece {
    Piece { need, what, why, look, get }
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
    install::all(&missing, stop)?;
    if let Some(piece) = self::missing(needs).first() {
        bail!("{} is still missing after the installation, {}", piece.what, piece.why);
    }
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<Piece> {
    PIECES.into_iter().filter(|piece| needs.contains(&piece.need) && !piece.look.finds()).collect()
}

impl Look {
    fn finds(self) -> bool {
        match self {
            Self::Program(program) => on_path(program),
            Self::Library(library) => succeeds("pkg-config", &["--exists", library]),
            Self::Succeeds(program, args) => succeeds(program, args),
            Self::Java => java_version().is_some_and(|version| version >= JAVA_VERSION_MIN),
        }
    }
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn java_versions_are_read_in_their_old_and_new_forms() {
        assert_eq!(parse_java_version("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(parse_java_version("openjdk version \"21-ea\" 2023-09-19\n"), Some(21));
        assert_eq!(parse_java_version("java version \"1.8.0_402\"\n"), Some(8));
        assert_eq!(parse_java_version("command not found"), None);
    }

    /// Whoever lacks the compiler is told all packages at once, and none is asked for later.
    #[test]
    fn the_linker_script_names_every_package() {
        let script = include_str!("../../.cargo/cc");
        let told = script.lines().find_map(|line| line.strip_prefix("ALL=\"")?.strip_suffix('"')).unwrap();
        let debian = |piece: &Piece| match piece.get {
            Get::Package(debian, _) => debian,
            Get::Cargo(_) | Get::Rustup(_) => &[],
        };
        let wanted: BTreeSet<&str> = PIECES.iter().flat_map(debian).copied().collect();
        assert_eq!(told.split(' ').collect::<BTreeSet<_>>(), wanted);
    }
}
