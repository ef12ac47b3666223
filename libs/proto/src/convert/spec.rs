//! Specifications of tasks and tasks as they are shown.
