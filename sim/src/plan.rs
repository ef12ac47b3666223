//! What a world is like: everything follows from its seed.

use std::time::Duration;

use oxcart_ledger::Expect;
use oxcart_worker::config::{LeaseUncertain, LinkMode};

use crate::{
    client::Load,
    handler::Manners,
    process::{Settings, Without},
    rng::Rng,
    shared::Rates,
};

/// Which faults a world has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// None: nothing may be run twice.
    Clean,
    /// Calls are lost, unanswered, doubled, slow; connections break.
    Calls,
    /// Processes are killed, drained and started again.
    Crashes,
    /// The queue store is wiped, rolled back, doubled and away; SQL is away.
    Stores,
    /// Processes are paused and suspended, clocks disagree, networks part.
    Pauses,
    /// All of it.
    Everything,
}

impl Profile {
    /// All, in the order in which seeds take them.
    pub const ALL: [Self; 6] = [Self::Everything, Self::Clean, Self::Calls, Self::Crashes, Self::Stores, Self::Pauses];

    /// The name, for the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Calls => "calls",
            Self::Crashes => "crashes",
            Self::Stores => "stores",
            Self::Pauses => "pauses",
            Self::Everything => "everything",
        }
    }

    /// The profile of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// The profile that a seed has when none is asked for. Half of the worlds have every fault.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let turn = usize::try_from(seed % 10).unwrap_or(0);
        if turn < 5 { Self::Everything } else { Self::ALL[turn - 4] }
    }
}

/// A fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A process dies at once.
    Kill,
    /// A worker is asked to leave.
    Drain,
    /// A process stands still.
    Pause,
    /// The machine of a process sleeps: its monotonic clock stands still, too.
    Suspend,
    /// A process's time of day jumps.
    Skew,
    /// Nothing passes between two processes, in one direction or both.
    Part,
    /// The connections between two processes break.
    Cut,
    /// The queue store loses everything.
    Wipe,
    /// The queue store goes back to an earlier state.
    RollBack,
    /// Two queue stores at once.
    Split,
    /// The queue store offers runs that nobody asked for.
    Lie,
    /// The queue store cannot be reached.
    EngineDown,
    /// SQL cannot be reached.
    SqlDown,
}

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which faults.
    pub profile: Profile,
    /// What clients do.
    pub load: Load,
    /// How services are set.
    pub settings: Settings,
    /// How much goes wrong with single calls while there are faults.
    pub rates: Rates,
    /// The faults that happen, and when.
    pub faults: Vec<(Duration, Fault)>,
    /// Everything is healed then.
    pub healed_at: Duration,
    /// Workers.
    pub workers: usize,
    /// Monitors.
    pub monitors: usize,
    /// Clocks disagree by up to so many milliseconds.
    pub skew_ms: u64,
    /// What may be expected.
    pub expect: Expect,
    /// Events of the log that are kept for people.
    pub kept: usize,
}

/// Until everything must be over after the end of the faults.
pub const HEALS_WITHIN: Duration = Duration::from_secs(30 * 60);

impl Plan {
    /// Of a seed.
    #[must_use]
    pub fn new(profile: Profile, rng: &mut Rng) -> Self {
        let clean = profile == Profile::Clean;
        // One slot, and tasks that are alike: then their order can be told.
        let single = clean && rng.percent(30);
        let queues: &[&str] = if single || rng.percent(50) { &["default"] } else { &["default", "other"] };
        let load = Load {
            tasks: rng.range(20, 60),
            within: rng.millis(1000, 90_000),
            cancelled: if single { 0 } else { *rng.pick(&[0, 15, 40]) },
            changed: if single { 0 } else { *rng.pick(&[0, 10, 20]) },
            replayed: if single { 0 } else { *rng.pick(&[0, 0, 10]) },
            queues,
            limits: !single,
        };
        let longest = if clean { Duration::from_secs(2) } else { *rng.pick(&[Duration::from_secs(5), Duration::from_secs(90)]) };
        let window = if single || rng.percent(50) { 1000 } else { rng.range(6, 20) };
        let settings = Settings {
            window,
            slots: if single { 1 } else { u32::try_from(rng.range(1, 6)).unwrap_or(1) },
            queues: &["default", "other"],
            manners: Manners { rough: !clean, longest },
            link: *rng.pick(&[LinkMode::Stream, LinkMode::Stream, LinkMode::Unary, LinkMode::Auto]),
            uncertain: *rng.pick(&[LeaseUncertain::Verify, LeaseUncertain::Verify, LeaseUncertain::Cancel]),
            without: Without::default(),
        };
        let healed_at = load.within + rng.millis(1000, 60_000);
        let expect = Expect { calm: clean, order: single.then(|| Duration::from_secs(5)), ..Expect::default() };
        Self {
            profile,
            load,
            settings,
            rates: rates(profile, rng),
            faults: faults(profile, healed_at, rng),
            healed_at,
            workers: if single { 1 } else { 3 },
            monitors: usize::try_from(rng.range(1, 2)).unwrap_or(1),
            skew_ms: if matches!(profile, Profile::Pauses | Profile::Everything) { *rng.pick(&[0, 300, 1500]) } else { 0 },
            expect,
            kept: 4000,
        }
    }
}

fn rates(profile: Profile, rng: &mut Rng) -> Rates {
    let (Profile::Calls | Profile::Everything) = profile else { return Rates::default() };
    let strength = *rng.pick(&[0, 1, 3, 10]);
    Rates {
        lost: 3000 * strength,
        unanswered: 3000 * strength,
        cut: 300 * strength,
        doubled: 5000 * strength,
        slow: 2000 * strength,
    }
}

fn faults(profile: Profile, until: Duration, rng: &mut Rng) -> Vec<(Duration, Fault)> {
    use Fault::{Cut, Drain, EngineDown, Kill, Lie, Part, Pause, RollBack, Skew, Split, SqlDown, Suspend, Wipe};
    let kinds: &[Fault] = match profile {
        Profile::Clean | Profile::Calls => return Vec::new(),
        Profile::Crashes => &[Kill, Kill, Kill, Drain],
        Profile::Stores => &[Wipe, RollBack, RollBack, Split, Split, Lie, EngineDown, SqlDown],
        Profile::Pauses => &[Pause, Pause, Suspend, Skew, Part, Part, Cut],
        Profile::Everything => &[
            Kill, Kill, Kill, Kill, Drain, Pause, Pause, Suspend, Skew, Part, Part, Cut, Wipe, RollBack, RollBack, Split, Lie,
            EngineDown, SqlDown,
        ],
    };
    let mut faults = Vec::new();
    let mut at = Duration::ZERO;
    let gap = *rng.pick(&[1500, 4000, 12_000]);
    loop {
        at += rng.millis(1, 2 * gap);
        if at >= until {
            return faults;
        }
        faults.push((at, *rng.pick(kinds)));
    }
}
