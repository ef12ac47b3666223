//! Every RPC of every service, called with bytes over the same path as any client's: the decoder of the library, the service's
//! own decode functions, and what lies behind them. New RPCs are found in the descriptor set and need nothing here.

use std::{
    collections::BTreeMap,
    panic,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use oxcart::{Storage, System};
use oxcart_fuzz::{
    bytes::{damage, damage_text},
    corpus,
    message::message,
};
use oxcart_proto::{
    DESCRIPTOR_SET,
    pb::{
        common::v1::TaskSpec,
        submission::v1::{SubmitTaskRequest, submission_service_client::SubmissionServiceClient},
    },
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tonic_types::StatusExt as _;

use crate::{plan::Seeds, words::Words};

/// Calls of each RPC by themselves.
const CALLS: u64 = 40;
/// Texts given to each parser that is inside of a service.
const TEXTS: u64 = 300;
/// What a caller has time for: waits that nothing ends are ended by it.
const DEADLINE: Duration = Duration::from_millis(50);
/// A call that takes longer than this is taken to hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers of a stream that are read.
const ANSWERS: usize = 4;
/// Puts the whole process to rest, and all that follows with it: has tests of its own.
const LEFT_OUT: &str = "oxcart.worker.v1.WorkerService.DrainWorker";

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A running system and what is known of it.
struct Target {
    channel: Channel,
    pool: DescriptorPool,
    words: Words,
    _system: System,
}

impl Target {
    async fn start() -> Self {
        let system = System::embedded(Storage::InMemory).start().await.expect("a system");
        let mut client = SubmissionServiceClient::new(system.channel());
        let mut tasks = Vec::new();
        for name in ["echo", "sleep", "nobody"] {
            let spec = TaskSpec { task_name: name.to_owned(), ..Default::default() };
            let answer = client.submit_task(SubmitTaskRequest { task: Some(spec), ..Default::default() }).await.expect("a task");
            tasks.push(answer.into_inner().result.expect("a result").task_id);
        }
        let pool = DescriptorPool::decode(DESCRIPTOR_SET).expect("the contracts");
        Self { channel: system.channel(), pool, words: Words::new(&tasks), _system: system }
    }

    fn methods(&self) -> Vec<MethodDescriptor> {
        let all = self.pool.services().filter(|service| service.full_name().starts_with("oxcart."));
        all.flat_map(|service| service.methods().collect::<Vec<_>>()).filter(|method| method.full_name() != LEFT_OUT).collect()
    }

    /// Calls an RPC; the status that it ends with.
    async fn call(&self, method: &MethodDescriptor, messages: Vec<Bytes>) -> Status {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = PathAndQuery::try_from(path).expect("a path");
        let mut grpc = Grpc::new(self.channel.clone());
        let mut request = Request::new(tokio_stream::iter(messages));
        request.set_timeout(DEADLINE);
        let ended = async {
            grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
            // Some streams have no end; what they begin with is enough.
            for _ in 0..ANSWERS {
                match tokio::time::timeout(DEADLINE, answers.message()).await {
                    Ok(Ok(Some(_))) => {}
                    Ok(Ok(None)) | Err(_) => break,
                    Ok(Err(status)) => return Err(status),
                }
            }
            Ok::<_, Status>(())
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        ended.unwrap_or_else(|_| panic!("{} hangs", method.full_name())).err().unwrap_or_else(|| Status::ok(""))
    }
}

/// Checks that a caller can act on a status. `readable`: every message was one of the contract.
fn check(status: &Status, readable: bool) -> Result<(), &'static str> {
    let details = status.get_error_details();
    match status.code() {
        // The deadline of the caller; who notices it first is not said.
        Code::Ok | Code::DeadlineExceeded | Code::Cancelled => return Ok(()),
        Code::Internal if readable => return Err("an internal error for a well-formed message"),
        Code::InvalidArgument if details.bad_request().is_none_or(|bad| bad.field_violations.is_empty()) => {
            return Err("names no field");
        }
        Code::Internal
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented => {}
        Code::Unknown | Code::PermissionDenied | Code::Unavailable | Code::DataLoss | Code::Unauthenticated => {
            return Err("not a code for bad input");
        }
    }
    let ours = |info: &tonic_types::ErrorInfo| info.domain == "oxcart.dev" && !info.reason.is_empty();
    if details.error_info().is_some_and(ours) { Ok(()) } else { Err("has no reason of ours") }
}

/// Panics of any thread, with where they were: a panic of a handler is answered, and must not pass for an answer.
fn panics() -> &'static (AtomicUsize, Mutex<Vec<String>>) {
    static PANICS: OnceLock<Arc<(AtomicUsize, Mutex<Vec<String>>)>> = OnceLock::new();
    PANICS.get_or_init(|| {
        let seen = Arc::new((AtomicUsize::new(0), Mutex::new(Vec::new())));
        let (noted, before) = (Arc::clone(&seen), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            // Those of the tests themselves are on threads of their names.
            if std::thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
                noted.0.fetch_add(1, Ordering::SeqCst);
                noted.1.lock().expect("a lock").push(info.to_string());
            }
            before(info);
        }));
        seen
    })
}

fn assert_no_panic(before: usize) {
    let (count, where_) = panics();
    assert_eq!(count.load(Ordering::SeqCst), before, "{:?}", where_.lock().expect("a lock"));
}

/// Messages for one call: well-formed ones with random values, and damaged bytes.
fn messages(random: &mut StdRng, target: &Target, method: &MethodDescriptor) -> Vec<Bytes> {
    let count = if method.is_client_streaming() { random.random_range(1..5) } else { 1 };
    let encoded = (0..count).map(|_| message(random, &method.input(), &target.words).encode_to_vec());
    let mut encoded: Vec<Vec<u8>> = encoded.collect();
    if random.random_bool(0.3) {
        let at = random.random_range(0..encoded.len());
        encoded[at] = damage(random, encoded[at].clone(), &[]);
    }
    encoded.into_iter().map(Bytes::from).collect()
}

fn readable(method: &MethodDescriptor, messages: &[Bytes]) -> bool {
    messages.iter().all(|message| DynamicMessage::decode(method.input(), message.clone()).is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_refuses_what_it_cannot_do() {
    let before = panics().0.load(Ordering::SeqCst);
    let target = Target::start().await;
    let mut answers: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for seed in Seeds::of(CALLS) {
        for method in target.methods() {
            // The seed and the RPC together, so that a failure is repeated without the calls before it.
            let name = method.full_name().to_owned();
            let salt = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            let mut random = StdRng::seed_from_u64(seed ^ salt);
            let sent = messages(&mut random, &target, &method);
            let readable = readable(&method, &sent);
            let status = target.call(&method, sent).await;
            check(&status, readable).unwrap_or_else(|why| panic!("{name} with OXCART_FUZZ_SEED={seed}: {why}: {status:?}"));
            assert_no_panic(before);
            *answers.entry(name).or_default().entry(format!("{:?}", status.code())).or_default() += 1;
        }
    }
    // Input that is always refused, or never, tests little.
    let accepted = answers.values().filter(|codes| codes.contains_key("Ok")).count();
    assert!(accepted * 2 > answers.len(), "few RPCs ever answered: {answers:#?}");
    assert!(answers.values().any(|codes| codes.contains_key("InvalidArgument")), "nothing was ever refused: {answers:#?}");
}

/// A text that a service parses: an RPC, its field, and where such texts are.
const TEXT_FIELDS: &[(&str, &str, &str)] = &[
    ("oxcart.monitor.v1.MonitorService.ListTasks", "filter", "filter"),
    ("oxcart.monitor.v1.MonitorService.WatchEvents", "filter", "filter"),
    ("oxcart.monitor.v1.MonitorService.ListTasks", "page_token", "page_token"),
    ("oxcart.monitor.v1.MonitorService.ListWorkers", "page_token", "page_token"),
    ("oxcart.monitor.v1.MonitorService.WatchEvents", "after_cursor", "journal_cursor"),
    ("oxcart.dispatcher.v1.DispatcherService.StreamJournal", "after_cursor", "journal_cursor"),
    ("oxcart.worker.v1.WorkerService.ListRunningTasks", "page_token", "task_id"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_services_parse() {
    let before = panics().0.load(Ordering::SeqCst);
    let target = Target::start().await;
    for (name, field, folder) in TEXT_FIELDS {
        let method = target.methods().into_iter().find(|method| method.full_name() == *name).expect("an RPC of the contracts");
        let texts = corpus::texts(folder);
        let bytes = corpus::of(folder);
        let damaged = Seeds::of(TEXTS).map(|seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let text = texts.choose(&mut random).cloned().unwrap_or_default();
            damage_text(&mut random, &text, &bytes)
        });
        for text in texts.iter().cloned().chain(damaged) {
            let mut message = DynamicMessage::new(method.input());
            message.set_field_by_name(field, Value::String(text.clone()));
            let status = target.call(&method, vec![message.encode_to_vec().into()]).await;
            check(&status, true).unwrap_or_else(|why| panic!("{name} with {field} = {text:?}: {why}: {status:?}"));
            let expected = matches!(status.code(), Code::Ok | Code::InvalidArgument | Code::DeadlineExceeded | Code::Cancelled);
            assert!(expected, "{name} with {field} = {text:?}: {status:?}");
        }
        assert_no_panic(before);
    }
}
