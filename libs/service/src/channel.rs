//! Channels to other services.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint, Uri, channel::Change};

use crate::error::ServiceError;

/// How often names are resolved again, so that replicas that come and go are found.
const RESOLVE_PERIOD: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Replicas of one service that a channel balances over; more are ignored.
const MAX_REPLICAS: usize = 256;

/// A channel to the service behind `addresses`, each `http://host:port` or `host:port`. It connects when it is first used and
/// balances over every replica that the names resolve to; names are resolved again every ten seconds.
///
/// Must be called within a runtime. Resolution stops when the last clone of the channel is dropped.
///
/// # Errors
/// When no address is given or one cannot be used.
pub fn connect(addresses: &[String]) -> Result<Channel, ServiceError> {
    let targets = addresses.iter().map(|address| Target::parse(address)).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        return Err(ServiceError::Address { address: String::new(), reason: "no address is given".to_owned() });
    }
    let (channel, changes) = Channel::balance_channel(MAX_REPLICAS);
    tokio::spawn(resolve_forever(targets, changes));
    Ok(channel)
}

/// A service by name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// Host and port as configured: what replicas see as `:authority`.
    origin: Uri,
    host: String,
    port: u16,
}

impl Target {
    fn parse(address: &str) -> Result<Self, ServiceError> {
        let refused = |reason: &str| ServiceError::Address { address: address.to_owned(), reason: reason.to_owned() };
        let full = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let origin: Uri = full.parse().map_err(|error: http::uri::InvalidUri| refused(&error.to_string()))?;
        if origin.scheme_str() != Some("http") {
            return Err(refused("only http:// is served"));
        }
        if origin.path() != "/" {
            return Err(refused("a service has no path"));
        }
        // `[::1]` is how a URI writes it, `::1` is what the resolver takes.
        let host = origin.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(refused("the host is missing"));
        }
        let port = origin.port_u16().ok_or_else(|| refused("the port is missing"))?;
        Ok(Self { origin, host, port })
    }
}

/// A replica: where it is, and the name it was found by.
type Replica = (SocketAddr, Uri);

async fn resolve_forever(targets: Vec<Target>, changes: mpsc::Sender<Change<Replica, Endpoint>>) {
    let mut known = HashSet::new();
    let mut period = tokio::time::interval(RESOLVE_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = changes.closed() => return,
        }
        let found = resolve(&targets, &known).await;
        for change in difference(&known, &found) {
            if changes.send(change).await.is_err() {
                return;
            }
        }
        known = found;
    }
}

/// Every replica of every target. A name that does not resolve right now keeps the replicas that it had: a resolver that is
/// down must not take the service down.
async fn resolve(targets: &[Target], known: &HashSet<Replica>) -> HashSet<Replica> {
    let mut found = HashSet::new();
    for target in targets {
        match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
            Ok(addresses) => found.extend(addresses.map(|address| (address, target.origin.clone()))),
            Err(error) => {
                tracing::warn!(host = target.host, %error, "cannot resolve; staying with what is known");
                found.extend(known.iter().filter(|(_, origin)| *origin == target.origin).cloned());
            }
        }
    }
    if found.len() > MAX_REPLICAS {
        tracing::warn!(found = found.len(), used = MAX_REPLICAS, "too many replicas");
        let mut ordered: Vec<_> = found.into_iter().collect();
        ordered.sort_by_key(|(address, _)| *address);
        ordered.truncate(MAX_REPLICAS);
        return ordered.into_iter().collect();
    }
    found
}

fn difference(known: &HashSet<Replica>, found: &HashSet<Replica>) -> Vec<Change<Replica, Endpoint>> {
    let added = found.difference(known).filter_map(|replica| Some(Change::Insert(replica.clone(), endpoint(replica)?)));
    let removed = known.difference(found).cloned().map(Change::Remove);
    added.chain(removed).collect()
}

fn endpoint((address, origin): &Replica) -> Option<Endpoint> {
    // An address and a port always make a URI; were it not so, the replica is left out.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(
        endpoint
            .origin(origin.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEPALIVE_INTERVAL))
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme() {
        for (address, host, port) in
            [("localhost:1", "localhost", 1), ("http://10.0.0.1:80", "10.0.0.1", 80), ("http://[::1]:9/", "::1", 9)]
        {
            let target = Target::parse(address).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{address}");
        }
    }

    #[test]
    fn other_addresses_are_refused_by_name() {
        for address in ["", "localhost", "https://a:1", "http://a:1/x", "http://:1", "a b:1", "a:99999"] {
            let error = Target::parse(address).unwrap_err();
            assert!(error.to_string().contains(&format!("{address:?}")), "{error}");
        }
        assert!(connect(&[]).is_err());
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_replicas() {
        let target = Target::parse("no-such-host.invalid:7").unwrap();
        let known = HashSet::from([(SocketAddr::from(([10, 0, 0, 1], 7)), target.origin.clone())]);
        assert_eq!(resolve(&[target], &known).await, known);
    }

    #[test]
    fn only_changes_are_announced() {
        let origin: Uri = "http://a:1".parse().unwrap();
        let replica = |last| (SocketAddr::from(([10, 0, 0, last], 1)), origin.clone());
        let changes = difference(&HashSet::from([replica(1), replica(2)]), &HashSet::from([replica(2), replica(3)]));
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Change::Insert(replica, _) => added.push(replica),
                Change::Remove(replica) => removed.push(replica),
            }
        }
        assert_eq!((added, removed), (vec![replica(3)], vec![replica(1)]));
    }
}
