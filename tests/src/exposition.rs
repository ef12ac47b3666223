//! Reading `/metrics` as a scraper does: the OpenMetrics text format, and its rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// A metric with all its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The series: of a histogram its counts.
    pub series: Vec<(Labels, f64)>,
}

impl Family {
    /// Names of the labels.
    pub fn label_names(&self) -> BTreeSet<&str> {
        self.series.iter().flat_map(|(labels, _)| labels.keys().map(String::as_str)).collect()
    }

    /// The values that a label has.
    pub fn values(&self, label: &str) -> BTreeSet<&str> {
        self.series.iter().filter_map(|(labels, _)| labels.get(label).map(String::as_str)).collect()
    }
}

/// A page of metrics, by the names that people type: those of counters end in `_total`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page(pub BTreeMap<String, Family>);

impl Page {
    /// The value of the one series with these labels among others.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |series: &Labels| labels.iter().all(|(name, value)| series.get(*name).is_some_and(|found| found == value));
        let mut found = self.0.get(name)?.series.iter().filter(|(series, _)| fits(series));
        let value = found.next()?.1;
        found.next().is_none().then_some(value)
    }
}

/// Fetches and reads the metrics of a process.
pub async fn scrape(admin: SocketAddr) -> Result<Page> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer with a body")?;
    ensure!(head.contains(" 200 OK") && head.contains("application/openmetrics-text"), "{head}");
    parse(body)
}

/// Reads a page, and refuses what a scraper would refuse or misread.
pub fn parse(text: &str) -> Result<Page> {
    let body = text.strip_suffix("# EOF\n").context("a page ends with # EOF")?;
    let mut page = Page::default();
    let mut open = None::<Reading>;
    for line in body.lines() {
        let step = || format!("in line {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').with_context(step)?;
            ensure!(!help.is_empty(), "no help {}", step());
            if let Some(done) = open.replace(Reading::new(name)) {
                done.close(&mut page)?;
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').with_context(step)?;
            let reading = open.as_mut().filter(|open| open.name == name && open.kind.is_empty());
            kind.clone_into(&mut reading.with_context(|| format!("a type without a help before it {}", step()))?.kind);
        } else if !line.starts_with("# UNIT ") {
            open.as_mut().context("a sample of a metric").and_then(|open| open.take(line)).with_context(step)?;
        }
    }
    if let Some(done) = open {
        done.close(&mut page)?;
    }
    Ok(page)
}

/// A metric while its lines are read.
struct Reading {
    name: String,
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

impl Reading {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), kind: String::new(), samples: Vec::new() }
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let (series, value) = line.rsplit_once(' ').context("a value")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, read_labels(labels)?),
            None => (series, Labels::new()),
        };
        let suffix = name.strip_prefix(&self.name).with_context(|| format!("a sample of {}", self.name))?;
        let value: f64 = value.parse()?;
        ensure!(!self.samples.iter().any(|(s, l, _)| s == suffix && *l == labels), "the series is there twice");
        self.samples.push((suffix.to_owned(), labels, value));
        Ok(())
    }

    /// Checks the metric as a whole.
    fn close(self, page: &mut Page) -> Result<()> {
        let (name, kind) = (self.name.clone(), self.kind.clone());
        let closed = match kind.as_str() {
            "counter" => self.plain("_total", |value| value.is_finite() && value >= 0.0),
            "gauge" => self.plain("", f64::is_finite),
            "histogram" => self.histogram(),
            other => bail!("{name} is of the type {other:?}"),
        };
        let series = closed.with_context(|| format!("{kind} {name}"))?;
        let exposed = if kind == "counter" { format!("{name}_total") } else { name };
        let family = Family { kind, series };
        let same = family.series.iter().all(|(labels, _)| labels.keys().map(String::as_str).eq(family.label_names()));
        ensure!(same, "the series of {exposed} differ in their labels");
        ensure!(page.0.insert(exposed.clone(), family).is_none(), "{exposed} is there twice");
        Ok(())
    }

    fn plain(self, suffix: &str, good: impl Fn(f64) -> bool) -> Result<Vec<(Labels, f64)>> {
        ensure!(!self.samples.is_empty(), "no series");
        ensure!(!self.name.ends_with("_total"), "its name without _total ends in _total");
        let samples = self.samples.into_iter().map(|(found, labels, value)| {
            ensure!(found == suffix, "a sample ends in {found:?}");
            ensure!(good(value), "a value is {value}");
            Ok((labels, value))
        });
        samples.collect()
    }

    fn histogram(self) -> Result<Vec<(Labels, f64)>> {
        let mut buckets = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
        let (mut counts, mut sums) = (BTreeMap::new(), BTreeMap::new());
        for (suffix, mut labels, value) in self.samples {
            match suffix.as_str() {
                "_bucket" => {
                    let bound = labels.remove("le").context("a bucket without le")?.parse()?;
                    buckets.entry(labels).or_default().push((bound, value));
                }
                "_count" => drop(counts.insert(labels, value)),
                "_sum" => drop(sums.insert(labels, value)),
                other => bail!("a sample ends in {other:?}"),
            }
        }
        ensure!(!buckets.is_empty(), "no buckets");
        ensure!(buckets.keys().eq(counts.keys()) && buckets.keys().eq(sums.keys()), "buckets, sums and counts do not match");
        for (labels, buckets) in &buckets {
            ensure!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0), "bounds do not grow: {buckets:?}");
            ensure!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "buckets are not cumulative: {buckets:?}");
            let last = buckets.last().filter(|(bound, _)| *bound == f64::INFINITY).context("no bucket +Inf")?;
            ensure!(counts.get(labels) == Some(&last.1), "the bucket +Inf is not the count");
        }
        Ok(counts.into_iter().collect())
    }
}

/// Reads `name="value",…}`.
fn read_labels(mut text: &str) -> Result<Labels> {
    let mut labels = Labels::new();
    loop {
        let (name, rest) = text.split_once("=\"").context("a label")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        ensure!(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_name), "{name:?} is no name of a label");
        let mut value = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next().context("the end of a value")? {
                '"' => break,
                '\\' => value.push(match chars.next() {
                    Some('n') => '\n',
                    Some(c @ ('"' | '\\')) => c,
                    other => bail!("the escape {other:?}"),
                }),
                c => value.push(c),
            }
        }
        ensure!(labels.insert(name.to_owned(), value).is_none(), "the label {name} is there twice");
        text = match chars.as_str().strip_prefix(',') {
            Some(more) => more,
            None if chars.as_str() == "}" => return Ok(labels),
            None => bail!("{:?} after a label", chars.as_str()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a Help.\n# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"a\\\"b\"} 3\n# HELP h Help.\n# TYPE h histogram\n\
        h_sum 1.5\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn a_good_page_is_read() {
        let page = parse(GOOD).expect("a good page");
        assert_eq!(page.0.keys().collect::<Vec<_>>(), ["a_total", "h"]);
        assert_eq!((page.value("a_total", &[("x", "a\"b")]), page.value("h", &[])), (Some(3.0), Some(2.0)));
        assert_eq!(page.value("a_total", &[]), None, "two series fit");
    }

    #[test]
    fn every_rule_is_kept() {
        for (from, to, rule) in [
            ("# EOF\n", "", "ends with # EOF"),
            ("# HELP a Help.\n", "", "without a help"),
            ("# TYPE a counter\n", "", "is of the type"),
            ("a_total{x=\"1\"} 2", "a{x=\"1\"} 2", "ends in \"\""),
            ("a_total{x=\"1\"} 2", "b_total 2", "a sample of a"),
            ("{x=\"1\"} 2", "{x=\"a\\\"b\"} 2", "there twice"),
            ("{x=\"1\"} 2", "{x=\"1\"} -2", "a value is -2"),
            ("{x=\"1\"} 2", "{y=\"1\"} 2", "differ in their labels"),
            ("{x=\"1\"} 2", "{x=\"1\",x=\"2\"} 2", "label x is there twice"),
            ("# HELP h", "# HELP a", "without a help"),
            ("h_bucket{le=\"+Inf\"} 2\n", "", "no bucket +Inf"),
            ("h_bucket{le=\"+Inf\"} 2", "h_bucket{le=\"+Inf\"} 3", "not the count"),
            ("h_bucket{le=\"1.0\"} 1", "h_bucket{le=\"1.0\"} 7", "not cumulative"),
            ("h_sum 1.5\n", "", "do not match"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = format!("{:#}", parse(&GOOD.replacen(from, to, 1)).expect_err(rule));
            assert!(error.contains(rule), "{rule}: {error}");
        }
    }
}
