//! The service over its contract: SQLite under it, a scripted dispatcher beside it.

mod api;
mod recovery;
mod support;
