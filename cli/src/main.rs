//! The `onggi` command: arguments in, words out.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "the commands that print through it land next")]
mod output;

fn main() {}
