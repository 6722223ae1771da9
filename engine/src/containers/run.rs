//! Run: make a container, start it, and stay with it to its end.

use super::create::ProgressSource;
use crate::Engine;
use crate::error::Result;
use crate::run::{RunRequest, UserNamespace, namespaces};

impl Engine {
    /// Runs a container in the foreground and returns its exit status.
    ///
    /// `progress` is asked for only if the image has to be fetched. Signals that reach the caller go on
    /// to the program if `forward_signals`.
    pub fn run(
        &self,
        request: &RunRequest,
        forward_signals: bool,
        progress: ProgressSource<'_>,
    ) -> Result<u8> {
        let image = self.prepare(request, progress)?;
        let (users, _) = namespaces::user_namespace(request, &image.config.config);
        self.shield(users == UserNamespace::Host)?;
        let made = self.make(request, &image)?;
        self.run_in_foreground(made, forward_signals)
    }
}
