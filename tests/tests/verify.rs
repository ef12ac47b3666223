//! `oxcart verify`: what is damaged by hand is named, and brought in order.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use oxcart::{Storage, System};
use oxcart_proto::pb::{
    common::v1::{TaskSpec, TaskState},
    dispatcher::v1::{
        EnqueueItem, EnqueueTasksRequest, EntryKey, RemoveTasksRequest, dispatcher_service_client::DispatcherServiceClient,
    },
    submission::v1::{
        Disagreement, DisagreementKind as Kind, VerifyQueuesRequest, VerifySummary, verify_queues_response::Message,
        verify_service_client::VerifyServiceClient,
    },
};
use oxcart_tests::{
    binary::oxcart,
    client::{Clients, spec},
    processes::{Options, Processes, Service},
};
use tonic::{Code, transport::Channel};

/// Far in the future, in ms.
const FAR: &str = "99999999999999";

/// The sweepers that would heal what the test damages, before it looks, rest meanwhile.
const RESTING: &str = "[submission.sweep]\naudit_rest = \"1h\"\nreverse_audit_rest = \"1h\"\n";

/// Bytes of an id, and more, as redis takes them on a line.
fn bytes(id: &str, rest: &[u8]) -> String {
    let hex: String = id.chars().filter(|c| *c != '-').collect();
    let id: String = hex.as_bytes().chunks(2).map(|pair| format!("\\x{}", String::from_utf8_lossy(pair))).collect();
    let rest: String = rest.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{id}{rest}\"")
}

/// Priority 4 is band 5; no fairness key.
const PLAIN: [u8; 5] = [5, 0, 0, 0, 0];

/// The entry of a task of the default priority.
fn member(id: &str) -> String {
    bytes(id, &PLAIN)
}

/// The record of a lease of run 1, with a token that nobody has.
fn record() -> String {
    let all = [PLAIN.as_slice(), &[0, 0, 0, 1], &[1], &[0xee; 16]].concat();
    bytes("", &all)
}

/// What the command says: its exit code and its JSON.
fn verify(system: &Processes, arguments: &[&str]) -> Result<(i32, serde_json::Value)> {
    let mut command = Command::new(oxcart());
    command.args(["verify", "--settle", "1s", "--output", "json", "--address", &system.address(Service::Submission)?]);
    let output = command.args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = serde_json::from_str(&text).with_context(|| format!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code().context("an exit code")?, told))
}

/// Kinds by task.
fn kinds(told: &serde_json::Value) -> BTreeMap<String, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let list = told["disagreements"].as_array().cloned().unwrap_or_default();
    list.iter().map(|one| (text(&one["taskId"]), text(&one["kind"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_redis_is_named_and_repaired() -> Result<()> {
    let system = Processes::start(Options { extra: RESTING.to_owned(), ..Options::default() }).await?;
    let clients = system.clients()?;
    // Nobody takes them, so that they stay where they are put.
    system.kill(Service::Worker)?;
    let ids = clients.submit_all((0..6).map(|_| spec("echo", "1")).collect()).await?;
    let [whole, lost, stale, half, twice, ended] = ids.clone().try_into().map_err(|_| anyhow::anyhow!("six ids"))?;
    for id in &ids {
        clients.wait_for_state(id, TaskState::Queued).await?;
    }
    clients.cancel(&ended).await?;
    let (code, told) = verify(&system, &[])?;
    ensure!(code == 0 && kinds(&told).is_empty(), "nothing is wrong yet: {told}");

    let stranger = "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f";
    let key = |name: char| format!("ox:{{oxcart:default:0}}:{name}");
    let (ready, delayed, leases, records) = (key('r'), key('d'), key('l'), key('h'));
    for line in [
        // A record deleted.
        format!("ZREM {ready} {}", member(&lost)),
        // A stale lease added: nobody would ever get the task back.
        format!("ZREM {ready} {}", member(&stale)),
        format!("ZADD {leases} {FAR} {}", bytes(&stale, &[])),
        format!("HSET {records} {} {}", bytes(&stale, &[]), record()),
        // A record that no lease ends.
        format!("ZREM {ready} {}", member(&half)),
        format!("HSET {records} {} {}", bytes(&half, &[]), record()),
        // An entry in two places, one of a task that has ended, and a lease of a task that never was.
        format!("ZADD {delayed} {FAR} {}", member(&twice)),
        format!("ZADD {ready} 1 {}", member(&ended)),
        format!("ZADD {leases} {FAR} {}", bytes(stranger, &[])),
    ] {
        let changed = system.redis.command(&line).await?;
        ensure!(changed == "1", "{line}: {changed}");
    }

    let expected: BTreeMap<String, String> = [
        (&lost, "TASK_MISSING"),
        (&stale, "LEASE_TOO_LONG"),
        (&half, "RECORD_WITHOUT_LEASE"),
        (&twice, "ENTRY_IN_TWO_PLACES"),
        (&ended, "ENTRY_OF_FINISHED_TASK"),
        (&stranger.to_owned(), "LEASE_WITHOUT_RECORD"),
    ]
    .into_iter()
    .map(|(id, kind)| (id.clone(), format!("DISAGREEMENT_KIND_{kind}")))
    .collect();
    let (code, told) = verify(&system, &[])?;
    ensure!(code == 1 && kinds(&told) == expected, "a look changes nothing and names all of it: {told}");
    let (code, told) = verify(&system, &["--repair"])?;
    ensure!(code == 0 && kinds(&told) == expected, "{told}");
    ensure!(told["summary"]["repairedCount"] == "6", "{told}");
    let (code, told) = verify(&system, &["--repair"])?;
    ensure!(code == 0 && kinds(&told).is_empty(), "a second repair finds nothing to do: {told}");

    system.restart(Service::Worker).await?;
    let open: Vec<_> = [whole, lost, stale, half, twice].into();
    let done = clients.wait_all(&open).await?;
    ensure!(done.get(&TaskState::Succeeded) == Some(&open.len()), "{done:?}");
    for id in &open {
        let task = clients.get(id).await?;
        ensure!(task.attempt == 1, "no attempt was used up by the repair: {task:?}");
    }
    let (code, told) = verify(&system, &["--full"])?;
    ensure!(code == 0 && kinds(&told).is_empty(), "{told}");
    Ok(())
}

async fn ask(channel: Channel, repair: bool) -> Result<(Vec<Disagreement>, VerifySummary)> {
    let settle = Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
    let request = VerifyQueuesRequest { repair, settle, full: false };
    let mut answers = VerifyServiceClient::new(channel).verify_queues(request).await?.into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await? {
        match answer.message.context("a message")? {
            Message::Disagreement(one) => found.push(one),
            Message::Summary(summary) => return Ok((found, summary)),
        }
    }
    anyhow::bail!("no summary came")
}

/// In memory an entry cannot be damaged, but it can be missing, or be one too many.
#[tokio::test(flavor = "multi_thread")]
async fn what_memory_and_sql_do_not_agree_on_is_named_and_repaired() -> Result<()> {
    let mut config = oxcart::Config::default();
    config.submission.sweep.audit_rest = std::time::Duration::from_secs(3600);
    config.submission.sweep.reverse_audit_rest = config.submission.sweep.audit_rest;
    let system = System::embedded(Storage::InMemory).config(config).start().await?;
    let channel = system.channel();
    let clients = Clients::new(channel.clone(), channel.clone());
    let waiting = || TaskSpec { queue: "nobody".to_owned(), ..spec("echo", "1") };
    let (whole, lost) = (clients.submit(waiting()).await?, clients.submit(waiting()).await?);
    for id in [&whole, &lost] {
        clients.wait_for_state(id, TaskState::Queued).await?;
    }
    let (found, summary) = ask(channel.clone(), false).await?;
    ensure!(found.is_empty() && summary.entry_count == 2 && summary.open_task_count == 2, "{found:?} {summary:?}");

    let stranger = "0190f3c5-7b1e-7cc3-98c4-dc0c0c07398f".to_owned();
    let key = |id: &String| EntryKey { task_id: id.clone(), run: 1, queue: "nobody".to_owned(), priority: 4, ..Default::default() };
    let mut dispatcher = DispatcherServiceClient::new(channel.clone());
    dispatcher.remove_tasks(RemoveTasksRequest { keys: vec![key(&lost)], ..Default::default() }).await?;
    dispatcher.enqueue_tasks(EnqueueTasksRequest { items: vec![EnqueueItem { key: Some(key(&stranger)), delay: None }] }).await?;

    let kinds = |found: &[Disagreement]| found.iter().map(|one| (one.task_id.clone(), one.kind())).collect::<Vec<_>>();
    let expected = vec![(lost.clone(), Kind::TaskMissing), (stranger, Kind::EntryOfUnknownTask)];
    let (found, _) = ask(channel.clone(), false).await?;
    ensure!(kinds(&found) == expected && found.iter().all(|one| one.repair.is_empty()), "{found:?}");
    let (found, summary) = ask(channel.clone(), true).await?;
    ensure!(kinds(&found) == expected && summary.repaired_count == 2, "{found:?} {summary:?}");
    ensure!(found.iter().all(|one| !one.repair.is_empty() && !one.repair_failed), "{found:?}");
    let (found, summary) = ask(channel.clone(), true).await?;
    ensure!(found.is_empty() && summary.entry_count == 2, "{found:?} {summary:?}");

    let bad = VerifyQueuesRequest { settle: Some(prost_types::Duration { seconds: 3600, nanos: 0 }), ..Default::default() };
    let refused = VerifyServiceClient::new(channel).verify_queues(bad).await.expect_err("over the limit");
    ensure!(refused.code() == Code::InvalidArgument && refused.message().contains("settle"), "{refused:?}");
    Ok(system.stop().await?)
}
