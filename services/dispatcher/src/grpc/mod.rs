//! The contracts: one file per service. Decode, call, encode.

pub(crate) mod decode;
pub(crate) mod dispatcher;
mod pages;
pub(crate) mod session;
mod settings;
