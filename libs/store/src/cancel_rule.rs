//! Cancel rules: what matches is cancelled, and so is what is submitted until the rule ends.

use std::time::Duration;

use oxcart_types::{
    CancelRuleId, OperationId, RequestId, Tag, Timestamp,
    filter::{Submitted, TaskQuery},
};

use crate::StoreError;

/// What a rule picks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSelector {
    /// Tasks with this tag.
    Tag(Tag),
    /// Tasks that match this filter as far as their submission decides; times in it count from the making of the rule.
    Filter(String),
}

/// A rule to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCancelRule {
    /// Id.
    pub id: CancelRuleId,
    /// The client's name for the call.
    pub request: Option<RequestId>,
    /// The operation that cancels what is there already: it is made together with the rule.
    pub sweep: OperationId,
    /// What it picks.
    pub selector: RuleSelector,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// Time for running handlers to stop by themselves.
    pub grace: Duration,
    /// Now.
    pub created_at: Timestamp,
    /// It ends then.
    pub expires_at: Timestamp,
}

/// A rule as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelRule {
    /// What was asked for.
    pub asked: NewCancelRule,
    /// Tasks cancelled by the rule and by its sweep.
    pub cancelled: i64,
    /// When it was ended, by a caller or because its time was over.
    pub ended_at: Option<Timestamp>,
}

/// What became of a [`NewCancelRule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleMade {
    /// It holds, since now or since an earlier call with the same request id.
    Made(Box<CancelRule>),
    /// The request id was used for something else.
    RequestReused(RequestId),
    /// As many rules are active as may be.
    TooMany,
}

/// A rule that is active, ready to be asked.
#[derive(Debug, Clone)]
pub(crate) struct ActiveRule {
    pub(crate) id: CancelRuleId,
    pub(crate) reason: String,
    picks: Picks,
}

#[derive(Debug, Clone)]
enum Picks {
    Tag(Tag),
    Query(Box<TaskQuery>),
}

impl ActiveRule {
    /// Prepares a rule.
    pub(crate) fn new(rule: NewCancelRule) -> Result<Self, StoreError> {
        let picks = match rule.selector {
            RuleSelector::Tag(tag) => Picks::Tag(tag),
            RuleSelector::Filter(filter) => {
                let query = TaskQuery::parse(&filter, rule.created_at);
                Picks::Query(Box::new(query.map_err(|error| StoreError::Corrupt(format!("cancel rule {}: {error}", rule.id)))?))
            }
        };
        Ok(Self { id: rule.id, reason: rule.reason, picks })
    }

    /// True when it picks a task.
    pub(crate) fn picks(&self, task: &Submitted<'_>) -> bool {
        match &self.picks {
            Picks::Tag(tag) => task.tags.contains(tag),
            Picks::Query(query) => query.matches_submitted(task),
        }
    }
}
