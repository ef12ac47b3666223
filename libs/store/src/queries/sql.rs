//! Statements with as many places as there are values.

use diesel::{
    query_builder::{BoxedSqlQuery, SqlQuery},
    sql_query,
    sql_types::Binary,
};

use super::Db;
use crate::columns::Id16;

/// Rows or values of one statement at most: bounds what the database parses and plans at once.
pub(crate) const CHUNK: usize = 500;
/// Bytes of one statement at most, about: well below the smallest `max_allowed_packet` in use.
const CHUNK_BYTES: usize = 4 << 20;

/// A statement whose values are bound one by one.
pub(crate) type Raw<'a> = BoxedSqlQuery<'a, Db, SqlQuery>;

/// A statement.
pub(crate) fn raw<'a>(sql: impl Into<String>) -> Raw<'a> {
    sql_query(sql).into_boxed::<Db>()
}

/// Places for `n` values: `?, ?, ?`.
pub(crate) fn places(n: usize) -> String {
    vec!["?"; n].join(", ")
}

/// A statement with a list of ids in the place of `{ids}`, bound in their order.
pub(crate) fn with_ids<'a>(sql: &str, ids: &[Id16]) -> Raw<'a> {
    let sql = sql.replacen("{ids}", &places(ids.len()), 1);
    ids.iter().fold(raw(sql), |query, id| query.bind::<Binary, _>(*id))
}

/// Sorted, each once: batches lock rows in the order of ids, so that they wait for each other in a line and not in a ring.
pub(crate) fn sorted_ids<T: Into<Id16>>(ids: impl IntoIterator<Item = T>) -> Vec<Id16> {
    let mut ids: Vec<Id16> = ids.into_iter().map(Into::into).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Cuts rows into statements by number and weight.
pub(crate) fn chunks<T>(rows: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let more = weight(&row);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK && bytes + more <= CHUNK_BYTES => {
                bytes += more;
                chunk.push(row);
            }
            _ => {
                bytes = more;
                chunks.push(vec![row]);
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_bounded_by_rows_and_bytes() {
        let lengths = |chunks: Vec<Vec<usize>>| chunks.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(chunks(vec![0; 2 * CHUNK + 1], |_| 0)), [CHUNK, CHUNK, 1]);
        assert_eq!(lengths(chunks(vec![CHUNK_BYTES, 1, CHUNK_BYTES * 2, CHUNK_BYTES / 2, CHUNK_BYTES / 2], |n| *n)), [1, 1, 1, 2]);
        assert!(chunks(Vec::<usize>::new(), |n| *n).is_empty());
    }

    #[test]
    fn ids_are_locked_in_one_order() {
        let (a, b) = (Id16([1; 16]), Id16([2; 16]));
        assert_eq!(sorted_ids([b, a, b]), [a, b]);
    }
}
