//! `waybillctl audit list`: who changed what, why, and what came of it.

use crate::cli::{Audit, AuditVerb};
use crate::exit::Exit;
use crate::operator::answers::AuditEntry;
use crate::operator::{Services, view};
use crate::output;
use crate::table::Table;
use crate::when::short;

/// Does what was asked for.
pub(crate) async fn run(audit: Audit) -> anyhow::Result<Exit> {
    let AuditVerb::List { page, asking } = audit.verb;
    let services = Services::new(&asking.services)?;
    let listed = services.list(&["audit"], &[], page.limit).await?;
    output::list(asking.form, &listed, || {
        let mut entries: Vec<AuditEntry> = listed.items.iter().map(view).collect::<anyhow::Result<_>>()?;
        entries.sort_by(|one, other| other.at.cmp(&one.at));
        let mut table = Table::new(&["at", "service", "who", "action", "target", "outcome", "reason"]);
        for entry in entries {
            table.row([
                short(&entry.at),
                entry.service,
                entry.subject,
                entry.action,
                entry.target,
                entry.outcome,
                entry.reason,
            ]);
        }
        Ok(table.text("nothing was changed by operators"))
    })?;
    Ok(Exit::Done)
}
