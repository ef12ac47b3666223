//! The handlers of a process, by name.

use std::{any::Any, collections::BTreeMap, fmt, marker::PhantomData, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use oxcart_types::{FailureKind, Payload, TaskName};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec,
    context::TaskContext,
    error::{TaskError, TaskResult},
    handler::{Handler, Task},
};

/// A handler whose types are erased.
trait Erased: Send + Sync {
    fn run(&self, ctx: TaskContext, input: Payload) -> BoxFuture<'_, TaskResult<Payload>>;

    fn failed<'a>(&'a self, _ctx: &'a TaskContext, _error: &'a TaskError, _backoff: Option<Duration>) -> BoxFuture<'a, ()> {
        async {}.boxed()
    }
}

/// One handler, ready to be called; cheap to clone.
#[derive(Clone)]
pub struct HandlerEntry(Arc<dyn Erased>);

impl HandlerEntry {
    /// Runs the handler. A panic becomes a retryable error of kind `PANIC`.
    ///
    /// # Errors
    /// What the handler said, `INVALID_PAYLOAD` when the input does not fit, or the panic.
    pub async fn run(&self, ctx: TaskContext, input: Payload) -> TaskResult<Payload> {
        match AssertUnwindSafe(async { self.0.run(ctx, input).await }).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => Err(TaskError::retryable(panic_message(panic.as_ref())).kind(FailureKind::PANIC)),
        }
    }

    /// Tells the handler what becomes of its failure: `backoff` until the next run, or `None` when there is none.
    pub async fn failed(&self, ctx: &TaskContext, error: &TaskError, backoff: Option<Duration>) {
        if AssertUnwindSafe(async { self.0.failed(ctx, error, backoff).await }).catch_unwind().await.is_err() {
            tracing::warn!(task_id = %ctx.task_id(), "the hook of a handler panicked");
        }
    }
}

impl fmt::Debug for HandlerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerEntry")
    }
}

/// The text of a panic.
#[must_use]
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the handler panicked").to_owned()
}

/// The handlers of a process, by name.
///
/// ```
/// use oxcart_sdk::{Handlers, TaskContext};
///
/// let handlers = Handlers::new()
///     .handle_fn("math.add", |_ctx: TaskContext, (a, b): (i64, i64)| async move { Ok(a + b) })?;
/// assert_eq!(handlers.names().collect::<Vec<_>>(), ["math.add"]);
/// # Ok::<(), oxcart_sdk::HandlerNameError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Handlers(BTreeMap<String, HandlerEntry>);

/// A name cannot be given to a handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerNameError {
    /// Not a task name.
    #[error("{name:?} is no name for a handler: {reason}")]
    Invalid {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is a handler of this name.
    #[error("there are two handlers named {0:?}")]
    Taken(String),
}

impl Handlers {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a typed handler under the name of its task.
    ///
    /// # Errors
    /// The name is none, or is taken.
    pub fn handle<T: Task>(self, handler: impl Handler<T>) -> Result<Self, HandlerNameError> {
        self.insert(T::NAME, Arc::new(Typed { handler, task: PhantomData }))
    }

    /// Adds an async function or closure from JSON input to JSON output.
    ///
    /// # Errors
    /// The name is none, or is taken.
    pub fn handle_fn<I, O, F, Fut>(self, name: &str, function: F) -> Result<Self, HandlerNameError>
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(TaskContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = TaskResult<O>> + Send + 'static,
    {
        self.handle_raw(name, move |ctx, payload| {
            let call = codec::decode(&payload).map(|input| function(ctx, input));
            async move { codec::encode(&call?.await?) }
        })
    }

    /// Adds a function that blocks, from JSON input to JSON output. It runs on a thread of its own and cannot be aborted:
    /// a long one should look at [`TaskContext::is_cancelled`].
    ///
    /// # Errors
    /// The name is none, or is taken.
    pub fn handle_blocking<I, O, F>(self, name: &str, function: F) -> Result<Self, HandlerNameError>
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(TaskContext, I) -> TaskResult<O> + Send + Sync + 'static,
    {
        let function = Arc::new(function);
        self.handle_fn(name, move |ctx, input| {
            let function = Arc::clone(&function);
            async move {
                // Of the run: what the function logs says which task it belongs to.
                let span = tracing::Span::current();
                match tokio::task::spawn_blocking(move || span.in_scope(|| function(ctx, input))).await {
                    Ok(result) => result,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => Err(TaskError::retryable(panic_message(panic.as_ref())).kind(FailureKind::PANIC)),
                        Err(_) => Err(TaskError::cancelled()),
                    },
                }
            }
        })
    }

    /// Adds a function over payloads as they are: any media type, no decoding.
    ///
    /// # Errors
    /// The name is none, or is taken.
    pub fn handle_raw<F, Fut>(self, name: &str, function: F) -> Result<Self, HandlerNameError>
    where
        F: Fn(TaskContext, Payload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = TaskResult<Payload>> + Send + 'static,
    {
        self.insert(name, Arc::new(Raw(function)))
    }

    /// Takes over the handlers of another registry.
    ///
    /// # Errors
    /// A name of it is taken.
    pub fn merge(mut self, others: Self) -> Result<Self, HandlerNameError> {
        for (name, entry) in others.0 {
            if self.0.contains_key(&name) {
                return Err(HandlerNameError::Taken(name));
            }
            self.0.insert(name, entry);
        }
        Ok(self)
    }

    /// The handler of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&HandlerEntry> {
        self.0.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn insert(mut self, name: &str, handler: Arc<dyn Erased>) -> Result<Self, HandlerNameError> {
        name.parse::<TaskName>()
            .map_err(|invalid| HandlerNameError::Invalid { name: name.to_owned(), reason: invalid.description })?;
        if self.0.insert(name.to_owned(), HandlerEntry(handler)).is_some() {
            return Err(HandlerNameError::Taken(name.to_owned()));
        }
        Ok(self)
    }
}

struct Typed<T, H> {
    handler: H,
    task: PhantomData<fn(T)>,
}

impl<T: Task, H: Handler<T>> Erased for Typed<T, H> {
    fn run(&self, ctx: TaskContext, input: Payload) -> BoxFuture<'_, TaskResult<Payload>> {
        async move {
            let output = self.handler.run(ctx.clone(), codec::decode(&input)?).await?;
            self.handler.on_success(&ctx, &output).await;
            codec::encode(&output)
        }
        .boxed()
    }

    fn failed<'a>(&'a self, ctx: &'a TaskContext, error: &'a TaskError, backoff: Option<Duration>) -> BoxFuture<'a, ()> {
        match backoff {
            Some(backoff) => self.handler.on_retry(ctx, error, backoff).boxed(),
            None => self.handler.on_failure(ctx, error).boxed(),
        }
    }
}

struct Raw<F>(F);

impl<F, Fut> Erased for Raw<F>
where
    F: Fn(TaskContext, Payload) -> Fut + Send + Sync,
    Fut: Future<Output = TaskResult<Payload>> + Send + 'static,
{
    fn run(&self, ctx: TaskContext, input: Payload) -> BoxFuture<'_, TaskResult<Payload>> {
        (self.0)(ctx, input).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use oxcart_types::Limits;
    use serde::Deserialize;

    use super::*;
    use crate::error::Class;

    #[derive(Serialize, Deserialize)]
    struct SendEmail {
        to: String,
    }

    impl Task for SendEmail {
        const NAME: &'static str = "email.send";
        type Output = String;
    }

    #[derive(Default)]
    struct Mailer(Arc<Mutex<Vec<String>>>);

    impl Mailer {
        fn note(&self, text: String) {
            self.0.lock().expect("not poisoned").push(text);
        }
    }

    impl Handler<SendEmail> for Mailer {
        async fn run(&self, _ctx: TaskContext, task: SendEmail) -> TaskResult<String> {
            if task.to.contains('@') {
                Ok(format!("to {}", task.to))
            } else {
                Err(TaskError::fatal("bad address").kind("BadAddress"))
            }
        }

        async fn on_success(&self, _ctx: &TaskContext, output: &String) {
            self.note(output.clone());
        }

        async fn on_retry(&self, _ctx: &TaskContext, _error: &TaskError, backoff: Duration) {
            self.note(format!("again in {backoff:?}"));
        }

        async fn on_failure(&self, _ctx: &TaskContext, error: &TaskError) {
            self.note(error.to_string());
        }
    }

    fn json(text: &str) -> Payload {
        Payload::json(text.to_owned(), &Limits::default()).expect("JSON")
    }

    async fn call(handlers: &Handlers, name: &str, input: &str) -> TaskResult<Payload> {
        handlers.get(name).expect("a handler").run(TaskContext::detached().0, json(input)).await
    }

    #[tokio::test]
    async fn typed_handlers_run_with_their_hooks() {
        let notes = Arc::default();
        let handlers = Handlers::new().handle(Mailer(Arc::clone(&notes))).expect("a name");
        assert_eq!(call(&handlers, "email.send", r#"{"to":"a@b"}"#).await, Ok(json("\"to a@b\"")));
        let error = call(&handlers, "email.send", r#"{"to":"x"}"#).await.expect_err("no address");
        let entry = handlers.get("email.send").expect("a handler");
        let (ctx, _) = TaskContext::detached();
        entry.failed(&ctx, &error, Some(Duration::from_secs(1))).await;
        entry.failed(&ctx, &error, None).await;
        assert_eq!(*notes.lock().expect("not poisoned"), ["to a@b", "again in 1s", "BadAddress: bad address"]);
    }

    #[tokio::test]
    async fn closures_infer_their_types() {
        async fn add(_ctx: TaskContext, (a, b): (i64, i64)) -> TaskResult<i64> {
            Ok(a + b)
        }
        let base = Arc::new(41_i64);
        let handlers = Handlers::new()
            .handle_fn("math.add", add)
            .and_then(|h| {
                h.handle_fn("math.inc", move |_ctx, n: i64| {
                    let base = Arc::clone(&base);
                    async move { Ok(*base + n) }
                })
            })
            .and_then(|h| h.handle_blocking("math.neg", |_ctx, n: i64| Ok(-n)))
            .expect("names");
        assert_eq!(call(&handlers, "math.add", "[1,2]").await, Ok(json("3")));
        assert_eq!(call(&handlers, "math.inc", "1").await, Ok(json("42")));
        assert_eq!(call(&handlers, "math.neg", "1").await, Ok(json("-1")));
        let error = call(&handlers, "math.add", "{}").await.expect_err("not a pair");
        assert_eq!((error.class(), error.kind_str()), (Class::Fatal, FailureKind::INVALID_PAYLOAD));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        async fn boom(_ctx: TaskContext, (): ()) -> TaskResult {
            panic!("boom {}", 1)
        }
        let handlers = Handlers::new()
            .handle_fn("boom", boom)
            .and_then(|h| h.handle_blocking("bang", |_ctx, (): ()| -> TaskResult { panic!("bang") }))
            .expect("names");
        for (name, message) in [("boom", "boom 1"), ("bang", "bang")] {
            let error = call(&handlers, name, "null").await.expect_err("a panic");
            assert_eq!((error.class(), error.kind_str(), error.message()), (Class::Retryable, FailureKind::PANIC, message));
        }
    }

    #[test]
    fn names_are_checked_and_unique() {
        let echo = |_ctx: TaskContext, payload: Payload| async { Ok(payload) };
        let handlers = Handlers::new().handle_raw("echo", echo).expect("a name");
        assert_eq!(handlers.clone().handle_raw("echo", echo).expect_err("twice"), HandlerNameError::Taken("echo".into()));
        assert_eq!(handlers.clone().merge(handlers.clone()).expect_err("twice"), HandlerNameError::Taken("echo".into()));
        assert!(matches!(handlers.handle_raw("no spaces", echo), Err(HandlerNameError::Invalid { .. })));
    }
}
