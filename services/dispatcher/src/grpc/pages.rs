//! Pages over the entries of a queue: ListEntries and CheckEntries.

use oxcart_proto::{convert::scalar, pb::dispatcher::v1 as pb};
use oxcart_queue::{Damage, Damaged, EntryKey, Inspected, PageCursor, Partition, Place, QueueError};
use oxcart_types::{Limits, QueueName, Violations, violation::reason};
use tokio::time::Instant;

use super::dispatcher::place;
use crate::{core::Core, error::DispatcherError};

const DEFAULT_PAGE: usize = 500;

/// The places in the order of a list over all of them.
const PLACES: [Place; 4] = [Place::Ready, Place::Delayed, Place::Leased, Place::Quarantined];

pub(super) async fn list(core: &Core, request: pb::ListEntriesRequest) -> Result<pb::ListEntriesResponse, DispatcherError> {
    let mut bad = Violations::new();
    let partition = bad.take("queue", request.queue.parse::<QueueName>()).map(Partition::first);
    let size = size(&mut bad, request.page_size);
    let places = match pb::EntryPlace::try_from(request.place).map(read_place) {
        Ok(None) => PLACES.to_vec(),
        Ok(Some(place)) => vec![place],
        Err(_) => {
            bad.add("place", reason::FIELD_INVALID, format!("{} is no EntryPlace", request.place));
            Vec::new()
        }
    };
    bad.check()?;
    let Some(partition) = partition else { return Ok(pb::ListEntriesResponse::default()) };
    let (at, from) = read_token(&request.page_token).filter(|(at, _)| *at < places.len()).ok_or_else(bad_token)?;
    let began = Instant::now();
    let result = core.engine.list(&partition, places[at], from.as_ref(), size).await;
    core.observe("list", size, began, &result);
    let listed = result.map_err(engine)?;
    let next_page_token = match listed.next {
        Some(cursor) => format!("{at}/{}", cursor.0),
        None if at + 1 < places.len() => format!("{}/", at + 1),
        None => String::new(),
    };
    let entries = listed.entries.iter().map(|found| entry(&partition, found)).collect();
    Ok(pb::ListEntriesResponse { entries, next_page_token })
}

pub(super) async fn check(core: &Core, request: pb::CheckEntriesRequest) -> Result<pb::CheckEntriesResponse, DispatcherError> {
    let mut bad = Violations::new();
    let partition = bad.take("queue", request.queue.parse::<QueueName>()).map(Partition::first);
    let size = size(&mut bad, request.page_size);
    bad.check()?;
    let Some(partition) = partition else { return Ok(pb::CheckEntriesResponse::default()) };
    let from = (!request.page_token.is_empty()).then_some(PageCursor(request.page_token));
    let began = Instant::now();
    let result = core.engine.check(&partition, from.as_ref(), size).await;
    core.observe("check", size, began, &result);
    let checked = result.map_err(engine)?;
    let damaged = checked.damaged.iter().map(|damaged| to_damaged(&partition, damaged)).collect();
    Ok(pb::CheckEntriesResponse { damaged, next_page_token: checked.next.map(|cursor| cursor.0).unwrap_or_default() })
}

fn size(bad: &mut Violations, asked: i32) -> usize {
    match usize::try_from(asked) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(Limits::BATCH_ITEMS),
        Err(_) => {
            bad.add("page_size", reason::FIELD_INVALID, format!("is {asked}; it cannot be negative"));
            0
        }
    }
}

/// The index of the place and where to go on in it.
fn read_token(token: &str) -> Option<(usize, Option<PageCursor>)> {
    if token.is_empty() {
        return Some((0, None));
    }
    let (at, cursor) = token.split_once('/')?;
    Some((at.parse().ok()?, (!cursor.is_empty()).then(|| PageCursor(cursor.to_owned()))))
}

fn bad_token() -> DispatcherError {
    DispatcherError::invalid("page_token", "is malformed, or of another request")
}

/// The only call of these that a request can get wrong is its cursor.
fn engine(error: QueueError) -> DispatcherError {
    match error {
        QueueError::BadCall(_) => bad_token(),
        error @ (QueueError::Unavailable(_) | QueueError::Unsafe(_) | QueueError::Corrupt(_)) => DispatcherError::Engine(error),
    }
}

const fn read_place(place: pb::EntryPlace) -> Option<Place> {
    match place {
        pb::EntryPlace::Unspecified => None,
        pb::EntryPlace::Ready => Some(Place::Ready),
        pb::EntryPlace::Delayed => Some(Place::Delayed),
        pb::EntryPlace::Leased => Some(Place::Leased),
        pb::EntryPlace::Quarantined => Some(Place::Quarantined),
    }
}

fn entry(partition: &Partition, found: &Inspected) -> pb::Entry {
    pb::Entry {
        key: Some(key(partition, &found.key, scalar::to_run(found.run))),
        place: place(found.place).into(),
        deliveries: i32::from(found.deliveries),
        remaining: found.remaining.map(scalar::to_duration),
        ..pb::Entry::default()
    }
}

fn key(partition: &Partition, key: &EntryKey, run: i32) -> pb::EntryKey {
    pb::EntryKey {
        task_id: key.task.to_string(),
        run,
        queue: partition.queue.to_string(),
        priority: 9 - i32::from(key.band.min(9)),
        fairness_key: String::new(),
        fairness_id: key.fairness,
    }
}

fn to_damaged(partition: &Partition, damaged: &Damaged) -> pb::DamagedEntry {
    let damage = match damaged.damage {
        Damage::LeaseWithoutRecord => pb::EntryDamage::LeaseWithoutRecord,
        Damage::RecordWithoutLease => pb::EntryDamage::RecordWithoutLease,
        Damage::TwoPlaces => pb::EntryDamage::TwoPlaces,
    };
    let key = match &damaged.known {
        Some((known, run)) => key(partition, known, scalar::to_run(*run)),
        None => pb::EntryKey { task_id: damaged.task.to_string(), queue: partition.queue.to_string(), ..pb::EntryKey::default() },
    };
    pb::DamagedEntry { key: Some(key), damage: damage.into() }
}
