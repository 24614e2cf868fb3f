//! Failures on purpose: a group's handler that answers *retry* or *reject* before the real one is asked.
//!
//! For demonstrations and tests of ordered retry, dead letters and replay. `WAYBILL_FAULTS` names the messages; a release
//! build refuses it.

use std::str::FromStr;

use sqlx::PgConnection;
use waybill_messaging::codec::CodecError;
use waybill_messaging::message::Message;
use waybill_outbox::inbox::{Delivery, Handler, HandlerError, Verdict};
use waybill_runtime::config::Environment;

/// The error class of every failure on purpose.
pub const CLASS: &str = "on_purpose";
/// Appearances of a message that can fail: more than the default policy's attempts.
const TIMES_MAX: i16 = 100;

const VARIABLE: &str = "WAYBILL_FAULTS";

/// Which messages fail on purpose; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// One kind of message that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: String,
    answer: Answer,
    /// How many appearances fail: the main topic's is the first, each retry and each replay is one more.
    times: i16,
    /// Of the keys, which share.
    percent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Retry,
    Reject,
}

impl Faults {
    /// `WAYBILL_FAULTS`: `KIND:retry|reject:TIMES[:PERCENT]`, several separated by commas.
    pub(crate) fn read(env: &mut Environment) -> Self {
        let faults = env.parsed(VARIABLE, Self::default());
        if !faults.is_none() && !cfg!(debug_assertions) {
            env.mistake(VARIABLE, "is for development builds only: this is a release build, unset it");
        }
        faults
    }

    /// Whether nothing fails on purpose.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    fn verdict(&self, kind: &str, key: &str, appearance: i16) -> Verdict {
        let hits =
            |fault: &&Fault| fault.kind == kind && appearance < fault.times && share(key) < fault.percent;
        let Some(fault) = self.0.iter().find(hits) else { return Verdict::Done };
        let why = format!("appearance {} of {} fails because of {VARIABLE}", appearance + 1, fault.times);
        match fault.answer {
            Answer::Retry => Verdict::Retry { class: CLASS, why },
            Answer::Reject => Verdict::Reject { class: CLASS, why },
        }
    }
}

/// A number from 0 to 99, the same for the same key everywhere (FNV-1a).
fn share(key: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    key.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) % 100
}

impl FromStr for Faults {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Fault {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const HOW: &str = "write KIND:retry:TIMES or KIND:reject:TIMES, with :PERCENT for a share of the keys, such as \
                           ReserveStock:retry:2:10";
        let mut parts = text.split(':');
        let kind = parts.next().filter(|kind| !kind.is_empty()).ok_or(HOW)?.to_owned();
        let answer = match parts.next() {
            Some("retry") => Answer::Retry,
            Some("reject") => Answer::Reject,
            _ => return Err(HOW),
        };
        let times =
            parts.next().and_then(|times| times.parse().ok()).filter(|times| (1..=TIMES_MAX).contains(times));
        let percent = parts.next().map_or(Some(100), |percent| percent.parse().ok());
        match (times, percent.filter(|percent| (1..=100).contains(percent)), parts.next()) {
            (Some(times), Some(percent), None) => Ok(Self { kind, answer, times, percent }),
            _ => Err(HOW),
        }
    }
}

/// A handler whose messages fail on purpose, when some are to.
pub struct Faulty<H> {
    /// The real one.
    pub handler: H,
    /// What fails before it is asked.
    pub faults: Faults,
}

impl<H: Handler> Handler for Faulty<H> {
    type Message = H::Message;

    fn group(&self) -> &str {
        self.handler.group()
    }

    fn decode(&self, kind: &str, payload: &[u8]) -> Result<Option<Self::Message>, CodecError> {
        self.handler.decode(kind, payload)
    }

    async fn handle(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<Self::Message>],
        out: &mut Vec<Message>,
    ) -> Result<Vec<Verdict>, HandlerError> {
        if !self.faults.is_none() {
            let verdicts = self.verdicts(conn, deliveries).await?;
            // One that is not done rolls everything back, and the others come again without it: nobody is asked now.
            if verdicts.iter().any(|verdict| *verdict != Verdict::Done) {
                return Ok(verdicts);
            }
        }
        self.handler.handle(conn, deliveries, out).await
    }

    fn committed(&self) {
        self.handler.committed();
    }
}

impl<H: Handler> Faulty<H> {
    async fn verdicts(
        &self,
        conn: &mut PgConnection,
        deliveries: &[Delivery<H::Message>],
    ) -> Result<Vec<Verdict>, HandlerError> {
        let mut verdicts = Vec::with_capacity(deliveries.len());
        for Delivery { envelope, .. } in deliveries {
            let appearance = waybill_outbox::inbox::appearance_in_tx(conn, self.group(), envelope.id).await?;
            verdicts.push(self.faults.verdict(&envelope.kind, &envelope.subject, appearance));
        }
        Ok(verdicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_appearances_of_a_kind_fail() {
        let faults: Faults = "ReserveStock:retry:2, CapturePayment:reject:1:100".parse().unwrap();
        let retried =
            |appearance| matches!(faults.verdict("ReserveStock", "k", appearance), Verdict::Retry { .. });
        assert_eq!([0, 1, 2].map(retried), [true, true, false]);
        assert!(matches!(faults.verdict("CapturePayment", "k", 0), Verdict::Reject { class: CLASS, .. }));
        assert_eq!(faults.verdict("CapturePayment", "k", 1), Verdict::Done);
        assert_eq!(faults.verdict("VoidPayment", "k", 0), Verdict::Done);
    }

    #[test]
    fn a_share_of_the_keys_fails_the_same_ones_each_time() {
        let faults: Faults = "ReserveStock:retry:1:10".parse().unwrap();
        let failing = || {
            let keys = (0..1000).map(|number| format!("01980000-0000-7000-8000-{number:012}"));
            keys.filter(|key| faults.verdict("ReserveStock", key, 0) != Verdict::Done).collect::<Vec<_>>()
        };
        assert!((50..200).contains(&failing().len()), "{}", failing().len());
        assert_eq!(failing(), failing());
    }

    #[test]
    fn what_is_no_fault_is_a_mistake() {
        for bad in [
            "",
            "ReserveStock",
            "ReserveStock:retry",
            "ReserveStock:fail:1",
            ":retry:1",
            "A:retry:0",
            "A:retry:1:0",
            "A:retry:1:101",
            "A:retry:1:1:1",
            "A:retry:101",
            "A:retry:1,",
        ] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }
}
