//! Cancel rules, and the guard that puts every start and every submission before or after each of them.
//!
//! Starts and submissions share the one row of `cancel_guard` until they commit; whoever makes or ends a rule has it alone. So
//! once the making of a rule is committed, every start and every submission that did not know of it is committed as well, and
//! all later ones see it. Order of locks: tasks, the guard, rules.

use std::collections::{HashMap, HashSet};

use diesel::{
    ExpressionMethods as _, NullableExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryableByName,
    SelectableHelper as _,
    sql_types::{BigInt, Binary, Nullable, Text, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{
    CancelRuleId, EndKind, Failure, FailureKind, LeaseToken, QueueName, Run, Tag, TaskId, TaskName, Timestamp, filter::Submitted,
};

use super::{
    Conn, close, dialect, heads, operations,
    sql::{CHUNK, raw, sorted_ids, with_ids},
};
use crate::{
    CancelRule, NewCancelRule, NewOperation, NewTask, RuleMade, StoreError,
    cancel_rule::ActiveRule,
    columns::{self, Id16},
    fault::Step,
    rows::{cancel_rule::CancelRuleRow, chain::EndFacts, spec::read_tags},
    schema::cancel_rules::{self, dsl},
};

#[derive(Debug, QueryableByName)]
struct GuardRow {
    #[diesel(sql_type = BigInt)]
    rules: i64,
}

/// Rules that may be active, read with a lock of the dialect on the guard.
async fn guard(conn: &mut Conn, lock: &str) -> Step<i64> {
    let row = raw(format!("SELECT rules FROM cancel_guard WHERE id = 1{lock}")).get_result::<GuardRow>(conn).await;
    Ok(row.optional()?.ok_or_else(|| StoreError::Corrupt("the cancel guard has no row".to_owned()))?.rules)
}

/// Counts the rules that have not ended into the guard, of which the caller has the row alone.
async fn recount(conn: &mut Conn) -> Step<()> {
    let open: i64 = dsl::cancel_rules.filter(dsl::ended_at.is_null()).count().get_result(conn).await?;
    raw("UPDATE cancel_guard SET rules = ? WHERE id = 1").bind::<BigInt, _>(open).execute(conn).await?;
    Ok(())
}

/// Makes a rule and its sweep; see [`crate::Store::make_cancel_rule`].
pub(crate) async fn make(conn: &mut Conn, new: &NewCancelRule, sweep: &NewOperation, max_active: usize) -> Step<RuleMade> {
    guard(conn, dialect::UPDATE).await?;
    if let Some(request) = new.request {
        let known = dsl::cancel_rules.filter(dsl::request.eq(Id16::from(request))).select(CancelRuleRow::as_select());
        if let Some(row) = known.first(conn).await.optional()? {
            let rule = with_sweeps(conn, vec![row]).await?.remove(0);
            let asked = &rule.asked;
            let same = (&asked.selector, &asked.reason, asked.grace, asked.expires_at)
                == (&new.selector, &new.reason, new.grace, new.expires_at);
            return Ok(if same { RuleMade::Made(Box::new(rule)) } else { RuleMade::RequestReused(request) });
        }
    }
    let active = dsl::cancel_rules.filter(dsl::ended_at.is_null()).filter(dsl::expires_at.gt(columns::time(new.created_at)));
    let active: i64 = active.count().get_result(conn).await?;
    if usize::try_from(active).is_ok_and(|active| active >= max_active) {
        return Ok(RuleMade::TooMany);
    }
    let row = CancelRuleRow::encode(new)?;
    dialect::insert!(conn, cancel_rules::table, vec![row.clone()])?;
    operations::insert(conn, sweep, Some(new.id)).await?;
    recount(conn).await?;
    Ok(RuleMade::Made(Box::new(row.decode()?)))
}

/// Lists rules, newest first; see [`crate::Store::cancel_rules`].
pub(crate) async fn list(
    conn: &mut Conn,
    ended_too: bool,
    before: Option<CancelRuleId>,
    now: Timestamp,
    limit: usize,
) -> Step<Vec<CancelRule>> {
    let mut query = dsl::cancel_rules
        .select(CancelRuleRow::as_select())
        .order(dsl::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .into_boxed();
    if !ended_too {
        query = query.filter(dsl::ended_at.is_null()).filter(dsl::expires_at.gt(columns::time(now)));
    }
    if let Some(before) = before {
        query = query.filter(dsl::id.lt(Id16::from(before)));
    }
    let rows = query.load(conn).await?;
    with_sweeps(conn, rows).await
}

/// Reads rules and adds what their sweeps have cancelled.
async fn with_sweeps(conn: &mut Conn, rows: Vec<CancelRuleRow>) -> Step<Vec<CancelRule>> {
    use crate::schema::operations::dsl as operation;
    let ids: Vec<Id16> = rows.iter().map(|row| row.sweep).collect();
    let query = operation::operations.filter(operation::id.eq_any(ids));
    let swept = query.select((operation::id, operation::cancelled, operation::requested)).load::<(Id16, i64, i64)>(conn).await?;
    let swept: HashMap<Id16, i64> = swept.into_iter().map(|(id, cancelled, requested)| (id, cancelled + requested)).collect();
    let mut rules = Vec::with_capacity(rows.len());
    for row in rows {
        let by_sweep = swept.get(&row.sweep).copied().unwrap_or_default();
        let rule = row.decode()?;
        rules.push(CancelRule { cancelled: rule.cancelled + by_sweep, ..rule });
    }
    Ok(rules)
}

/// Ends a rule; see [`crate::Store::end_cancel_rule`].
pub(crate) async fn end(conn: &mut Conn, id: CancelRuleId, now: Timestamp) -> Step<bool> {
    guard(conn, dialect::UPDATE).await?;
    let rule = dsl::cancel_rules.find(Id16::from(id));
    if rule.select(dsl::id).first::<Id16>(conn).await.optional()?.is_none() {
        return Ok(false);
    }
    let open = dsl::cancel_rules.filter(dsl::id.eq(Id16::from(id))).filter(dsl::ended_at.is_null());
    diesel::update(open).set(dsl::ended_at.eq(Some(columns::time(now)))).execute(conn).await?;
    recount(conn).await?;
    Ok(true)
}

/// Ends rules whose time is over, and forgets old ones; see [`crate::Store::sweep_cancel_rules`].
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp, forget_before: Timestamp, limit: usize) -> Step<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let over = dsl::cancel_rules.filter(dsl::ended_at.is_null()).filter(dsl::expires_at.le(columns::time(now)));
    let over = over.select(dsl::id).limit(limit).load::<Id16>(conn).await?;
    if !over.is_empty() {
        guard(conn, dialect::UPDATE).await?;
        let rules = dsl::cancel_rules.filter(dsl::id.eq_any(over.clone())).filter(dsl::ended_at.is_null());
        diesel::update(rules).set(dsl::ended_at.eq(dsl::expires_at.nullable())).execute(conn).await?;
        recount(conn).await?;
    }
    let old = dsl::cancel_rules.filter(dsl::ended_at.lt(columns::time(forget_before))).select(dsl::id).limit(limit);
    let old = old.load::<Id16>(conn).await?;
    if !old.is_empty() {
        diesel::delete(dsl::cancel_rules.filter(dsl::id.eq_any(old))).execute(conn).await?;
    }
    Ok(over.len())
}

/// The rules that are active. The guard stays shared until the caller commits.
async fn active(conn: &mut Conn, now: Timestamp) -> Step<Vec<ActiveRule>> {
    if guard(conn, dialect::SHARE).await? == 0 {
        return Ok(Vec::new());
    }
    let query = dsl::cancel_rules.filter(dsl::ended_at.is_null()).filter(dsl::expires_at.gt(columns::time(now)));
    let rows = query.order(dsl::id).select(CancelRuleRow::as_select()).load(conn).await?;
    let rules = rows.into_iter().map(|row| row.decode().and_then(|rule| ActiveRule::new(rule.asked)));
    Ok(rules.collect::<Result<_, _>>()?)
}

/// Closes the first slot of new tasks that a rule picks, before they are written, and counts them; says which those are.
pub(crate) async fn close_at_submission(conn: &mut Conn, tasks: &[&NewTask], now: Timestamp) -> Step<HashSet<TaskId>> {
    if tasks.is_empty() {
        return Ok(HashSet::new());
    }
    let rules = active(conn, now).await?;
    let picked = |task: &&NewTask| pick(&rules, &Submitted::of(&task.spec, task.created_at)).map(|rule| (task.spec.id, rule));
    let picked: HashMap<TaskId, &ActiveRule> = tasks.iter().filter_map(picked).collect();
    let slots = picked.iter().map(|(task, rule)| (*task, (Run::FIRST, 0, *rule))).collect();
    cancel(conn, slots, now).await
}

/// A task as far as rules look at it.
#[derive(Debug, QueryableByName)]
struct SubmittedRow {
    #[diesel(sql_type = Binary)]
    id: Id16,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    queue: String,
    #[diesel(sql_type = Nullable<Text>)]
    tags: Option<String>,
    #[diesel(sql_type = SqlTimestamp)]
    created_at: chrono::NaiveDateTime,
}

/// Closes the next slot of tasks that are about to start and that a rule picks, and counts them; says which those are.
pub(crate) async fn close_before_start(conn: &mut Conn, ids: &[TaskId], now: Timestamp) -> Step<HashSet<TaskId>> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let rules = active(conn, now).await?;
    if rules.is_empty() {
        return Ok(HashSet::new());
    }
    let mut picked = HashMap::new();
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        let query = with_ids("SELECT id, name, queue, tags, created_at FROM tasks WHERE id IN ({ids})", ids);
        for row in query.load::<SubmittedRow>(conn).await? {
            let (queue, name): (QueueName, TaskName) = (columns::read_name(&row.queue)?, columns::read_name(&row.name)?);
            let tags: Vec<Tag> = read_tags(row.tags.as_deref())?;
            let created_at = columns::read_time(row.created_at);
            let task = Submitted { id: row.id.into(), queue: &queue, name: &name, tags: &tags, created_at };
            picked.extend(pick(&rules, &task).map(|rule| (task.id, rule)));
        }
    }
    let picked_ids: Vec<TaskId> = picked.keys().copied().collect();
    let heads = heads::heads(conn, &picked_ids).await?;
    let mut slots = HashMap::with_capacity(picked.len());
    for (task, rule) in &picked {
        let Some(head) = heads.get(task).map(|head| &head.task.head) else { continue };
        slots.extend(head.next_run().map(|run| (*task, (run, head.attempts_used(), *rule))));
    }
    cancel(conn, slots, now).await?;
    // Not only those whose slot was free: whoever took it instead is not to be followed by a start of this batch either.
    Ok(picked.into_keys().collect())
}

fn pick<'a>(rules: &'a [ActiveRule], task: &Submitted<'_>) -> Option<&'a ActiveRule> {
    rules.iter().find(|rule| rule.picks(task))
}

/// Closes slots, each as of a rule, and counts them with their rules.
async fn cancel(conn: &mut Conn, slots: HashMap<TaskId, (Run, u32, &ActiveRule)>, now: Timestamp) -> Step<HashSet<TaskId>> {
    if slots.is_empty() {
        return Ok(HashSet::new());
    }
    let failures: HashMap<CancelRuleId, Failure> =
        slots.values().map(|(_, _, rule)| (rule.id, failure(&rule.reason, rule.id))).collect();
    let facts = slots.iter().map(|(task, (run, attempts_used, rule))| EndFacts {
        task: *task,
        run: *run,
        kind: EndKind::Cancelled,
        by: LeaseToken::from_bytes(*rule.id.as_bytes()),
        attempts_used: *attempts_used,
        next_run_at: None,
        result: None,
        failure: failures.get(&rule.id),
        at: now,
    });
    let taken = close::take_slots(conn, &facts.collect::<Vec<_>>()).await?;
    let mut counts: Vec<(Id16, i64)> = Vec::new();
    for id in sorted_ids(slots.values().map(|(_, _, rule)| rule.id)) {
        let of_rule = slots.iter().filter(|(task, (_, _, rule))| Id16::from(rule.id) == id && taken.contains(task));
        counts.push((id, i64::try_from(of_rule.count()).unwrap_or(i64::MAX)));
    }
    for (id, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        let rule = dsl::cancel_rules.filter(dsl::id.eq(id));
        diesel::update(rule).set(dsl::cancelled.eq(dsl::cancelled + count)).execute(conn).await?;
    }
    Ok(taken)
}

/// What is kept with a task that a rule cancelled.
fn failure(reason: &str, rule: CancelRuleId) -> Failure {
    let message = if reason.is_empty() { "cancelled" } else { reason };
    Failure::new(FailureKind::CANCELLED, message).with_detail(format!("by cancel rule {rule}"))
}
