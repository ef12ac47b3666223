//! The configuration as a whole: what is unknown is refused, what is secret is hidden, what is there is read.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("oxcart.toml");
    fs::write(&file, text).expect("written");
    Config::load(Some(&file))
}

/// The paths of all values, joined by dots.
fn leaves(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaves(&format!("{prefix}.{name}"), value, found);
            }
        }
        _ => {
            found.insert(prefix.trim_start_matches('.').to_owned());
        }
    }
}

fn all_leaves(config: &Config) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves("", &serde_json::to_value(config).expect("JSON"), &mut found);
    found
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for (text, name) in [
        ("[stor]\nurl = \"x\"\n", "stor"),
        ("[store]\nurll = \"x\"\n", "urll"),
        ("[worker]\nslotz = 1\n", "slotz"),
        ("[monitor.recorder]\nsilent = \"1s\"\n", "silent"),
        ("[server.worker]\ngrpc = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\nport = 3\n", "port"),
    ] {
        let error = load_text(text).expect_err(text).to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn secrets_are_hidden() {
    let config = load_text("[store]\nurl = \"mysql://u:hunter2@db/x\"\n[redis]\nurl = \"redis://:hunter2@r/0\"\n[monitor]\npage_token_key = \"hunter2\"\n")
        .expect("a configuration");
    assert_eq!(config.store.options().url, "mysql://u:hunter2@db/x");
    let shown =
        toml::to_string_pretty(&config).expect("TOML") + &format!("{config:?}") + &serde_json::to_string(&config).expect("JSON");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let check = |text: &str| load_text(text).expect("a configuration").check();
    assert_eq!(check(""), Ok(()));
    for (text, name) in [
        ("[monitor.recorder]\nsilence = \"5s\"\n", "monitor.recorder.silence"),
        ("[server]\ndispatcher_addresses = []\n", "server.dispatcher_addresses"),
        ("[worker]\nslots = 0\n", "worker.slots"),
        ("[monitor]\nmax_watchers = 5000\n", "monitor.max_watchers"),
        ("[dispatcher]\nheartbeat_interval = \"20s\"\n", "dispatcher.heartbeat_interval"),
        ("[store]\nurl = \"postgres://u:hunter2@h/db\"\n", "store.url"),
        ("[redis]\nurl = \"http://:hunter2@h\"\n", "redis.url"),
        ("[submission]\ncommit_lanes = 0\n", "submission.commit_lanes"),
        ("[dispatcher]\nmax_sessions = 0\n", "dispatcher.max_sessions"),
    ] {
        let error = check(text).expect_err(text);
        assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
    }
}

/// The example names every value with its default, so that it cannot grow old.
#[test]
fn the_example_is_the_defaults() {
    let file = Path::new(ROOT).join("oxcart.example.toml");
    let config = Config::load(Some(&file)).expect("the example");
    let defaults = Config::default();
    assert_eq!(serde_json::to_value(&config).expect("JSON"), serde_json::to_value(&defaults).expect("JSON"));
    assert_eq!(config.store.url, defaults.store.url);
    assert_eq!(config.redis.url, defaults.redis.url);

    let text = fs::read_to_string(&file).expect("the example");
    let named: toml::Table = text.parse().expect("TOML");
    let mut found = BTreeSet::new();
    leaves("", &serde_json::to_value(named).expect("JSON"), &mut found);
    // What is unset by default stands there as a comment.
    let missing: Vec<_> = all_leaves(&defaults)
        .into_iter()
        .filter(|path| !found.contains(path) && !text.contains(&format!("# {} =", path.rsplit('.').next().unwrap_or(path))))
        .collect();
    assert!(missing.is_empty(), "missing in oxcart.example.toml: {missing:?}");
}

/// A setting that nobody reads is a lie: every one must be used somewhere in the sources.
#[test]
fn every_field_is_read() {
    let mut sources = String::new();
    for folder in ["services", "libs"] {
        collect(&Path::new(ROOT).join(folder), &mut sources);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let read = |name: &str| {
        let access = format!(".{name}");
        sources.match_indices(&access).any(|(at, _)| !sources[at + access.len()..].starts_with(is_word))
    };
    let unread: Vec<_> = all_leaves(&Config::default())
        .into_iter()
        // The keys of maps are data.
        .filter(|path| !path.starts_with("worker.queues.") && !path.starts_with("worker.labels."))
        .filter(|path| !path.rsplit('.').next().is_some_and(read))
        .collect();
    assert!(unread.is_empty(), "nobody reads {unread:?}");
}

fn collect(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}
