//! A system of several replicas whose connections all pass through proxies.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use oxcart_ledger::Observation;
use oxcart_store::{Store, StoreOptions};
use oxcart_testkit::{Conditions, FaultProxy, ManagedProcess, MariaDbServer, RedisOptions, RedisServer, wait_for};
use oxcart_types::{Clock as _, SystemClock, Timestamp};
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;
use tonic::transport::{Channel, Endpoint};

use super::record;
use crate::{
    processes::{Service, room},
    replica::{Launch, Replica},
};

/// Who the services are to the database: somebody who may not do what an administrator may, or `read_only` would not stop them.
const DATABASE_USER: &str = "service";
/// Leases of the tests: short, so that what waits for their end does not take long. All bounds keep their order.
const SHORT_LEASES: &str = r#"
[dispatcher]
claim_ttl = "4s"
lease_ttl = "6s"
heartbeat_interval = "2s"
session_timeout = "4s"
discovery_period = "2s"
outage_threshold = "2s"

[submission]
dispatcher_timeout = "2s"
horizon = "3s"

[submission.sweep]
handoff_age = "2s"
handoff_period = "1s"
agenda_period = "500ms"
feeder_period = "500ms"
watch_period = "2s"
audit_step_period = "100ms"
audit_rest = "2s"
audit_min_age = "4s"
open_run_age = "10s"

[worker]
slots = 64
queues = { default = 3, bulk = 2, mail = 1 }
drain_timeout = "2s"
abort_grace = "1s"

[monitor.recorder]
silence = "6s"
retry_after = "2s"

[server]
drain_timeout = "10s"
"#;

/// The programs that a cluster runs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `oxcart`.
    pub oxcart: PathBuf,
    /// `oxcart-chaos`, which is the worker process too.
    pub chaos: PathBuf,
}

/// How many of each, and how they are set up.
#[derive(Debug, Clone, Copy)]
pub struct Topology {
    /// Replicas of a service.
    pub replicas: fn(Service) -> usize,
    /// Redis.
    pub redis: RedisOptions,
    /// A second Redis that follows the first.
    pub replica_of_redis: bool,
    /// Entries that the engine may hold of a queue; as configured when `None`.
    pub window: Option<u64>,
}

impl Topology {
    /// Two of each service, and three workers.
    pub const USUAL: Self = Self {
        replicas: |service| if matches!(service, Service::Worker) { 3 } else { 2 },
        redis: RedisOptions { append_only: false, max_memory_mib: None },
        replica_of_redis: false,
        window: None,
    };
}

/// Somebody at one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The clients of the load.
    Client,
    /// A replica of a service.
    Replica(Service, usize),
    /// The database.
    Sql,
    /// Redis.
    Redis,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Replica(service, index) => write!(f, "{}-{index}", service.name()),
            Self::Sql => f.write_str("sql"),
            Self::Redis => f.write_str("redis"),
        }
    }
}

/// A replica, and what is particular to it.
#[derive(Debug)]
struct Member {
    node: Node,
    replica: Replica,
    /// Starts so far; names the notes of a worker process.
    starts: AtomicU32,
}

/// A process that ran handlers: its notes, and when it was killed.
#[derive(Debug, Clone)]
pub struct Notes {
    /// Where they are.
    pub path: PathBuf,
    /// When its process was killed; `None` while it lives, and when it ended in order.
    pub died: Option<Timestamp>,
}

/// A running system.
#[derive(Debug)]
pub struct Cluster {
    // The processes end before the servers, the proxies and the directory go.
    members: Vec<Member>,
    links: BTreeMap<(Node, Node), FaultProxy>,
    /// The database.
    pub mariadb: MariaDbServer,
    redis: Vec<RedisServer>,
    /// The Redis that is the master.
    master: AtomicUsize,
    database: String,
    programs: Programs,
    notes: Mutex<BTreeMap<(Node, u32), Notes>>,
    directory: TempDir,
    _room: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts servers, proxies and services, and waits until each is ready. Chance in the proxies follows from `seed`.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(programs: Programs, topology: &Topology, seed: u64) -> Result<Self> {
        let room = room().await?;
        let copies = if topology.replica_of_redis { 2 } else { 1 };
        let (mariadb, redis) =
            tokio::try_join!(MariaDbServer::start(), try_join_all((0..copies).map(|_| RedisServer::start(topology.redis))))?;
        if let [master, replica] = redis.as_slice() {
            replica.command(&format!("REPLICAOF 127.0.0.1 {}", master.port())).await?;
        }
        let admin_url = mariadb.create_database().await?;
        let database = admin_url.rsplit('/').next().context("a database name")?.to_owned();
        mariadb
            .execute(&format!(
                "CREATE USER '{DATABASE_USER}'@'%' IDENTIFIED BY '{DATABASE_USER}'; GRANT ALL ON `{database}`.* TO '{DATABASE_USER}'@'%'"
            ))
            .await?;
        let mut cluster = Self {
            members: Vec::new(),
            links: BTreeMap::new(),
            mariadb,
            redis,
            master: AtomicUsize::new(0),
            database,
            programs,
            notes: Mutex::default(),
            directory: TempDir::with_prefix("oxcart-chaos-")?,
            _room: room,
        };
        cluster.configure(topology, &admin_url)?;
        cluster.build(topology, seed).await?;
        try_join_all(cluster.members.iter().map(|member| cluster.start_member(member))).await?;
        Ok(cluster)
    }

    fn configure(&self, topology: &Topology, admin_url: &str) -> Result<()> {
        let mut settings: toml::Table = SHORT_LEASES.parse()?;
        if let Some(window) = topology.window {
            let dispatcher = settings.get_mut("dispatcher").and_then(toml::Value::as_table_mut).context("a dispatcher")?;
            dispatcher.insert("window".to_owned(), i64::try_from(window)?.into());
        }
        fs::write(self.config(), settings.to_string())?;
        let migrate = Command::new(&self.programs.oxcart)
            .args(["migrate", "up", "--config"])
            .arg(self.config())
            .env("OXCART_STORE__URL", admin_url)
            .output()?;
        ensure!(migrate.status.success(), "migrate: {}", String::from_utf8_lossy(&migrate.stderr));
        Ok(())
    }

    /// Makes replicas and the proxies between all that talk to each other.
    async fn build(&mut self, topology: &Topology, seed: u64) -> Result<()> {
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut seeds = seed;
        let (sql, redis) = (local(self.mariadb.port()), local(self.redis[0].port()));
        // The dispatcher first: the addresses of the others name it.
        for service in Service::ALL {
            for index in 0..(topology.replicas)(service) {
                let node = Node::Replica(service, index);
                let mut to = Vec::new();
                match service {
                    Service::Dispatcher => to.push((Node::Redis, redis)),
                    Service::Submission | Service::Worker | Service::Monitor => {
                        to.push((Node::Sql, sql));
                        to.extend(self.dispatchers().map(|member| (member.node, local(member.replica.grpc()))));
                    }
                }
                for (peer, address) in to {
                    seeds = seeds.wrapping_add(1);
                    self.links.insert((node, peer), FaultProxy::start(address, seeds).await?);
                }
                let launch = self.launch(node);
                let replica = Replica::new(service, launch, &self.directory.path().join(format!("{node}.log")))?;
                if service == Service::Submission {
                    seeds = seeds.wrapping_add(1);
                    self.links.insert((Node::Client, node), FaultProxy::start(local(replica.grpc()), seeds).await?);
                }
                self.members.push(Member { node, replica, starts: AtomicU32::new(0) });
            }
        }
        Ok(())
    }

    fn dispatchers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.replica.service() == Service::Dispatcher)
    }

    /// What is the same over all starts of a replica.
    fn launch(&self, node: Node) -> Launch {
        let Node::Replica(service, _) = node else { unreachable!("only replicas are launched") };
        let (program, mut args) = match service {
            Service::Worker => (&self.programs.chaos, vec!["worker".to_owned()]),
            Service::Submission | Service::Dispatcher | Service::Monitor => {
                (&self.programs.oxcart, vec!["serve".to_owned(), service.name().to_owned()])
            }
        };
        args.extend(["--config".to_owned(), self.config().display().to_string()]);
        if service == Service::Worker {
            args.extend(["--clock".to_owned(), self.clock(node).display().to_string()]);
        }
        let mut environment = Vec::new();
        let mut dispatchers = Vec::new();
        for ((_, to), proxy) in self.links.range((node, Node::Client)..=(node, Node::Redis)) {
            let address = proxy.address();
            match to {
                Node::Sql => environment.push((
                    "OXCART_STORE__URL".to_owned(),
                    format!("mysql://{DATABASE_USER}:{DATABASE_USER}@{address}/{}", self.database),
                )),
                Node::Redis => environment.push(("OXCART_REDIS__URL".to_owned(), format!("redis://{address}"))),
                Node::Replica(..) => dispatchers.push(format!("http://{address}")),
                Node::Client => {}
            }
        }
        if !dispatchers.is_empty() {
            environment.push(("OXCART_SERVER__DISPATCHER_ADDRESSES".to_owned(), dispatchers.join(",")));
        }
        Launch { program: program.clone(), args, environment }
    }

    async fn start_member(&self, member: &Member) -> Result<()> {
        let mut launch = member.replica.launch().clone();
        if member.replica.service() == Service::Worker {
            let start = member.starts.fetch_add(1, Ordering::Relaxed);
            let path = self.directory.path().join(format!("{}.{start}.notes", member.node));
            launch.args.extend(["--notes".to_owned(), path.display().to_string()]);
            self.all_notes().insert((member.node, start), Notes { path, died: None });
        }
        member.replica.start_as(&launch).await.with_context(|| member.node.to_string())
    }

    fn all_notes(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Node, u32), Notes>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The notes of all worker processes so far.
    pub fn notes(&self) -> Vec<Notes> {
        self.all_notes().values().cloned().collect()
    }

    fn died(&self, member: &Member) {
        let start = member.starts.load(Ordering::Relaxed).saturating_sub(1);
        if let Some(notes) = self.all_notes().get_mut(&(member.node, start)) {
            notes.died.get_or_insert_with(|| SystemClock.now());
        }
    }

    fn member(&self, node: Node) -> Result<&Member> {
        self.members.iter().find(|member| member.node == node).with_context(|| format!("there is no {node}"))
    }

    /// Replicas of a service.
    pub fn replicas(&self, service: Service) -> Vec<Node> {
        self.members.iter().filter(|member| member.replica.service() == service).map(|member| member.node).collect()
    }

    /// All replicas.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.members.iter().map(|member| member.node)
    }

    /// The process of a node.
    ///
    /// # Errors
    /// It has none.
    pub fn process(&self, node: Node) -> Result<&ManagedProcess> {
        match node {
            Node::Client => anyhow::bail!("the clients are no process of their own"),
            Node::Sql => Ok(self.mariadb.process()),
            Node::Redis => Ok(self.redis().process()),
            Node::Replica(..) => Ok(self.member(node)?.replica.process()),
        }
    }

    /// The Redis that is the master.
    pub fn redis(&self) -> &RedisServer {
        &self.redis[self.master.load(Ordering::Relaxed) % self.redis.len()]
    }

    /// Lets the replica of Redis fall behind: it keeps what it has and hears of nothing new. (A frozen replica would not do: it
    /// catches up from the buffers of its socket.)
    ///
    /// # Errors
    /// There is none, or it does not answer.
    pub async fn cut_redis_replica(&self) -> Result<()> {
        self.redis_replica()?.command("REPLICAOF 127.0.0.1 1").await.map(drop)
    }

    /// Kills the master and puts the replica in its place, with what it has; the old master comes back as its replica.
    ///
    /// # Errors
    /// There is no replica, or a server does not answer.
    pub async fn fail_over_redis(&self) -> Result<()> {
        let (old, new) = (self.redis(), self.redis_replica()?);
        old.process().kill()?;
        new.command("REPLICAOF NO ONE").await?;
        self.master.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], new.port()));
        self.links(|_, to| to == Node::Redis).for_each(|(_, _, proxy)| proxy.redirect(address));
        old.restart().await?;
        old.command(&format!("REPLICAOF 127.0.0.1 {}", new.port())).await.map(drop)
    }

    fn redis_replica(&self) -> Result<&RedisServer> {
        ensure!(self.redis.len() > 1, "Redis has no replica here");
        Ok(&self.redis[(self.master.load(Ordering::Relaxed) + 1) % self.redis.len()])
    }

    /// Entries that the queue engine has, in whatever place.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn entries(&self) -> Result<u64> {
        let script =
            "local n = 0 for _, k in ipairs(redis.call('KEYS', 'ox:*:[rdlq]')) do n = n + redis.call('ZCARD', k) end return n";
        Ok(self.redis().command(&format!("EVAL \"{script}\" 0")).await?.parse()?)
    }

    /// Bytes of memory that Redis uses.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn redis_bytes(&self) -> Result<u64> {
        let script = "return tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)'))";
        Ok(self.redis().command(&format!("EVAL \"{script}\" 0")).await?.parse()?)
    }

    /// Kills a node.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&self, node: Node) -> Result<()> {
        self.process(node)?.kill()?;
        if let Node::Replica(Service::Worker, _) = node {
            self.died(self.member(node)?);
        }
        Ok(())
    }

    /// Starts a node that was killed, or has ended, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&self, node: Node) -> Result<()> {
        match node {
            Node::Client => Ok(()),
            Node::Sql => self.mariadb.restart().await,
            Node::Redis => self.redis().restart().await,
            Node::Replica(..) => self.start_member(self.member(node)?).await,
        }
    }

    /// Asks a replica to end, and waits until it has. Of a worker: the runs that it left open, of which there must be none.
    ///
    /// # Errors
    /// It does not end in order.
    pub async fn drain(&self, node: Node) -> Result<u64> {
        let member = self.member(node)?;
        member.replica.terminate().await?;
        if member.replica.service() != Service::Worker {
            return Ok(0);
        }
        self.died(member);
        let start = member.starts.load(Ordering::Relaxed).saturating_sub(1);
        let path = self.all_notes().get(&(node, start)).map(|notes| notes.path.clone()).context("no notes")?;
        let Some(worker) = record::read(&path)?.into_iter().find_map(|(_, observation)| match observation {
            Observation::Entered { worker, .. } => Some(worker),
            _ => None,
        }) else {
            return Ok(0);
        };
        let open = format!(
            "SELECT COUNT(*) FROM starts LEFT JOIN ends USING (task, run) WHERE ends.run IS NULL AND starts.worker = UNHEX('{}')",
            worker.to_string().replace('-', "")
        );
        Ok(self.sql(&open).await?.trim().parse()?)
    }

    /// Replicas that have ended by themselves. Worker processes among them are noted as dead.
    pub fn fallen(&self) -> Vec<Node> {
        let fallen: Vec<&Member> = self.members.iter().filter(|member| member.replica.process().has_exited()).collect();
        fallen.iter().filter(|member| member.replica.service() == Service::Worker).for_each(|member| self.died(member));
        fallen.iter().map(|member| member.node).collect()
    }

    /// The proxies whose ends the filter takes.
    pub fn links(&self, filter: impl Fn(Node, Node) -> bool) -> impl Iterator<Item = (Node, Node, &FaultProxy)> {
        self.links.iter().filter(move |((from, to), _)| filter(*from, *to)).map(|((from, to), proxy)| (*from, *to, proxy))
    }

    /// Lets all bytes pass again.
    pub fn heal_network(&self) {
        self.links.values().for_each(|proxy| proxy.set(Conditions::PASS));
    }

    /// A channel to a submission service, as clients reach it.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn submission(&self, index: usize) -> Result<Channel> {
        let proxy = self.links.get(&(Node::Client, Node::Replica(Service::Submission, index))).context("no such submission")?;
        let connect_timeout = Duration::from_secs(2);
        let endpoint = Endpoint::from_shared(format!("http://{}", proxy.address()))?;
        Ok(endpoint.tcp_nodelay(true).connect_timeout(connect_timeout).connect_lazy())
    }

    /// The store as it is, past all proxies.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn store(&self) -> Result<Store> {
        let url = format!("mysql://oxcart:oxcart@127.0.0.1:{}/{}", self.mariadb.port(), self.database);
        let acquire_timeout = Duration::from_secs(10);
        Ok(Store::connect(StoreOptions { url, max_connections: 2, acquire_timeout }).await?)
    }

    /// Runs a query as an administrator; rows as lines, columns apart by tabs.
    ///
    /// # Errors
    /// The database does not answer, or refuses.
    pub async fn sql(&self, query: &str) -> Result<String> {
        self.mariadb.execute(&format!("USE `{}`; {query}", self.database)).await
    }

    /// Ends the connections of the services to the database.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn end_sql_sessions(&self) -> Result<()> {
        self.mariadb.execute(&format!("KILL USER '{DATABASE_USER}'@'%'")).await.map(drop)
    }

    /// Lets the database take ten sessions, and ends those that there are.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn limit_sql_sessions(&self) -> Result<()> {
        // In one session: another might find no room any more.
        self.mariadb.execute(&format!("SET GLOBAL max_connections = 10; KILL USER '{DATABASE_USER}'@'%'")).await.map(drop)
    }

    /// Lets the database take all sessions again.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn unlimit_sql_sessions(&self) -> Result<()> {
        // An administrator has one more session than others, which may be taken.
        let unlimited = wait_for("a session of the database", Duration::from_secs(30), || async {
            self.mariadb.execute("SET GLOBAL max_connections = 300").await.ok()
        });
        unlimited.await.map(drop)
    }

    /// The file that moves the clock of a worker.
    #[must_use]
    pub fn clock(&self, node: Node) -> PathBuf {
        self.directory.path().join(format!("{node}.clock"))
    }

    /// What a node has written.
    pub fn log(&self, node: Node) -> String {
        self.process(node).map(ManagedProcess::output).unwrap_or_default()
    }

    /// Keeps logs, notes and the content of the database, for whoever wants to know what went wrong.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(self.directory.path())?.flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        for (name, log) in [("mariadb", self.mariadb.process().log()), ("redis", self.redis().process().log())] {
            fs::copy(log, folder.join(format!("{name}.log")))?;
        }
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("oxcart.toml")
    }
}
