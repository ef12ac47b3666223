//! A failure as five columns.

use oxcart_types::{Failure, FailureKind, Limits};

use crate::{StoreError, columns};

/// The columns; all empty when there is no failure.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailureColumns {
    pub(crate) kind: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) fatal: Option<i16>,
    pub(crate) retry_after_nanos: Option<i64>,
}

impl FailureColumns {
    /// Writes a failure. Its texts can be set freely, so they are checked again.
    pub(crate) fn encode(failure: Option<&Failure>) -> Result<Self, StoreError> {
        let Some(failure) = failure else { return Ok(Self::default()) };
        Ok(Self {
            kind: Some(columns::fit("failure_kind", failure.kind.as_str().to_owned(), Limits::ERROR_KIND_BYTES)?),
            message: Some(columns::fit("failure_message", failure.message.clone(), columns::TEXT_BYTES)?),
            detail: Some(columns::fit("failure_detail", failure.detail.clone(), columns::TEXT_BYTES)?),
            fatal: Some(i16::from(failure.fatal)),
            retry_after_nanos: failure.retry_after.map(|after| columns::nanos("failure_retry_after_nanos", after)).transpose()?,
        })
    }

    /// Reads a failure; a detail that was left out is empty.
    pub(crate) fn decode(self) -> Result<Option<Failure>, StoreError> {
        let Some(kind) = self.kind else { return Ok(None) };
        Ok(Some(Failure {
            kind: FailureKind::new(kind),
            message: self.message.unwrap_or_default(),
            detail: self.detail.unwrap_or_default(),
            fatal: self.fatal.unwrap_or_default() != 0,
            retry_after: self.retry_after_nanos.map(columns::read_nanos).transpose()?,
        }))
    }
}
