//! Submits the tasks of the demo and waits for their ends.

use std::{path::PathBuf, time::Duration};

use oxcart::System;
use oxcart_proto::pb::{
    common::v1::{Task, TaskState, TaskView},
    submission::v1::{BatchGetTasksRequest, submission_service_client::SubmissionServiceClient},
};
use oxcart_sdk::Client;
use oxcart_types::Limits;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::progress::Progress;
use crate::cli::CliError;

/// Attempts that one task is made to fail.
const FAILURES: u32 = 2;
/// Time between two looks at what is open.
const LOOK: Duration = Duration::from_millis(100);
/// Without any progress for this long, the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    /// `file.checksum`
    Checksum,
    /// `text.wordcount`
    Wordcount,
}

impl Job {
    pub(super) const ALL: [Self; 2] = [Self::Checksum, Self::Wordcount];

    /// The handler.
    pub(super) const fn handler(self) -> &'static str {
        match self {
            Self::Checksum => "file.checksum",
            Self::Wordcount => "text.wordcount",
        }
    }
}

/// What became of one task.
pub(super) struct Outcome {
    pub(super) file: PathBuf,
    pub(super) job: Job,
    pub(super) task: Task,
}

/// Runs both jobs over all files.
pub(super) async fn all(system: &System, files: &[PathBuf], progress: &mut Progress) -> Result<Vec<Outcome>, CliError> {
    let jobs: Vec<_> = files.iter().flat_map(|file| Job::ALL.map(|job| (file.clone(), job))).collect();
    progress.begin(jobs.len());
    let ids = submit(&system.client(), &jobs).await?;
    // A page of full tasks is larger than what may be submitted at once.
    let mut submission = SubmissionServiceClient::new(system.channel()).max_decoding_message_size(16 * Limits::MESSAGE_BYTES);
    wait(&mut submission, &ids, progress).await?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for (jobs, ids) in jobs.chunks(Limits::BATCH_ITEMS).zip(ids.chunks(Limits::BATCH_ITEMS)) {
        let tasks = read(&mut submission, ids, TaskView::Full).await?;
        outcomes.extend(jobs.iter().cloned().zip(tasks).map(|((file, job), task)| Outcome { file, job, task }));
    }
    Ok(outcomes)
}

/// Submits the tasks in batches; the first is made to fail at first. Their ids, in order.
async fn submit(client: &Client, jobs: &[(PathBuf, Job)]) -> Result<Vec<String>, CliError> {
    let mut ids = Vec::with_capacity(jobs.len());
    let mut first = true;
    for batch in jobs.chunks(Limits::BATCH_ITEMS) {
        let mut tasks = Vec::with_capacity(batch.len());
        for (file, job) in batch {
            let fail_attempts = if std::mem::take(&mut first) { FAILURES } else { 0 };
            let input = serde_json::json!({ "path": file, "fail_attempts": fail_attempts });
            let task = client.task(job.handler()).payload(&input)?.tag("demo").max_attempts(FAILURES + 1);
            tasks.push(task.backoff(Duration::from_millis(200), 2.0));
        }
        ids.extend(client.submit_all(tasks).await?.iter().map(|task| task.id().to_string()));
    }
    Ok(ids)
}

/// Waits until all tasks have ended.
async fn wait(submission: &mut SubmissionServiceClient<Channel>, ids: &[String], progress: &mut Progress) -> Result<(), CliError> {
    let mut open = ids.to_vec();
    let mut moved_at = Instant::now();
    loop {
        let (mut still, mut retrying) = (Vec::new(), 0);
        for batch in open.chunks(Limits::BATCH_ITEMS) {
            for (id, task) in batch.iter().zip(read(submission, batch, TaskView::Basic).await?) {
                retrying += usize::from(task.run > 1 || task.state() == TaskState::Retrying);
                if !is_terminal(task.state()) {
                    still.push(id.clone());
                }
            }
        }
        if still.len() < open.len() {
            moved_at = Instant::now();
        }
        open = still;
        progress.set(ids.len() - open.len(), retrying);
        if open.is_empty() {
            progress.end();
            return Ok(());
        }
        if moved_at.elapsed() > PATIENCE {
            progress.end();
            return Err(CliError::Timeout(format!("{} of {} tasks have not ended", open.len(), ids.len())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Reads tasks, in order.
async fn read(submission: &mut SubmissionServiceClient<Channel>, ids: &[String], view: TaskView) -> Result<Vec<Task>, CliError> {
    let request = BatchGetTasksRequest { task_ids: ids.to_vec(), view: view.into() };
    let answer = submission.batch_get_tasks(request).await?.into_inner();
    match answer.missing_task_ids.first() {
        None => Ok(answer.tasks),
        Some(id) => Err(anyhow::anyhow!("task {id} was acknowledged and is not there").into()),
    }
}

const fn is_terminal(state: TaskState) -> bool {
    match state {
        TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::Expired => true,
        TaskState::Unspecified | TaskState::Pending | TaskState::Queued | TaskState::Running | TaskState::Retrying => false,
    }
}
