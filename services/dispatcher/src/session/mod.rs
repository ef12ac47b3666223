//! Worker sessions of this replica: what each may be granted, what it holds, and its way out.

mod cancel;
mod outbound;
mod poll;
mod registry;
mod reports;
mod state;
mod stream;
mod verdict;

pub(crate) use cancel::{Cancel, Unheard, cancel};
pub(crate) use outbound::{Closer, Outbound};
pub(crate) use poll::poll;
pub(crate) use registry::{Session, Sessions};
pub(crate) use reports::{exceptions, extend, extend_held, settle};
pub(crate) use state::{Counted, Reserved, Subscription, Window};
pub(crate) use stream::open;
pub(crate) use verdict::verdicts;
