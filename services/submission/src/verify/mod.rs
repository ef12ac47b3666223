//! Does SQL agree with the queues? Two looks at everything, some time apart; what both find is told, and brought in order when
//! asked to.
//!
//! * `finding`: what a disagreement is, and its words.
//! * `judge`: pure: what an entry or a task is, given both sides.
//! * `look`: one look at everything.
//! * `repair`: the steps of the sweepers, on what was found.

mod finding;
mod judge;
mod look;
mod repair;

use std::time::Duration;

pub(crate) use self::finding::{Finding, FindingKind, Of, Subject};
use self::look::Look;
use crate::{core::Core, sweep::SweepError};

/// Disagreements of one answer at most: bounds what is kept in memory. The rest is found by the next call.
pub(crate) const MAX_FINDINGS: usize = 10_000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verify {
    /// Bring in order what is found.
    pub(crate) repair: bool,
    /// Time between the two looks.
    pub(crate) settle: Duration,
    /// Walk over all tasks, not only from the mark of the audit.
    pub(crate) full: bool,
}

/// A disagreement that both looks found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disagreement {
    pub(crate) finding: Finding,
    /// What was done about it; `None` when nothing was asked for.
    pub(crate) repaired: Option<Repaired>,
}

/// How a repair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// A third look does not find it any more.
    Yes,
    /// It is still there.
    No,
}

/// What came of a verification.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    pub(crate) disagreements: Vec<Disagreement>,
    /// Entries of the queues that the last look saw.
    pub(crate) entries: u64,
    /// Open tasks that the last look saw.
    pub(crate) open_tasks: u64,
    /// Findings of the first look that the second did not find any more.
    pub(crate) settled: usize,
    /// There were more than one answer tells.
    pub(crate) more: bool,
}

/// Verifies. The looks are given up, with `None`, when `given_up` ends; a repair that has begun is carried out.
///
/// # Errors
/// SQL or the dispatcher did not answer: then nothing can be said.
pub(crate) async fn verify(
    core: &Core,
    wanted: Verify,
    given_up: impl Future<Output = ()>,
) -> Result<Option<Verified>, SweepError> {
    let looked = tokio::select! {
        looked = look_twice(core, wanted) => looked?,
        () = given_up => return Ok(None),
    };
    let (mut verified, confirmed) = looked;
    if !wanted.repair || confirmed.is_empty() {
        verified.disagreements = confirmed.into_iter().map(|finding| Disagreement { finding, repaired: None }).collect();
        return Ok(Some(verified));
    }
    repair::repair(core, &confirmed).await?;
    let left = Look::take(core, wanted.full).await?;
    let repaired = |finding: Finding| {
        let repaired = if left.findings.contains_key(&finding.subject) { Repaired::No } else { Repaired::Yes };
        Disagreement { finding, repaired: Some(repaired) }
    };
    verified.disagreements = confirmed.into_iter().map(repaired).collect();
    Ok(Some(verified))
}

/// What both looks found, and the answer without it.
async fn look_twice(core: &Core, wanted: Verify) -> Result<(Verified, Vec<Finding>), SweepError> {
    let first = Look::take(core, wanted.full).await?;
    let verified = Verified { entries: first.entries, open_tasks: first.open_tasks, more: first.more, ..Verified::default() };
    if first.findings.is_empty() {
        return Ok((verified, Vec::new()));
    }
    tokio::time::sleep(wanted.settle).await;
    let mut second = Look::take(core, wanted.full).await?;
    second.findings.retain(|subject, _| first.findings.contains_key(subject));
    let settled = first.findings.len() - second.findings.len();
    let verified = Verified { entries: second.entries, open_tasks: second.open_tasks, settled, ..verified };
    Ok((verified, second.findings.into_values().collect()))
}
