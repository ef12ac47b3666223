//! Cancel rules as rows of `cancel_rules`.

use chrono::NaiveDateTime;
use diesel::{Insertable, Queryable, Selectable};
use oxcart_types::Limits;

use super::operation::{decode_rule_selector, encode_rule_selector};
use crate::{
    CancelRule, NewCancelRule, StoreError,
    codes::Coded as _,
    columns::{self, BLOB_BYTES, Id16, TEXT_BYTES},
    schema::cancel_rules,
};

/// A row of `cancel_rules`.
#[derive(Debug, Clone, Insertable, Queryable, Selectable)]
#[diesel(table_name = cancel_rules, treat_none_as_default_value = false)]
pub(crate) struct CancelRuleRow {
    id: Id16,
    request: Option<Id16>,
    pub(crate) sweep: Id16,
    selector: i16,
    picks: Vec<u8>,
    reason: String,
    actor: String,
    grace_nanos: i64,
    cancelled: i64,
    created_at: NaiveDateTime,
    expires_at: NaiveDateTime,
    ended_at: Option<NaiveDateTime>,
}

impl CancelRuleRow {
    /// Writes a rule that begins.
    pub(crate) fn encode(new: &NewCancelRule) -> Result<Self, StoreError> {
        let (selector, picks) = encode_rule_selector(&new.selector);
        Ok(Self {
            id: new.id.into(),
            request: new.request.map(Id16::from),
            sweep: new.sweep.into(),
            selector: selector.code(),
            picks: columns::fit("picks", picks, BLOB_BYTES)?,
            reason: columns::fit("reason", new.reason.clone(), TEXT_BYTES)?,
            actor: columns::fit("actor", new.actor.clone(), Limits::ACTOR_BYTES)?,
            grace_nanos: columns::nanos("grace_nanos", new.grace)?,
            cancelled: 0,
            created_at: columns::time(new.created_at),
            expires_at: columns::time(new.expires_at),
            ended_at: None,
        })
    }

    /// Reads a rule; the tasks of its sweep are not counted yet.
    pub(crate) fn decode(self) -> Result<CancelRule, StoreError> {
        Ok(CancelRule {
            asked: NewCancelRule {
                id: self.id.into(),
                request: self.request.map(Into::into),
                sweep: self.sweep.into(),
                selector: decode_rule_selector(self.selector, &self.picks)?,
                reason: self.reason,
                actor: self.actor,
                grace: columns::read_nanos(self.grace_nanos)?,
                created_at: columns::read_time(self.created_at),
                expires_at: columns::read_time(self.expires_at),
            },
            cancelled: self.cancelled,
            ended_at: self.ended_at.map(columns::read_time),
        })
    }
}
