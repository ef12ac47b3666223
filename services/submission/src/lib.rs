//! The submission service: the public task API and every sweeper
