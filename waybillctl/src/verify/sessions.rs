//! Sessions: nobody sits in an open transaction, which would hold locks and keep vacuum from its work.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Around;
use super::databases::{APPLICATION, Owner};
use super::report::Check;

/// A service's own sessions are ended by the server after ten seconds; with the five seconds after which one is suspected,
/// one that is still there after this pause is nobody's to end.
const LOOK_AGAIN: Duration = Duration::from_secs(6);

/// A transaction whose session does nothing: backend and beginning name it, the rest is for people.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Idle {
    pid: i32,
    begun_at: DateTime<Utc>,
    told: String,
}

/// Not this program's own looks, of which one waits while another reads.
const IDLE: &str = "select pid, xact_start as begun_at,
       format('session %s of %s (%s) is idle in a transaction since %s', pid, usename,
              coalesce(nullif(application_name, ''), 'no name'), state_change) as told
from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and application_name <> $1
  and state like 'idle in transaction%' and state_change < clock_timestamp() - interval '5 seconds'";
const SESSIONS: &str = "select count(*), count(*) filter (where state is null)
from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and application_name <> $1";

pub(crate) async fn check(around: &Around<'_>) -> anyhow::Result<Check> {
    let mut check =
        Check::new("sessions", "no session is idle in a transaction for longer than five seconds");
    let mut suspected = Vec::new();
    for owner in Owner::ALL {
        let mut conn = around.databases.look(owner).await?;
        let (sessions, hidden): (i64, i64) =
            sqlx::query_as(SESSIONS).bind(APPLICATION).fetch_one(&mut conn).await?;
        check.judged += u64::try_from(sessions - hidden)?;
        check.not_judged("sessions of others, whose state this role may not see", u64::try_from(hidden)?);
        let idle: Vec<Idle> = sqlx::query_as(IDLE).bind(APPLICATION).fetch_all(&mut conn).await?;
        if !idle.is_empty() {
            suspected.push((owner, idle));
        }
    }
    if suspected.is_empty() {
        return Ok(check);
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    for (owner, idle) in suspected {
        let mut conn = around.databases.look(owner).await?;
        let still: Vec<Idle> = sqlx::query_as(IDLE).bind(APPLICATION).fetch_all(&mut conn).await?;
        let still: BTreeSet<_> = still.iter().map(|idle| (idle.pid, idle.begun_at)).collect();
        for Idle { pid, begun_at, told } in idle {
            if still.contains(&(pid, begun_at)) {
                check.violation(format!("{}: {told}", owner.name()));
            } else {
                check.not_judged("transactions that were idle, and have ended since", 1);
            }
        }
    }
    Ok(check)
}
