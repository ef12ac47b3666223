//! What services measure is what docs/metrics.md says, and a scraper can read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use oxcart::{Storage, System};
use oxcart_proto::pb::common::v1::{TaskSpec, TaskState};
use oxcart_tests::{
    binary::oxcart,
    client::{Clients, spec},
    exposition::{Family, Page, scrape},
    processes::{Options, Processes, Service},
};
use tonic::transport::Endpoint;

const DOCS: &str = include_str!("../../docs/metrics.md");
/// Titles of tables in the docs.
const EVERY_PROCESS: &str = "Every process";
const RECONCILERS: &str = "Reconcilers";
const DATABASE: &str = "Connections to the database";

const fn title(service: Service) -> &'static str {
    match service {
        Service::Submission => "Submission",
        Service::Dispatcher => "Dispatcher",
        Service::Worker => "Worker",
        Service::Monitor => "Monitor",
    }
}

/// A metric as the docs have it.
#[derive(Debug)]
struct Row {
    kind: String,
    /// Labels, with their values where the docs name them.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(ToOwned::to_owned)
}

/// The rows of a table: name, type, labels, unit, meaning, what to do.
fn table(title: &str) -> Result<BTreeMap<String, Row>> {
    let heading = format!("\n## {title}\n");
    let (_, rest) = DOCS.split_once(&heading).with_context(|| format!("no section {title:?}"))?;
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, unit, meaning, to_do] = cells[..] else { anyhow::bail!("not six cells: {line}") };
        ensure!(!unit.is_empty() && !meaning.is_empty() && !to_do.is_empty(), "an empty cell: {line}");
        let labels = labels.split(';').filter_map(|label| {
            let (name, values) = label.split_once(':').unwrap_or((label, ""));
            Some((quoted(name).next()?, quoted(values).collect()))
        });
        let name = quoted(name).next().context("a name")?;
        let row = Row { kind: kind.to_owned(), labels: labels.collect() };
        ensure!(rows.insert(name.clone(), row).is_none(), "{name} is there twice");
    }
    ensure!(!rows.is_empty(), "no rows in {title:?}");
    Ok(rows)
}

fn tables(titles: &[&str]) -> Result<BTreeMap<String, Row>> {
    let mut rows = BTreeMap::new();
    for title in titles {
        rows.extend(table(title)?);
    }
    Ok(rows)
}

/// Checks a metric against its row. `all`: every value that the docs name is there, too.
fn check(name: &str, row: &Row, family: &Family, all: bool) -> Result<()> {
    ensure!(family.kind == row.kind, "{name} is a {}, not a {}", family.kind, row.kind);
    let documented: BTreeSet<&str> = row.labels.keys().map(String::as_str).collect();
    ensure!(family.label_names() == documented, "{name} has the labels {:?}, not {documented:?}", family.label_names());
    for (label, values) in row.labels.iter().filter(|(_, values)| !values.is_empty()) {
        let values: BTreeSet<&str> = values.iter().map(String::as_str).collect();
        let found = family.values(label);
        let fits = if all { found == values } else { found.is_subset(&values) };
        ensure!(fits, "{name} has {label} = {found:?}; documented are {values:?}");
    }
    Ok(())
}

/// Compares a page with the tables in both directions.
fn compare(page: &Page, rows: &BTreeMap<String, Row>, all: bool) -> Result<()> {
    let (found, documented): (BTreeSet<_>, BTreeSet<_>) = (page.0.keys().collect(), rows.keys().collect());
    let missing: Vec<_> = documented.difference(&found).collect();
    let undocumented: Vec<_> = found.difference(&documented).collect();
    ensure!(missing.is_empty() && undocumented.is_empty(), "not served: {missing:?}; not documented: {undocumented:?}");
    for (name, row) in rows {
        check(name, row, &page.0[name], all)?;
    }
    Ok(())
}

/// A task that succeeds, and one that nobody takes.
async fn work(clients: &Clients) -> Result<()> {
    let done = clients.submit(spec("echo", "1")).await?;
    let task = clients.wait(&done).await?;
    ensure!(task.state() == TaskState::Succeeded, "{task:?}");
    clients.submit(TaskSpec { queue: "nobody".to_owned(), ..spec("echo", "1") }).await?;
    Ok(())
}

/// A series and its value.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

/// What tells that monitor has looked at the queues.
const LOOKED: Expected<'_> = ("oxcart_monitor_queue_tasks", &[("queue", "nobody"), ("state", "ready")], 1.0);

/// What of it is not so.
fn differing(page: &Page, expected: &[Expected<'_>]) -> Vec<String> {
    let found = expected.iter().map(|(name, labels, value)| (name, labels, value, page.value(name, labels)));
    let differing = found.filter(|(.., value, found)| *found != Some(**value));
    differing.map(|(name, labels, value, found)| format!("{name} {labels:?} is {found:?}, not {value}")).collect()
}

/// Scrapes until the page has these values: services tell each other a little later than they tell clients.
async fn settled(clients: &Clients, admin: SocketAddr, expected: &[Expected<'_>]) -> Result<Page> {
    let look = || async {
        let page = scrape(admin).await?;
        Ok(differing(&page, expected).is_empty().then_some(page))
    };
    match clients.poll("the values of metrics", look).await {
        Ok(page) => Ok(page),
        Err(error) => Err(error.context(differing(&scrape(admin).await?, expected).join("; "))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_mode_measures_what_the_docs_say() -> Result<()> {
    let mut config = oxcart::Config::default();
    config.monitor.queue_metrics.period = Duration::from_millis(50);
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let system = System::embedded(Storage::InMemory).config(config).admin(free).start().await?;
    let channel = Endpoint::from_shared(format!("http://{}", system.addresses().grpc))?.tcp_nodelay(true).connect_lazy();
    let clients = Clients::new(channel.clone(), channel);
    work(&clients).await?;
    // What was done is what is counted.
    let expected: [Expected<'_>; 17] = [
        LOOKED,
        ("oxcart_submission_committed_tasks_total", &[], 2.0),
        ("oxcart_submission_handoffs_total", &[("outcome", "taken")], 2.0),
        ("oxcart_submission_commit_seconds", &[], 2.0),
        ("oxcart_dispatcher_enqueues_total", &[("status", "created")], 2.0),
        ("oxcart_dispatcher_grants_total", &[], 1.0),
        ("oxcart_dispatcher_settles_total", &[("outcome", "done")], 1.0),
        ("oxcart_dispatcher_redeliveries_total", &[], 0.0),
        ("oxcart_dispatcher_sessions", &[], 1.0),
        ("oxcart_worker_runs_started_total", &[], 1.0),
        ("oxcart_worker_runs_succeeded_total", &[], 1.0),
        ("oxcart_worker_start_delay_seconds", &[], 1.0),
        ("oxcart_worker_run_seconds", &[], 1.0),
        ("oxcart_worker_slots", &[], 256.0),
        ("oxcart_monitor_queue_tasks", &[("queue", "default"), ("state", "ready")], 0.0),
        ("oxcart_monitor_queue_workers", &[("queue", "nobody")], 0.0),
        ("oxcart_store_pool_size", &[("pool", "all")], 1.0),
    ];
    let page = settled(&clients, system.addresses().admin.context("an admin port")?, &expected).await?;
    let titles: Vec<&str> = Service::ALL.map(title).into_iter().chain([EVERY_PROCESS, RECONCILERS, DATABASE]).collect();
    compare(&page, &tables(&titles)?, true)?;
    Ok(system.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_four_processes_measures_what_the_docs_say() -> Result<()> {
    let extra = "[monitor.queue_metrics]\nperiod = \"50ms\"\n".to_owned();
    let system = Processes::start(Options { extra, ..Options::default() }).await?;
    let clients = system.clients()?;
    work(&clients).await?;
    for service in Service::ALL {
        // Calls are counted from the first on, and nobody else may have called this one.
        let healthy = Command::new(oxcart()).args(["healthcheck", "--address", &system.address(service)?]).status()?;
        ensure!(healthy.success(), "{service:?}");
    }
    let monitor = settled(&clients, system.admin(Service::Monitor)?, &[LOOKED]).await?;
    for service in Service::ALL {
        let page = if service == Service::Monitor { monitor.clone() } else { scrape(system.admin(service)?).await? };
        let mut titles = vec![EVERY_PROCESS, title(service)];
        titles.extend((service != Service::Worker).then_some(RECONCILERS));
        titles.extend((service != Service::Dispatcher).then_some(DATABASE));
        compare(&page, &tables(&titles)?, false).with_context(|| format!("{service:?}"))?;
    }
    Ok(())
}
