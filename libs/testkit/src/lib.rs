//! Private servers, child processes, a network that fails on demand, and waiting, for tests.
//!
//! Everything here starts on a free port in a temporary directory and ends with its handle; a watchdog ends it too when the test
//! process is killed. A server program that is not installed is an error that names the script which installs it: a test that
//! silently skips proves nothing.

mod managed;
mod mariadb;
mod process;
mod program;
mod proxy;
mod redis;
mod wait;

pub use managed::ManagedProcess;
pub use mariadb::MariaDbServer;
pub use process::{ChildGuard, Signal};
pub use proxy::{Conditions, FaultProxy, Flow};
pub use redis::{RedisOptions, RedisServer};
pub use wait::{free_port, wait_for};
