//! Panics as log lines.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::PanicHookInfo,
    thread,
};

use tracing::{Level, field};

/// Logs a panic, for a panic hook: it runs before the stack is unwound, so the line has the spans that the panic happened in, such
/// as the run of a handler. A backtrace comes with it when `RUST_BACKTRACE` asks for one. False when errors are not logged.
#[must_use = "a panic that is not logged is to be told otherwise"]
pub fn log_panic(panic: &PanicHookInfo<'_>) -> bool {
    if !tracing::enabled!(Level::ERROR) {
        return false;
    }
    let backtrace = Backtrace::capture();
    tracing::error!(
        panic.message = panic.payload_as_str().unwrap_or("not a text"),
        panic.location = panic.location().map(field::display),
        panic.thread = thread::current().name(),
        panic.backtrace = matches!(backtrace.status(), BacktraceStatus::Captured).then(|| field::display(&backtrace)),
        "panicked"
    );
    true
}
