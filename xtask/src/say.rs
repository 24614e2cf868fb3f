//! What the commands say: progress and failures on stderr, answers on stdout.
use std::io::{self, IsTerminal as _, Write as _};

/// Prints one line of an answer on stdout. A closed pipe (`| head`) is not an error.
pub fn answer(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints one line of progress on stderr.
pub fn progress(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a failure with its causes, each on its own line.
pub fn error(error: &anyhow::Error) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "{} {error}", paint("error:", "1;31", io::stderr().is_terminal()));
    for cause in error.chain().skip(1) {
        let _ = writeln!(err, "  because: {cause}");
    }
}

/// One line of a running process, prefixed with its name (colours only on a terminal).
pub fn prefixed(name: &str, line: &str) {
    let prefix = format!("{name:<12} |");
    if io::stdout().is_terminal() {
        answer(&format!("{} {line}", paint(&prefix, colour_of(name), true)));
    } else {
        answer(&format!("{prefix} {}", without_colours(line)));
    }
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// A colour that stays the same for a name from run to run.
fn colour_of(name: &str) -> &'static str {
    const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];
    let sum: usize = name.bytes().map(usize::from).sum();
    COLOURS[sum % COLOURS.len()]
}

/// The text without terminal colours (ESC [ ... m), for files and pipes.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out_and_text_is_kept() {
        assert_eq!(
            without_colours("\u{1b}[2mnow\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m from me"),
            "now  INFO from me"
        );
        assert_eq!(without_colours("plain"), "plain");
    }
}
