//! What tests share, and programs never see.
#![forbid(unsafe_code)]

pub mod docker_registry;
pub mod needs;
