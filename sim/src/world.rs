//! A world: processes, what happens to them, and what must hold in the end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use oxcart_ledger::{Chain, Invariant, Observation, Report, check, check_drained, read_chains};
use oxcart_queue::EngineOptions;
use oxcart_store::{Store, StoreError, StoreOptions};
use oxcart_types::{QueueName, Run, TaskId};

use crate::{
    client::Clients,
    engine::EngineHost,
    host,
    log::{Event, Pid},
    net::Net,
    plan::{Fault, HEALS_WITHIN, Plan, Profile},
    process::{Role, Site, Up, serve},
    rng::Rng,
    shared::Shared,
    time::{Ids, ProcessClock},
};

/// Time that processes run for in one go while messages are under way: they are that far apart at most.
const FINE: Duration = Duration::from_millis(2);
/// The same while nothing is said.
const COARSE: Duration = Duration::from_millis(250);
/// Between two looks at whether all is over.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks at whether a worker has drained.
const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// A drain that takes longer than this is given up: its worker is killed.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(4);

/// What became of a world.
#[derive(Debug)]
pub struct Outcome {
    /// What the checks found.
    pub report: Report,
    /// Panics of the system's own code.
    pub panics: Vec<String>,
    /// Hash over everything that happened.
    pub hash: u64,
    /// Events that went into it.
    pub events: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Simulated time.
    pub simulated: Duration,
    /// From the end of the faults until all was over.
    pub healing: Duration,
    /// The newest events, for people.
    pub tail: Vec<String>,
}

impl Outcome {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.panics.is_empty()
    }

    /// What is wrong, a line each.
    #[must_use]
    pub fn complaint(&self) -> String {
        let violations = self.report.violations.iter().map(ToString::to_string);
        violations.chain(self.panics.iter().map(|panic| format!("panic: {panic}"))).collect::<Vec<_>>().join("\n")
    }
}

/// Something that is going to happen.
#[derive(Debug, Clone, Copy)]
enum Act {
    Fault(Fault),
    Start(Pid),
    Thaw(Pid),
    LookAtDrain(Pid, Duration),
    KeepOneMaster,
    Snapshot,
}

/// A place for a process.
struct Place {
    role: Role,
    up: Option<Up>,
    /// Stands still.
    frozen: Option<Frozen>,
    /// Its service is leaving.
    draining: bool,
    skew_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    Paused,
    Suspended(Duration),
}

/// A world under way.
struct World {
    plan: Plan,
    site: Site,
    rng: Rng,
    now: Duration,
    quantum: Duration,
    places: Vec<Place>,
    /// What is going to happen, by time; the number keeps those of one time apart.
    agenda: BTreeMap<(Duration, u64), Act>,
    numbers: u64,
    busy: Arc<AtomicUsize>,
    faults: BTreeMap<&'static str, u64>,
    /// Looks into SQL from outside of all processes.
    outside: Up,
    report: Report,
    sql_was_down: Duration,
}

/// Runs a world on this thread, which must be a new one.
///
/// # Errors
/// The world cannot be made.
pub fn run(seed: u64, profile: Profile, change: impl FnOnce(&mut Plan)) -> anyhow::Result<Outcome> {
    host::seed_thread(seed);
    let mut rng = Rng::new(seed);
    let mut plan = Plan::new(profile, &mut rng);
    change(&mut plan);
    let mut world = World::new(plan, rng)?;
    world.play()?;
    world.end()
}

impl World {
    fn new(plan: Plan, mut rng: Rng) -> anyhow::Result<Self> {
        let shared = Shared::new(rng.split());
        shared.log().keep(plan.kept);
        let net = Net::new(Arc::clone(&shared));
        let options = EngineOptions { window: plan.settings.window, ..EngineOptions::default() };
        let engine = EngineHost::new(Arc::clone(&shared), options);
        let outside = Up::boot(Duration::ZERO, 0)?;
        let store = StoreOptions { url: "sqlite::memory:".to_owned(), max_connections: 1, acquire_timeout: Duration::from_secs(5) };
        let store = outside.within(Store::connect(store)).context("a database in memory")?;
        let roles = [
            vec![Role::Submission; 2],
            vec![Role::Dispatcher; 2],
            vec![Role::Worker; plan.workers],
            vec![Role::Monitor; plan.monitors],
        ];
        let roles = roles.concat();
        let of = |role| roles.iter().enumerate().filter(move |(_, found)| **found == role).map(|(pid, _)| pid).collect();
        let site = Site {
            shared,
            net,
            engine,
            store,
            settings: plan.settings.clone(),
            submissions: of(Role::Submission),
            dispatchers: of(Role::Dispatcher),
        };
        let skew = |rng: &mut Rng| {
            let most = i64::try_from(plan.skew_ms).unwrap_or(0);
            i64::try_from(rng.range(0, 2 * plan.skew_ms)).unwrap_or(0) - most
        };
        let places = roles.into_iter().map(|role| Place { role, up: None, frozen: None, draining: false, skew_ms: skew(&mut rng) });
        let places = places.collect();
        Ok(Self {
            plan,
            site,
            rng,
            now: Duration::ZERO,
            quantum: FINE,
            places,
            agenda: BTreeMap::new(),
            numbers: 0,
            busy: Arc::default(),
            faults: BTreeMap::new(),
            outside,
            report: Report::default(),
            sql_was_down: Duration::ZERO,
        })
    }

    fn at(&mut self, when: Duration, act: Act) {
        self.numbers += 1;
        self.agenda.insert((when, self.numbers), act);
    }

    /// Load and faults, then healing.
    fn play(&mut self) -> anyhow::Result<()> {
        for pid in 0..self.places.len() {
            self.start(pid)?;
        }
        self.clients()?;
        for (when, fault) in std::mem::take(&mut self.plan.faults) {
            self.at(when, Act::Fault(fault));
        }
        self.at(SNAPSHOT_PERIOD, Act::Snapshot);
        self.site.shared.faults().rates = self.plan.rates;
        let healed_at = self.plan.healed_at;
        self.happen_until(healed_at)?;
        self.heal()?;
        while !self.is_over()? {
            if self.now > healed_at + HEALS_WITHIN {
                break;
            }
            let until = self.now + LOOK;
            self.happen_until(until)?;
        }
        Ok(())
    }

    fn clients(&mut self) -> anyhow::Result<()> {
        let pid = self.places.len();
        let up = Up::boot(self.now, 0)?;
        let channel = up.within(async { self.site.net.channel(pid, self.site.submissions.clone()) });
        let clock = ProcessClock(Arc::clone(&up.time));
        let ids = Arc::new(Ids::new(clock.clone(), self.rng.split()));
        let clients = Clients::new(Arc::clone(&self.site.shared), channel, clock, ids);
        self.busy = clients.busy();
        up.within(async { clients.start(self.plan.load, &mut self.rng) });
        self.places.push(Place { role: Role::Client, up: Some(up), frozen: None, draining: false, skew_ms: 0 });
        Ok(())
    }

    /// Lets time pass, and what is due happen.
    fn happen_until(&mut self, until: Duration) -> anyhow::Result<()> {
        while let Some((&(when, number), &act)) = self.agenda.first_key_value() {
            if when > until {
                break;
            }
            self.agenda.remove(&(when, number));
            self.advance(when);
            self.act(act)?;
        }
        self.advance(until);
        Ok(())
    }

    /// Lets all processes run until a time, none ever further ahead of another than the quantum.
    fn advance(&mut self, to: Duration) {
        while self.now < to {
            let sent = self.site.shared.sent();
            let until = to.min(self.now + self.quantum);
            let mut order: Vec<Pid> = (0..self.places.len()).collect();
            self.rng.shuffle(&mut order);
            for pid in order {
                let place = &self.places[pid];
                if let (Some(up), None) = (&place.up, place.frozen) {
                    up.run_until(until);
                }
            }
            self.now = until;
            self.site.shared.set_now(until);
            self.quantum = if self.site.shared.sent() == sent { (self.quantum * 2).min(COARSE) } else { FINE };
        }
    }

    fn start(&mut self, pid: Pid) -> anyhow::Result<()> {
        let place = &mut self.places[pid];
        if place.up.is_none() {
            let up = serve(&self.site, pid, place.role, place.skew_ms, &mut self.rng)?;
            (place.up, place.frozen, place.draining) = (Some(up), None, false);
            self.site.shared.note(Event::Fault(format!("{pid} ({:?}) starts", place.role)));
        }
        Ok(())
    }

    fn kill(&mut self, pid: Pid, silent: bool) {
        let place = &mut self.places[pid];
        let Some(up) = place.up.take() else { return };
        self.site.shared.note(Event::Fault(format!("{pid} ({:?}) dies, silently: {silent}", place.role)));
        self.site.net.gone(pid);
        self.site.shared.faults().silent = silent;
        up.kill();
        self.site.shared.faults().silent = false;
        (place.frozen, place.draining) = (None, false);
    }

    fn act(&mut self, act: Act) -> anyhow::Result<()> {
        match act {
            Act::Fault(fault) => self.fault(fault),
            Act::Start(pid) => self.start(pid)?,
            Act::Thaw(pid) => self.thaw(pid),
            Act::LookAtDrain(pid, since) => self.look_at_drain(pid, since)?,
            Act::KeepOneMaster => {
                let second = self.rng.percent(50);
                self.site.engine.heal(second);
            }
            Act::Snapshot => {
                self.site.engine.snapshot();
                self.at(self.now + SNAPSHOT_PERIOD, Act::Snapshot);
            }
        }
        Ok(())
    }

    /// A service that is up and runs.
    fn victim(&mut self, wanted: impl Fn(Role) -> bool) -> Option<Pid> {
        let running = |place: &Place| place.up.is_some() && place.frozen.is_none() && !place.draining;
        let victims: Vec<Pid> = (0..self.places.len())
            .filter(|pid| running(&self.places[*pid]) && self.places[*pid].role != Role::Client && wanted(self.places[*pid].role))
            .collect();
        (!victims.is_empty()).then(|| *self.rng.pick(&victims))
    }

    fn fault(&mut self, fault: Fault) {
        let happened = match fault {
            Fault::Kill => self.victim(|_| true).map(|pid| {
                let (silent, after) = (self.rng.percent(30), self.rng.millis(0, 20_000));
                self.kill(pid, silent);
                self.at(self.now + after, Act::Start(pid));
                "kill"
            }),
            Fault::Drain => self.victim(|role| role == Role::Worker).map(|pid| {
                self.drain(pid);
                "drain"
            }),
            Fault::Pause => self.victim(|_| true).map(|pid| {
                let time = self.rng.varied(1000, &[10_000, 100_000]);
                self.freeze(pid, Frozen::Paused, time);
                "pause"
            }),
            Fault::Suspend => self.victim(|_| true).map(|pid| {
                let time = self.rng.varied(1000, &[10_000, 100_000]);
                self.freeze(pid, Frozen::Suspended(self.now), time);
                "suspend"
            }),
            Fault::Skew => self.victim(|_| true).map(|pid| {
                let ms = i64::try_from(self.rng.below(4000)).unwrap_or(0) - 2000;
                let place = &mut self.places[pid];
                place.skew_ms = ms;
                if let Some(up) = &place.up {
                    up.time.set_skew(ms);
                }
                self.site.shared.note(Event::Fault(format!("the clock of {pid} is {ms} ms ahead")));
                "skew"
            }),
            Fault::Part => self.pair().map(|(one, other)| {
                let until = self.now + self.rng.varied(1000, &[8000, 60_000]);
                self.site.net.part(one, other, until);
                if self.rng.percent(60) {
                    self.site.net.part(other, one, until);
                }
                "partition"
            }),
            Fault::Cut => self.pair().map(|(one, other)| {
                self.site.net.cut(one, other);
                "cut"
            }),
            Fault::Wipe => {
                self.site.engine.wipe();
                Some("wipe")
            }
            Fault::RollBack => {
                let hidden = self.rng.percent(50);
                self.site.engine.roll_back(&mut self.rng, hidden);
                Some("rollback")
            }
            Fault::Split => {
                let second = vec![*self.rng.pick(&self.site.dispatchers)];
                self.site.engine.split(second);
                let after = self.rng.millis(1000, 40_000);
                self.at(self.now + after, Act::KeepOneMaster);
                Some("split")
            }
            Fault::Lie => self.lie(),
            Fault::EngineDown => {
                let until = self.now + self.rng.millis(500, 50_000);
                self.site.shared.note(Event::Fault(format!("the queue store is away until {until:?}")));
                self.site.shared.faults().engine_down = until;
                Some("engine down")
            }
            Fault::SqlDown => {
                let until = self.now + self.rng.millis(500, 50_000);
                self.site.shared.note(Event::Fault(format!("SQL is away until {until:?}")));
                self.site.shared.faults().sql_down = until;
                self.sql_was_down = until;
                Some("sql down")
            }
        };
        if let Some(name) = happened {
            *self.faults.entry(name).or_default() += 1;
        }
    }

    /// A dispatcher and somebody who talks to one, or a submission and the clients.
    fn pair(&mut self) -> Option<(Pid, Pid)> {
        let to_submission = self.rng.percent(20);
        if to_submission {
            let clients = self.places.iter().position(|place| place.role == Role::Client)?;
            return Some((clients, *self.rng.pick(&self.site.submissions)));
        }
        let talks = |role| matches!(role, Role::Submission | Role::Worker | Role::Monitor);
        let one = self.victim(talks)?;
        Some((one, *self.rng.pick(&self.site.dispatchers)))
    }

    fn freeze(&mut self, pid: Pid, how: Frozen, time: Duration) {
        self.places[pid].frozen = Some(how);
        self.site.shared.note(Event::Fault(format!("{pid} ({:?}) stands still for {time:?}: {how:?}", self.places[pid].role)));
        self.at(self.now + time, Act::Thaw(pid));
    }

    fn thaw(&mut self, pid: Pid) {
        let place = &mut self.places[pid];
        let Some(frozen) = place.frozen.take() else { return };
        let Some(up) = &place.up else { return };
        match frozen {
            Frozen::Paused => up.jump_to(self.now),
            Frozen::Suspended(since) => up.time.suspend(self.now - since),
        }
        self.site.shared.note(Event::Fault(format!("{pid} goes on")));
    }

    fn drain(&mut self, pid: Pid) {
        if let Some(up) = &self.places[pid].up {
            up.stop();
            self.places[pid].draining = true;
            self.site.shared.note(Event::Fault(format!("{pid} is asked to leave")));
            self.at(self.now + DRAIN_LOOK, Act::LookAtDrain(pid, self.now));
        }
    }

    fn look_at_drain(&mut self, pid: Pid, since: Duration) -> anyhow::Result<()> {
        let place = &self.places[pid];
        let (Some(up), true) = (&place.up, place.draining) else { return Ok(()) };
        let gives_up = self.now > since + DRAIN_PATIENCE;
        if !up.has_left() && !gives_up {
            self.at(self.now + DRAIN_LOOK, Act::LookAtDrain(pid, since));
            return Ok(());
        }
        // Without SQL nothing can be given back.
        let could_write = self.sql_was_down < since;
        if let Some(worker) = up.worker.filter(|_| up.has_left() && could_write) {
            let chains = self.chains()?;
            if let Ok(chains) = chains {
                self.report.violations.extend(check_drained(worker, &chains).violations);
            }
        }
        self.kill(pid, false);
        let after = self.rng.millis(0, 5000);
        self.at(self.now + after, Act::Start(pid));
        Ok(())
    }

    /// The queue store makes up runs.
    fn lie(&mut self) -> Option<&'static str> {
        let tasks: Vec<TaskId> = {
            let seen = self.site.shared.seen();
            let known = seen.iter().filter_map(|seen| match seen {
                Observation::Submitted { task, .. } => Some(*task),
                _ => None,
            });
            known.collect()
        };
        if tasks.is_empty() {
            return None;
        }
        for _ in 0..self.rng.range(1, 5) {
            let task = *self.rng.pick(&tasks);
            let run = Run::new(u32::try_from(self.rng.range(1, 4)).unwrap_or(1)).unwrap_or(Run::FIRST);
            let queue = QueueName::default_queue();
            self.outside.jump_to(self.now);
            self.outside.within(self.site.engine.lie(task, run, queue));
        }
        Some("lie")
    }

    /// The end of all faults: everybody is up and can reach everybody.
    fn heal(&mut self) -> anyhow::Result<()> {
        *self.site.shared.faults() = crate::shared::Faults::default();
        self.site.net.heal();
        let second = self.rng.percent(50);
        self.site.engine.heal(second);
        let agenda = std::mem::take(&mut self.agenda);
        for act in agenda.into_values() {
            match act {
                Act::Start(_) | Act::Thaw(_) => self.act(act)?,
                Act::LookAtDrain(pid, since) => self.at(self.now + DRAIN_LOOK, Act::LookAtDrain(pid, since)),
                Act::Fault(_) | Act::KeepOneMaster | Act::Snapshot => {}
            }
        }
        self.site.shared.note(Event::Fault("all is well again".to_owned()));
        Ok(())
    }

    fn chains(&self) -> anyhow::Result<Result<BTreeMap<TaskId, Chain>, StoreError>> {
        self.outside.jump_to(self.now);
        Ok(self.outside.within(read_chains(&self.site.store)))
    }

    /// Clients are done, every task has ended, and no handler is at work.
    fn is_over(&self) -> anyhow::Result<bool> {
        if self.busy.load(Ordering::Relaxed) > 0 {
            return Ok(false);
        }
        let inside = {
            let seen = self.site.shared.seen();
            let entered = seen.iter().filter(|seen| matches!(seen, Observation::Entered { .. })).count();
            let left = seen.iter().filter(|seen| matches!(seen, Observation::Left { .. })).count();
            entered - left
        };
        if inside > 0 {
            return Ok(false);
        }
        // What cannot be read is found at the end.
        Ok(self.chains()?.map_or(true, |chains| chains.values().all(|chain| chain.task.state.is_terminal())))
    }

    fn end(mut self) -> anyhow::Result<Outcome> {
        let (simulated, healing) = (self.now, self.now.saturating_sub(self.plan.healed_at));
        let chains = self.chains()?;
        let mut report = std::mem::take(&mut self.report);
        if self.busy.load(Ordering::Relaxed) > 0 {
            report.add(Invariant::I1, None, "clients still wait for answers");
        }
        match chains {
            Ok(chains) => {
                let found = check(&self.site.shared.seen(), &chains, &self.plan.expect);
                report.violations.extend(found.violations);
                report.figures = found.figures;
            }
            Err(error) => report.add(Invariant::I3, None, format!("what SQL holds cannot be read: {error}")),
        }
        let shared = Arc::clone(&self.site.shared);
        for pid in 0..self.places.len() {
            self.kill(pid, true);
        }
        let log = shared.log();
        let tail = log.newest().map(|(at, event)| format!("{:>10.3} {event}", at.as_secs_f64())).collect();
        Ok(Outcome {
            report,
            panics: host::take_panics(),
            hash: log.hash(),
            events: log.events(),
            faults: self.faults,
            simulated,
            healing,
            tail,
        })
    }
}
