//! The queries: one aggregate a file, named functions that take the connection. Compiled once per backend; what differs is in
//! `dialect` beside this module.

pub(crate) mod agenda;
pub(crate) mod cancel;
pub(crate) mod cancel_rules;
pub(crate) mod cancels;
pub(crate) mod close;
pub(crate) mod cursors;
pub(crate) mod delete;
pub(crate) mod end;
pub(crate) mod handoffs;
pub(crate) mod heads;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod operations;
pub(crate) mod queues;
pub(crate) mod read;
pub(crate) mod replay;
pub(crate) mod retention;
pub(crate) mod slots;
pub(crate) mod sql;
pub(crate) mod start;
pub(crate) mod submit;
pub(crate) mod takeover;
pub(crate) mod tree;
pub(crate) mod update;
pub(crate) mod waiting;
pub(crate) mod walk;
pub(crate) mod workers;

use super::{Conn, Db, dialect};
