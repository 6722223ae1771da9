//! Layers in and out, on the real file system.
//!
//! Most of it needs root, for owners, devices and overlay marks; without root these tests are
//! skipped by name, and fail under `CI=true`.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod archive;
mod erofs;
mod hostile;
mod overlay;
mod peers;
mod round_trip;
mod tree;
