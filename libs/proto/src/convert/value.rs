//! Payloads, failures, retry policies.

use oxcart_types::{
    Failure, Limits, Payload, RetryPolicy, Violations,
    payload::{Body, JSON},
    retry::RetryPolicyParts,
    violation::Invalid,
};
use prost_types::value::Kind;

use super::scalar;
use crate::pb::common::v1 as pb;

/// Reads a payload; `None` and one without content are JSON `null`.
///
/// # Errors
/// Over the limit, JSON that is none, a bad media type.
pub fn payload(value: Option<pb::Payload>, limits: &Limits) -> Result<Payload, Invalid> {
    let Some(pb::Payload { content: Some(content), content_type, content_encoding }) = value else { return Ok(Payload::null()) };
    if !content_encoding.is_empty() {
        return Err(Invalid::value(format!("content_encoding {content_encoding:?} is not supported; send the content as it is")));
    }
    let json = |text: String| {
        if content_type.is_empty() || content_type == JSON {
            Payload::json(text, limits)
        } else {
            Payload::bytes(text.into_bytes(), &content_type, limits)
        }
    };
    match content {
        pb::payload::Content::Json(text) => json(text),
        pb::payload::Content::Value(value) => json(value_to_json(&value).to_string()),
        pb::payload::Content::Data(data) => Payload::bytes(data, &content_type, limits),
    }
}

/// Writes a payload.
#[must_use]
pub fn to_payload(payload: Payload) -> pb::Payload {
    let (content_type, body) = payload.into_parts();
    let content = match body {
        Body::Json(text) => pb::payload::Content::Json(text),
        Body::Bytes(bytes) => pb::payload::Content::Data(bytes),
    };
    pb::Payload { content: Some(content), content_type, content_encoding: String::new() }
}

/// Hand-typed JSON as JSON. Whole numbers are written without a fraction: people type `3` and mean it.
fn value_to_json(value: &prost_types::Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number in the range in which doubles are exact")]
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => serde_json::Value::from(*n as i64),
        Some(Kind::NumberValue(n)) => serde_json::Value::from(*n),
        Some(Kind::StringValue(s)) => serde_json::Value::from(s.as_str()),
        Some(Kind::BoolValue(b)) => serde_json::Value::from(*b),
        Some(Kind::StructValue(s)) => s.fields.iter().map(|(k, v)| (k.clone(), value_to_json(v))).collect(),
        Some(Kind::ListValue(l)) => l.values.iter().map(value_to_json).collect(),
    }
}

/// Reads a failure. Texts are cut to their limits, a malformed `retry_after` counts as none: a report of a failure must not
/// fail itself.
#[must_use]
pub fn failure(value: pb::TaskError) -> Failure {
    let mut failure = Failure::new(value.kind, value.message).with_detail(value.detail);
    failure.fatal = value.fatal;
    match value.retry_after.map(scalar::duration) {
        Some(Ok(after)) => failure.retry_after(after),
        Some(Err(_)) | None => failure,
    }
}

/// Writes a failure.
#[must_use]
pub fn to_failure(failure: Failure) -> pb::TaskError {
    pb::TaskError {
        kind: failure.kind.as_str().to_owned(),
        message: failure.message,
        detail: failure.detail,
        fatal: failure.fatal,
        retry_after: failure.retry_after.map(scalar::to_duration),
    }
}

/// Reads a retry policy; unset fields take the defaults.
///
/// # Errors
/// Every field that is out of bounds.
pub fn retry_policy(value: pb::RetryPolicy) -> Result<RetryPolicy, Violations> {
    let mut bad = Violations::new();
    let mut backoff = |field: &str, value: Option<prost_types::Duration>| value.and_then(|v| bad.take(field, scalar::duration(v)));
    let initial_backoff = backoff("initial_backoff", value.initial_backoff);
    let max_backoff = backoff("max_backoff", value.max_backoff);
    // Zero is what an unset field reads as. `jitter` has no such gap: 0 means none, so a policy that is given has the jitter
    // that it names.
    let parts = RetryPolicyParts {
        max_attempts: (value.max_attempts != 0).then(|| i64::from(value.max_attempts)),
        initial_backoff,
        multiplier: (value.backoff_multiplier != 0.0).then_some(value.backoff_multiplier),
        max_backoff,
        jitter: Some(value.jitter),
        non_retryable_kinds: value.non_retryable_kinds,
        max_crashes: (value.max_crashes != 0).then(|| i64::from(value.max_crashes)),
    };
    match RetryPolicy::new(parts) {
        Ok(policy) => bad.check().map(|()| policy),
        Err(more) => {
            let mut all = bad;
            for v in more.as_slice() {
                all.add(v.field.clone(), v.reason, v.description.clone());
            }
            Err(all)
        }
    }
}

/// Writes a retry policy.
#[must_use]
pub fn to_retry_policy(policy: &RetryPolicy) -> pb::RetryPolicy {
    pb::RetryPolicy {
        max_attempts: scalar::to_count(policy.max_attempts()),
        initial_backoff: Some(scalar::to_duration(policy.initial_backoff())),
        backoff_multiplier: policy.multiplier(),
        max_backoff: Some(scalar::to_duration(policy.max_backoff())),
        jitter: policy.jitter(),
        non_retryable_kinds: policy.non_retryable_kinds().iter().map(|kind| kind.as_str().to_owned()).collect(),
        max_crashes: scalar::to_count(policy.max_crashes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: f64) -> prost_types::Value {
        prost_types::Value { kind: Some(Kind::NumberValue(n)) }
    }

    #[test]
    fn hand_typed_numbers_stay_whole() {
        let read = |n| {
            payload(
                Some(pb::Payload { content: Some(pb::payload::Content::Value(number(n))), ..Default::default() }),
                &Limits::default(),
            )
        };
        assert_eq!(read(3.0).expect("JSON").as_bytes(), b"3");
        assert_eq!(read(0.5).expect("JSON").as_bytes(), b"0.5");
    }

    #[test]
    fn a_policy_reads_back_and_names_every_bad_field() {
        let policy = RetryPolicy::default();
        assert_eq!(retry_policy(to_retry_policy(&policy)), Ok(policy));
        let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let bad = retry_policy(pb::RetryPolicy { max_attempts: -1, initial_backoff: negative, jitter: 2.0, ..Default::default() });
        assert_eq!(bad.expect_err("three mistakes").as_slice().len(), 3);
    }
}
