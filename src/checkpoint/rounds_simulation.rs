//! Programs that change their memory in different ways, on machines of different speeds: how many rounds they get, and
//! whether the pause is what was promised.

use super::*;

/// A program that writes here and there in a part of its memory.
#[derive(Clone, Copy, Debug)]
struct Program {
    pages: u64,
    /// How many of them it writes to at all, evenly.
    used: u64,
    /// Writes to pages in a second.
    writes: f64,
}

impl Program {
    /// How many pages differ after a time.
    fn changed(&self, time: Duration) -> u64 {
        let used = self.used as f64;
        (used * (1.0 - (-self.writes * time.as_secs_f64() / used.max(1.0)).exp())).round() as u64
    }
}

/// Where it runs.
#[derive(Clone, Copy, Debug)]
struct Machine {
    /// Starting a CRIU, until it stops the program.
    start: Duration,
    /// Stopping it and looking through its memory, in a round.
    look: Duration,
    /// All else that a dump does in the pause.
    rest: Duration,
    collect: f64,
    write: f64,
}

const MACHINE: Machine = Machine {
    start: Duration::from_millis(50),
    look: Duration::from_millis(5),
    rest: Duration::from_millis(8),
    collect: 0.05e-6,
    write: 1.5e-6,
};

impl Machine {
    fn dump(&self, pages: u64, is_round: bool) -> DumpStats {
        let [memdump, memwrite] =
            [self.collect, self.write].map(|each| Duration::from_secs_f64(each * pages as f64));
        // What a round has collected is written while the program runs.
        let frozen = self.look + memdump + if is_round { Duration::ZERO } else { self.rest + memwrite };
        DumpStats { frozen, memdump, memwrite, pages_written: pages, ..DumpStats::default() }
    }
}

/// What came of a checkpoint.
#[derive(Debug)]
struct Made {
    rounds: usize,
    promised: Duration,
    paused: Duration,
    costs: Costs,
}

fn checkpoint(program: Program, machine: Machine, limit: Duration, mut costs: Costs) -> Made {
    let (mut rounds, mut now): (Vec<Round>, Duration) = (Vec::new(), Duration::ZERO);
    loop {
        let began = now + machine.start;
        let pages = match rounds.last() {
            None => program.pages,
            Some(last) => program.changed(began - last.began),
        };
        match next(limit, costs, program.pages, &rounds) {
            Next::Round => {
                let stats = machine.dump(pages, true);
                costs.learn_from_round(&stats);
                now = began + stats.frozen + stats.memwrite;
                rounds.push(Round { stats, began, ended: now });
            }
            Next::Dump(promised) => {
                let stats = machine.dump(pages, false);
                costs.learn(&stats);
                return Made { rounds: rounds.len(), promised, paused: stats.pause(), costs };
            }
        }
    }
}

/// The second of two checkpoints: the first knows nothing.
fn second(program: Program, machine: Machine, limit: Duration) -> Made {
    let first = checkpoint(program, machine, limit, Costs::default());
    checkpoint(program, machine, limit, first.costs)
}

const GIB: u64 = 1 << 18;

fn changing(share: f64) -> Program {
    Program { pages: GIB, used: GIB, writes: share * GIB as f64 }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn a_program_that_changes_little_gets_two_rounds_and_a_short_pause() {
    for share in [0.0, 0.01, 0.05] {
        let made = second(changing(share), MACHINE, milliseconds(60));
        assert!(made.rounds == 2 && made.paused <= milliseconds(60), "{share}: {made:?}");
    }
}

#[test]
fn one_that_changes_more_gets_more_rounds_for_the_same_pause() {
    let made = second(changing(0.2), MACHINE, milliseconds(25));
    assert!((3..=MOST).contains(&made.rounds) && made.paused <= milliseconds(25), "{made:?}");
}

#[test]
fn one_that_changes_faster_than_it_is_written_is_dumped_when_rounds_no_longer_help() {
    let restless = Program { pages: GIB, used: GIB, writes: 40.0 * GIB as f64 };
    let made = checkpoint(restless, MACHINE, milliseconds(20), Costs::default());
    assert!(made.rounds == 2 && made.promised > milliseconds(20), "{made:?}");
    // It writes to a tenth of its memory alone: the rest is written ahead all the same.
    let made =
        checkpoint(Program { used: GIB / 10, ..restless }, MACHINE, milliseconds(20), Costs::default());
    assert!(made.rounds == 3 && made.paused < milliseconds(70), "{made:?}");
}

#[test]
fn one_whose_whole_dump_is_short_enough_gets_no_round_once_that_is_known() {
    let small = Program { pages: 2000, used: 2000, writes: 1e6 };
    assert!(checkpoint(small, MACHINE, milliseconds(100), Costs::default()).rounds <= 2);
    let made = second(small, MACHINE, milliseconds(100));
    assert!(made.rounds == 0 && made.paused <= milliseconds(100), "{made:?}");
}

#[test]
fn a_limit_that_nothing_could_keep_ends_in_a_dump_all_the_same() {
    let made = second(changing(0.01), MACHINE, Duration::from_micros(1));
    assert!(made.rounds <= MOST && made.promised > Duration::from_micros(1), "{made:?}");
}

/// All mixtures of sizes, rates and speeds: what is promised is about what comes, there are never more rounds than the
/// most, and where a pause is promised within the limit it is kept nine times out of ten.
#[test]
fn promises_are_kept_on_all_machines() {
    let (mut promised, mut kept) = (0, 0);
    for pages in [1 << 12, 1 << 16, GIB, 4 * GIB] {
        for share in [0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0] {
            for used in [0.02, 0.2, 1.0] {
                for slower in [0.3, 1.0, 4.0] {
                    for limit in [10, 30, 100, 300].map(milliseconds) {
                        let used = (pages as f64 * used) as u64;
                        let program = Program { pages, used, writes: share * pages as f64 };
                        let machine = Machine { write: MACHINE.write * slower, ..MACHINE };
                        let made = second(program, machine, limit);
                        assert!(made.rounds <= MOST, "{program:?}: {made:?}");
                        let is_near = made.paused.as_secs_f64() <= made.promised.as_secs_f64() * 2.0 + 0.01;
                        assert!(is_near, "{program:?} {machine:?}: {made:?}");
                        promised += u32::from(made.promised <= limit);
                        kept += u32::from(made.promised <= limit && made.paused <= limit);
                    }
                }
            }
        }
    }
    assert!(promised > 300 && kept * 10 >= promised * 9, "{kept} of {promised}");
}
