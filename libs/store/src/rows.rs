//! Rows as they lie in the tables, and how the domain is written into and read from them.

pub(crate) mod agenda;
pub(crate) mod cancel_rule;
pub(crate) mod chain;
pub(crate) mod failure;
pub(crate) mod head;
pub(crate) mod operation;
pub(crate) mod record;
pub(crate) mod spec;
