//! The use-cases of onggi: pull, run, tag, push.
#![forbid(unsafe_code)]

pub mod progress;
