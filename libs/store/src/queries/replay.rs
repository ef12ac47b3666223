//! Replays: finished tasks are run again under their own ids.

use std::collections::{HashMap, HashSet};

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{EndKind, HandoffId, Run, TaskId, Timestamp};

use super::{
    Conn, agenda, dialect, handoffs,
    heads::{self, Home},
    keys, live,
    sql::{CHUNK, chunks, sorted_ids, with_ids},
};
use crate::{
    AgendaRow, AgendaWhy, Budget, Entry, Replay, ReplayOutcome,
    codes::KeyKind,
    columns::Id16,
    fault::Step,
    plan::{Bodies, KeyName, NewKey},
    rows::{
        chain::{BudgetRow, ReplayRow},
        head::Head,
    },
    schema,
};

/// Replays tasks; see [`crate::Store::replay`].
pub(crate) async fn replay(conn: &mut Conn, wanted: &[Replay], handoff: HandoffId, now: Timestamp) -> Step<Vec<ReplayOutcome>> {
    let ids: Vec<TaskId> = wanted.iter().map(|replay| replay.task).collect();
    // Nobody starts, updates, replays or deletes these tasks meanwhile: the heads stay as they are read.
    let homes = heads::lock(conn, &ids, dialect::UPDATE).await?;
    let heads = heads::heads(conn, &ids).await?;
    let names: Vec<KeyName> = wanted.iter().filter_map(request).map(|(name, _)| name).collect();
    let known = if names.is_empty() { HashMap::new() } else { keys::living(conn, &names, now).await? };

    let mut plan = Plan::default();
    let outcomes = wanted.iter().map(|replay| plan.decide(replay, heads.get(&replay.task), &known)).collect();
    plan.write(conn, &homes, handoff, now).await?;
    Ok(outcomes)
}

/// What a batch of replays writes.
#[derive(Debug, Default)]
struct Plan<'a> {
    replays: Vec<(&'a Replay, Run)>,
    tasks: HashSet<TaskId>,
    requests: HashMap<KeyName, (Bodies, Timestamp)>,
}

impl<'a> Plan<'a> {
    /// Decides what becomes of one replay. Of two of the same task in a batch the first one counts.
    fn decide(&mut self, replay: &'a Replay, head: Option<&Head>, known: &HashMap<KeyName, Bodies>) -> ReplayOutcome {
        let request = request(replay);
        if let (Some((name, _)), Some((id, _))) = (&request, replay.request) {
            let before = known.get(name).or_else(|| self.requests.get(name).map(|(bodies, _)| bodies));
            if let Some(bodies) = before {
                let same = *bodies == [(replay.task, replay.spec.digest(replay.task))];
                return if same { ReplayOutcome::Known } else { ReplayOutcome::RequestReused(id) };
            }
        }
        let Some(head) = head else { return ReplayOutcome::NoTask };
        if head.replayed_by == Some(replay.by) {
            // An earlier try of this replay was committed.
            return ReplayOutcome::Replayed(Box::new(head.task.entry.clone()));
        }
        let (Some(kind), Some(latest)) = (head.terminal(), head.task.head.latest) else { return ReplayOutcome::NotFinished };
        if kind == EndKind::Succeeded && !replay.spec.allow_succeeded {
            return ReplayOutcome::Succeeded;
        }
        if !self.tasks.insert(replay.task) {
            return ReplayOutcome::NotFinished;
        }
        self.replays.push((replay, latest.run));
        if let Some((name, until)) = request {
            self.requests.insert(name, (vec![(replay.task, replay.spec.digest(replay.task))], until));
        }
        ReplayOutcome::Replayed(Box::new(Entry { run: latest.run.next(), due_at: None, ..head.task.entry.clone() }))
    }

    async fn write(self, conn: &mut Conn, homes: &HashMap<TaskId, Home>, handoff: HandoffId, now: Timestamp) -> Step<()> {
        if self.replays.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(self.replays.len());
        for (replay, run) in &self.replays {
            rows.push(ReplayRow::encode(replay, *run, now)?);
        }
        rows.sort_by_key(|row| row.task);
        for rows in chunks(rows, |_| 0) {
            dialect::insert!(conn, schema::replays::table, rows)?;
        }
        let keys: Vec<NewKey> =
            self.requests.into_iter().map(|(name, (bodies, expires_at))| NewKey { name, bodies, expires_at }).collect();
        if !keys.is_empty() {
            keys::insert(conn, keys, now).await?;
        }
        forget_checkpoints(conn, &self.replays, now).await?;
        let tasks: Vec<TaskId> = self.replays.iter().map(|(replay, _)| replay.task).collect();
        hand_off(conn, &tasks, handoff, now).await?;
        arm_deadlines(conn, &tasks, homes).await
    }
}

/// The key of a request, and the end of its life.
fn request(replay: &Replay) -> Option<(KeyName, Timestamp)> {
    replay.request.map(|(id, until)| ((KeyKind::Request, id.as_bytes().to_vec()), until))
}

/// Covers tasks by an outbox row. They do not expire any more: their time had its chance. Whatever the agenda had about their
/// earlier runs goes.
async fn hand_off(conn: &mut Conn, tasks: &[TaskId], handoff: HandoffId, now: Timestamp) -> Step<()> {
    for ids in sorted_ids(tasks.iter().copied()).chunks(CHUNK) {
        {
            use schema::tasks::dsl;
            let row = diesel::update(dsl::tasks.filter(dsl::id.eq_any(ids.to_vec()))).set((
                dsl::handoff.eq(Some(Id16::from(handoff))),
                dsl::expires_at.eq(None::<chrono::NaiveDateTime>),
                dsl::start_timeout_nanos.eq(None::<i64>),
            ));
            row.execute(conn).await?;
        }
        agenda::forget(conn, ids).await?;
    }
    handoffs::insert(conn, handoff, tasks, now).await
}

/// A task with a deadline is looked at again when it should have started.
async fn arm_deadlines(conn: &mut Conn, tasks: &[TaskId], homes: &HashMap<TaskId, Home>) -> Step<()> {
    let heads = heads::heads(conn, tasks).await?;
    let expiry = |head: &Head| {
        let Entry { task, run, .. } = head.task.entry;
        head.task.start_by.map(|start_by| AgendaRow { task, at: start_by.at, run, why: AgendaWhy::Expiry })
    };
    let rows: Vec<AgendaRow> = heads.values().filter_map(expiry).collect();
    if rows.is_empty() { Ok(()) } else { agenda::upsert(conn, &rows, homes).await }
}

/// Forgets what earlier runs left. The row moves on to the run that is next, so that a late report of an old one is refused.
async fn forget_checkpoints(conn: &mut Conn, replays: &[(&Replay, Run)], now: Timestamp) -> Step<()> {
    let mut rows: Vec<(TaskId, Run)> =
        replays.iter().filter(|(replay, _)| replay.spec.reset_checkpoint).map(|(replay, run)| (replay.task, run.next())).collect();
    rows.sort_unstable();
    live::forget(conn, &rows, now).await
}

/// The budgets in force of tasks; those that were never replayed are left out.
pub(crate) async fn budgets(conn: &mut Conn, tasks: &[Id16]) -> Step<HashMap<TaskId, Budget>> {
    let mut budgets = HashMap::new();
    for ids in tasks.chunks(CHUNK) {
        let sql = "SELECT r.task, r.run, r.max_attempts, r.replayed_at FROM replays r WHERE r.task IN ({ids}) \
             AND r.run = (SELECT MAX(y.run) FROM replays y WHERE y.task = r.task)";
        for row in with_ids(sql, ids).load::<BudgetRow>(conn).await? {
            budgets.insert(row.task.into(), row.decode()?);
        }
    }
    Ok(budgets)
}
