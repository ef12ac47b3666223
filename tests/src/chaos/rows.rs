//! The table of faults: what goes wrong, under which load, and what must be seen for the row to have proven anything.

use std::time::Duration;

use oxcart_testkit::{Conditions, RedisOptions};

use super::{
    cluster::Topology,
    fault::{Fault, Links, Target},
    load::Mix,
    report::Outcome,
};
use crate::processes::Service;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name, as docs/chaos.md has it.
    pub id: &'static str,
    /// What goes wrong.
    pub title: &'static str,
    /// The system.
    pub topology: Topology,
    /// The load.
    pub load: Load,
    /// What goes wrong, one after the other, each chosen by chance.
    pub faults: &'static [Fault],
    /// Calm before each fault: at least and at most.
    pub calm: (Duration, Duration),
    /// How long each lasts: at least and at most.
    pub lasts: (Duration, Duration),
    /// Processes that end by themselves are started again, as a supervisor does; elsewhere none may.
    pub supervised: bool,
    /// What must have happened for the row to have proven anything.
    pub shows: &'static [Shows],
}

/// How much work, and of which kind.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Tasks in a second.
    pub per_second: u32,
    /// What they are like.
    pub mix: Mix,
}

/// Something that a row must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// No fault: nothing runs twice.
    Calm,
    /// Runs ended LOST: their workers were gone.
    Lost,
    /// Results of handlers were dropped: somebody else's end stood.
    Fenced,
    /// Clients tried again.
    Retries,
    /// Cancels were acknowledged.
    Cancels,
    /// Processes ended by themselves.
    Fallen,
    /// Holders kept their leases: next to nothing runs twice.
    FewOverlaps,
    /// Nothing runs twice.
    NoOverlaps,
}

impl Shows {
    /// Whether it is seen.
    #[must_use]
    pub fn holds(self, outcome: &Outcome) -> bool {
        match self {
            Self::Calm => outcome.overlaps.count == 0 && outcome.lost == 0,
            Self::Lost => outcome.lost > 0,
            Self::Fenced => outcome.fenced > 0,
            Self::Retries => outcome.retries > 0,
            Self::Cancels => outcome.cancels_acknowledged > 0,
            Self::Fallen => outcome.fallen > 0,
            Self::FewOverlaps => outcome.overlaps.count * 100 <= outcome.starts,
            Self::NoOverlaps => outcome.overlaps.count == 0,
        }
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const STEADY: Load = Load { per_second: 150, mix: Mix::USUAL };
const LONG: Load = Load { per_second: 60, mix: Mix::LONG };

/// What most rows have in common.
const USUAL: Row = Row {
    id: "",
    title: "",
    topology: Topology::USUAL,
    load: STEADY,
    faults: &[],
    calm: (ms(500), ms(3000)),
    lasts: (ms(200), ms(1500)),
    supervised: false,
    shows: &[],
};

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        id: "C0",
        title: "nothing goes wrong",
        load: Load { mix: Mix { released: 0, ..Mix::USUAL }, ..STEADY },
        shows: &[Shows::Calm, Shows::Cancels],
        ..USUAL
    },
    Row {
        id: "K1",
        title: "submission killed",
        faults: &[Fault::Kill(Target::One(Service::Submission))],
        shows: &[Shows::Retries],
        ..USUAL
    },
    Row {
        id: "K2",
        title: "worker killed",
        load: LONG,
        faults: &[Fault::Kill(Target::One(Service::Worker))],
        calm: (ms(1000), ms(4000)),
        shows: &[Shows::Lost],
        ..USUAL
    },
    Row {
        id: "K3",
        title: "dispatcher killed",
        load: LONG,
        faults: &[Fault::Kill(Target::One(Service::Dispatcher))],
        calm: (ms(1000), ms(4000)),
        shows: &[Shows::FewOverlaps],
        ..USUAL
    },
    Row {
        id: "K5",
        title: "MariaDB killed",
        faults: &[Fault::Kill(Target::Sql)],
        calm: (ms(3000), ms(8000)),
        shows: &[Shows::Retries],
        ..USUAL
    },
    Row {
        id: "K4",
        title: "Redis killed, comes back empty",
        load: LONG,
        faults: &[Fault::Kill(Target::Redis)],
        calm: (ms(4000), ms(8000)),
        shows: &[Shows::FewOverlaps],
        ..USUAL
    },
    Row {
        id: "K4a",
        title: "Redis killed, comes back with its append-only file",
        topology: Topology { redis: RedisOptions { append_only: true, max_memory_mib: None }, ..Topology::USUAL },
        load: LONG,
        faults: &[Fault::Kill(Target::Redis)],
        calm: (ms(4000), ms(8000)),
        shows: &[Shows::FewOverlaps],
        ..USUAL
    },
    Row {
        id: "R1",
        title: "FLUSHALL",
        load: LONG,
        faults: &[Fault::FlushRedis],
        calm: (ms(4000), ms(9000)),
        lasts: (ms(0), ms(0)),
        shows: &[Shows::NoOverlaps],
        ..USUAL
    },
    Row {
        id: "P1",
        title: "worker frozen for three leases",
        load: LONG,
        faults: &[Fault::Pause(Target::One(Service::Worker))],
        calm: (ms(2000), ms(4000)),
        lasts: (ms(18_000), ms(20_000)),
        shows: &[Shows::Lost, Shows::Fenced],
        ..USUAL
    },
    Row {
        id: "N1",
        title: "network cut, both ways and one way",
        load: LONG,
        faults: &[
            Fault::Network(Links::OfClients, Conditions::BLACK_HOLE),
            Fault::Network(Links::Of(Service::Submission), Conditions::BLACK_HOLE),
            Fault::Network(Links::Of(Service::Worker), Conditions::BLACK_HOLE),
            Fault::Network(Links::Of(Service::Monitor), Conditions::BLACK_HOLE),
            Fault::Network(Links::ToSql(Service::Worker), Conditions::BLACK_HOLE),
            Fault::Network(Links::ToSql(Service::Worker), Conditions::MUTE),
            Fault::Network(Links::ToSql(Service::Submission), Conditions::MUTE),
            Fault::Network(Links::ToSql(Service::Submission), Conditions::DEAF),
            Fault::Network(Links::ToRedis, Conditions::BLACK_HOLE),
            Fault::Network(Links::ToRedis, Conditions::MUTE),
            Fault::Network(Links::ToDispatchers(Service::Worker), Conditions::BLACK_HOLE),
            Fault::Network(Links::ToDispatchers(Service::Worker), Conditions::DEAF),
            Fault::Network(Links::ToDispatchers(Service::Worker), Conditions::MUTE),
            Fault::Network(Links::ToDispatchers(Service::Worker), Conditions::REFUSE),
            Fault::Network(Links::ToDispatchers(Service::Submission), Conditions::BLACK_HOLE),
            Fault::Network(Links::ToDispatchers(Service::Submission), Conditions::REFUSE),
        ],
        calm: (ms(500), ms(3000)),
        lasts: (ms(1000), ms(10_000)),
        ..USUAL
    },
    Row {
        id: "N2",
        title: "slow network: 50 ms and up to 50 ms more each way",
        load: Load { per_second: 40, ..STEADY },
        faults: &[Fault::Network(Links::All, Conditions::slow(ms(50), ms(50))), Fault::Reset(Links::All)],
        lasts: (ms(3000), ms(8000)),
        ..USUAL
    },
    Row {
        id: "N3",
        title: "replies lost after what was asked is done",
        faults: &[
            Fault::Network(Links::OfClients, Conditions::lose_replies(10)),
            Fault::Network(Links::ToSql(Service::Submission), Conditions::lose_replies(40)),
            Fault::Network(Links::ToSql(Service::Worker), Conditions::lose_replies(40)),
            Fault::Network(Links::ToSql(Service::Monitor), Conditions::lose_replies(20)),
            Fault::Network(Links::ToRedis, Conditions::lose_replies(40)),
            Fault::Network(Links::ToDispatchers(Service::Worker), Conditions::lose_replies(20)),
            Fault::Network(Links::ToDispatchers(Service::Submission), Conditions::lose_replies(20)),
        ],
        calm: (ms(100), ms(500)),
        lasts: (ms(2000), ms(5000)),
        shows: &[Shows::Retries],
        ..USUAL
    },
    Row {
        id: "G1",
        title: "rolling restarts",
        load: LONG,
        faults: &[
            Fault::Roll(Service::Worker),
            Fault::Roll(Service::Dispatcher),
            Fault::Roll(Service::Submission),
            Fault::Roll(Service::Monitor),
        ],
        calm: (ms(300), ms(1500)),
        lasts: (ms(0), ms(0)),
        shows: &[Shows::NoOverlaps],
        ..USUAL
    },
    Row {
        id: "R2",
        title: "Redis fails over to a stale replica",
        topology: Topology { replica_of_redis: true, ..Topology::USUAL },
        load: LONG,
        faults: &[Fault::StaleFailover],
        calm: (ms(3000), ms(6000)),
        lasts: (ms(2000), ms(5000)),
        shows: &[Shows::FewOverlaps],
        ..USUAL
    },
    Row {
        id: "R4",
        title: "Redis out of memory",
        faults: &[Fault::FillRedis],
        calm: (ms(2000), ms(5000)),
        lasts: (ms(3000), ms(8000)),
        shows: &[Shows::FewOverlaps],
        ..USUAL
    },
    Row {
        id: "D1",
        title: "MariaDB read-only",
        faults: &[Fault::ReadOnlySql],
        calm: (ms(2000), ms(5000)),
        lasts: (ms(3000), ms(10_000)),
        shows: &[Shows::Retries],
        ..USUAL
    },
    Row {
        id: "P2",
        title: "dispatcher, Redis or MariaDB frozen",
        load: LONG,
        faults: &[Fault::Pause(Target::One(Service::Dispatcher)), Fault::Pause(Target::Redis), Fault::Pause(Target::Sql)],
        calm: (ms(2000), ms(5000)),
        lasts: (ms(2000), ms(12_000)),
        ..USUAL
    },
    Row {
        id: "D2",
        title: "MariaDB ends sessions, or takes next to none",
        faults: &[Fault::EndSqlSessions, Fault::EndSqlSessions, Fault::EndSqlSessions, Fault::FewSqlSessions],
        calm: (ms(200), ms(600)),
        lasts: (ms(0), ms(2000)),
        ..USUAL
    },
    Row {
        id: "T1",
        title: "clock of a worker wrong by 40 s or an hour",
        load: LONG,
        faults: &[
            Fault::WrongClock(40_000),
            Fault::WrongClock(-40_000),
            Fault::WrongClock(3_600_000),
            Fault::WrongClock(-3_600_000),
        ],
        calm: (ms(1000), ms(3000)),
        lasts: (ms(2000), ms(8000)),
        ..USUAL
    },
    Row {
        id: "CN1",
        title: "each task cancelled at some moment",
        load: Load { per_second: 150, mix: Mix::CANCELS },
        shows: &[Shows::Cancels],
        ..USUAL
    },
    Row {
        id: "CN2",
        title: "each task cancelled at some moment while workers and dispatchers die",
        load: Load { per_second: 80, mix: Mix::CANCELS },
        faults: &[
            Fault::Kill(Target::One(Service::Worker)),
            Fault::Kill(Target::One(Service::Dispatcher)),
            Fault::Kill(Target::One(Service::Submission)),
            Fault::FlushRedis,
        ],
        shows: &[Shows::Cancels, Shows::Lost],
        ..USUAL
    },
    Row {
        id: "K7",
        title: "tasks that harm the process that they run in",
        load: Load { per_second: 40, mix: Mix::POISON },
        supervised: true,
        shows: &[Shows::Fallen, Shows::Lost],
        ..USUAL
    },
    Row {
        id: "R6",
        title: "Redis forgets scripts, refuses writes, answers nobody",
        faults: &[Fault::ForgetScripts, Fault::RefuseRedisWrites, Fault::BlockRedis(3), Fault::Reset(Links::ToRedis)],
        calm: (ms(500), ms(2000)),
        lasts: (ms(500), ms(4000)),
        shows: &[Shows::FewOverlaps],
        ..USUAL
    },
    Row {
        id: "K6",
        title: "everything",
        load: LONG,
        faults: &[
            Fault::Kill(Target::One(Service::Submission)),
            Fault::Kill(Target::One(Service::Dispatcher)),
            Fault::Kill(Target::One(Service::Worker)),
            Fault::Kill(Target::One(Service::Monitor)),
            Fault::Kill(Target::Redis),
            Fault::Kill(Target::Sql),
            Fault::Pause(Target::One(Service::Worker)),
            Fault::Pause(Target::One(Service::Dispatcher)),
            Fault::Network(Links::Of(Service::Worker), Conditions::BLACK_HOLE),
            Fault::Network(Links::ToSql(Service::Submission), Conditions::lose_replies(20)),
            Fault::Network(Links::ToSql(Service::Worker), Conditions::lose_replies(20)),
            Fault::Network(Links::ToRedis, Conditions::MUTE),
            Fault::Roll(Service::Worker),
            Fault::FlushRedis,
            Fault::EndSqlSessions,
        ],
        calm: (ms(200), ms(2500)),
        lasts: (ms(300), ms(9000)),
        ..USUAL
    },
];

/// A row by its name, in whatever case.
#[must_use]
pub fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_are_documented() {
        let names: HashSet<_> = ROWS.iter().map(|row| row.id.to_lowercase()).collect();
        assert_eq!(names.len(), ROWS.len());
        assert_eq!(find("k2").map(|row| row.id), Some("K2"));
        let docs = include_str!("../../../docs/chaos.md");
        for row in ROWS {
            assert!(docs.contains(&format!("| {} |", row.id)), "docs/chaos.md does not tell of {}", row.id);
            assert!(row.calm.0 <= row.calm.1 && row.lasts.0 <= row.lasts.1, "{}", row.id);
        }
    }
}
