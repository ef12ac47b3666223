//! Conversions between contracts and the domain. Into the domain they are fallible and say what is wrong; out of it they are
//! total.

pub mod changes;
pub mod enums;
pub mod scalar;
pub mod spec;
pub mod task;
pub mod value;
