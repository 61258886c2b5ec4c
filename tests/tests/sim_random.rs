//! Random walks of the pure core. `BONDD_SIM_SEED=0x..` replays one walk and prints what happens in it;
//! `BONDD_SIM_SEEDS=n` walks more of them.

use std::{env, panic};

use bondd_tests::sim::World;
use bondd_tests::sim::random::{walk, walk_with};

#[test]
fn whatever_happens_the_invariants_hold() {
    if let Some(seed) = number("BONDD_SIM_SEED") {
        walk(seed, STEPS, true);
        return;
    }
    let seeds = number("BONDD_SIM_SEEDS").unwrap_or(500);
    let walk_all = move |half| {
        for seed in (half..seeds).step_by(2) {
            walk(seed, STEPS, false);
        }
    };
    let halves: Vec<_> = (0..2).map(|half| std::thread::spawn(move || walk_all(half))).collect();
    let ended: Vec<bool> = halves.into_iter().map(|half| half.join().is_ok()).collect();
    assert!(
        ended.iter().all(|ok| *ok),
        "a walk failed; the line with BONDD_SIM_SEED above replays it"
    );
}

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in 0..8 {
        assert_eq!(walk(seed, STEPS, false), walk(seed, STEPS, false));
    }
    assert_ne!(walk(0, STEPS, false), walk(1, STEPS, false));
}

/// Defects that the walks must find: an agent and a data plane without one of their rules.
#[test]
fn a_walk_finds_old_events_that_are_believed_and_guests_that_get_lost() {
    let finds = |what: &str, change: fn(&mut World)| {
        let said = (0..SEEDS_TO_FIND).find_map(|seed| {
            let failed = panic::catch_unwind(|| walk_with(seed, STEPS, false, change)).err()?;
            let text = failed.downcast_ref::<String>().cloned();
            text.or_else(|| failed.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        });
        let said = said.unwrap_or_else(|| panic!("no walk finds that {what}"));
        assert!(said.contains(what), "{said}");
    };
    finds("a port is blamed", |world| world.reads_anew = false);
    finds("the bridge looks for a guest", |world| world.kernel.refuses_own = false);
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

const STEPS: u32 = 1000;

/// This number of walks is enough to find a permanent defect.
const SEEDS_TO_FIND: u64 = 20;
