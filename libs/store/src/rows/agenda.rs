//! Rows of the agenda.

use chrono::NaiveDateTime;
use diesel::{
    Insertable, QueryableByName,
    sql_types::{Binary, Integer, SmallInt, Timestamp as SqlTimestamp},
};
use oxcart_types::{Priority, QueueName};

use crate::{
    AgendaRow, AgendaWhy, StoreError,
    codes::{Coded as _, Lane},
    columns::{self, Id16},
    schema::agenda,
};

/// A row of `agenda`.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = agenda)]
pub(crate) struct AgendaInsert {
    pub(crate) task: Id16,
    pub(crate) at: NaiveDateTime,
    pub(crate) run: i32,
    pub(crate) why: i16,
    pub(crate) lane: i16,
    pub(crate) queue: String,
    pub(crate) band: i16,
}

impl AgendaInsert {
    /// Writes a row; queue and priority are those of its task.
    pub(crate) fn encode(row: &AgendaRow, queue: &QueueName, priority: Priority) -> Result<Self, StoreError> {
        Ok(Self {
            task: row.task.into(),
            at: columns::time(row.at),
            run: columns::run(row.run)?,
            why: row.why.code(),
            lane: Lane::of(row.why).code(),
            queue: queue.as_str().to_owned(),
            band: i16::from(priority.band()),
        })
    }
}

/// A row as it is read.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct AgendaSlot {
    #[diesel(sql_type = Binary)]
    pub(crate) task: Id16,
    #[diesel(sql_type = SqlTimestamp)]
    at: NaiveDateTime,
    #[diesel(sql_type = Integer)]
    run: i32,
    #[diesel(sql_type = SmallInt)]
    why: i16,
}

impl AgendaSlot {
    /// Reads a row.
    pub(crate) fn decode(self) -> Result<AgendaRow, StoreError> {
        Ok(AgendaRow {
            task: self.task.into(),
            at: columns::read_time(self.at),
            run: columns::read_run(self.run)?,
            why: AgendaWhy::decode(self.why)?,
        })
    }
}
