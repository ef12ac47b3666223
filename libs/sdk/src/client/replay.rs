//! How a finished task is run again.

/// How a finished task is run again: by default with the attempts of its policy, from its last checkpoint, and not when it has
/// succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Attempts of the new budget; those of the task's policy when `None`.
    pub max_attempts: Option<u32>,
    /// Forgets the checkpoint of the runs before.
    pub reset_checkpoint: bool,
    /// Also when it has succeeded.
    pub allow_succeeded: bool,
    /// For people.
    pub reason: String,
}
