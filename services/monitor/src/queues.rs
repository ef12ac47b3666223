//! The numbers of queues, put together from what the dispatcher, SQL and the worker registry know. Pure.

use std::{collections::BTreeMap, time::Duration};

use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::{WorkerInfo, WorkerState},
        dispatcher::v1::PartitionInfo,
        monitor::v1::QueueStats,
    },
};
use oxcart_store::model::{AgendaCount, AgendaWhy, QueueRow};

/// All queues that anybody knows of, by name.
pub(crate) fn stats(
    partitions: Vec<PartitionInfo>,
    agenda: Vec<AgendaCount>,
    settings: Vec<QueueRow>,
    workers: &[WorkerInfo],
) -> Vec<QueueStats> {
    let mut queues = BTreeMap::<String, QueueStats>::new();
    let mut ages = BTreeMap::<String, Duration>::new();
    for partition in partitions {
        let age = partition.oldest_ready_age.map(|age| scalar::duration_or_zero(Some(age)));
        if let Some(age) = age {
            let oldest = ages.entry(partition.queue.clone()).or_default();
            *oldest = age.max(*oldest);
        }
        let queue = entry(&mut queues, partition.queue);
        queue.ready_count += partition.ready_count;
        queue.delayed_count += partition.delayed_count;
        queue.leased_count += partition.leased_count;
        queue.quarantined_count += partition.quarantined_count;
    }
    for count in agenda.into_iter().filter(|count| waits_in_sql(count.why)) {
        entry(&mut queues, count.queue.to_string()).pending_count += i64::try_from(count.count).unwrap_or(i64::MAX);
    }
    for row in settings {
        entry(&mut queues, row.queue.to_string()).paused = row.pause.is_some();
    }
    for worker in workers.iter().filter(|worker| takes_tasks(worker.state())) {
        for subscription in &worker.queues {
            let queue = entry(&mut queues, subscription.queue.clone());
            queue.worker_count += 1;
            let slots = if subscription.slots > 0 { subscription.slots.min(worker.slots) } else { worker.slots };
            queue.slot_count += i64::from(slots);
        }
    }
    for (name, age) in ages {
        entry(&mut queues, name).oldest_ready_age = Some(scalar::to_duration(age));
    }
    queues.into_values().collect()
}

fn entry(queues: &mut BTreeMap<String, QueueStats>, name: String) -> &mut QueueStats {
    queues.entry(name).or_insert_with_key(|name| QueueStats { queue: name.clone(), ..Default::default() })
}

/// Whether a row of the agenda stands for a task that the dispatcher does not have.
const fn waits_in_sql(why: AgendaWhy) -> bool {
    match why {
        AgendaWhy::Time | AgendaWhy::Dependency | AgendaWhy::Room => true,
        AgendaWhy::Retry | AgendaWhy::Expiry | AgendaWhy::CancelGrace => false,
    }
}

const fn takes_tasks(state: WorkerState) -> bool {
    match state {
        WorkerState::Active => true,
        WorkerState::Unspecified | WorkerState::Paused | WorkerState::Draining | WorkerState::Lost | WorkerState::Stopped => false,
    }
}

#[cfg(test)]
mod tests {
    use oxcart_proto::pb::common::v1::QueueSubscription;

    use super::*;

    #[test]
    fn numbers_of_all_sources_meet() {
        let partition = |queue: &str, ready, age| PartitionInfo {
            queue: queue.to_owned(),
            ready_count: ready,
            oldest_ready_age: Some(scalar::to_duration(Duration::from_secs(age))),
            ..Default::default()
        };
        let count = |queue: &str, why, count| AgendaCount { queue: queue.parse().expect("a name"), why, count };
        let worker = |state: WorkerState, slots| WorkerInfo {
            state: state.into(),
            slots: 8,
            queues: vec![QueueSubscription { queue: "mail".to_owned(), slots, ..Default::default() }],
            ..Default::default()
        };
        let now = oxcart_types::Timestamp::UNIX_EPOCH;
        let resumed = |queue: &str| QueueRow {
            queue: queue.parse().expect("a name"),
            revision: 1,
            pause: None,
            created_at: now,
            updated_at: now,
        };
        let pause = Some(oxcart_store::Pause { since: now, by: String::new(), reason: String::new() });
        let paused = |queue: &str| QueueRow { pause: pause.clone(), ..resumed(queue) };
        let stats = stats(
            vec![partition("mail", 2, 5), partition("mail", 3, 9)],
            vec![count("far", AgendaWhy::Time, 7), count("mail", AgendaWhy::Room, 1), count("mail", AgendaWhy::Retry, 4)],
            vec![paused("far"), resumed("mail")],
            &[worker(WorkerState::Active, 0), worker(WorkerState::Active, 2), worker(WorkerState::Lost, 0)],
        );
        let names: Vec<_> = stats.iter().map(|q| q.queue.as_str()).collect();
        assert_eq!(names, ["far", "mail"]);
        assert_eq!((stats[0].pending_count, stats[0].paused, stats[1].paused), (7, true, false));
        let mail = &stats[1];
        assert_eq!((mail.pending_count, mail.ready_count, mail.worker_count, mail.slot_count), (1, 5, 2, 10));
        assert_eq!(mail.oldest_ready_age.map(|age| age.seconds), Some(9));
    }
}
