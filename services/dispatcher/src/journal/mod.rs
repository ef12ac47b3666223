//! The journal: every transition that the engine made, as a resumable stream.

mod cursor;
mod encode;
pub(crate) mod note;
mod reader;

pub(crate) use reader::{Start, open};
