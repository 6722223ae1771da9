//! The store, snapshots and archives on the real kernel, with real processes and real tools.
//!
//! Most of it needs root, for owners, devices and mounts; without root these tests are skipped by
//! name, and fail under `CI=true`.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "these are tests")]

mod erofs;
mod fixture;

mod archive;
mod check;
mod gc;
mod ingest;
mod refs;
mod snapshot;
