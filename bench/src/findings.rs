//! One figure after the other: what was measured, what is aimed at.

use std::process::ExitCode;

use serde::Serialize;

/// A measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it is, with the conditions in words.
    pub figure: String,
    /// In `unit`.
    pub value: f64,
    /// The value's unit; empty for a count.
    pub unit: &'static str,
    /// What it must be at least or at most; none for a figure that explains others.
    pub aim: Option<Aim>,
}

/// A bound of a figure, in its unit.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

impl Finding {
    /// A figure without an aim.
    #[must_use]
    pub fn told(figure: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { figure: figure.into(), value, unit, aim: None }
    }

    /// A figure with one.
    #[must_use]
    pub fn aimed(figure: impl Into<String>, value: f64, unit: &'static str, aim: Aim) -> Self {
        Self { figure: figure.into(), value, unit, aim: Some(aim) }
    }

    /// A figure that is no number meets nothing.
    fn is_missed(&self) -> bool {
        match self.aim {
            None => false,
            Some(Aim::AtLeast(least)) => self.value.is_nan() || self.value < least,
            Some(Aim::AtMost(most)) => self.value.is_nan() || self.value > most,
        }
    }

    fn verdict(&self) -> String {
        let word = if self.is_missed() { "MISSED" } else { "met" };
        match self.aim {
            None => String::new(),
            Some(Aim::AtLeast(least)) => format!("at least {least}: {word}"),
            Some(Aim::AtMost(most)) => format!("at most {most}: {word}"),
        }
    }
}

/// All of them for a person.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        format!("{:<78} {:>12.3} {:<7} {}", finding.figure, finding.value, finding.unit, finding.verdict())
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// How a program ends whose figures are to be held by whoever runs it: with 1 when an aim is missed.
#[must_use]
pub fn exit_code(findings: &[Finding]) -> ExitCode {
    ExitCode::from(u8::from(findings.iter().any(Finding::is_missed)))
}

/// The value at `share` (0..=1) of the sorted values; NaN of none.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len().saturating_sub(1)) as f64 * share).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_that_is_missed_is_the_exit_code() {
        let aimed = |value, aim| Finding::aimed("f", value, "", aim);
        let met = [Finding::told("f", 9.0, ""), aimed(2.0, Aim::AtMost(2.0)), aimed(2.0, Aim::AtLeast(2.0))];
        assert_eq!(exit_code(&met), ExitCode::SUCCESS);
        for missed in [
            aimed(2.1, Aim::AtMost(2.0)),
            aimed(1.9, Aim::AtLeast(2.0)),
            aimed(f64::NAN, Aim::AtMost(2.0)),
            aimed(f64::NAN, Aim::AtLeast(2.0)),
        ] {
            assert!(missed.verdict().ends_with(": MISSED"), "{missed:?}");
            assert_eq!(exit_code(&[met[1].clone(), missed]), ExitCode::from(1));
        }
    }
}
