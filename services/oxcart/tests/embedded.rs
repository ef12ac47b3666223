//! The embedded system, as a library and as the demo.

#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::{path::Path, process::Command, time::Duration};

use oxcart::{Storage, System};
use oxcart_proto::pb::common::v1::TaskState;
use oxcart_sdk::{Handlers, TaskContext};

fn handlers() -> Handlers {
    Handlers::new().handle_fn("math.add", |_: TaskContext, (a, b): (i64, i64)| async move { Ok(a + b) }).expect("a name")
}

async fn start(path: &Path) -> System {
    System::embedded(path).handlers(handlers()).start().await.expect("started")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_in_memory() {
    let system = System::embedded(Storage::InMemory).handlers(handlers()).start().await.expect("started");
    let task = system.client().task("math.add").payload(&(1, 2)).expect("JSON").submit_as::<i64>().await.expect("submitted");
    assert_eq!(task.result().await.expect("a result"), 3);
    system.stop().await.expect("stopped");
}

/// What waits when a system stops, ready or for its time, is done by the next one on the same file.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("oxcart.db");
    let system = start(&path).await;
    let client = system.client();
    let add = |a: i64| client.task("math.add").payload(&(a, 1)).expect("JSON");
    let done = add(0).submit_as::<i64>().await.expect("submitted");
    assert_eq!(done.result().await.expect("a result"), 1);
    // Nobody takes from this queue yet: the task is ready when the system stops.
    let queued = add(1).queue("later").submit().await.expect("submitted").id();
    let delayed = add(2).delay(Duration::from_secs(2)).submit().await.expect("submitted").id();
    let done = done.id();
    system.stop().await.expect("stopped");

    let mut config = oxcart::Config::default();
    config.worker.queues.insert("later".to_owned(), 1);
    let system = System::embedded(path.as_path()).handlers(handlers()).config(config).start().await.expect("started again");
    let client = system.client();
    let patience = Duration::from_secs(60);
    for id in [done, queued, delayed] {
        let task = tokio::time::timeout(patience, client.wait(id)).await.expect("in time").expect("waited");
        assert_eq!((task.state(), task.run), (TaskState::Succeeded, 1), "{task:?}");
    }
    system.stop().await.expect("stopped");
}

#[test]
fn the_demo_checks_every_result() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("below")).expect("made");
    for (name, content) in [("one.txt", "one two\nthree\n"), ("below/two.rs", "fn main() {}\n"), ("empty", "")] {
        std::fs::write(dir.path().join(name), content).expect("written");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_oxcart")).arg("demo").arg(dir.path()).output().expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("6 of 6 results are those of an independent count"), "{out}");
    assert!(out.contains("run 1 RETRY") && out.contains("run 3 SUCCEEDED"), "{out}");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let code = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_oxcart")).args(args).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (unavailable, text) = code(&["--address", "http://127.0.0.1:1", "task", "list"]);
    assert_eq!(unavailable, Some(5), "{text}");
    assert!(text.starts_with("error: "), "{text}");
    assert_eq!(code(&["task", "submit"]).0, Some(2));
    assert_eq!(code(&["demo", "/no/such/directory"]).0, Some(2));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "[worker]\nslotz = 3\n").expect("written");
    let (usage, text) = code(&["config", "check", "--config", &file.display().to_string()]);
    assert_eq!(usage, Some(2));
    assert!(text.contains("slotz"), "{text}");
}
