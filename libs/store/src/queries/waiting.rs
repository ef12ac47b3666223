//! Where a task waits in SQL.

use chrono::NaiveDateTime;
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, SmallInt, Text, Timestamp as SqlTimestamp},
};
use diesel_async::RunQueryDsl as _;
use oxcart_types::TaskId;

use super::{Conn, sql::raw};
use crate::{
    RoomPlace, WaitingInSql,
    codes::{Coded as _, Lane},
    columns::{self, Id16},
    fault::Step,
};

#[derive(Debug, QueryableByName)]
struct Made {
    #[diesel(sql_type = SqlTimestamp)]
    made_at: NaiveDateTime,
}

#[derive(Debug, QueryableByName)]
struct Place {
    #[diesel(sql_type = Text)]
    queue: String,
    #[diesel(sql_type = SmallInt)]
    band: i16,
    #[diesel(sql_type = SqlTimestamp)]
    at: NaiveDateTime,
}

#[derive(Debug, QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Says where a task waits; see [`crate::Store::waiting_in_sql`].
pub(crate) async fn waiting(conn: &mut Conn, task: TaskId, cap: u64) -> Step<WaitingInSql> {
    let id = Id16::from(task);
    let made = raw("SELECT h.made_at FROM tasks t JOIN handoffs h ON h.id = t.handoff WHERE t.id = ?").bind::<Binary, _>(id);
    let made = made.load::<Made>(conn).await?.pop();
    let place = raw("SELECT queue, band, at FROM agenda WHERE task = ? AND lane = ?")
        .bind::<Binary, _>(id)
        .bind::<SmallInt, _>(Lane::Feeder.code());
    let room = match place.load::<Place>(conn).await?.pop() {
        Some(place) => Some(room(conn, id, &place, cap).await?),
        None => None,
    };
    Ok(WaitingInSql { handoff_since: made.map(|made| columns::read_time(made.made_at)), room })
}

/// Counts in the order of the feeder, by its index.
async fn room(conn: &mut Conn, id: Id16, place: &Place, cap: u64) -> Step<RoomPlace> {
    let cap = i64::try_from(cap).unwrap_or(i64::MAX);
    let ahead = "SELECT COUNT(*) AS count FROM (SELECT task FROM agenda WHERE lane = ? AND queue = ? \
         AND (band < ? OR (band = ? AND (at < ? OR (at = ? AND task < ?)))) LIMIT ?) r";
    let ahead = raw(ahead)
        .bind::<SmallInt, _>(Lane::Feeder.code())
        .bind::<Text, _>(place.queue.clone())
        .bind::<SmallInt, _>(place.band)
        .bind::<SmallInt, _>(place.band)
        .bind::<SqlTimestamp, _>(place.at)
        .bind::<SqlTimestamp, _>(place.at)
        .bind::<Binary, _>(id)
        .bind::<BigInt, _>(cap);
    let all = raw("SELECT COUNT(*) AS count FROM (SELECT task FROM agenda WHERE lane = ? AND queue = ? LIMIT ?) r")
        .bind::<SmallInt, _>(Lane::Feeder.code())
        .bind::<Text, _>(place.queue.clone())
        .bind::<BigInt, _>(cap);
    let count = |rows: Vec<Count>| rows.into_iter().next().and_then(|row| u64::try_from(row.count).ok()).unwrap_or_default();
    Ok(RoomPlace { ahead: count(ahead.load::<Count>(conn).await?), waiting: count(all.load::<Count>(conn).await?) })
}
