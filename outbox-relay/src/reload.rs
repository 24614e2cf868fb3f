//! Reads the configuration file again when it changes or on SIGHUP; a broken one is refused and the old one stays.

use std::time::Duration;

use prometheus::IntGauge;
use tokio::signal::unix::{Signal, SignalKind, signal};
use waybill_telemetry::metrics::int_gauge_vec;

use crate::config::{Config, Database, Source};

/// How often the file is looked at. By its text, not its time: mounted files are exchanged by links of any age.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches the file.
pub struct Reload {
    source: Source,
    /// As it was read at the start: what else than databases differs from it needs a restart.
    started: Config,
    hangups: Option<Signal>,
    /// The text that was read last, good or not.
    known: Option<String>,
    /// Another text, seen once: it is read when it is still the same at the next look, so that nobody's half-written
    /// file is taken for the whole.
    fresh: Option<String>,
    refused: IntGauge,
}

impl Reload {
    /// Of what `started` was read from. Must be called inside a tokio runtime; from then on SIGHUP ends nothing.
    #[must_use]
    pub fn new(source: Source, started: Config) -> Self {
        let hangups = signal(SignalKind::hangup())
            .inspect_err(
                |error| tracing::warn!(%error, "SIGHUP can not be heard: the file's changes still are seen"),
            )
            .ok();
        let known = source.text();
        let refused = int_gauge_vec(
            "outbox_relay_config_refused",
            "1 while the configuration file has mistakes and the one before it is in force.",
            &[],
        );
        Self { source, started, hangups, known, fresh: None, refused: refused.with_label_values::<&str>(&[]) }
    }

    /// Waits until the file was changed to a good one, or SIGHUP; then the databases it lists. Safe to be dropped at
    /// any time.
    pub async fn databases(&mut self) -> Vec<Database> {
        loop {
            tokio::select! {
                () = hangup(&mut self.hangups) => {
                    tracing::info!("SIGHUP: the configuration is read again");
                    self.known = self.source.text();
                    self.fresh = None;
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    if !self.has_changed() {
                        continue;
                    }
                    tracing::info!("the configuration file has changed");
                }
            }
            if let Some(databases) = self.read() {
                return databases;
            }
        }
    }

    fn has_changed(&mut self) -> bool {
        let text = self.source.text();
        if text == self.known {
            self.fresh = None;
            return false;
        }
        if text != self.fresh {
            self.fresh = text;
            return false;
        }
        self.known = self.fresh.take();
        true
    }

    fn read(&self) -> Option<Vec<Database>> {
        match self.source.read() {
            Ok(config) => {
                self.refused.set(0);
                if config.differs_besides_databases(&self.started) {
                    tracing::warn!(
                        "settings other than the databases have changed: they take effect at the next start"
                    );
                }
                Some(config.databases)
            }
            Err(error) => {
                self.refused.set(1);
                tracing::error!(%error, "the configuration is refused; the one before stays in force");
                None
            }
        }
    }
}

/// The next SIGHUP; never, when they can not be heard.
async fn hangup(hangups: &mut Option<Signal>) {
    let heard = match hangups {
        Some(hangups) => hangups.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending::<()>().await;
    }
}
