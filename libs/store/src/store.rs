//! The handle that services hold.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use oxcart_types::{CancelRuleId, HandoffId, LeaseToken, OperationId, QueueName, Run, TaskChanges, TaskId, Timestamp, WorkerId};

use crate::{
    CancelRule, NewCancelRule, RuleMade, change::Update, error::StoreError, link::Link, model::*, mysql, operation::*, sqlite,
    usage::PoolUsage,
};

/// How to reach the database and how much of it to use.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `mysql://user:password@host:port/database`, `sqlite:path/to/file.db` or `sqlite::memory:`. Each connect to the last
    /// makes a new database with its schema, which the clones of the store share and which goes with the last of them.
    pub url: String,
    /// Connections of the pool at most (MySQL; SQLite has one writer and this many readers).
    pub max_connections: usize,
    /// Waiting longer than this for a connection gives [`StoreError::Busy`].
    pub acquire_timeout: std::time::Duration,
}

/// The store. Clones share the pool.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
    link: Link,
}

#[derive(Clone)]
enum Backend {
    Mysql(mysql::Backend),
    Sqlite(sqlite::Backend),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.backend {
            Backend::Mysql(_) => "Store(MySQL)",
            Backend::Sqlite(_) => "Store(SQLite)",
        })
    }
}

/// Runs a query function on the backend that there is: `read` outside of a transaction, `write` in one. Arguments are owned and
/// shared, since a step may be carried out several times, in a task that outlives its caller.
macro_rules! run {
    ($self:ident.read [$($arg:ident),*] $($call:tt)*) => { run!($self, reads, read [$($arg),*] $($call)*) };
    ($self:ident.write [$($arg:ident),*] $($call:tt)*) => { run!($self, writes, write [$($arg),*] $($call)*) };
    ($self:ident, $pool:ident, $mode:ident [$($arg:ident),*] $module:ident::$function:ident($($value:expr),*)) => {{
        $(let $arg = Arc::new($arg);)*
        $self.link.request().await?;
        let answer = match &$self.backend {
            Backend::Mysql(backend) => run!(@ backend.$pool(), mysql, $mode [$($arg),*] $module::$function($($value),*)),
            Backend::Sqlite(backend) => run!(@ backend.$pool(), sqlite, $mode [$($arg),*] $module::$function($($value),*)),
        };
        $self.link.answer(answer).await
    }};
    (@ $on:expr, $database:ident, $mode:ident [$($arg:ident),*] $module:ident::$function:ident($($value:expr),*)) => {
        $on
            .$mode(move |conn| {
                $(let $arg = Arc::clone(&$arg);)*
                Box::pin(async move { $database::queries::$module::$function(conn, $($value),*).await })
            })
            .await
    };
}

impl Store {
    /// Connects and checks that the schema is the one this program needs.
    pub async fn connect(options: StoreOptions) -> Result<Self, StoreError> {
        let backend = match Scheme::of(&options.url)? {
            Scheme::Mysql => Backend::Mysql(mysql::Backend::connect(&options).await?),
            Scheme::Sqlite => Backend::Sqlite(sqlite::Backend::connect(&options).await?),
        };
        Ok(Self { backend, link: Link::default() })
    }

    /// A handle on the same database whose steps go over this wire.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn over(&self, wire: Arc<dyn crate::Wire>) -> Self {
        Self { backend: self.backend.clone(), link: Link::over(wire) }
    }

    /// Brings the schema up to date, under a lock, so that several processes may do it at once. Returns the versions applied.
    pub async fn migrate(options: &StoreOptions) -> Result<Vec<String>, StoreError> {
        match Scheme::of(&options.url)? {
            Scheme::Mysql => mysql::migrate(options).await,
            Scheme::Sqlite => sqlite::migrate(options).await,
        }
    }

    /// True where writes come one after the other whatever their callers do: on SQLite.
    #[must_use]
    pub const fn has_one_writer(&self) -> bool {
        match self.backend {
            Backend::Mysql(_) => false,
            Backend::Sqlite(_) => true,
        }
    }

    /// How the pools of connections are used: one on MySQL, one for reads and one for writes on a SQLite file.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolUsage> {
        match &self.backend {
            Backend::Mysql(backend) => backend.usage(),
            Backend::Sqlite(backend) => backend.usage(),
        }
    }

    /// Answers when the database does.
    pub async fn ping(&self) -> Result<(), StoreError> {
        run!(self.read [] cursors::ping())
    }

    /// Commits units in one transaction. One outbox row (`handoff`) covers all tasks of them that are not set aside; it is not
    /// written when there are none. A unit that conflicts is refused alone. Repeating the call after an unknown outcome finds
    /// what was committed when ids were chosen or a request id was given.
    pub async fn submit(&self, units: Vec<SubmitUnit>, handoff: HandoffId, now: Timestamp) -> Result<Vec<UnitOutcome>, StoreError> {
        let tried = AtomicBool::new(false);
        run!(self.write [units, tried] submit::submit(&units, handoff, now, tried.swap(true, Ordering::Relaxed)))
    }

    /// The dispatcher has these: deletes outbox rows, and writes agenda rows for what found no room, in one transaction.
    pub async fn confirm_handoffs(&self, done: &[HandoffId], no_room: &[AgendaRow]) -> Result<(), StoreError> {
        let (done, no_room) = (done.to_vec(), no_room.to_vec());
        run!(self.write [done, no_room] handoffs::confirm(&done, &no_room))
    }

    /// Outbox rows made before `made_before`, oldest first.
    pub async fn stale_handoffs(&self, made_before: Timestamp, limit: usize) -> Result<Vec<StaleHandoff>, StoreError> {
        run!(self.read [] handoffs::stale(made_before, limit))
    }

    /// Tasks in the outbox, as far as its oldest `rows` rows tell.
    pub async fn count_unconfirmed(&self, rows: usize) -> Result<usize, StoreError> {
        run!(self.read [] handoffs::count_unconfirmed(rows))
    }

    /// Claims agenda rows due at `now`, `Room` rows left out, by moving them to `until` (SKIP LOCKED).
    pub async fn claim_agenda(&self, now: Timestamp, until: Timestamp, limit: usize) -> Result<Vec<AgendaVisit>, StoreError> {
        let rows = run!(self.write [] agenda::claim(now, until, limit))?;
        run!(self.read [rows] agenda::visits(&rows))
    }

    /// Deletes agenda rows that are unchanged.
    pub async fn clear_agenda(&self, rows: &[AgendaRow]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        run!(self.write [rows] agenda::clear(&rows))
    }

    /// Writes agenda rows; a row that is there is changed only if its run is not above.
    pub async fn set_agenda(&self, rows: &[AgendaRow]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        run!(self.write [rows] agenda::set(&rows))
    }

    /// Queues with rows that found no room.
    pub async fn queues_without_room(&self) -> Result<Vec<QueueName>, StoreError> {
        run!(self.read [] agenda::queues_without_room())
    }

    /// The best rows of a queue that found no room: highest priority, then oldest.
    pub async fn best_without_room(&self, queue: &QueueName, limit: usize) -> Result<Vec<(AgendaRow, Entry)>, StoreError> {
        let queue = queue.clone();
        run!(self.read [queue] agenda::best_without_room(&queue, limit))
    }

    /// Pages over the agenda by task, after `after`: rows with what they are about.
    pub async fn agenda_page(&self, after: Option<TaskId>, limit: usize) -> Result<Vec<AgendaVisit>, StoreError> {
        let rows = run!(self.read [] agenda::page(after, limit))?;
        run!(self.read [rows] agenda::visits(&rows))
    }

    /// Rows of the agenda by queue and reason, counted up to `cap` each.
    pub async fn count_agenda(&self, cap: u64) -> Result<Vec<AgendaCount>, StoreError> {
        run!(self.read [] agenda::count(cap))
    }

    /// Walks over tasks submitted before `created_before`, by id, `limit` rows at a time.
    pub async fn walk_open(&self, after: Option<TaskId>, created_before: Timestamp, limit: usize) -> Result<Walk, StoreError> {
        run!(self.read [] walk::walk_open(after, created_before, limit))
    }

    /// Those of these tasks that have not ended and that no agenda row or hand-off keeps, in any order.
    pub async fn open_tasks(&self, ids: &[TaskId]) -> Result<Vec<OpenTask>, StoreError> {
        let ids = ids.to_vec();
        run!(self.read [ids] walk::open_tasks(&ids))
    }

    /// Walks over replays by time, after `after`, `limit` rows at a time; tasks that were replayed at or after `replayed_before`
    /// are left to the normal path.
    pub async fn walk_replays(
        &self,
        after: Option<ReplayPosition>,
        replayed_before: Timestamp,
        limit: usize,
    ) -> Result<ReplayWalk, StoreError> {
        run!(self.read [] walk::walk_replays(after, replayed_before, limit))
    }

    /// Says where tasks stand, open or ended; unknown ones are left out.
    pub async fn standings(&self, ids: &[TaskId]) -> Result<HashMap<TaskId, Standing>, StoreError> {
        let ids = ids.to_vec();
        run!(self.read [ids] heads::standings(&ids))
    }

    /// Says where a task waits in SQL, counting no more than `cap` rows.
    pub async fn waiting_in_sql(&self, task: TaskId, cap: u64) -> Result<WaitingInSql, StoreError> {
        run!(self.read [] waiting::waiting(task, cap))
    }

    /// Reads tasks for running them, in any order; unknown ones are left out.
    pub async fn load(&self, ids: &[TaskId]) -> Result<Vec<TaskRow>, StoreError> {
        let ids = ids.to_vec();
        run!(self.read [ids] read::load(&ids))
    }

    /// Writes starts. Guards: the task exists, its time has come, no cancel counts, no
    /// cancel rule picks it (then its slot is closed as CANCELLED), and it may still start: before its expiry
    /// while no attempt is used, before its deadline after that. A run n > 1 needs a non-terminal end n − 1 with attempts
    /// left. A start of another run than the next is refused.
    pub async fn start(&self, starts: &[Start], now: Timestamp) -> Result<Vec<StartOutcome>, StoreError> {
        let starts = starts.to_vec();
        run!(self.write [starts] start::start(&starts, now))
    }

    /// Writes ends. Guard: the start is there with the same token.
    pub async fn end(&self, ends: &[End], now: Timestamp) -> Result<Vec<EndOutcome>, StoreError> {
        let ends = ends.to_vec();
        run!(self.write [ends] end::end(&ends, now))
    }

    /// Ends runs of vanished workers.
    pub async fn take_over(&self, runs: &[TakeOver], now: Timestamp) -> Result<Vec<TakeOverOutcome>, StoreError> {
        let runs = runs.to_vec();
        run!(self.write [runs] takeover::take_over(&runs, now))
    }

    /// Which of these runs are open and owned by their token.
    pub async fn still_mine(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        let runs = runs.to_vec();
        run!(self.read [runs] takeover::still_mine(&runs))
    }

    /// Notes signs of life, progress and checkpoints.
    pub async fn set_live(&self, live: &[Live], now: Timestamp) -> Result<(), StoreError> {
        let live = live.to_vec();
        run!(self.write [live] live::set(&live, now))
    }

    /// Which of these tasks have a cancel that counts.
    pub async fn cancels(&self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Cancel)>, StoreError> {
        let tasks = tasks.to_vec();
        let found = run!(self.read [tasks] cancels::cancels(&tasks))?;
        Ok(found.into_iter().collect())
    }

    /// Closes the next slot of a task.
    pub async fn close(&self, close: &Close) -> Result<CloseOutcome, StoreError> {
        let close = close.clone();
        run!(self.write [close] close::close(&close))
    }

    /// Cancels tasks, up to 1000: closes the next slot of those that wait, and notes a cancel for the runs that are open, with
    /// an agenda row at the end of the grace. Repeating the call with the same closer tokens finds what was done.
    pub async fn cancel_tasks(&self, tasks: &[CancelTask]) -> Result<Vec<CancelOutcome>, StoreError> {
        let tasks = tasks.to_vec();
        run!(self.write [tasks] cancel::cancel(&tasks))
    }

    /// Begins an operation, unless `max_running` are at work. Repeating the call with the same request id finds it.
    pub async fn start_operation(&self, new: &NewOperation, max_running: usize) -> Result<OperationStarted, StoreError> {
        let new = new.clone();
        run!(self.write [new] operations::start(&new, max_running))
    }

    /// Reads an operation.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        run!(self.read [] operations::get(id))
    }

    /// Lists operations, newest first, before `before`.
    pub async fn operations(&self, before: Option<OperationId>, limit: usize) -> Result<Vec<Operation>, StoreError> {
        run!(self.read [] operations::list(before, limit))
    }

    /// Stops an operation that is at work.
    pub async fn stop_operation(&self, id: OperationId, now: Timestamp) -> Result<OperationStopped, StoreError> {
        run!(self.write [] operations::stop(id, now))
    }

    /// Claims the operation that has been due for longest: nobody else gets it before `until`, unless its next batch is
    /// recorded earlier.
    pub async fn claim_operation(&self, now: Timestamp, until: Timestamp) -> Result<Option<Operation>, StoreError> {
        run!(self.write [] operations::claim(now, until))
    }

    /// Records a batch of an operation; false when it was stopped or somebody else has recorded one since it was read.
    pub async fn record_step(&self, step: &OperationStep) -> Result<bool, StoreError> {
        let step = step.clone();
        run!(self.write [step] operations::record(&step))
    }

    /// Members of an operation's tree that are to be looked at, by id.
    pub async fn tree_members(&self, id: OperationId, limit: usize) -> Result<Vec<TreeMember>, StoreError> {
        run!(self.read [] tree::members(id, limit))
    }

    /// As [`Self::record_step`], for members of a tree: their children become members, too, up to 1000 at a time.
    pub async fn record_tree_step(&self, step: &OperationStep, members: &[(TreeMember, Counted)]) -> Result<bool, StoreError> {
        let (step, members) = (step.clone(), members.to_vec());
        run!(self.write [step, members] tree::record(&step, &members))
    }

    /// Children of tasks, by id, up to `limit`.
    pub async fn children(&self, parents: &[TaskId], limit: usize) -> Result<Vec<TaskId>, StoreError> {
        let parents = parents.to_vec();
        run!(self.read [parents] tree::children(&parents, limit))
    }

    /// Puts the members of a tree that ran when they were looked at back among those to be looked at; false when there are none.
    pub async fn next_round(&self, id: OperationId) -> Result<bool, StoreError> {
        run!(self.write [] tree::next_round(id))
    }

    /// Deletes operations that ended before, and members of trees of those that have ended, up to `limit`; says how many.
    pub async fn forget_operations(&self, ended_before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        run!(self.write [] operations::forget(ended_before, limit))
    }

    /// Makes a cancel rule and the operation that sweeps what is there, unless `max_active` are active. Once this has returned,
    /// no start of a task that the rule picks is committed, and every task that is submitted and picked is CANCELLED from its
    /// first moment, until the rule ends.
    pub async fn make_cancel_rule(
        &self,
        new: &NewCancelRule,
        sweep: &NewOperation,
        max_active: usize,
    ) -> Result<RuleMade, StoreError> {
        let (new, sweep) = (new.clone(), sweep.clone());
        run!(self.write [new, sweep] cancel_rules::make(&new, &sweep, max_active))
    }

    /// Lists cancel rules, newest first, before `before`.
    pub async fn cancel_rules(
        &self,
        ended_too: bool,
        before: Option<CancelRuleId>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<CancelRule>, StoreError> {
        run!(self.read [] cancel_rules::list(ended_too, before, now, limit))
    }

    /// Ends a cancel rule; false when there is none. One that has ended stays as it is.
    pub async fn end_cancel_rule(&self, id: CancelRuleId, now: Timestamp) -> Result<bool, StoreError> {
        run!(self.write [] cancel_rules::end(id, now))
    }

    /// Ends the cancel rules whose time is over, and deletes those that ended before `forget_before`, up to `limit` each; says
    /// how many it ended.
    pub async fn sweep_cancel_rules(&self, now: Timestamp, forget_before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        run!(self.write [] cancel_rules::sweep(now, forget_before, limit))
    }

    /// Notes a cancel for the open run, with an agenda row at the end of the grace.
    pub async fn request_cancel(&self, task: TaskId, cancel: &Cancel) -> Result<(), StoreError> {
        let cancel = cancel.clone();
        run!(self.write [cancel] cancels::request_cancel(task, &cancel))
    }

    /// Changes a task of which no run is open: closes the next slot as RELEASED and changes the row in one transaction.
    /// `horizon`: due later than this goes to the agenda, else to the outbox under `handoff`.
    #[expect(clippy::too_many_arguments, reason = "each says something else, and all are needed to repeat an update")]
    pub async fn update(
        &self,
        task: TaskId,
        changes: &TaskChanges,
        etag: Option<&str>,
        by: LeaseToken,
        handoff: HandoffId,
        now: Timestamp,
        horizon: Timestamp,
    ) -> Result<UpdateOutcome, StoreError> {
        let update = Update { task, changes: changes.clone(), etag: etag.map(ToOwned::to_owned), by, handoff, now, horizon };
        run!(self.write [update] update::update(&update))
    }

    /// Opens finished tasks again: undoes their terminal ends, and covers them by one outbox row (`handoff`), in one
    /// transaction. Their budgets of attempts begin anew, due now and without expiry; a deadline counts from now.
    pub async fn replay(&self, replays: &[Replay], handoff: HandoffId, now: Timestamp) -> Result<Vec<ReplayOutcome>, StoreError> {
        let replays = replays.to_vec();
        run!(self.write [replays] replay::replay(&replays, handoff, now))
    }

    /// Deletes a finished task and all that belongs to it.
    pub async fn delete(&self, task: TaskId) -> Result<DeleteOutcome, StoreError> {
        run!(self.write [] delete::delete(task))
    }

    /// Drops tasks that ended long ago, with all that belongs to them, in one transaction: open and replayed ones stay, and so do
    /// idempotency keys and request ids, whose life is their own.
    pub async fn drop_finished(&self, step: RetentionStep) -> Result<Dropped, StoreError> {
        run!(self.write [step] retention::drop_finished(&step))
    }

    /// Reads tasks in the order asked; `None` for unknown ones.
    pub async fn get(&self, ids: &[TaskId], view: View) -> Result<Vec<Option<TaskRecord>>, StoreError> {
        let ids = ids.to_vec();
        run!(self.read [ids] read::get(&ids, view))
    }

    /// Lists tasks by id, newest first, before `before`.
    pub async fn list(&self, filter: &TaskFilter, before: Option<TaskId>, limit: usize) -> Result<TaskPage, StoreError> {
        let filter = filter.clone();
        run!(self.read [filter] list::list(&filter, before, limit))
    }

    /// Pages over the chain of a task, oldest first, after run `after`; `None` when there is no such task.
    pub async fn runs(&self, task: TaskId, after: Option<Run>, limit: usize) -> Result<Option<Vec<RunRecord>>, StoreError> {
        run!(self.read [] read::runs(task, after, limit))
    }

    /// Reads the settings of queues; those without any are left out.
    pub async fn queues(&self) -> Result<Vec<QueueRow>, StoreError> {
        run!(self.read [] queues::all())
    }

    /// Reads the settings of a queue; `None` when it has none of its own.
    pub async fn queue(&self, queue: &QueueName) -> Result<Option<QueueRow>, StoreError> {
        let queue = queue.clone();
        run!(self.read [queue] queues::get(&queue))
    }

    /// Pauses a queue. Paused already: who and why are changed, the time stays.
    pub async fn pause_queue(&self, queue: &QueueName, pause: &Pause) -> Result<QueueRow, StoreError> {
        let (queue, pause) = (queue.clone(), pause.clone());
        run!(self.write [queue, pause] queues::pause(&queue, &pause))
    }

    /// Ends the pause of a queue. Not paused: nothing changes; `None` when it has no settings of its own.
    pub async fn resume_queue(&self, queue: &QueueName, now: Timestamp) -> Result<Option<QueueRow>, StoreError> {
        let queue = queue.clone();
        run!(self.write [queue] queues::resume(&queue, now))
    }

    /// Lifts the revision of a queue above another, when it is not: somebody has settings of a later revision than SQL, which
    /// owns them.
    pub async fn lift_queue(&self, queue: &QueueName, above: u64, now: Timestamp) -> Result<Option<QueueRow>, StoreError> {
        let queue = queue.clone();
        run!(self.write [queue] queues::lift(&queue, above, now))
    }

    /// Writes workers; one seen before is replaced.
    pub async fn put_workers(&self, rows: &[WorkerRow]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        run!(self.write [rows] workers::put(&rows))
    }

    /// Lists workers by id, after `after`, seen at or after `seen_from`.
    pub async fn workers(
        &self,
        after: Option<WorkerId>,
        seen_from: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<WorkerRow>, StoreError> {
        run!(self.read [] workers::list(after, seen_from, limit))
    }

    /// Deletes workers last seen before.
    pub async fn forget_workers(&self, seen_before: Timestamp) -> Result<(), StoreError> {
        run!(self.write [] workers::forget(seen_before))
    }

    /// Reads a durable cursor.
    pub async fn cursor(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        run!(self.read [name] cursors::get(&name))
    }

    /// Writes a durable cursor.
    pub async fn set_cursor(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        run!(self.write [name, value] cursors::set(&name, &value))
    }

    /// Deletes idempotency keys and request ids that have expired, up to `limit`.
    pub async fn forget_keys(&self, expired_before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        run!(self.write [] keys::forget(expired_before, limit))
    }
}

/// Which database a URL names.
enum Scheme {
    Mysql,
    Sqlite,
}

impl Scheme {
    fn of(url: &str) -> Result<Self, StoreError> {
        match url.split_once(':') {
            Some(("mysql", _)) => Ok(Self::Mysql),
            Some(("sqlite", _)) => Ok(Self::Sqlite),
            _ => Err(StoreError::Configuration("the database URL begins with neither mysql: nor sqlite:".to_owned())),
        }
    }
}
