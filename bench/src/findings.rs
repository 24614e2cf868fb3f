//! One figure after the other: what was measured, what is aimed at.

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

    fn verdict(&self) -> String {
        match self.aim {
            None => String::new(),
            Some(Aim::AtLeast(least)) if self.value >= least => format!("at least {least}: met"),
            Some(Aim::AtLeast(least)) => format!("at least {least}: MISSED"),
            Some(Aim::AtMost(most)) if self.value <= most => format!("at most {most}: met"),
            Some(Aim::AtMost(most)) => format!("at most {most}: MISSED"),
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

/// The value at `share` (0..=1) of the sorted values; NaN of none.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len().saturating_sub(1)) as f64 * share).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}
