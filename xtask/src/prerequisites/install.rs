//! Getting what is missing: Debian's packages as root, else the one command for it; cargo's and rustup's as anybody.
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Get, Piece};
use crate::run::{self, on_path};
use crate::say;
use crate::stop::Stop;

/// Installs the pieces, packages first: cargo links with what they bring.
pub(super) fn all(missing: &[Piece], stop: &Stop) -> Result<()> {
    packages(missing, stop)?;
    for piece in missing {
        match piece.get {
            Get::Package(..) => {}
            Get::Cargo(name) => {
                say::progress(&format!("installing {name} with cargo (some minutes) ..."));
                let mut cargo = Command::new("cargo");
                // Neither optimized nor for a debugger: built in half the time, and quick enough.
                cargo.args(["install", "--locked", "--debug", name]).env("CARGO_PROFILE_DEV_DEBUG", "false");
                run::tool(&mut cargo, stop).with_context(|| {
                    format!("could not install {name}: try `cargo install --locked {name}` by hand")
                })?;
            }
            Get::Rustup(name) => {
                say::progress(&format!("installing {name} with rustup ..."));
                run::tool(Command::new("rustup").args(["component", "add", name]), stop).with_context(
                    || format!("could not install {name}: try `rustup component add {name}` by hand"),
                )?;
            }
        }
    }
    Ok(())
}

fn packages(missing: &[Piece], stop: &Stop) -> Result<()> {
    let mut debian: Vec<&str> = Vec::new();
    let mut brew: Vec<&str> = Vec::new();
    for piece in missing {
        if let Get::Package(of_debian, of_brew) = piece.get {
            debian.extend(of_debian);
            brew.push(of_brew);
        }
    }
    for list in [&mut debian, &mut brew] {
        list.sort_unstable();
        list.dedup();
    }
    if debian.is_empty() {
        return Ok(());
    }
    if nix::unistd::geteuid().is_root() && on_path("apt-get") {
        return apt_install(&debian, stop);
    }
    bail!("install what is missing with:\n  {}", command(&debian, &brew))
}

/// The one command for somebody who may install.
fn command(debian: &[&str], brew: &[&str]) -> String {
    if cfg!(target_os = "macos") {
        format!("brew install {}", brew.join(" "))
    } else {
        format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", debian.join(" "))
    }
}

fn apt_install(packages: &[&str], stop: &Stop) -> Result<()> {
    say::progress(&format!("installing {} with apt-get ...", packages.join(", ")));
    let by_hand = || format!("try `apt-get update && apt-get install -y {}` by hand", packages.join(" "));
    // What is installed is no part of the command's answer.
    let mut update = Command::new("apt-get");
    update.args(["-qq", "update"]).stdout(std::io::stderr());
    run::tool(&mut update, stop).with_context(by_hand)?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
    install.args(["-qq", "install", "-y", "--no-install-recommends"]).args(packages);
    run::tool(&mut install, stop).with_context(by_hand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_every_missing_package() {
        let command = command(&["maven", "xz-utils"], &["maven", "xz"]);
        assert!(command.contains("maven") && command.contains("xz"), "{command}");
    }
}
