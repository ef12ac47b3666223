//! From a request to a unit that can be committed.

use std::collections::HashMap;

use chrono::TimeDelta;
use oxcart_proto::{
    convert::spec::{SpecContext, task_spec},
    pb::common::v1::{TaskSpec as PbSpec, task_spec::Start},
};
use oxcart_store::{AgendaWhy, NewTask, SetAside, SubmitUnit};
use oxcart_types::{Limits, TaskSpec, Timestamp, Violations, violation::reason};

use crate::{config::Config, core::Core};

impl Core {
    /// Reads one task.
    pub(crate) fn admit_one(&self, task: Option<PbSpec>, request_id: &str) -> Result<SubmitUnit, Violations> {
        let mut bad = Violations::new();
        let now = self.clock.now();
        let Some(task) = task else {
            bad.add("task", reason::FIELD_REQUIRED, "is required");
            return Err(bad);
        };
        let request = self.request(request_id, now, &mut bad);
        let task = self.admit(task, now).map_err(|part| bad.nest("task", part)).ok();
        bad.check()?;
        Ok(SubmitUnit { tasks: task.into_iter().collect(), request })
    }

    /// Reads a batch: 1 to 1000 tasks, no id and no key twice.
    pub(crate) fn admit_batch(&self, tasks: Vec<PbSpec>, request_id: &str) -> Result<SubmitUnit, Violations> {
        let mut bad = Violations::new();
        let now = self.clock.now();
        let request = self.request(request_id, now, &mut bad);
        if tasks.is_empty() || tasks.len() > Limits::BATCH_ITEMS {
            let max = Limits::BATCH_ITEMS;
            bad.add("tasks", reason::FIELD_INVALID, format!("has {} tasks; 1 to {max} are allowed", tasks.len()));
            return Err(bad);
        }
        let mut admitted = Vec::with_capacity(tasks.len());
        for (i, task) in tasks.into_iter().enumerate() {
            match self.admit(task, now) {
                Ok(task) => admitted.push((i, task)),
                Err(part) => bad.nest(&format!("tasks[{i}]"), part),
            }
        }
        find_repeats(&admitted, &mut bad);
        bad.check()?;
        Ok(SubmitUnit { tasks: admitted.into_iter().map(|(_, task)| task).collect(), request })
    }

    /// Reads a request id, with the end of its life.
    pub(crate) fn request(&self, id: &str, now: Timestamp, bad: &mut Violations) -> Option<(oxcart_types::RequestId, Timestamp)> {
        if id.is_empty() {
            return None;
        }
        let until = add(now, self.config.request_ttl);
        bad.take("request_id", id.parse()).map(|id| (id, until))
    }

    fn admit(&self, task: PbSpec, now: Timestamp) -> Result<NewTask, Violations> {
        let delayed = matches!(task.start, Some(Start::Delay(_)));
        let context = SpecContext { limits: &self.limits, now, ids: &*self.ids };
        let (mut spec, id_chosen) = task_spec(task, &context)?;
        let digest = digest(&mut spec, delayed, now);
        let set_aside = set_aside(&self.config, &spec, now);
        Ok(NewTask { spec, digest, id_chosen, created_at: now, set_aside })
    }
}

/// The digest of what was asked for. A delay counts from each try, so that the time it comes to would tell a repeat from its
/// first try: the delay itself goes in instead, as the time that it would come to in 1970.
fn digest(spec: &mut TaskSpec, delayed: bool, now: Timestamp) -> [u8; 16] {
    if !delayed {
        return spec.digest();
    }
    let run_at = spec.run_at;
    spec.run_at = run_at.and_then(|at| Timestamp::UNIX_EPOCH.checked_add_signed(at.signed_duration_since(now)));
    let digest = spec.digest();
    spec.run_at = run_at;
    digest
}

/// What is due beyond the horizon waits in SQL until it comes within it.
fn set_aside(config: &Config, spec: &TaskSpec, now: Timestamp) -> Option<SetAside> {
    let due = spec.run_at.filter(|due| *due > add(now, config.horizon))?;
    Some(SetAside { at: before(due, config.horizon), why: AgendaWhy::Time })
}

fn find_repeats(tasks: &[(usize, NewTask)], bad: &mut Violations) {
    let (mut ids, mut keys) = (HashMap::new(), HashMap::new());
    for (i, task) in tasks {
        if let Some(first) = ids.insert(task.spec.id, i) {
            bad.add(format!("tasks[{i}].task_id"), reason::FIELD_CONFLICT, format!("is that of tasks[{first}]"));
        }
        if let Some(key) = &task.spec.idempotency
            && let Some(first) = keys.insert(key.key.as_str(), i)
        {
            bad.add(format!("tasks[{i}].idempotency_key"), reason::FIELD_CONFLICT, format!("is that of tasks[{first}]"));
        }
    }
}

/// A time later by a configured duration; times at the end of the calendar stay where they are.
pub(crate) fn add(time: Timestamp, by: std::time::Duration) -> Timestamp {
    TimeDelta::from_std(by).ok().and_then(|by| time.checked_add_signed(by)).unwrap_or(time)
}

/// A time earlier by a configured duration.
pub(crate) fn before(time: Timestamp, by: std::time::Duration) -> Timestamp {
    TimeDelta::from_std(by).ok().and_then(|by| time.checked_sub_signed(by)).unwrap_or(time)
}
