//! The worker service: sessions, runs, handlers
