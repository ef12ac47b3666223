//! The parsers that can be called by themselves. Those inside of services are reached through their RPCs (see `services`).

use std::{collections::BTreeMap, fs, time::Duration};

use oxcart_fuzz::{bytes::damage, corpus};
use oxcart_proto::{
    convert::{
        changes, scalar,
        spec::{SpecContext, task_spec, to_task_spec},
    },
    pb,
};
use oxcart_service::{config::AddressList, telemetry::propagation::TraceContext};
use oxcart_types::{
    Clock as _, FairnessKey, Limits, Payload, QueueName, RequestId, SystemClock, SystemIds, Tag, TaskId, TaskName, TaskState,
    WorkerId,
};
use prost::Message as _;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::{memory::bounded, plan::each};

/// Inputs of a target besides its corpus.
const INPUTS: u64 = 4000;

/// Every text of the corpus, and each damaged in many ways.
fn texts(target: &str, count: u64, mut parse: impl FnMut(&str)) {
    let corpus = corpus::of(target);
    let mut parse = |bytes: &[u8]| bounded(target, || parse(&String::from_utf8_lossy(bytes)));
    corpus.iter().for_each(|input| parse(input));
    each(target, count, |random| {
        let input = corpus.choose(random).cloned().unwrap_or_default();
        parse(&damage(random, input, &corpus));
    });
}

/// What is accepted reads the same when it is written and read again.
fn reads_back<T>(text: &str)
where
    T: std::str::FromStr + std::fmt::Display + PartialEq,
{
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>();
        assert!(again.is_ok_and(|again| again == value), "{text:?} does not read back");
    }
}

#[test]
fn ids() {
    texts("task_id", INPUTS, |text| {
        reads_back::<TaskId>(text);
        reads_back::<WorkerId>(text);
        reads_back::<RequestId>(text);
    });
}

#[test]
fn names() {
    texts("name", INPUTS, |text| {
        reads_back::<TaskName>(text);
        reads_back::<QueueName>(text);
        reads_back::<Tag>(text);
        reads_back::<FairnessKey>(text);
        // A state has no text of its own to write: refusing is enough.
        let _ = text.parse::<TaskState>();
    });
}

#[test]
fn payloads() {
    let limits = Limits::default();
    texts("json", INPUTS, |text| {
        if let Ok(payload) = Payload::json(text.to_owned(), &limits) {
            assert_eq!(payload.as_bytes(), text.as_bytes(), "a payload is kept as it is");
        }
    });
}

#[test]
fn traceparents() {
    texts("traceparent", INPUTS, |text| {
        let map = BTreeMap::from([("traceparent".to_owned(), text.to_owned())]);
        let from_map = TraceContext::from_map(&map);
        let mut metadata = MetadataMap::new();
        // A header of other characters is no text.
        if let (true, Ok(value)) = (text.is_ascii(), AsciiMetadataValue::try_from(text)) {
            metadata.insert("traceparent", value);
            assert_eq!(
                TraceContext::of_call(&metadata).map(|trace| trace.trace_id()),
                from_map.as_ref().map(TraceContext::trace_id)
            );
        }
        if let Some(trace) = from_map {
            let mut written = BTreeMap::new();
            trace.write(&mut written);
            let again = TraceContext::from_map(&written);
            assert_eq!(again.map(|trace| (trace.trace_id(), trace.span_id())), Some((trace.trace_id(), trace.span_id())));
        }
    });
}

/// Whole files of configuration, and durations within one.
#[test]
fn configurations() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("oxcart.toml");
    let mut load = |text: &str| {
        fs::write(&file, text).expect("a file");
        match oxcart::Config::load(Some(&file)) {
            // What a value cannot say alone is checked as well, and must not overflow.
            Ok(config) => drop(config.check()),
            Err(error) => assert!(error.to_string().contains("oxcart.toml"), "{error}"),
        }
    };
    // A file is written and read for each.
    texts("config", INPUTS / 8, &mut load);
    texts("duration", INPUTS / 8, |text| load(&format!("[server]\ndrain_timeout = {text:?}\n")));
}

#[test]
fn addresses() {
    texts("config", INPUTS / 8, |text| drop(toml_of::<AddressList>(text)));
}

/// A value of a type that is read from a configuration.
fn toml_of<T: for<'de> serde::Deserialize<'de>>(text: &str) -> Result<T, serde::de::value::Error> {
    use serde::de::IntoDeserializer as _;
    T::deserialize(text.into_deserializer())
}

/// Durations and times of the contract at every edge: no overflow, and what is accepted comes back as it was.
#[test]
fn scalars() {
    each("scalars", INPUTS, |random| {
        let (seconds, nanos) = (edge(random), i32::try_from(edge(random).rem_euclid(1 << 32) - (1 << 31)).unwrap_or_default());
        let duration = prost_types::Duration { seconds, nanos };
        if let Ok(read) = scalar::duration(duration) {
            assert_eq!(scalar::to_duration(read), duration);
        }
        assert!(scalar::duration_up_to(duration, Duration::from_secs(5)).map_or(true, |read| read <= Duration::from_secs(5)));
        let timestamp = prost_types::Timestamp { seconds, nanos };
        if let Ok(read) = scalar::timestamp(timestamp) {
            // Kept to the microsecond, as the databases do.
            let kept = prost_types::Timestamp { nanos: timestamp.nanos / 1000 * 1000, ..timestamp };
            assert_eq!(scalar::to_timestamp(read), kept);
        }
        let _ = scalar::run(nanos).map(|run| assert_eq!(scalar::to_run(run), nanos));
    });
}

fn edge(random: &mut StdRng) -> i64 {
    let edges = [0, 1, -1, 999_999_999, 1_000_000_000, 315_576_000_000, 253_402_300_799, -62_135_596_800, i64::MAX, i64::MIN];
    edges.choose(random).copied().unwrap_or_default().wrapping_add(random.random_range(-2..3))
}

/// A specification from bytes: what is accepted is within its limits and comes back as it was.
#[test]
fn specifications() {
    let good = pb::common::v1::TaskSpec {
        task_name: "email.send".to_owned(),
        queue: "mail".to_owned(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        ..Default::default()
    };
    let corpus = [good.encode_to_vec(), Vec::new()];
    let limits = Limits::default();
    let now = SystemClock.now();
    let context = SpecContext { limits: &limits, now, ids: &SystemIds };
    each("specifications", INPUTS, |random| {
        let bytes = damage(random, corpus[0].clone(), &corpus);
        bounded("specifications", || {
            let Ok(message) = pb::common::v1::TaskSpec::decode(&bytes[..]) else { return };
            let mask = prost_types::FieldMask { paths: message.tags.clone() };
            let _ = changes::update(Some(message.clone()), Some(mask), now);
            match task_spec(message, &context) {
                Ok((spec, _)) => {
                    let again = task_spec(to_task_spec(spec.clone(), true), &context);
                    assert!(again.is_ok_and(|(again, _)| again == spec), "{spec:?} does not read back");
                }
                Err(bad) => assert!(!bad.is_empty(), "a refusal without a reason"),
            }
        });
    });
}
