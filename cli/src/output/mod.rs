//! How onggi speaks: nothing here knows a command, every command prints through here.
//!
//! | module | for |
//! |---|---|
//! | [`listing`] | `ls` commands: rows as a table, JSON or through a template |
//! | [`template`] | `--format` |
//! | [`table`] | columns |
//! | [`json`] | `inspect` |
//! | [`file`] | archives in files |
//! | [`human`] | sizes, ages, text that can't be trusted |
//! | [`progress`] | transfers while they run |

pub(crate) mod file;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod listing;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;
