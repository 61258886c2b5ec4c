//! On Debian's 6.12 kernel, which has everything in one: what a frame costs, held against the record in `docs/measured.md`.

use bondd_tests::bins::own_bin;
use bondd_tests::instructions::{Column, Instructions, KERNEL, Recorded};
use bondd_tests::vm::{Lab, not_run};

#[test]
fn a_frame_costs_as_many_instructions_as_recorded() {
    let Some(lab) = Lab::for_test_on(KERNEL) else { return };
    let sender = own_bin(env!("CARGO_BIN_EXE_bondd-send-frames"));
    let seen = Instructions::measure(&lab, &sender);
    for row in &seen.rows {
        println!("{}: {:?}", row.name, row.cost);
    }
    let recorded = Recorded::read().unwrap();
    if recorded.setting() != seen.setting() {
        return not_run(&format!(
            "recorded with {}, and this is {}",
            recorded.setting(),
            seen.setting()
        ));
    }
    let missing: Vec<&str> = recorded
        .names(Column::Now)
        .filter(|name| seen.rows.iter().all(|row| row.name != *name))
        .collect();
    let dearer = recorded.dearer(Column::Now, &seen.rows);
    let cheaper = recorded.cheaper(Column::Now, &seen.rows);
    let list = |rows: &[_]| rows.iter().map(|row| format!("  {row}\n")).collect::<String>();
    assert!(
        missing.is_empty() && dearer.is_empty() && cheaper.is_empty(),
        "not measured: {missing:?}\ndearer:\n{}cheaper, to be recorded by RECORD=now make bench ONLY=instructions:\n{}",
        list(&dearer),
        list(&cheaper)
    );
}
