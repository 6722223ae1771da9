//! TBD
#![forbid(unsafe_code)]
fn main() {}
