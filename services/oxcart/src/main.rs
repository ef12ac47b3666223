//! The `oxcart` binary.
fn main() {}
