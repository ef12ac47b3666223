//! The way from a process to the database.
//!
//! A step itself is atomic: it begins and commits at one moment, as SQLite has it. What the simulation adds is everything
//! around it: the time that it takes, a crash before or after it, a request that never arrives, an answer that is lost.

use std::{io, sync::Arc};

use futures_util::future::BoxFuture;
use oxcart_store::{StoreError, Wire};

use crate::{
    log::{Fate, Pid},
    shared::{Shared, Way, pass, step},
};

/// The way of one process.
pub struct SqlWire {
    pub(crate) shared: Arc<Shared>,
    pub(crate) by: Pid,
}

fn unavailable(what: &str) -> StoreError {
    StoreError::Unavailable(Box::new(io::Error::other(what.to_owned())))
}

impl Wire for SqlWire {
    fn request(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.shared.request(|faults| faults.sql_down) {
                Way::Clear(time) => {
                    pass(time).await;
                    Ok(())
                }
                Way::Lost(time) => {
                    pass(time).await;
                    step(&self.shared, self.by, None, Fate::Lost);
                    Err(unavailable("the request was lost"))
                }
            }
        })
    }

    fn answer(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.shared.answer() {
                Way::Clear(time) => {
                    step(&self.shared, self.by, None, Fate::Done);
                    pass(time).await;
                    Ok(())
                }
                Way::Lost(time) => {
                    step(&self.shared, self.by, None, Fate::Unanswered);
                    pass(time).await;
                    Err(unavailable("the answer was lost"))
                }
            }
        })
    }
}
