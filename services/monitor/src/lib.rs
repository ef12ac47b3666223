//! The monitor service: lists, statistics and the recorder
