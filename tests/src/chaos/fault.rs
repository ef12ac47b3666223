//! One fault: how it is done and undone.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use oxcart_testkit::Conditions;

use super::cluster::{Cluster, Node};
use crate::processes::Service;

/// Something that goes wrong. What it hits is left to chance where there are several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Killed; started again when it is undone.
    Kill(Target),
    /// Frozen, as a machine that is out of memory or whose host migrates it.
    Pause(Target),
    /// The network between some is under conditions.
    Network(Links, Conditions),
    /// The connections between some are reset.
    Reset(Links),
    /// Redis forgets everything.
    FlushRedis,
    /// The replica of Redis falls behind, and takes over with what it has when the fault is undone.
    StaleFailover,
    /// Redis has no memory left for new entries.
    FillRedis,
    /// Redis takes no writes: it misses replicas.
    RefuseRedisWrites,
    /// Redis forgets the scripts.
    ForgetScripts,
    /// Redis answers nobody for some seconds.
    BlockRedis(u32),
    /// The database takes no writes.
    ReadOnlySql,
    /// The database ends all sessions of the services.
    EndSqlSessions,
    /// The database takes next to no new sessions.
    FewSqlSessions,
    /// The clock of a worker is wrong by so many milliseconds.
    WrongClock(i64),
    /// A replica is asked to end, and is started again.
    Roll(Service),
}

/// What a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A replica of a service.
    One(Service),
    /// The database.
    Sql,
    /// Redis.
    Redis,
}

/// Which connections a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// All of them.
    All,
    /// Those of the clients.
    OfClients,
    /// Those that a replica of a service opens, and in the case of submission those that clients open to it.
    Of(Service),
    /// Those that a replica of a service opens to the database.
    ToSql(Service),
    /// Those that a dispatcher opens to Redis.
    ToRedis,
    /// Those that a replica of a service opens to the dispatchers.
    ToDispatchers(Service),
}

/// A fault that was done.
#[derive(Debug, Clone)]
pub struct Done {
    fault: Fault,
    victims: Vec<Node>,
    /// What a drained worker left open.
    pub left_open: u64,
}

impl Fault {
    /// Does it. `pick` chooses among what it can hit.
    ///
    /// # Errors
    /// It cannot be done: the test is at fault, not the system.
    pub async fn inject(self, cluster: &Cluster, pick: u64) -> Result<Done> {
        let victims = self.victims(cluster, pick);
        let mut left_open = 0;
        match self {
            Self::Kill(_) => each(&victims, |node| cluster.kill(node))?,
            Self::Pause(_) => each(&victims, |node| cluster.process(node)?.pause())?,
            Self::Network(links, conditions) => set(cluster, links, &victims, conditions),
            Self::Reset(links) => cluster.links(matching(links, &victims)).for_each(|(_, _, proxy)| proxy.reset()),
            Self::FlushRedis => cluster.redis().flush_all().await?,
            Self::StaleFailover => cluster.cut_redis_replica().await?,
            Self::FillRedis => {
                let used = cluster.redis_bytes().await?;
                cluster.redis().command(&format!("CONFIG SET maxmemory {used}")).await?;
            }
            Self::RefuseRedisWrites => drop(cluster.redis().command("CONFIG SET min-replicas-to-write 3").await?),
            Self::ForgetScripts => drop(cluster.redis().command("SCRIPT FLUSH").await?),
            Self::BlockRedis(seconds) => {
                cluster.redis().command("CONFIG SET busy-reply-threshold 0").await?;
                cluster.redis().command(&format!("DEBUG SLEEP {seconds}")).await?;
            }
            Self::ReadOnlySql => drop(cluster.sql("SET GLOBAL read_only = 1").await?),
            Self::EndSqlSessions => cluster.end_sql_sessions().await?,
            Self::FewSqlSessions => cluster.limit_sql_sessions().await?,
            Self::WrongClock(millis) => each(&victims, |node| Ok(fs::write(cluster.clock(node), millis.to_string())?))?,
            Self::Roll(_) => {
                for node in &victims {
                    left_open += cluster.drain(*node).await?;
                    cluster.restart(*node).await?;
                }
            }
        }
        Ok(Done { fault: self, victims, left_open })
    }

    fn victims(self, cluster: &Cluster, pick: u64) -> Vec<Node> {
        let one_of = |service| {
            let replicas = cluster.replicas(service);
            let index = usize::try_from(pick % replicas.len().max(1) as u64).unwrap_or_default();
            replicas.get(index).copied().into_iter().collect()
        };
        match self {
            Self::Kill(target) | Self::Pause(target) => match target {
                Target::One(service) => one_of(service),
                Target::Sql => vec![Node::Sql],
                Target::Redis => vec![Node::Redis],
            },
            Self::Network(links, _) | Self::Reset(links) => match links {
                Links::All => Vec::new(),
                Links::OfClients => vec![Node::Client],
                Links::Of(service) | Links::ToSql(service) | Links::ToDispatchers(service) => one_of(service),
                Links::ToRedis => one_of(Service::Dispatcher),
            },
            Self::WrongClock(_) => one_of(Service::Worker),
            Self::Roll(service) => one_of(service),
            Self::FlushRedis
            | Self::StaleFailover
            | Self::FillRedis
            | Self::RefuseRedisWrites
            | Self::ForgetScripts
            | Self::BlockRedis(_) => vec![Node::Redis],
            Self::ReadOnlySql | Self::EndSqlSessions | Self::FewSqlSessions => vec![Node::Sql],
        }
    }
}

impl Done {
    /// Undoes it.
    ///
    /// # Errors
    /// It cannot be undone: what was hit does not come back.
    pub async fn heal(&self, cluster: &Cluster) -> Result<()> {
        match self.fault {
            Fault::Kill(_) => {
                for node in &self.victims {
                    cluster.restart(*node).await?;
                }
            }
            Fault::Pause(_) => each(&self.victims, |node| cluster.process(node)?.resume())?,
            Fault::Network(links, _) => set(cluster, links, &self.victims, Conditions::PASS),
            Fault::StaleFailover => cluster.fail_over_redis().await?,
            Fault::FillRedis => drop(cluster.redis().command("CONFIG SET maxmemory 0").await?),
            Fault::RefuseRedisWrites => drop(cluster.redis().command("CONFIG SET min-replicas-to-write 0").await?),
            Fault::ReadOnlySql => drop(cluster.sql("SET GLOBAL read_only = 0").await?),
            Fault::FewSqlSessions => cluster.unlimit_sql_sessions().await?,
            Fault::WrongClock(_) => each(&self.victims, |node| Ok(fs::write(cluster.clock(node), "0")?))?,
            Fault::Reset(_)
            | Fault::FlushRedis
            | Fault::ForgetScripts
            | Fault::BlockRedis(_)
            | Fault::EndSqlSessions
            | Fault::Roll(_) => {}
        }
        Ok(())
    }

    /// What was done to whom, for people.
    #[must_use]
    pub fn describe(&self, lasted: Duration) -> String {
        let victims: Vec<String> = self.victims.iter().map(ToString::to_string).collect();
        format!("{:?} on {} for {lasted:.1?}", self.fault, if victims.is_empty() { "all".to_owned() } else { victims.join(", ") })
    }
}

fn each(nodes: &[Node], act: impl Fn(Node) -> Result<()>) -> Result<()> {
    nodes.iter().try_for_each(|node| act(*node).with_context(|| node.to_string()))
}

fn set(cluster: &Cluster, links: Links, victims: &[Node], conditions: Conditions) {
    cluster.links(matching(links, victims)).for_each(|(_, _, proxy)| proxy.set(conditions));
}

/// The connections that are hit when these nodes are.
fn matching(links: Links, victims: &[Node]) -> impl Fn(Node, Node) -> bool {
    move |from, to| match links {
        Links::All => true,
        Links::OfClients => from == Node::Client,
        Links::Of(_) => victims.contains(&from) || (from == Node::Client && victims.contains(&to)),
        Links::ToSql(_) => victims.contains(&from) && to == Node::Sql,
        Links::ToRedis => victims.contains(&from) && to == Node::Redis,
        Links::ToDispatchers(_) => victims.contains(&from) && matches!(to, Node::Replica(Service::Dispatcher, _)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_by_their_ends() {
        let (worker, dispatcher) = (Node::Replica(Service::Worker, 1), Node::Replica(Service::Dispatcher, 0));
        let other = Node::Replica(Service::Worker, 2);
        let victims = [worker];
        let to_sql = matching(Links::ToSql(Service::Worker), &victims);
        assert!(to_sql(worker, Node::Sql) && !to_sql(worker, dispatcher) && !to_sql(other, Node::Sql));
        let to_dispatchers = matching(Links::ToDispatchers(Service::Worker), &victims);
        assert!(to_dispatchers(worker, dispatcher) && !to_dispatchers(worker, Node::Sql));
        let submission = Node::Replica(Service::Submission, 0);
        let victims = [submission];
        let isolated = matching(Links::Of(Service::Submission), &victims);
        assert!(isolated(Node::Client, submission) && isolated(submission, Node::Sql) && !isolated(worker, Node::Sql));
    }
}
