//! OperationService: bulk actions and cancel rules.

use std::{sync::Arc, time::Duration};

use oxcart_proto::{
    convert::scalar,
    pb::{
        common::v1::{TaskIdList, TaskSelector, task_selector},
        submission::v1::{self as pb, operation_service_server::OperationService},
    },
};
use oxcart_service::page::{self, PageTokens, Query};
use oxcart_store::{CancelRule, Operation, OperationState, RuleSelector, Selector};
use oxcart_types::{
    CancelRuleId, Limits, OperationId, RequestId, Tag, TaskId, Timestamp, Violations,
    filter::{FilterError, TaskQuery},
    violation::{Invalid, reason},
};
use tonic::{Request, Response, Status};

use super::{
    actor, checked,
    control::{DEFAULT_GRACE, check_reason},
};
use crate::{
    core::Core,
    error::Error,
    operation::{Asked, picks_now},
    pick::{self, COUNT_LIMIT, Count},
};

/// Key of page tokens. What they lead to is open to their holder anyway: it keeps edited tokens out.
const TOKEN_KEY: &str = "oxcart.submission";
/// Rows of a page that asks for no number.
const PAGE: usize = 50;

/// The gRPC service.
pub(crate) struct OperationApi(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl OperationService for OperationApi {
    async fn start_batch_operation(
        &self,
        request: Request<pb::StartBatchOperationRequest>,
    ) -> Result<Response<pb::StartBatchOperationResponse>, Status> {
        let actor = actor::of_caller(&request);
        Ok(start(&self.0, request.into_inner(), actor).await.map(Response::new)?)
    }

    async fn get_batch_operation(
        &self,
        request: Request<pb::GetBatchOperationRequest>,
    ) -> Result<Response<pb::GetBatchOperationResponse>, Status> {
        let id = operation_id(&request.into_inner().batch_operation_id)?;
        let operation = self.0.operation(id).await?;
        Ok(Response::new(pb::GetBatchOperationResponse { batch_operation: Some(to_operation(operation)) }))
    }

    async fn list_batch_operations(
        &self,
        request: Request<pb::ListBatchOperationsRequest>,
    ) -> Result<Response<pb::ListBatchOperationsResponse>, Status> {
        Ok(list(&self.0, request.into_inner()).await.map(Response::new)?)
    }

    async fn stop_batch_operation(
        &self,
        request: Request<pb::StopBatchOperationRequest>,
    ) -> Result<Response<pb::StopBatchOperationResponse>, Status> {
        let id = operation_id(&request.into_inner().batch_operation_id)?;
        let operation = self.0.stop_operation(id).await?;
        Ok(Response::new(pb::StopBatchOperationResponse { batch_operation: Some(to_operation(operation)) }))
    }

    async fn create_cancel_rule(
        &self,
        request: Request<pb::CreateCancelRuleRequest>,
    ) -> Result<Response<pb::CreateCancelRuleResponse>, Status> {
        let actor = actor::of_caller(&request);
        Ok(create_rule(&self.0, request.into_inner(), actor).await.map(Response::new)?)
    }

    async fn list_cancel_rules(
        &self,
        request: Request<pb::ListCancelRulesRequest>,
    ) -> Result<Response<pb::ListCancelRulesResponse>, Status> {
        Ok(list_rules(&self.0, request.into_inner()).await.map(Response::new)?)
    }

    async fn delete_cancel_rule(
        &self,
        request: Request<pb::DeleteCancelRuleRequest>,
    ) -> Result<Response<pb::DeleteCancelRuleResponse>, Status> {
        let mut bad = Violations::new();
        let id = bad.take("cancel_rule_id", id(&request.into_inner().cancel_rule_id));
        let id: CancelRuleId = checked(bad, id)?;
        self.0.end_cancel_rule(id).await?;
        Ok(Response::new(pb::DeleteCancelRuleResponse {}))
    }
}

async fn start(
    core: &Arc<Core>,
    request: pb::StartBatchOperationRequest,
    actor: String,
) -> Result<pb::StartBatchOperationResponse, Error> {
    let mut bad = Violations::new();
    let now = core.clock.now();
    let spec = request.spec.unwrap_or_default();
    match pb::BatchAction::try_from(spec.action) {
        Ok(pb::BatchAction::Cancel) => {}
        Ok(pb::BatchAction::Unspecified) => bad.add("spec.action", reason::FIELD_REQUIRED, "is required"),
        Err(_) => bad.add("spec.action", reason::FIELD_INVALID, format!("{} is no BatchAction", spec.action)),
    }
    let request_id = request_id(&mut bad, &request.request_id);
    let grace = grace(&mut bad, "spec.grace_period", spec.grace_period);
    check_reason(&mut bad, "spec.reason", &spec.reason);
    let selector = selector(&mut bad, "spec.selector", spec.selector, now);
    let (selector, grace) = checked(bad, selector.zip(grace))?;
    let asked = Asked { request: request_id, reason: spec.reason, actor, grace };
    if request.dry_run {
        let count = pick::count(&core.store, &selector, now).await?;
        let sample_task_ids = count.samples.iter().map(ToString::to_string).collect();
        return Ok(pb::StartBatchOperationResponse { batch_operation: Some(counted(selector, asked, &count)), sample_task_ids });
    }
    let operation = core.start_operation(selector, asked).await?;
    Ok(pb::StartBatchOperationResponse { batch_operation: Some(to_operation(operation)), sample_task_ids: Vec::new() })
}

async fn list(core: &Core, request: pb::ListBatchOperationsRequest) -> Result<pb::ListBatchOperationsResponse, Error> {
    let paging = Query { rpc: "ListBatchOperations", parameters: "" };
    let (size, before) = page_of(&paging, request.page_size, &request.page_token)?;
    let mut operations = core.store.operations(before.map(OperationId::from_bytes), size + 1).await?;
    let more = operations.len() > size;
    operations.truncate(size);
    let last = operations.last().filter(|_| more);
    let next_page_token = last.map(|last| tokens().write(&paging, last.asked.id.as_bytes())).unwrap_or_default();
    Ok(pb::ListBatchOperationsResponse { batch_operations: operations.into_iter().map(to_operation).collect(), next_page_token })
}

async fn create_rule(
    core: &Arc<Core>,
    request: pb::CreateCancelRuleRequest,
    actor: String,
) -> Result<pb::CreateCancelRuleResponse, Error> {
    let mut bad = Violations::new();
    let now = core.clock.now();
    let rule = request.cancel_rule.unwrap_or_default();
    let request_id = request_id(&mut bad, &request.request_id);
    let grace = grace(&mut bad, "cancel_rule.grace_period", rule.grace_period);
    check_reason(&mut bad, "cancel_rule.reason", &rule.reason);
    let expires_at = bad.take("cancel_rule.expires_at", expiry(rule.expires_at, now));
    let selector = rule_selector(&mut bad, "cancel_rule.selector", rule.selector, now);
    let ((selector, expires_at), grace) = checked(bad, selector.zip(expires_at).zip(grace))?;
    let asked = Asked { request: request_id, reason: rule.reason, actor, grace };
    if request.dry_run {
        let count = pick::count(&core.store, &picks_now(&selector), now).await?;
        return Ok(pb::CreateCancelRuleResponse {
            cancel_rule: Some(pb::CancelRule {
                selector: Some(to_selector(picks_now(&selector))),
                expires_at: Some(scalar::to_timestamp(expires_at)),
                reason: asked.reason,
                actor: asked.actor,
                grace_period: Some(scalar::to_duration(asked.grace)),
                ..pb::CancelRule::default()
            }),
            matched_count: number(count.waiting + count.running),
            sample_task_ids: count.samples.iter().map(ToString::to_string).collect(),
            matched_count_capped: count.capped,
        });
    }
    let rule = core.make_cancel_rule(selector, asked, expires_at, now).await?;
    Ok(pb::CreateCancelRuleResponse { cancel_rule: Some(to_rule(rule)), ..pb::CreateCancelRuleResponse::default() })
}

async fn list_rules(core: &Core, request: pb::ListCancelRulesRequest) -> Result<pb::ListCancelRulesResponse, Error> {
    let parameters = request.include_ended.to_string();
    let paging = Query { rpc: "ListCancelRules", parameters: &parameters };
    let (size, before) = page_of(&paging, request.page_size, &request.page_token)?;
    let before = before.map(CancelRuleId::from_bytes);
    let mut rules = core.store.cancel_rules(request.include_ended, before, core.clock.now(), size + 1).await?;
    let more = rules.len() > size;
    rules.truncate(size);
    let last = rules.last().filter(|_| more);
    let next_page_token = last.map(|last| tokens().write(&paging, last.asked.id.as_bytes())).unwrap_or_default();
    Ok(pb::ListCancelRulesResponse { cancel_rules: rules.into_iter().map(to_rule).collect(), next_page_token })
}

fn tokens() -> PageTokens {
    PageTokens::new(TOKEN_KEY)
}

/// Size of a page, and the id that it comes before.
fn page_of(paging: &Query<'_>, size: i32, token: &str) -> Result<(usize, Option<[u8; 16]>), Violations> {
    let size = page::size(size, PAGE)?;
    let position = tokens().read(paging, token)?;
    let before = position.map(|position| position.as_slice().try_into().map_err(|_| page::invalid())).transpose()?;
    Ok((size, before))
}

fn id<T: std::str::FromStr<Err = Invalid>>(text: &str) -> Result<T, Invalid> {
    if text.is_empty() { Err(Invalid::required()) } else { text.parse() }
}

fn operation_id(text: &str) -> Result<OperationId, Error> {
    let mut bad = Violations::new();
    let id = bad.take("batch_operation_id", id(text));
    checked(bad, id)
}

fn request_id(bad: &mut Violations, text: &str) -> Option<RequestId> {
    if text.is_empty() { None } else { bad.take("request_id", text.parse()) }
}

fn grace(bad: &mut Violations, field: &str, grace: Option<prost_types::Duration>) -> Option<Duration> {
    grace.map_or(Some(DEFAULT_GRACE), |grace| bad.take(field, scalar::duration_up_to(grace, Limits::GRACE)))
}

/// The end of a rule: ahead, and not too far.
fn expiry(at: Option<prost_types::Timestamp>, now: Timestamp) -> Result<Timestamp, Invalid> {
    let at = scalar::timestamp(at.ok_or_else(Invalid::required)?)?;
    let life = at.signed_duration_since(now).to_std().unwrap_or_default();
    if life.is_zero() {
        Err(Invalid::value(format!("is {at}, which has passed")))
    } else if life > Limits::CANCEL_RULE_TTL {
        Err(Invalid::value(format!("is {at}; at most {:?} from now are allowed", Limits::CANCEL_RULE_TTL)))
    } else {
        Ok(oxcart_types::clock::to_micros(at))
    }
}

fn selector(bad: &mut Violations, path: &str, selector: Option<TaskSelector>, now: Timestamp) -> Option<Selector> {
    match selector.and_then(|selector| selector.selector) {
        None => bad.take(path, Err(Invalid::value("picks nothing: set one of ids, tag, filter and tree_root_task_id"))),
        Some(task_selector::Selector::Ids(list)) => ids(bad, path, &list).map(Selector::Tasks),
        Some(task_selector::Selector::Tag(tag)) => bad.take(&format!("{path}.tag"), tag.parse::<Tag>()).map(Selector::Tag),
        Some(task_selector::Selector::Filter(filter)) => {
            query(bad, &format!("{path}.filter"), &filter, now).map(|_| Selector::Filter(filter))
        }
        Some(task_selector::Selector::TreeRootTaskId(root)) => {
            bad.take(&format!("{path}.tree_root_task_id"), id(&root)).map(Selector::Tree)
        }
    }
}

fn rule_selector(bad: &mut Violations, path: &str, selector: Option<TaskSelector>, now: Timestamp) -> Option<RuleSelector> {
    match selector.and_then(|selector| selector.selector) {
        Some(task_selector::Selector::Tag(tag)) => bad.take(&format!("{path}.tag"), tag.parse::<Tag>()).map(RuleSelector::Tag),
        Some(task_selector::Selector::Filter(filter)) => {
            let field = format!("{path}.filter");
            let later = query(bad, &field, &filter, now)?.decided_later();
            if let Some(later) = later {
                let description = format!("compares {later}; a rule can compare queue, task_name, tags, task_id and create_time");
                bad.add(field, reason::FIELD_INVALID, description);
                return None;
            }
            Some(RuleSelector::Filter(filter))
        }
        Some(task_selector::Selector::Ids(_) | task_selector::Selector::TreeRootTaskId(_)) | None => {
            bad.take(path, Err(Invalid::value("a rule picks by tag or by filter: set one of them")))
        }
    }
}

/// Listed ids, sorted, each once.
fn ids(bad: &mut Violations, path: &str, list: &TaskIdList) -> Option<Vec<TaskId>> {
    let (asked, max) = (list.task_ids.len(), Limits::BATCH_ITEMS);
    if asked == 0 || asked > max {
        bad.add(format!("{path}.ids"), reason::FIELD_INVALID, format!("has {asked} ids; 1 to {max} are allowed"));
        return None;
    }
    let read = |(i, text): (usize, &String)| bad.take(&format!("{path}.ids.task_ids[{i}]"), id::<TaskId>(text));
    let mut ids: Vec<TaskId> = list.task_ids.iter().enumerate().filter_map(read).collect();
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

/// A filter that compares something: one that does not would pick every task there is, which nobody should ask for by leaving
/// something out.
fn query(bad: &mut Violations, field: &str, filter: &str, now: Timestamp) -> Option<TaskQuery> {
    match TaskQuery::parse(filter, now) {
        Ok(query) if query.is_empty() => {
            bad.add(field, reason::FIELD_REQUIRED, "compares nothing; to pick every task write create_time <= now");
            None
        }
        Ok(query) => Some(query),
        Err(error) => {
            let why = match &error {
                FilterError::Syntax { .. } => reason::FILTER_SYNTAX,
                FilterError::UnknownField { .. } => reason::FILTER_FIELD_UNKNOWN,
            };
            bad.add(field, why, error.to_string());
            None
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The operation of a dry run.
fn counted(selector: Selector, asked: Asked, count: &Count) -> pb::BatchOperation {
    pb::BatchOperation {
        spec: Some(to_spec(selector, asked.reason, asked.grace)),
        matched_count: number(count.matched.min(COUNT_LIMIT)),
        matched_count_capped: count.capped,
        succeeded_count: number(count.waiting),
        requested_count: number(count.running),
        finished_count: number(count.finished),
        failed_count: number(count.missing),
        actor: asked.actor,
        ..pb::BatchOperation::default()
    }
}

fn to_spec(selector: Selector, reason: String, grace: Duration) -> pb::BatchOperationSpec {
    pb::BatchOperationSpec {
        action: pb::BatchAction::Cancel.into(),
        selector: Some(to_selector(selector)),
        reason,
        grace_period: Some(scalar::to_duration(grace)),
    }
}

fn to_operation(operation: Operation) -> pb::BatchOperation {
    let (asked, counts) = (operation.asked, operation.counts);
    let state = match operation.state {
        OperationState::Running => pb::BatchOperationState::Running,
        OperationState::Completed => pb::BatchOperationState::Completed,
        OperationState::Stopped => pb::BatchOperationState::Stopped,
    };
    pb::BatchOperation {
        batch_operation_id: asked.id.to_string(),
        spec: Some(to_spec(asked.selector, asked.reason, asked.grace)),
        state: state.into(),
        matched_count: counts.matched,
        matched_count_capped: false,
        succeeded_count: counts.cancelled,
        requested_count: counts.requested,
        failed_count: counts.failed,
        finished_count: counts.finished,
        actor: asked.actor,
        create_time: Some(scalar::to_timestamp(asked.created_at)),
        end_time: operation.ended_at.map(scalar::to_timestamp),
        failure_samples: operation.failures,
        cancel_rule_id: operation.rule.map(|rule| rule.to_string()).unwrap_or_default(),
    }
}

fn to_rule(rule: CancelRule) -> pb::CancelRule {
    let asked = rule.asked;
    pb::CancelRule {
        cancel_rule_id: asked.id.to_string(),
        selector: Some(to_selector(picks_now(&asked.selector))),
        expires_at: Some(scalar::to_timestamp(asked.expires_at)),
        reason: asked.reason,
        actor: asked.actor,
        create_time: Some(scalar::to_timestamp(asked.created_at)),
        cancelled_count: rule.cancelled,
        grace_period: Some(scalar::to_duration(asked.grace)),
        batch_operation_id: asked.sweep.to_string(),
        end_time: rule.ended_at.map(scalar::to_timestamp),
    }
}

fn to_selector(selector: Selector) -> TaskSelector {
    let selector = match selector {
        Selector::Tasks(ids) => {
            task_selector::Selector::Ids(TaskIdList { task_ids: ids.iter().map(ToString::to_string).collect() })
        }
        Selector::Tag(tag) => task_selector::Selector::Tag(tag.as_str().to_owned()),
        Selector::Filter(filter) => task_selector::Selector::Filter(filter),
        Selector::Tree(root) => task_selector::Selector::TreeRootTaskId(root.to_string()),
    };
    TaskSelector { selector: Some(selector) }
}
