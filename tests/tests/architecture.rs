//! Which crate may depend on which: ARCHITECTURE.md, enforced.

#![expect(clippy::expect_used, reason = "what fails here fails a test")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Our crates and the ones of ours that each may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("oxcart-types", &[]),
    ("oxcart-proto", &["oxcart-types"]),
    ("oxcart-store", &["oxcart-types"]),
    ("oxcart-queue", &["oxcart-types"]),
    ("oxcart-service", &["oxcart-types", "oxcart-proto"]),
    ("oxcart-sdk", &["oxcart-types", "oxcart-proto"]),
    ("oxcart-testkit", &[]),
    ("oxcart-fuzz", &[]),
    ("oxcart-ledger", &["oxcart-types", "oxcart-store"]),
    ("oxcart-submission", &["oxcart-types", "oxcart-proto", "oxcart-store", "oxcart-service"]),
    ("oxcart-dispatcher", &["oxcart-types", "oxcart-proto", "oxcart-queue", "oxcart-service"]),
    ("oxcart-worker", &["oxcart-types", "oxcart-proto", "oxcart-store", "oxcart-service", "oxcart-sdk"]),
    ("oxcart-monitor", &["oxcart-types", "oxcart-proto", "oxcart-store", "oxcart-service"]),
    (
        "oxcart",
        &[
            "oxcart-types",
            "oxcart-proto",
            "oxcart-store",
            "oxcart-queue",
            "oxcart-service",
            "oxcart-sdk",
            "oxcart-submission",
            "oxcart-dispatcher",
            "oxcart-worker",
            "oxcart-monitor",
        ],
    ),
    (
        "oxcart-sim",
        &[
            "oxcart-types",
            "oxcart-proto",
            "oxcart-store",
            "oxcart-queue",
            "oxcart-service",
            "oxcart-sdk",
            "oxcart-ledger",
            "oxcart-submission",
            "oxcart-dispatcher",
            "oxcart-worker",
            "oxcart-monitor",
        ],
    ),
];

/// Crates from outside that belong to one of ours only, because they are that one's secret.
const SECRETS: &[(&str, &[&str])] = &[
    ("diesel", &["oxcart-store"]),
    ("diesel-async", &["oxcart-store"]),
    ("deadpool-redis", &["oxcart-queue"]),
    ("clap", &["oxcart"]),
];

/// Crates from outside that the pure domain must not know.
const IMPURE: &[&str] = &["tokio", "prost", "tonic", "diesel", "diesel-async", "deadpool-redis", "axum", "tracing"];

fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let members = metadata.workspace_packages();
    let normal = |package: &cargo_metadata::Package| {
        package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal).map(|d| d.name.clone()).collect()
    };
    members.into_iter().filter(|p| p.name.as_str() != "oxcart-tests").map(|p| (p.name.to_string(), normal(p))).collect()
}

#[test]
fn only_the_allowed_edges_exist() {
    let found = normal_dependencies();
    let allowed: BTreeMap<_, BTreeSet<_>> = ALLOWED.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (name, dependencies) in &found {
        let Some(may) = allowed.get(name.as_str()) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        let ours = dependencies.iter().filter(|d| found.contains_key(*d));
        wrong.extend(ours.filter(|d| !may.contains(d.as_str())).map(|d| format!("{name} must not use {d}")));
    }
    let gone = allowed.keys().filter(|name| !found.contains_key(**name));
    wrong.extend(gone.map(|name| format!("{name} is in the table and not in the workspace")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn secrets_are_kept_and_the_domain_is_pure() {
    let found = normal_dependencies();
    let mut wrong = Vec::new();
    for (name, dependencies) in &found {
        for (secret, keepers) in SECRETS {
            if dependencies.contains(*secret) && !keepers.contains(&name.as_str()) {
                wrong.push(format!("{name} must not use {secret}: it belongs to {keepers:?}"));
            }
        }
    }
    let impure = found["oxcart-types"].iter().filter(|d| IMPURE.contains(&d.as_str()));
    wrong.extend(impure.map(|d| format!("the pure domain must not use {d}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
