//! [`RedisEngine`]: each operation as a call of its script.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use deadpool_redis::redis::{Client, FromRedisValue, Script, cmd};
use oxcart_types::Run;
use tokio::{sync::broadcast, task::AbortHandle};

use super::{
    connection::Connections,
    error::from_redis,
    keys::{self, Keys},
    options::RedisOptions,
    page, reply, safety,
    scripts::Scripts,
    wakeups, wire,
};
use crate::{
    check,
    engine::{
        Checked, Complete, EngineOptions, Enqueue, EnqueueStatus, EntryKey, Extend, ExtendCause, Inspected, JournalFrom,
        JournalRead, LeaseRequest, LeaseStatus, Leased, Listed, MAX_ITEMS, PageCursor, Partition, PartitionStats, Place, Presence,
        QueueEngine, QueueError, Release, Remove, RemoveStatus, Settings, TickLimits, Ticked, WAKEUP_BACKLOG, Wakeup,
    },
    rules::{notes_fit, to_millis},
};

/// Partitions whose incarnation is remembered; beyond, they are learnt anew, which costs one SADD each.
const REMEMBERED: usize = 10_000;

/// Entries in Redis. Any number of engines may work on one Redis at the same time.
#[derive(Debug)]
pub struct RedisEngine {
    options: EngineOptions,
    clock_key: Option<String>,
    connections: Connections,
    keys: Keys,
    scripts: Scripts,
    /// Tells own announcements from those of others.
    name: String,
    wakeups: broadcast::Sender<Wakeup>,
    listener: AbortHandle,
    /// Incarnations as last seen. A new one means that the registry may be lost as well.
    incarnations: Mutex<HashMap<Partition, u64>>,
}

impl Drop for RedisEngine {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl RedisEngine {
    /// Connects, checks that the Redis may be used, and listens for announcements.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] when Redis cannot be reached; [`QueueError::Unsafe`] when it may evict entries and
    /// [`RedisOptions::allow_eviction`] is off; [`QueueError::BadCall`] for a deployment that cannot be part of a key.
    pub async fn connect(redis: RedisOptions, options: EngineOptions) -> Result<Self, QueueError> {
        let keys = Keys::new(&options.deployment)?;
        let connections = Connections::new(&redis)?;
        if redis.allow_eviction {
            connections.call(async |mut connection| cmd("PING").query_async::<()>(&mut connection).await).await?;
        } else {
            safety::check_eviction(&connections).await?;
        }
        let client = Client::open(redis.url.as_str()).map_err(from_redis)?;
        let name = format!("{:016x}", rand::random::<u64>());
        let (wakeups, _) = broadcast::channel(WAKEUP_BACKLOG);
        let listener = tokio::spawn(wakeups::listen(client, keys.channel(), name.clone(), wakeups.clone())).abort_handle();
        Ok(Self {
            options,
            clock_key: redis.clock_key,
            connections,
            keys,
            scripts: Scripts::new(),
            name,
            wakeups,
            listener,
            incarnations: Mutex::default(),
        })
    }

    /// Calls a script that only reads.
    async fn read<T: FromRedisValue + Send>(
        &self,
        partition: &Partition,
        script: &Script,
        args: &[Vec<u8>],
    ) -> Result<T, QueueError> {
        let mut invocation = script.key(&self.keys.of(partition)[..]);
        if let Some(clock_key) = &self.clock_key {
            invocation.key(clock_key);
        }
        invocation.arg(args);
        self.connections.call(async |mut connection| invocation.invoke_async(&mut connection).await).await
    }

    /// Calls a script that writes; returns the incarnation and what follows in the reply.
    async fn write<T: FromRedisValue + Send>(
        &self,
        partition: &Partition,
        script: &Script,
        args: impl IntoIterator<Item = Vec<u8>> + Send,
    ) -> Result<(u64, T), QueueError> {
        let name = keys::name(partition);
        let common = [
            format!("{:016x}", rand::random::<u64>()),
            self.options.deployment.clone(),
            self.options.journal_calls.to_string(),
            self.keys.channel(),
            self.name.clone(),
            name.clone(),
        ];
        let args: Vec<Vec<u8>> = common.into_iter().map(String::into_bytes).chain(args).collect();
        let (incarnation, announce, reply): (String, u8, T) = self.read(partition, script, &args).await?;
        let incarnation = reply::incarnation(&incarnation)?;
        self.register(partition, name, incarnation).await?;
        if announce > 0 {
            // Fails only when nobody listens.
            let _ = self.wakeups.send(Wakeup { partition: partition.clone(), ready: announce > 1 });
        }
        Ok((incarnation, reply))
    }

    /// Puts a partition into the registry when this engine meets it, or an incarnation of it, for the first time.
    async fn register(&self, partition: &Partition, name: String, incarnation: u64) -> Result<(), QueueError> {
        let is_known = |known: &HashMap<Partition, u64>| known.get(partition) == Some(&incarnation);
        if is_known(&self.incarnations.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let registry = self.keys.registry();
        self.connections
            .call(async |mut connection| cmd("SADD").arg(registry).arg(name).query_async::<()>(&mut connection).await)
            .await?;
        let mut known = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(partition.clone(), incarnation);
        Ok(())
    }
}

/// Pairs of arguments, one after the other.
fn pairs<'a, T: 'a>(
    items: &'a [T],
    first: impl Fn(&T) -> Vec<u8> + Send + 'a,
    second: impl Fn(&T) -> Vec<u8> + Send + 'a,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    items.iter().flat_map(move |item| [first(item), second(item)])
}

fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn member(key: &EntryKey) -> Vec<u8> {
    wire::member(key).to_vec()
}

#[async_trait]
impl QueueEngine for RedisEngine {
    async fn enqueue(&self, partition: &Partition, items: &[Enqueue]) -> Result<Vec<EnqueueStatus>, QueueError> {
        check::keys(items.iter().map(|item| &item.key))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let with_notes = notes_fit(items.iter().map(|item| &item.note), self.options.journal_note_bytes);
        let mut args = vec![text(self.options.window)];
        args.extend(pairs(items, |item| member(&item.key), |item| wire::enqueue(item, with_notes)));
        let (_, (codes,)): (_, (Bytes,)) = self.write(partition, &self.scripts.enqueue, args).await?;
        reply::enqueued(&codes, items.len())
    }

    async fn lease(&self, partition: &Partition, request: &LeaseRequest) -> Result<Leased, QueueError> {
        check::at_most(request.claims.len())?;
        if request.claims.is_empty() {
            return Ok(Leased::default());
        }
        let limits = TickLimits::default();
        let mut args = vec![
            text(to_millis(request.claim_ttl)),
            text(limits.promote),
            text(if request.reap { limits.reap } else { 0 }),
            text(self.options.max_deliveries),
            text(self.options.lowest_band_every),
            text(request.settings.revision),
            text(u8::from(request.settings.paused)),
        ];
        args.extend(request.claims.iter().map(wire::claim));
        let (_, (grants, ready, next_due, revision, paused)): (_, (Bytes, u64, i64, u64, u8)) =
            self.write(partition, &self.scripts.lease, args).await?;
        let granted = reply::granted(&grants, &request.claims)?;
        Ok(Leased { granted, ready, next_due: reply::duration(next_due), settings: reply::settings(revision, paused) })
    }

    async fn configure(&self, partition: &Partition, settings: Settings) -> Result<Settings, QueueError> {
        let args = [text(settings.revision), text(u8::from(settings.paused))];
        let (_, (revision, paused)): (_, (u64, u8)) = self.write(partition, &self.scripts.configure, args).await?;
        Ok(reply::settings(revision, paused))
    }

    async fn extend(&self, partition: &Partition, cause: ExtendCause, items: &[Extend]) -> Result<Vec<LeaseStatus>, QueueError> {
        check::keys(items.iter().map(|item| &item.key))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let journal_starts = match cause {
            ExtendCause::Started => 1,
            ExtendCause::Heartbeat => 0,
        };
        let mut args = vec![text(journal_starts)];
        args.extend(pairs(items, |item| member(&item.key), wire::extend));
        let (_, (codes,)): (_, (Bytes,)) = self.write(partition, &self.scripts.extend, args).await?;
        reply::leases(&codes, items.len())
    }

    async fn complete(&self, partition: &Partition, items: &[Complete]) -> Result<Vec<LeaseStatus>, QueueError> {
        check::tasks(items.iter().map(|item| item.task))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let with_notes = notes_fit(items.iter().map(|item| &item.note), self.options.journal_note_bytes);
        let args: Vec<_> = pairs(items, |item| item.task.as_bytes().to_vec(), |item| wire::complete(item, with_notes)).collect();
        let (_, (codes,)): (_, (Bytes,)) = self.write(partition, &self.scripts.complete, args).await?;
        reply::leases(&codes, items.len())
    }

    async fn release(&self, partition: &Partition, items: &[Release]) -> Result<Vec<LeaseStatus>, QueueError> {
        check::tasks(items.iter().map(|item| item.task))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<_> = pairs(items, |item| item.task.as_bytes().to_vec(), wire::release).collect();
        let (_, (codes,)): (_, (Bytes,)) = self.write(partition, &self.scripts.release, args).await?;
        reply::leases(&codes, items.len())
    }

    async fn remove(&self, partition: &Partition, items: &[Remove]) -> Result<Vec<RemoveStatus>, QueueError> {
        check::keys(items.iter().map(|item| &item.key))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<_> = pairs(items, |item| member(&item.key), wire::remove).collect();
        let (_, (codes, tokens)): (_, (Bytes, Bytes)) = self.write(partition, &self.scripts.remove, args).await?;
        reply::removed(&codes, &tokens, items.len())
    }

    async fn missing(&self, partition: &Partition, items: &[(EntryKey, Run)]) -> Result<Vec<Presence>, QueueError> {
        check::keys(items.iter().map(|(key, _)| key))?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<_> = pairs(items, |(key, _)| member(key), |(_, run)| wire::run(*run).to_vec()).collect();
        let codes: Bytes = self.read(partition, &self.scripts.missing, &args).await?;
        reply::presences(&codes, items.len())
    }

    async fn inspect(&self, partition: &Partition, keys: &[EntryKey]) -> Result<Vec<Option<Inspected>>, QueueError> {
        check::keys(keys.iter())?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let args: Vec<_> = keys.iter().map(member).collect();
        let found: Vec<reply::InspectedParts> = self.read(partition, &self.scripts.inspect, &args).await?;
        if found.len() != keys.len() {
            return Err(QueueError::Corrupt("a script answered for another number of entries".to_owned()));
        }
        keys.iter().zip(found).map(|(key, parts)| reply::inspected(key.task, parts)).collect()
    }

    async fn list(
        &self,
        partition: &Partition,
        place: Place,
        from: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Listed, QueueError> {
        let step = page::Step::of_list(place, from)?;
        let args = step.args(limit);
        let (cursor, parts): (String, Vec<reply::ListedParts>) = self.read(partition, &self.scripts.list, &args).await?;
        let entries = parts.into_iter().map(|parts| reply::listed(place, parts)).collect::<Result<_, _>>()?;
        Ok(Listed { entries, next: step.next_of_list(&cursor) })
    }

    async fn check(&self, partition: &Partition, from: Option<&PageCursor>, limit: usize) -> Result<Checked, QueueError> {
        let step = page::Step::of_check(from)?;
        let args = step.args(limit);
        let (cursor, parts): (String, Vec<reply::DamagedParts>) = self.read(partition, &self.scripts.check, &args).await?;
        let damaged = parts.iter().map(reply::damaged).collect::<Result<_, _>>()?;
        Ok(Checked { damaged, next: step.next_of_check(&cursor) })
    }

    async fn tick(&self, partition: &Partition, limits: TickLimits) -> Result<Ticked, QueueError> {
        check::at_most(limits.promote.max(limits.reap))?;
        let args = [text(limits.promote), text(limits.reap), text(self.options.max_deliveries)];
        let (_, (promoted, reaped, quarantined, ready, next_due, next_expiry)): (_, (u64, u64, u64, u64, i64, i64)) =
            self.write(partition, &self.scripts.tick, args).await?;
        let (next_due, next_expiry) = (reply::duration(next_due), reply::duration(next_expiry));
        Ok(Ticked { promoted, reaped, quarantined, ready, next_due, next_expiry })
    }

    async fn stats(&self, partition: &Partition) -> Result<PartitionStats, QueueError> {
        let (incarnation, parts) = self.write(partition, &self.scripts.stats, []).await?;
        reply::stats(incarnation, &parts)
    }

    async fn journal(&self, partition: &Partition, from: JournalFrom, max_calls: usize) -> Result<JournalRead, QueueError> {
        let after = match from {
            JournalFrom::After(position) => format!("{}-{}", position.ms, position.seq),
            JournalFrom::Oldest => "0-0".to_owned(),
            JournalFrom::Newest => "$".to_owned(),
        };
        let max_calls = max_calls.clamp(1, MAX_ITEMS);
        let args = [after.into_bytes(), text(max_calls)];
        let (gap, newest, records): (u8, String, Vec<(String, Bytes)>) = self.read(partition, &self.scripts.journal, &args).await?;
        let more = records.len() >= max_calls;
        reply::journal(from, gap == 1, reply::position(&newest)?, records, more)
    }

    async fn partitions(&self) -> Result<Vec<Partition>, QueueError> {
        let registry = self.keys.registry();
        let names: Vec<String> =
            self.connections.call(async |mut connection| cmd("SMEMBERS").arg(registry).query_async(&mut connection).await).await?;
        let mut partitions: Vec<_> = names.iter().filter_map(|name| keys::parse(name)).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn wakeups(&self) -> broadcast::Receiver<Wakeup> {
        self.wakeups.subscribe()
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.connections.call(async |mut connection| cmd("PING").query_async(&mut connection).await).await
    }
}
