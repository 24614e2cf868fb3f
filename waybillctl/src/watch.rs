//! The progress of replays: a bar on a terminal, a line a change elsewhere.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::operator::answers::Replay;
use crate::operator::{Service, view};
use crate::output;

/// How often a running replay is asked about: often enough for a person who looks.
const POLL_MS: u64 = 500;
/// How long a service may be away while its replay is watched: as long as one takes to be started again, and more. The
/// replay itself goes on with it.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// A replay and what is known of it.
pub(crate) struct Watched<'a> {
    pub(crate) service: &'a Service,
    pub(crate) id: String,
    /// The service's last answer about it.
    pub(crate) raw: Value,
}

/// Looks at replays until none runs any more, or the interrupt key is hit: they go on without being watched.
pub(crate) async fn until_ended(watched: &mut [Watched<'_>]) -> anyhow::Result<()> {
    tokio::select! {
        ended = follow(watched) => return ended,
        _ = tokio::signal::ctrl_c() => {}
    }
    output::progress(
        "they go on; look with `waybillctl dead-letters replay watch ID`, stop with `... pause ID`",
    );
    Ok(())
}

async fn follow(watched: &mut [Watched<'_>]) -> anyhow::Result<()> {
    let bars = MultiProgress::new();
    let shown = watched.iter().map(|watched| Shown::new(&bars, watched));
    let mut shown = shown.collect::<anyhow::Result<Vec<Shown>>>()?;
    loop {
        let mut running = false;
        for (watched, shown) in watched.iter_mut().zip(&mut shown) {
            let replay: Replay = view(&watched.raw)?;
            shown.update(&replay);
            running |= replay.state == "running";
        }
        if !running {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        for (watched, shown) in watched.iter_mut().zip(&mut shown) {
            match watched.service.get(&["replays", &watched.id], &[]).await {
                Ok(raw) => {
                    watched.raw = raw;
                    shown.back();
                }
                Err(error) => shown.away(error)?,
            }
        }
    }
}

/// What was told last of one replay.
struct Shown {
    bar: ProgressBar,
    service: String,
    line: String,
    /// Since when its service does not answer.
    away_since: Option<Instant>,
}

impl Shown {
    fn new(bars: &MultiProgress, watched: &Watched<'_>) -> anyhow::Result<Self> {
        let replay: Replay = view(&watched.raw)?;
        let bar = bars.add(ProgressBar::new(replay.total));
        let style = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len} {msg}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        let service = watched.service.name().to_owned();
        bar.set_prefix(service.clone());
        Ok(Self { bar, service, line: String::new(), away_since: None })
    }

    /// Says once that the service does not answer; an error when it has not for too long.
    fn away(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        match self.away_since {
            Some(since) if since.elapsed() > AWAY_MAX => {
                return Err(error.context(format!(
                    "{} has not answered for {AWAY_MAX:?}; its replay goes on when it is back \
                     (`waybillctl dead-letters replay watch ID`)",
                    self.service
                )));
            }
            Some(_) => {}
            None => {
                self.away_since = Some(Instant::now());
                let said =
                    format!("{} does not answer; asking again for {AWAY_MAX:?}: {error:#}", self.service);
                self.bar.suspend(|| output::progress(&said));
            }
        }
        Ok(())
    }

    /// Says that it answers again.
    fn back(&mut self) {
        if self.away_since.take().is_some() {
            self.bar.suspend(|| output::progress(&format!("{} answers again", self.service)));
        }
    }

    fn update(&mut self, replay: &Replay) {
        let mut line = format!("{} resolved, {} failed", replay.resolved, replay.failed);
        if replay.skipped > 0 {
            line.push_str(&format!(", {} skipped", replay.skipped));
        }
        if replay.state != "running" {
            line.push_str(&format!(", {}", replay.state));
        }
        self.bar.set_position(replay.total.saturating_sub(replay.remaining));
        self.bar.set_message(line.clone());
        let line = format!("{} of {}: {line}", replay.total.saturating_sub(replay.remaining), replay.total);
        if self.bar.is_hidden() && line != self.line {
            output::progress(&format!("{}: {line}", self.service));
            self.line = line;
        }
        if replay.state != "running" {
            // What came of it is the result, on standard output.
            self.bar.finish_and_clear();
        }
    }
}
