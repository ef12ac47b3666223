//! One look at everything: the queues against SQL, and SQL against the queues.

use std::{collections::BTreeMap, time::Duration};

use oxcart_proto::{
    convert::scalar,
    pb::dispatcher::v1::{DamagedEntry, EntryKey},
};
use oxcart_store::{OpenTask, Standing};
use oxcart_types::{EndKind, Limits, Run, TaskId, Timestamp};

use super::{
    Finding, FindingKind, MAX_FINDINGS, Subject,
    finding::{Of, Remedy},
    judge,
};
use crate::{
    admission::before,
    core::Core,
    dispatcher::Found,
    sweep::{SweepError, Walk},
};

/// Far above any lease that is configured.
const LONGEST_LEASE: Duration = Duration::from_secs(600);
/// Hand-offs that are looked at: the oldest.
const HANDOFFS: usize = 1000;

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) findings: BTreeMap<Subject, Finding>,
    pub(super) entries: u64,
    pub(super) open_tasks: u64,
    /// There was no room for all findings.
    pub(super) more: bool,
}

impl Look {
    /// Looks at everything. `full` walks over all tasks, not only from the mark of the audit.
    pub(super) async fn take(core: &Core, full: bool) -> Result<Self, SweepError> {
        let mut look = Self::default();
        let mut queues: Vec<_> = core.dispatcher.partitions(&[]).await?.into_iter().map(|partition| partition.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        for queue in &queues {
            look.at_entries(core, queue).await?;
            look.at_damage(core, queue).await?;
        }
        look.at_tasks(core, full).await?;
        look.at_agenda(core).await?;
        look.at_handoffs(core).await?;
        Ok(look)
    }

    /// The entries of a queue. They are listed before their tasks are read: what SQL says of them is newer.
    async fn at_entries(&mut self, core: &Core, queue: &str) -> Result<(), SweepError> {
        let mut page_token = String::new();
        loop {
            let page = core.dispatcher.list_entries(queue, Limits::BATCH_ITEMS, page_token).await?;
            let ids: Vec<_> = page.items.iter().map(|found| found.task).collect();
            let standings = core.store.standings(&ids).await?;
            self.entries += page.items.len() as u64;
            for found in page.items {
                let standing = standings.get(&found.task);
                if let Some(kind) = judge::entry(&found, standing, LONGEST_LEASE) {
                    self.entry(kind, &found, standing.and_then(Standing::terminal));
                }
            }
            page_token = page.next;
            if page_token.is_empty() {
                return Ok(());
            }
        }
    }

    fn entry(&mut self, kind: FindingKind, found: &Found, ended: Option<EndKind>) {
        let remedy = match kind {
            FindingKind::TaskQuarantined | FindingKind::EntryBehind | FindingKind::LeaseOfEndedRun => Remedy::Audit,
            _ => Remedy::TakeOut(Box::new(found.key.clone())),
        };
        self.note(kind, Of::Task(found.task), Some(found.run), &found.key.queue, remedy, ended);
    }

    /// What the queue says of itself.
    async fn at_damage(&mut self, core: &Core, queue: &str) -> Result<(), SweepError> {
        let mut page_token = String::new();
        loop {
            let page = core.dispatcher.check_entries(queue, Limits::BATCH_ITEMS, page_token).await?;
            for damaged in page.items {
                self.damaged(damaged);
            }
            page_token = page.next;
            if page_token.is_empty() {
                return Ok(());
            }
        }
    }

    fn damaged(&mut self, damaged: DamagedEntry) {
        let (Some(kind), Some(key)) = (judge::damage(damaged.damage()), damaged.key) else { return };
        let Ok(task) = key.task_id.parse::<TaskId>() else { return };
        let run = scalar::run(key.run).ok();
        // Where no record tells the run, an entry of a first run is the most that is taken out.
        let queue = key.queue.clone();
        let key = EntryKey { run: scalar::to_run(run.unwrap_or(Run::FIRST)), ..key };
        self.note(kind, Of::Task(task), run, &queue, Remedy::TakeOut(Box::new(key)), None);
    }

    /// The open tasks that no row of the agenda keeps.
    async fn at_tasks(&mut self, core: &Core, full: bool) -> Result<(), SweepError> {
        let begun = core.clock.now();
        let mut walk = if full { Walk::whole(begun) } else { Walk::begin(&core.store, begun).await? };
        while !walk.is_over() {
            let now = core.clock.now();
            let open = walk.step(&core.store, now, Limits::BATCH_ITEMS).await?.open;
            self.open_tasks += open.len() as u64;
            self.tasks(core, &open, now).await?;
        }
        Ok(())
    }

    async fn tasks(&mut self, core: &Core, open: &[OpenTask], now: Timestamp) -> Result<(), SweepError> {
        let age = core.config.sweep.open_run_age;
        let wanted: Vec<_> = open.iter().filter(|task| judge::must_be_there(task, now, age)).collect();
        let found = core.dispatcher.find_missing(wanted.iter().map(|task| &task.entry)).await?;
        for task in wanted.into_iter().filter(|task| found.missing.contains(&task.entry.task)) {
            let entry = &task.entry;
            let kind = judge::missing(task);
            self.note(kind, Of::Task(entry.task), Some(entry.run), entry.queue.as_str(), Remedy::Audit, None);
        }
        Ok(())
    }

    async fn at_agenda(&mut self, core: &Core) -> Result<(), SweepError> {
        let mut after = None;
        loop {
            let page = core.store.agenda_page(after, Limits::BATCH_ITEMS).await?;
            let now = core.clock.now();
            after = page.last().filter(|_| page.len() == Limits::BATCH_ITEMS).map(|visit| visit.row.task);
            for visit in page.iter().filter(|visit| judge::agenda(&visit.row, visit.task.as_ref(), now)) {
                let (row, task) = (visit.row, visit.task.as_ref());
                let queue = task.map_or("", |task| task.entry.queue.as_str());
                let ended = task.and_then(|task| task.head.terminal());
                let kind = FindingKind::AgendaOfFinishedTask;
                self.note(kind, Of::Task(row.task), Some(row.run), queue, Remedy::ClearAgenda(row), ended);
            }
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn at_handoffs(&mut self, core: &Core) -> Result<(), SweepError> {
        let made_before = before(core.clock.now(), judge::OVERDUE);
        for stale in core.store.stale_handoffs(made_before, HANDOFFS).await?.into_iter().filter(|stale| stale.entries.is_empty()) {
            self.note(FindingKind::HandoffOfFinishedTasks, Of::Handoff(stale.id), None, "", Remedy::Confirm(stale.id), None);
        }
        Ok(())
    }

    fn note(&mut self, kind: FindingKind, of: Of, run: Option<Run>, queue: &str, remedy: Remedy, ended: Option<EndKind>) {
        if self.findings.len() >= MAX_FINDINGS {
            self.more = true;
            return;
        }
        let subject = Subject { kind, of, run, queue: queue.to_owned() };
        self.findings.insert(subject.clone(), Finding { subject, remedy, ended });
    }
}
