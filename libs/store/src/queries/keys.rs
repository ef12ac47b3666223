//! Idempotency keys and request ids.

use std::collections::HashMap;

use diesel::{ExpressionMethods as _, Insertable, QueryDsl as _, Queryable};
use diesel_async::RunQueryDsl as _;
use oxcart_types::{Limits, TaskId, Timestamp};

use super::{
    Conn, dialect,
    sql::{CHUNK, chunks},
};
use crate::{
    StoreError,
    codes::{Coded as _, KeyKind},
    columns::{self, BLOB_BYTES},
    fault::Step,
    plan::{Bodies, KeyName, NewKey},
    schema::idempotency_keys::{self, dsl},
};

#[derive(Debug, Clone, Insertable, Queryable)]
#[diesel(table_name = idempotency_keys)]
struct KeyRow {
    kind: i16,
    name: Vec<u8>,
    tasks: Vec<u8>,
    expires_at: chrono::NaiveDateTime,
}

/// Reads keys that live at `now`.
pub(crate) async fn living(conn: &mut Conn, names: &[KeyName], now: Timestamp) -> Step<HashMap<KeyName, Bodies>> {
    let mut living = HashMap::with_capacity(names.len());
    for kind in KeyKind::ALL {
        let mut names: Vec<Vec<u8>> = names.iter().filter(|name| name.0 == *kind).map(|name| name.1.clone()).collect();
        names.sort_unstable();
        names.dedup();
        for names in names.chunks(CHUNK) {
            let query = dsl::idempotency_keys
                .filter(dsl::kind.eq(kind.code()))
                .filter(dsl::name.eq_any(names.to_vec()))
                .filter(dsl::expires_at.gt(columns::time(now)))
                .select((dsl::kind, dsl::name, dsl::tasks, dsl::expires_at));
            for row in query.load::<KeyRow>(conn).await? {
                living.insert((*kind, row.name), split(&row.tasks)?);
            }
        }
    }
    Ok(living)
}

/// Writes keys; those of the same names that have expired make room.
pub(crate) async fn insert(conn: &mut Conn, keys: Vec<NewKey>, now: Timestamp) -> Step<()> {
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        rows.push(KeyRow {
            kind: key.name.0.code(),
            name: columns::fit("name", key.name.1, Limits::IDEMPOTENCY_KEY_BYTES)?,
            tasks: columns::fit("tasks", join(&key.bodies), BLOB_BYTES)?,
            expires_at: columns::time(key.expires_at),
        });
    }
    rows.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    for rows in chunks(rows, |row| row.tasks.len()) {
        for kind in KeyKind::ALL {
            let names: Vec<Vec<u8>> = rows.iter().filter(|row| row.kind == kind.code()).map(|row| row.name.clone()).collect();
            if names.is_empty() {
                continue;
            }
            let expired = dsl::idempotency_keys
                .filter(dsl::kind.eq(kind.code()))
                .filter(dsl::name.eq_any(names))
                .filter(dsl::expires_at.le(columns::time(now)));
            diesel::delete(expired).execute(conn).await?;
        }
        dialect::insert!(conn, idempotency_keys::table, rows)?;
    }
    Ok(())
}

/// Deletes keys whose holder they no longer name: the holder was replaced.
pub(crate) async fn free(conn: &mut Conn, names: &[KeyName]) -> Step<()> {
    for (kind, name) in names {
        let key = dsl::idempotency_keys.filter(dsl::kind.eq(kind.code())).filter(dsl::name.eq(name.clone()));
        diesel::delete(key).execute(conn).await?;
    }
    Ok(())
}

/// Deletes expired keys; see [`crate::Store::forget_keys`].
pub(crate) async fn forget(conn: &mut Conn, expired_before: Timestamp, limit: usize) -> Step<usize> {
    let query = dsl::idempotency_keys
        .filter(dsl::expires_at.lt(columns::time(expired_before)))
        .order(dsl::expires_at)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((dsl::kind, dsl::name));
    let expired = query.load::<(i16, Vec<u8>)>(conn).await?;
    let mut forgotten = 0;
    for kind in KeyKind::ALL {
        let names: Vec<Vec<u8>> = expired.iter().filter(|(k, _)| *k == kind.code()).map(|(_, name)| name.clone()).collect();
        for names in names.chunks(CHUNK) {
            // A key may have been taken anew since it was read.
            let keys = dsl::idempotency_keys
                .filter(dsl::kind.eq(kind.code()))
                .filter(dsl::name.eq_any(names.to_vec()))
                .filter(dsl::expires_at.lt(columns::time(expired_before)));
            forgotten += diesel::delete(keys).execute(conn).await?;
        }
    }
    Ok(forgotten)
}

fn join(bodies: &Bodies) -> Vec<u8> {
    bodies.iter().flat_map(|(id, digest)| [*id.as_bytes(), *digest]).flatten().collect()
}

fn split(bytes: &[u8]) -> Result<Bodies, StoreError> {
    let (parts, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(StoreError::Corrupt(format!("a key with {} bytes of tasks", bytes.len())));
    }
    let halves = |part: &[u8; 32]| {
        let (mut id, mut digest) = ([0; 16], [0; 16]);
        id.copy_from_slice(&part[..16]);
        digest.copy_from_slice(&part[16..]);
        (TaskId::from_bytes(id), digest)
    };
    Ok(parts.iter().map(halves).collect())
}
