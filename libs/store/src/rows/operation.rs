//! Operations as rows of `operations`.

use std::str;

use chrono::NaiveDateTime;
use diesel::{Insertable, Queryable, Selectable};
use oxcart_types::{Limits, Tag};

use crate::{
    NewOperation, Operation, OperationCounts, OperationState, RuleSelector, Selector, StoreError,
    codes::{Action, Coded as _, SelectorKind},
    columns::{self, BLOB_BYTES, Id16, TEXT_BYTES},
    schema::operations,
};

/// A row of `operations`.
#[derive(Debug, Clone, Insertable, Queryable, Selectable)]
#[diesel(table_name = operations, treat_none_as_default_value = false)]
pub(crate) struct OperationRow {
    pub(crate) id: Id16,
    request: Option<Id16>,
    rule: Option<Id16>,
    action: i16,
    selector: i16,
    picks: Vec<u8>,
    reason: String,
    actor: String,
    grace_nanos: i64,
    state: i16,
    step: i64,
    position: Option<Id16>,
    next_at: NaiveDateTime,
    matched: i64,
    cancelled: i64,
    requested: i64,
    finished: i64,
    failed: i64,
    failures: Option<String>,
    created_at: NaiveDateTime,
    ended_at: Option<NaiveDateTime>,
}

impl OperationRow {
    /// Writes an operation that begins.
    pub(crate) fn encode(new: &NewOperation, rule: Option<oxcart_types::CancelRuleId>) -> Result<Self, StoreError> {
        let (selector, picks) = encode_selector(&new.selector);
        Ok(Self {
            id: new.id.into(),
            request: new.request.map(Id16::from),
            rule: rule.map(Id16::from),
            action: Action::Cancel.code(),
            selector: selector.code(),
            picks: columns::fit("picks", picks, BLOB_BYTES)?,
            reason: columns::fit("reason", new.reason.clone(), TEXT_BYTES)?,
            actor: columns::fit("actor", new.actor.clone(), Limits::ACTOR_BYTES)?,
            grace_nanos: columns::nanos("grace_nanos", new.grace)?,
            state: OperationState::Running.code(),
            step: 0,
            position: None,
            next_at: columns::time(new.created_at),
            matched: 0,
            cancelled: 0,
            requested: 0,
            finished: 0,
            failed: 0,
            failures: None,
            created_at: columns::time(new.created_at),
            ended_at: None,
        })
    }

    /// Reads an operation.
    pub(crate) fn decode(self) -> Result<Operation, StoreError> {
        Action::decode(self.action)?;
        Ok(Operation {
            asked: NewOperation {
                id: self.id.into(),
                request: self.request.map(Into::into),
                selector: decode_selector(SelectorKind::decode(self.selector)?, &self.picks)?,
                reason: self.reason,
                actor: self.actor,
                grace: columns::read_nanos(self.grace_nanos)?,
                created_at: columns::read_time(self.created_at),
            },
            rule: self.rule.map(Into::into),
            state: OperationState::decode(self.state)?,
            step: self.step,
            position: self.position.map(Into::into),
            counts: OperationCounts {
                matched: self.matched,
                cancelled: self.cancelled,
                requested: self.requested,
                finished: self.finished,
                failed: self.failed,
            },
            failures: read_failures(self.failures.as_deref())?,
            ended_at: self.ended_at.map(columns::read_time),
        })
    }
}

/// Failures as their column.
pub(crate) fn failures_json(failures: &[String]) -> Result<Option<String>, StoreError> {
    if failures.is_empty() {
        return Ok(None);
    }
    let json = serde_json::to_string(failures).map_err(|error| StoreError::Refused(Box::new(error)))?;
    columns::fit("failures", json, TEXT_BYTES).map(Some)
}

fn read_failures(column: Option<&str>) -> Result<Vec<String>, StoreError> {
    column.map_or(Ok(Vec::new()), |json| serde_json::from_str(json).map_err(|error| StoreError::Corrupt(error.to_string())))
}

fn encode_selector(selector: &Selector) -> (SelectorKind, Vec<u8>) {
    match selector {
        Selector::Tasks(ids) => (SelectorKind::Tasks, columns::join_ids(ids)),
        Selector::Tag(tag) => (SelectorKind::Tag, tag.as_str().as_bytes().to_vec()),
        Selector::Filter(filter) => (SelectorKind::Filter, filter.clone().into_bytes()),
        Selector::Tree(root) => (SelectorKind::Tree, root.as_bytes().to_vec()),
    }
}

fn decode_selector(kind: SelectorKind, picks: &[u8]) -> Result<Selector, StoreError> {
    Ok(match kind {
        SelectorKind::Tasks => Selector::Tasks(columns::split_ids(picks)?),
        SelectorKind::Tag => Selector::Tag(tag(picks)?),
        SelectorKind::Filter => Selector::Filter(text(picks)?.to_owned()),
        SelectorKind::Tree => match columns::split_ids(picks)?.as_slice() {
            [root] => Selector::Tree(*root),
            _ => return Err(StoreError::Corrupt("a tree has one root".to_owned())),
        },
    })
}

/// What a rule picks, as its columns.
pub(crate) fn encode_rule_selector(selector: &RuleSelector) -> (SelectorKind, Vec<u8>) {
    match selector {
        RuleSelector::Tag(tag) => (SelectorKind::Tag, tag.as_str().as_bytes().to_vec()),
        RuleSelector::Filter(filter) => (SelectorKind::Filter, filter.clone().into_bytes()),
    }
}

/// What a rule picks.
pub(crate) fn decode_rule_selector(kind: i16, picks: &[u8]) -> Result<RuleSelector, StoreError> {
    match SelectorKind::decode(kind)? {
        SelectorKind::Tag => Ok(RuleSelector::Tag(tag(picks)?)),
        SelectorKind::Filter => Ok(RuleSelector::Filter(text(picks)?.to_owned())),
        SelectorKind::Tasks | SelectorKind::Tree => Err(StoreError::Corrupt("a rule picks by tag or filter".to_owned())),
    }
}

fn text(picks: &[u8]) -> Result<&str, StoreError> {
    str::from_utf8(picks).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn tag(picks: &[u8]) -> Result<Tag, StoreError> {
    columns::read_name(text(picks)?)
}
