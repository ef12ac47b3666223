//! The embedded system, as a library and as the demo.

#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

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

/// A system in a process of its own, killed when dropped.
struct Dev {
    process: std::process::Child,
    address: String,
}

impl Dev {
    fn start(db: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_oxcart"))
            .args(["dev", "--port", "0", "--admin-port", "0", "--db"])
            .arg(db)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let address = lines.map_while(Result::ok).find_map(|line| Some(line.trim().strip_prefix("gRPC")?.trim().to_owned()));
        Self { process, address: address.expect("an address") }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
    }
}

fn oxcart(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_oxcart")).args(args).output().expect("it runs")
}

/// What ran when the process was killed runs again at once: nobody else can be running it, so there is no lease to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_keeps_what_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("oxcart.db");
    let dev = Dev::start(&path);
    let submitted = oxcart(&["--address", &dev.address, "task", "submit", "sleep", "-p", "{\"ms\": 600000}"]);
    let id = String::from_utf8(submitted.stdout).expect("UTF-8").trim().to_owned();
    let running = || async {
        let shown = oxcart(&["--address", &dev.address, "task", "get", &id]);
        String::from_utf8_lossy(&shown.stdout).contains("RUNNING").then_some(())
    };
    oxcart_testkit::wait_for("the run", Duration::from_secs(20), running).await.expect("running");

    let refused = System::embedded(path.as_path()).start().await.err().expect("the file is in use");
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    drop(dev);

    // Less than half a lease.
    let handlers = Handlers::new().handle_fn("sleep", |_: TaskContext, _: serde_json::Value| async move { Ok("awake") });
    let mut config = oxcart::Config::default();
    config.worker.builtin.enabled = false;
    let system =
        System::embedded(path.as_path()).config(config).handlers(handlers.expect("a name")).start().await.expect("started again");
    let ended = tokio::time::timeout(Duration::from_secs(12), system.client().wait(id.parse().expect("an id"))).await;
    let task = ended.expect("in time").expect("waited");
    assert_eq!((task.state(), task.run, task.attempt), (TaskState::Succeeded, 2, 2), "{task:?}");
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

    let told = oxcart(&["demo", &dir.path().display().to_string(), "--output", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON and nothing else");
    assert_eq!((&told["files"], &told["right"], &told["handlers"][0]["retried"]), (&3.into(), &6.into(), &1.into()), "{told}");
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
    assert!(text.contains("http://127.0.0.1:1") && text.contains("oxcart dev"), "{text}");
    assert_eq!(code(&["demo", "/no/such/directory"]).0, Some(2));
    assert_eq!(code(&["demo", env!("CARGO_BIN_EXE_oxcart")]).0, Some(2));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "[worker]\nslotz = 3\n").expect("written");
    let (usage, text) = code(&["config", "check", "--config", &file.display().to_string()]);
    assert_eq!(usage, Some(2));
    assert!(text.contains("slotz"), "{text}");
}
