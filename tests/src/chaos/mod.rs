//! Killing, pausing, cutting and starving real processes under a steady load, and proving that nothing is lost and nothing is
//! finished twice.
//!
//! A [`rows::Row`] says what goes wrong and under which load; [`scenario::run`] starts a system of several replicas whose
//! connections all pass through proxies, keeps it under load while faults come and go, heals it, waits until nothing is open,
//! and lets the ledger check what clients were answered and what handlers saw against what SQL holds. What is left to chance
//! (the load, the faults, their victims and times) follows from one seed. docs/chaos.md tells what each row proves.
//!
//! | module | what |
//! |---|---|
//! | [`rows`] | the table of faults |
//! | [`fault`] | one fault: how it is done and undone |
//! | [`cluster`] | servers, replicas, and the proxies between them |
//! | [`work`] | what tasks ask of their handlers |
//! | [`load`] | tasks and cancels over time, as they follow from the seed |
//! | [`client`] | sends them, tries again, and notes what it is answered |
//! | [`worker`] | the worker process and its handlers, which note what they see |
//! | [`record`] | the notes of handlers, in a file that survives their process |
//! | [`scenario`] | load, faults, healing, checks |
//! | [`report`] | what came of it, as a table and as JSON |
//! | [`backlog`] | a queue with far more tasks than its window |

pub mod backlog;
pub mod client;
pub mod cluster;
pub mod fault;
pub mod load;
pub mod record;
pub mod report;
pub mod rows;
pub mod scenario;
pub mod work;
pub mod worker;
