//! Reading tasks and chains.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Integer},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{Run, TaskId};

use super::{
    Conn,
    sql::{CHUNK, raw, sorted_ids, with_ids},
};
use crate::{
    RunRecord, TaskRecord, TaskRow, View,
    columns::{self, Id16},
    fault::Step,
    rows::{
        head::{HEAD_COLUMNS, HEAD_TABLES},
        record::{BASIC_COLUMNS, FULL_COLUMNS, RECORD_COLUMNS, RUN_COLUMNS, RUN_TABLES, RecordRow, RunRow},
        spec::{SPEC_COLUMNS, SpecRow},
    },
};

/// Runs that a full view shows.
const RUNS_SHOWN: i32 = 50;

/// Reads tasks for running them; see [`crate::Store::load`].
pub(crate) async fn load(conn: &mut Conn, ids: &[TaskId]) -> Step<Vec<TaskRow>> {
    let mut tasks = Vec::with_capacity(ids.len());
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        let query = with_ids(&format!("SELECT {SPEC_COLUMNS}, t.payload FROM tasks t WHERE t.id IN ({{ids}})"), ids);
        for row in query.load::<SpecRow>(conn).await? {
            tasks.push(TaskRow { created_at: row.created_at(), spec: row.decode()? });
        }
    }
    Ok(tasks)
}

/// Reads tasks in the order asked; see [`crate::Store::get`].
pub(crate) async fn get(conn: &mut Conn, ids: &[TaskId], view: View) -> Step<Vec<Option<TaskRecord>>> {
    let mut records = HashMap::with_capacity(ids.len());
    let extra = match view {
        View::Basic => BASIC_COLUMNS,
        View::Full => FULL_COLUMNS,
    };
    let sql =
        format!("SELECT {SPEC_COLUMNS}, {HEAD_COLUMNS}, {RECORD_COLUMNS}, {extra} FROM {HEAD_TABLES} WHERE t.id IN ({{ids}})");
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        for row in with_ids(&sql, ids).load::<RecordRow>(conn).await? {
            records.insert(TaskId::from(row.spec.id), row.decode()?);
        }
    }
    if view == View::Full {
        for (task, runs) in newest_runs(conn, ids).await? {
            if let Some(record) = records.get_mut(&task) {
                record.runs = runs;
            }
        }
    }
    Ok(ids.iter().map(|id| records.get(id).cloned()).collect())
}

/// The newest runs of tasks, oldest first.
async fn newest_runs(conn: &mut Conn, ids: &[TaskId]) -> Step<HashMap<TaskId, Vec<RunRecord>>> {
    let mut runs: HashMap<TaskId, Vec<RunRecord>> = HashMap::new();
    // Runs are numbered without gaps, so the newest ones are known by their numbers.
    let sql = format!(
        "SELECT {RUN_COLUMNS} FROM {RUN_TABLES} WHERE s.task IN ({{ids}}) AND s.run > (SELECT MAX(x.run) FROM starts x WHERE x.task = s.task) - {RUNS_SHOWN} \
         ORDER BY s.task, s.run"
    );
    for ids in sorted_ids(ids.iter().copied()).chunks(CHUNK) {
        for row in with_ids(&sql, ids).load::<RunRow>(conn).await? {
            runs.entry(row.task.into()).or_default().push(row.decode()?);
        }
    }
    Ok(runs)
}

#[derive(Debug, QueryableByName)]
struct Found {
    #[diesel(sql_type = Binary)]
    #[expect(dead_code, reason = "only whether there is a row matters")]
    id: Id16,
}

/// Pages over a chain; see [`crate::Store::runs`].
pub(crate) async fn runs(conn: &mut Conn, task: TaskId, after: Option<Run>, limit: usize) -> Step<Option<Vec<RunRecord>>> {
    let found = raw("SELECT id FROM tasks WHERE id = ?").bind::<Binary, _>(Id16::from(task)).load::<Found>(conn).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let sql = format!("SELECT {RUN_COLUMNS} FROM {RUN_TABLES} WHERE s.task = ? AND s.run > ? ORDER BY s.run LIMIT ?");
    let query = raw(sql)
        .bind::<Binary, _>(Id16::from(task))
        .bind::<Integer, _>(after.map_or(Ok(0), columns::run)?)
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = query.load::<RunRow>(conn).await?;
    Ok(Some(rows.into_iter().map(RunRow::decode).collect::<Result<_, _>>()?))
}
