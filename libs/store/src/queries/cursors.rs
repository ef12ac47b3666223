//! Durable cursors of reconcilers.

use diesel::{ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, sql_types::Text};
use diesel_async::RunQueryDsl as _;

use super::{Conn, dialect, sql::raw};
use crate::{
    columns::{self, TEXT_BYTES},
    fault::Step,
    schema::cursors::dsl,
    upsert::Upsert,
};

const UPSERT: Upsert = Upsert { table: "cursors", columns: &["name", "value"], replace: &["value"], keep: &[], guard: None };
/// Bytes of a name.
const NAME_BYTES: usize = 128;

/// Answers when the database does.
pub(crate) async fn ping(conn: &mut Conn) -> Step<()> {
    get(conn, "").await.map(|_| ())
}

/// Reads a cursor; see [`crate::Store::cursor`].
pub(crate) async fn get(conn: &mut Conn, name: &str) -> Step<Option<String>> {
    let query = dsl::cursors.filter(dsl::name.eq(name.to_owned())).select(dsl::value);
    Ok(query.first::<String>(conn).await.optional()?)
}

/// Writes a cursor; see [`crate::Store::set_cursor`].
pub(crate) async fn set(conn: &mut Conn, name: &str, value: &str) -> Step<()> {
    let query = raw(dialect::upsert_sql(&UPSERT, 1))
        .bind::<Text, _>(columns::fit("name", name.to_owned(), NAME_BYTES)?)
        .bind::<Text, _>(columns::fit("value", value.to_owned(), TEXT_BYTES)?);
    query.execute(conn).await?;
    Ok(())
}
