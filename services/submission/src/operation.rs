//! Operations on many tasks and cancel rules: begun by a call, carried out by a sweeper.

use std::{sync::Arc, time::Duration};

use oxcart_store::{
    CancelRule, NewCancelRule, NewOperation, Operation, OperationStarted, OperationStopped, RuleMade, RuleSelector, Selector,
};
use oxcart_types::{CancelRuleId, OperationId, RequestId, Timestamp};

use crate::{core::Core, error::Error};

/// What a call asks for, whatever it picks.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) request: Option<RequestId>,
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) grace: Duration,
}

impl Core {
    fn new_operation(&self, selector: Selector, asked: Asked, now: Timestamp) -> NewOperation {
        let Asked { request, reason, actor, grace } = asked;
        NewOperation { id: self.ids.operation_id(), request, selector, reason, actor, grace, created_at: now }
    }

    /// Starts an operation. Goes on when the caller goes away.
    pub(crate) async fn start_operation(self: &Arc<Self>, selector: Selector, asked: Asked) -> Result<Operation, Error> {
        let core = Arc::clone(self);
        self.detached(async move {
            let new = core.new_operation(selector, asked, core.clock.now());
            match core.store.start_operation(&new, core.config.operations).await? {
                OperationStarted::Started(operation) => {
                    core.operations_wake.notify_one();
                    Ok(*operation)
                }
                OperationStarted::RequestReused(request) => Err(Error::RequestReused(request)),
                OperationStarted::TooMany => Err(Error::TooManyOperations(core.config.operations)),
            }
        })
        .await
    }

    /// Reads an operation.
    pub(crate) async fn operation(&self, id: OperationId) -> Result<Operation, Error> {
        self.store.operation(id).await?.ok_or(Error::NoOperation(id))
    }

    /// Stops an operation.
    pub(crate) async fn stop_operation(&self, id: OperationId) -> Result<Operation, Error> {
        match self.store.stop_operation(id, self.clock.now()).await? {
            OperationStopped::Stopped(operation) => Ok(*operation),
            OperationStopped::Completed => Err(Error::OperationFinished(id)),
            OperationStopped::NoOperation => Err(Error::NoOperation(id)),
        }
    }

    /// Makes a cancel rule, with the operation that cancels what is there. Goes on when the caller goes away.
    pub(crate) async fn make_cancel_rule(
        self: &Arc<Self>,
        selector: RuleSelector,
        asked: Asked,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<CancelRule, Error> {
        let core = Arc::clone(self);
        self.detached(async move {
            let request = asked.request;
            // The sweep is found by its rule: a name of its own would be one too many.
            let sweep = core.new_operation(picks_now(&selector), Asked { request: None, ..asked.clone() }, now);
            let Asked { reason, actor, grace, .. } = asked;
            let id = core.ids.cancel_rule_id();
            let rule = NewCancelRule { id, request, sweep: sweep.id, selector, reason, actor, grace, created_at: now, expires_at };
            match core.store.make_cancel_rule(&rule, &sweep, core.config.cancel_rules).await? {
                RuleMade::Made(rule) => {
                    core.operations_wake.notify_one();
                    Ok(*rule)
                }
                RuleMade::RequestReused(request) => Err(Error::RequestReused(request)),
                RuleMade::TooMany => Err(Error::TooManyCancelRules(core.config.cancel_rules)),
            }
        })
        .await
    }

    /// Ends a cancel rule.
    pub(crate) async fn end_cancel_rule(&self, id: CancelRuleId) -> Result<(), Error> {
        if self.store.end_cancel_rule(id, self.clock.now()).await? { Ok(()) } else { Err(Error::NoCancelRule(id)) }
    }
}

/// What a rule picks of what is there when it is made.
pub(crate) fn picks_now(selector: &RuleSelector) -> Selector {
    match selector {
        RuleSelector::Tag(tag) => Selector::Tag(tag.clone()),
        RuleSelector::Filter(filter) => Selector::Filter(filter.clone()),
    }
}
