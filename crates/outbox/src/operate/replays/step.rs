//! One step of a replay, in one transaction: look at the verdicts so far, then stop, wait, end or send a few letters.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;
use waybill_runtime::failpoints;

use crate::dead_letters::stored_text;
use crate::retry::Policy;
use crate::retry::decide::Refusal;
use crate::retry::operate::{self, OperateError};

/// Letters of one transaction: it holds the locks of their keys.
const BATCH_MAX: i32 = 50;
/// Letters without a verdict at most: what the retry topics hold for other messages to wait behind.
const IN_FLIGHT_MAX: i64 = 500;
/// Batches a second that the rate is cut into, so that it is smooth.
const BATCHES_PER_S: i32 = 5;
/// Characters of a reason that are kept.
const WHY_CHARS_MAX: usize = 500;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stepped {
    /// Letters were sent; there may be more to send at once.
    Sent,
    /// Nothing is to be done before something else happens.
    Waits,
}

/// Letters of the ramp's step, counted from 1: 1, 2, 5, 10, 20, 50, ..., at most 500.
fn ramp_letters(step: i32) -> i32 {
    let place = step.max(1) - 1;
    let digits = [1, 2, 5][usize::try_from(place % 3).unwrap_or_default()];
    10_i32.saturating_pow(u32::try_from(place / 3).unwrap_or_default()).saturating_mul(digits).min(500)
}

/// Notes the verdicts that have come, of every replay, whatever its state.
pub(super) async fn verdicts_take(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "with settled as (
             select i.replay_id, i.number, d.state, d.error_class || ': ' || d.error_message as error
             from replay_items i left join dead_letters d on d.id = i.dead_letter_id
             where i.state = 'sent' and d.state is distinct from 'replaying'
             order by i.replay_id, i.number
             -- Another instance is at it.
             for update of i skip locked)
         update replay_items i
         set state = case s.state when 'resolved' then 'resolved' when 'open' then 'failed' else 'skipped' end,
             why = case s.state when 'resolved' then null when 'open' then left(s.error, 500)
                                when 'discarded' then 'it was discarded meanwhile' else 'it is gone' end,
             settled_at = now()
         from settled s where i.replay_id = s.replay_id and i.number = s.number",
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// A running replay, locked.
#[derive(sqlx::FromRow)]
struct Running {
    rate_per_s: i32,
    ramp: bool,
    stop_after_failures: i32,
    ramp_step: i32,
    step_left: i32,
    may_send: bool,
}

/// Items by state. Failures are counted since the last resume.
#[derive(sqlx::FromRow)]
struct Counts {
    pending: i64,
    sent: i64,
    retrying: i64,
    failures: i64,
    failed: i64,
    waiting: i64,
}

/// One step of one replay; nothing when it is not running or another instance is at it.
pub(super) async fn step(
    pool: &PgPool,
    prefix: &str,
    policy: &Policy,
    id: Uuid,
) -> Result<Stepped, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let running: Option<Running> = sqlx::query_as(
        "select rate_per_s, ramp, stop_after_failures, ramp_step, step_left, next_send_at <= now() as may_send
         from replays where id = $1 and state = 'running' for update skip locked",
    )
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(running) = running else { return Ok(Stepped::Waits) };
    let counts = counts(&mut tx, id).await?;
    if let Some((state, why)) = end(&running, &counts) {
        ended_in_tx(&mut tx, id, state, why.as_deref()).await?;
        tx.commit().await?;
        tell(id, state, why.as_deref());
        return Ok(Stepped::Waits);
    }
    let Some((ramp_step, left)) = turn(&running, &counts) else { return Ok(Stepped::Waits) };
    let batch = left.min(BATCH_MAX).min((running.rate_per_s / BATCHES_PER_S).max(1));
    let items = ready(&mut tx, id, batch).await?;
    if items.is_empty() {
        return Ok(Stepped::Waits);
    }
    let mut sent = 0;
    for item in &items {
        match send(&mut tx, prefix, policy, id, item).await? {
            Sent::Yes => sent += 1,
            Sent::No => {}
            Sent::Never(why) => {
                // What was sent before in this transaction is sent; the rest waits for the operator.
                ended_in_tx(&mut tx, id, "stopped", Some(&why)).await?;
                tx.commit().await?;
                tell(id, "stopped", Some(&why));
                return Ok(Stepped::Waits);
            }
        }
    }
    failpoints::reach("replay_sent");
    sqlx::query(
        "update replays
         set ramp_step = $2, step_left = $3, updated_at = now(),
             next_send_at = now() + $4 * interval '1 second' / rate_per_s
         where id = $1",
    )
    .bind(id)
    .bind(ramp_step)
    .bind(left - sent)
    .bind(sent)
    .execute(&mut *tx)
    .await?;
    failpoints::reach("replay_stepped");
    tx.commit().await?;
    failpoints::reach("replay_committed");
    Ok(if sent > 0 { Stepped::Sent } else { Stepped::Waits })
}

fn tell(id: Uuid, state: &str, why: Option<&str>) {
    if state == "stopped" {
        tracing::warn!(replay = %id, why, "a replay stopped: look at what failed, then resume or cancel it");
    } else {
        tracing::info!(replay = %id, state, why, "a replay ended");
    }
}

async fn counts(conn: &mut PgConnection, id: Uuid) -> Result<Counts, sqlx::Error> {
    sqlx::query_as(
        "select count(*) filter (where i.state = 'pending') as pending,
                count(*) filter (where i.state = 'sent') as sent,
                count(*) filter (where again) as retrying,
                count(*) filter (where (again or i.state = 'failed')
                                   and coalesce(i.sent_at, i.settled_at) >= r.resumed_at) as failures,
                count(*) filter (where i.state = 'failed') as failed,
                -- Behind a failed one of its key.
                count(*) filter (where i.state = 'pending' and exists (
                    select from replay_items e
                    where e.replay_id = i.replay_id and e.consumer_group = i.consumer_group and e.key = i.key
                      and e.number < i.number and e.state = 'failed')) as waiting
         from replays r join replay_items i on i.replay_id = r.id
         cross join lateral (
             select i.state = 'sent' and exists (
                 select from parked_keys p
                 where p.consumer_group = i.consumer_group and p.key = i.key and p.dead_letter_id = i.dead_letter_id
                   and p.head_hop > i.hop) as again) a
         where r.id = $1",
    )
    .bind(id)
    .fetch_one(conn)
    .await
}

/// The state it ends in, and why; `None` while there is something to do or to wait for.
fn end(running: &Running, counts: &Counts) -> Option<(&'static str, Option<String>)> {
    if counts.failures >= i64::from(running.stop_after_failures) {
        let why = format!(
            "{} of the letters sent failed again, {} of them wait on a later tier; look at them, then resume or cancel",
            counts.failures, counts.retrying
        );
        return Some(("stopped", Some(why)));
    }
    if counts.sent > 0 || counts.pending > counts.waiting {
        return None;
    }
    if counts.pending > 0 {
        let why = format!(
            "{} letters failed again, and {} of the same keys wait behind them; mend or discard those, then resume",
            counts.failed, counts.waiting
        );
        return Some(("stopped", Some(why)));
    }
    Some(("finished", (counts.failed > 0).then(|| format!("{} letters failed again", counts.failed))))
}

/// The ramp's step and what may be sent in it; `None` while the rate or verdicts are waited for.
fn turn(running: &Running, counts: &Counts) -> Option<(i32, i32)> {
    let room = i32::try_from(IN_FLIGHT_MAX - counts.sent).unwrap_or_default();
    if !running.may_send || room <= 0 {
        return None;
    }
    if !running.ramp {
        return Some((0, room));
    }
    if running.step_left > 0 {
        return Some((running.ramp_step, running.step_left.min(room)));
    }
    // What waits on a later tier has told its first verdict.
    if counts.sent > counts.retrying {
        return None;
    }
    let next = running.ramp_step.saturating_add(1);
    Some((next, ramp_letters(next).min(room)))
}

/// An item whose turn has come.
#[derive(sqlx::FromRow)]
struct Ready {
    number: i32,
    dead_letter_id: Uuid,
}

/// The next letters: none of their key is before them, and their key is not being retried or drained. In the order of
/// keys, as everybody locks them.
async fn ready(conn: &mut PgConnection, id: Uuid, limit: i32) -> Result<Vec<Ready>, sqlx::Error> {
    sqlx::query_as(
        "select r.number, r.dead_letter_id
         from (select i.number, i.dead_letter_id, i.consumer_group, i.key
               from replay_items i
               where i.replay_id = $1 and i.state = 'pending'
                 and not exists (
                     select from replay_items e
                     where e.replay_id = i.replay_id and e.consumer_group = i.consumer_group and e.key = i.key
                       and e.number < i.number and e.state in ('pending', 'sent', 'failed'))
                 and not exists (
                     select from parked_keys p
                     where p.consumer_group = i.consumer_group and p.key = i.key and p.state <> 'blocked')
               order by i.number limit $2) r
         order by r.consumer_group, r.key",
    )
    .bind(id)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// What became of one item.
enum Sent {
    Yes,
    /// Not now, or somebody else has dealt with it: noted.
    No,
    /// None of this replay can be sent.
    Never(String),
}

async fn send(
    conn: &mut PgConnection,
    prefix: &str,
    policy: &Policy,
    replay: Uuid,
    item: &Ready,
) -> Result<Sent, sqlx::Error> {
    let (state, hop, why) =
        match operate::send_in_tx(conn, prefix, policy, item.dead_letter_id, Some(replay)).await {
            Ok(hop) => ("sent", Some(hop), None),
            Err(OperateError::Database(error)) => return Err(error),
            Err(error @ OperateError::Refused(Refusal::NoTiers)) => {
                return Ok(Sent::Never(crate::inbox::fault::chain(&error)));
            }
            Err(error @ OperateError::Refused(Refusal::KeyBusy)) => {
                // Parked since we looked: it comes up again, unless another letter blocks it.
                if !is_blocked_by_another(conn, item.dead_letter_id).await? {
                    return Ok(Sent::No);
                }
                ("failed", None, Some(crate::inbox::fault::chain(&error)))
            }
            Err(error) => ("skipped", None, Some(crate::inbox::fault::chain(&error))),
        };
    sqlx::query(
        "update replay_items
         set state = $3, hop = $4, why = $5, sent_at = case when $3 = 'sent' then now() end,
             settled_at = case when $3 <> 'sent' then now() end
         where replay_id = $1 and number = $2",
    )
    .bind(replay)
    .bind(item.number)
    .bind(state)
    .bind(hop)
    .bind(why.map(|why| stored_text(&why, WHY_CHARS_MAX)))
    .execute(conn)
    .await?;
    Ok(if hop.is_some() { Sent::Yes } else { Sent::No })
}

async fn is_blocked_by_another(conn: &mut PgConnection, letter: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (
             select from dead_letters d
             join parked_keys p on p.consumer_group = d.consumer_group and p.key = d.key
             where d.id = $1 and p.state = 'blocked' and p.dead_letter_id is distinct from d.id)",
    )
    .bind(letter)
    .fetch_one(conn)
    .await
}

async fn ended_in_tx(
    conn: &mut PgConnection,
    id: Uuid,
    state: &str,
    why: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("update replays set state = $2, stop_reason = $3, updated_at = now() where id = $1")
        .bind(id)
        .bind(state)
        .bind(why)
        .execute(conn)
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(ramp: bool, ramp_step: i32, step_left: i32) -> Running {
        Running { rate_per_s: 50, ramp, stop_after_failures: 5, ramp_step, step_left, may_send: true }
    }

    fn counts(pending: i64, sent: i64, retrying: i64, failures: i64, waiting: i64) -> Counts {
        Counts { pending, sent, retrying, failures, failed: failures - retrying, waiting }
    }

    #[test]
    fn the_ramp_begins_with_one_and_is_bounded() {
        let steps: Vec<i32> = (1..=11).map(ramp_letters).collect();
        assert_eq!(steps, [1, 2, 5, 10, 20, 50, 100, 200, 500, 500, 500]);
        assert_eq!(ramp_letters(i32::MAX), 500);
    }

    #[test]
    fn a_step_of_the_ramp_waits_for_the_verdicts_of_the_one_before() {
        assert_eq!(turn(&running(true, 0, 0), &counts(9, 0, 0, 0, 0)), Some((1, 1)));
        assert_eq!(turn(&running(true, 3, 2), &counts(9, 3, 0, 0, 0)), Some((3, 2)));
        assert_eq!(turn(&running(true, 3, 0), &counts(9, 3, 2, 2, 0)), None);
        assert_eq!(turn(&running(true, 3, 0), &counts(9, 3, 3, 3, 0)), Some((4, 10)));
        assert_eq!(turn(&running(false, 0, 0), &counts(9, 3, 0, 0, 0)), Some((0, 497)));
        assert_eq!(turn(&running(false, 0, 0), &counts(9, IN_FLIGHT_MAX, 0, 0, 0)), None);
    }

    #[test]
    fn it_stops_at_the_failures_and_ends_when_nothing_is_left() {
        let state = |counts| end(&running(true, 1, 0), &counts).map(|(state, _)| state);
        assert_eq!(state(counts(9, 2, 1, 5, 0)), Some("stopped"));
        assert_eq!(state(counts(9, 2, 1, 4, 0)), None);
        assert_eq!(state(counts(0, 1, 0, 0, 0)), None);
        assert_eq!(state(counts(3, 0, 0, 1, 2)), None);
        assert_eq!(state(counts(3, 0, 0, 1, 3)), Some("stopped"));
        assert_eq!(state(counts(0, 0, 0, 1, 0)), Some("finished"));
    }
}
