//! The dependency arrows of the architecture: between crates, and between the folders of a service.
use anyhow::Result;

use super::{Report, tracked};
use crate::layout::Layout;

mod crates;
mod layers;

pub(super) fn check(layout: &Layout) -> Result<Report> {
    let mut report = Report::default();
    report.findings.extend(crates::violations(&crates::packages(layout)?));
    for (file, text) in tracked::rust_sources(layout)? {
        report.findings.extend(layers::violations(&file, &text));
    }
    Ok(report)
}
