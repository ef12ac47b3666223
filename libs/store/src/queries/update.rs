//! Changing a task that has not started.

use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{EndKind, HandoffId, Run, TaskSpec, Timestamp, Violations, record::View, spec::check_order};

use super::{
    Conn, agenda, close, dialect, handoffs,
    heads::{self, Home},
    read, slots,
    submit::TagRow,
};
use crate::{
    AgendaRow, AgendaWhy, Entry, UpdateOutcome,
    change::Update,
    columns::{self, Id16},
    fault::Step,
    rows::{
        chain::EndFacts,
        head::Head,
        spec::{limit, retry_json, tags_json},
    },
    schema,
};

/// Changes a task; see [`crate::Store::update`].
pub(crate) async fn update(conn: &mut Conn, update: &Update) -> Step<UpdateOutcome> {
    heads::lock(conn, &[update.task], dialect::UPDATE).await?;
    // A repeat must not be taken for another update, however far the task has come since.
    if let Some(closed) = slots::closed_by(conn, update.task, update.by).await? {
        return done_before(conn, update, closed).await;
    }
    // The lock keeps starts out, but not ends, so the next slot may have moved by the time it is closed.
    for _ in 0..close::LOOKS {
        let Some(head) = heads::head(conn, update.task).await? else { return Ok(UpdateOutcome::NoTask) };
        if let Some(kind) = head.terminal() {
            return Ok(UpdateOutcome::Ended(kind));
        }
        let Some(run) = head.task.head.next_run() else { return Ok(UpdateOutcome::Running) };
        let record = read::get(conn, &[update.task], View::Basic).await?.pop().flatten();
        let Some(record) = record else { return Ok(UpdateOutcome::NoTask) };
        if update.etag.as_ref().is_some_and(|etag| *etag != record.etag()) {
            return Ok(UpdateOutcome::Changed);
        }
        let mut spec = record.spec.clone();
        update.changes.clone().apply(&mut spec);
        let mut bad = Violations::new();
        check_order(&mut bad, spec.run_at, spec.expires_at, spec.deadline_at(head.began_at));
        if !bad.as_slice().is_empty() {
            return Ok(UpdateOutcome::Invalid(bad));
        }
        let due_at = due_at(update, &head);
        let facts = EndFacts {
            task: update.task,
            run,
            kind: EndKind::Released,
            by: update.by,
            attempts_used: head.task.head.attempts_used(),
            next_run_at: due_at,
            result: None,
            failure: None,
            at: update.now,
        };
        if close::take_slot(conn, facts).await? {
            return change(conn, update, &head, spec, run, due_at).await;
        }
    }
    Ok(UpdateOutcome::Running)
}

/// When the next run is due: a new run time wins, else a backoff or run time that is still ahead goes on.
fn due_at(update: &Update, head: &Head) -> Option<Timestamp> {
    match update.changes.run_at {
        Some(run_at) => run_at,
        None => head.task.entry.due_at,
    }
}

/// The slot is closed: changes the row and hands the task out anew.
async fn change(
    conn: &mut Conn,
    update: &Update,
    head: &Head,
    spec: TaskSpec,
    closed: Run,
    due_at: Option<Timestamp>,
) -> Step<UpdateOutcome> {
    let run = closed.next();
    let after = Entry {
        task: update.task,
        run,
        queue: spec.queue.clone(),
        priority: spec.priority,
        fairness_key: spec.fairness_key.clone(),
        due_at,
    };
    let handoff = if due_at.is_some_and(|at| at > update.horizon) { None } else { Some(update.handoff) };
    write_spec(conn, &spec, handoff).await?;
    if update.changes.tags.is_some() {
        write_tags(conn, &spec).await?;
    }

    let mut row = AgendaRow { task: update.task, at: update.now, run, why: AgendaWhy::Expiry };
    let started = head.task.head.attempts_used() > 0;
    let limit = if started { spec.deadline_at(head.began_at) } else { spec.start_by(head.began_at).map(|start_by| start_by.at) };
    let keep = match (handoff, due_at, limit) {
        (None, Some(due_at), limit) => {
            // To the dispatcher when it comes within the horizon, unless it is too late for it before.
            let near = due_at - (update.horizon - update.now);
            row.at = limit.map_or(near, |limit| limit.min(near));
            row.why = AgendaWhy::Time;
            true
        }
        (_, _, Some(start_by)) if !started => {
            row.at = start_by;
            true
        }
        _ => false,
    };
    if keep {
        let home = Home { queue: spec.queue.clone(), priority: spec.priority };
        agenda::upsert(conn, &[row], &[(update.task, home)].into()).await?;
    } else {
        use schema::agenda::dsl;
        diesel::delete(dsl::agenda.filter(dsl::task.eq(Id16::from(update.task)))).execute(conn).await?;
    }
    if let Some(handoff) = handoff {
        handoffs::insert(conn, handoff, &[update.task], update.now).await?;
    }
    Ok(UpdateOutcome::Updated { closed, before: Box::new(head.task.entry.clone()), after: Box::new(after), handoff })
}

/// An earlier try was committed and its answer lost. What the task was before is not known any more; an entry that stays where
/// it was costs one delivery that is refused.
async fn done_before(conn: &mut Conn, update: &Update, closed: Run) -> Step<UpdateOutcome> {
    use schema::handoffs::dsl;
    let Some(head) = heads::head(conn, update.task).await? else { return Ok(UpdateOutcome::NoTask) };
    let ours = dsl::handoffs.filter(dsl::id.eq(Id16::from(update.handoff))).select(dsl::id);
    let handoff = if ours.load::<Id16>(conn).await?.is_empty() { None } else { Some(update.handoff) };
    let after = Box::new(head.task.entry);
    Ok(UpdateOutcome::Updated { closed, before: after.clone(), after, handoff })
}

async fn write_spec(conn: &mut Conn, spec: &TaskSpec, handoff: Option<HandoffId>) -> Step<()> {
    use schema::tasks::dsl;
    let row = diesel::update(dsl::tasks.filter(dsl::id.eq(Id16::from(spec.id)))).set((
        dsl::queue.eq(spec.queue.as_str().to_owned()),
        dsl::priority.eq(i16::from(spec.priority.get())),
        dsl::tags.eq(tags_json(spec)?),
        dsl::run_at.eq(spec.run_at.map(columns::time)),
        dsl::expires_at.eq(spec.expires_at.map(columns::time)),
        dsl::start_timeout_nanos.eq(limit("start_timeout_nanos", spec.start_timeout)?),
        dsl::timeout_nanos.eq(limit("timeout_nanos", spec.timeout)?),
        dsl::heartbeat_timeout_nanos.eq(limit("heartbeat_timeout_nanos", spec.heartbeat_timeout)?),
        dsl::deadline_nanos.eq(limit("deadline_nanos", spec.deadline)?),
        dsl::max_attempts.eq(columns::count("max_attempts", spec.retry.max_attempts())?),
        dsl::retry.eq(retry_json(&spec.retry)?),
        dsl::handoff.eq(handoff.map(Id16::from)),
    ));
    row.execute(conn).await?;
    Ok(())
}

async fn write_tags(conn: &mut Conn, spec: &TaskSpec) -> Step<()> {
    use schema::task_tags::dsl;
    diesel::delete(dsl::task_tags.filter(dsl::task.eq(Id16::from(spec.id)))).execute(conn).await?;
    let tags: Vec<TagRow> = spec.tags.iter().map(|tag| TagRow { task: spec.id.into(), tag: tag.as_str().to_owned() }).collect();
    if !tags.is_empty() {
        dialect::insert!(conn, schema::task_tags::table, tags)?;
    }
    Ok(())
}
