//! Random walks of the pure core. `BONDD_SIM_SEED=0x..` replays one walk and prints what happens in it;
//! `BONDD_SIM_SEEDS=n` walks more of them.

use std::env;

use bondd_tests::sim::random::walk;

#[test]
fn whatever_happens_the_invariants_hold() {
    if let Some(seed) = number("BONDD_SIM_SEED") {
        walk(seed, STEPS, true);
        return;
    }
    let seeds = number("BONDD_SIM_SEEDS").unwrap_or(500);
    let halves: Vec<_> = (0..2)
        .map(|half| {
            std::thread::spawn(move || {
                (0..seeds).filter(|seed| seed % 2 == half).for_each(|s| {
                    walk(s, STEPS, false);
                })
            })
        })
        .collect();
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

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

const STEPS: u32 = 1000;
