//! Link up, path dead: how long the switch's dead port loses frames, by the kernel's driver and by bondd, in the lab's machine.

use bondd_tests::bins::own_bin;
use bondd_tests::fidelity::host::play;
use bondd_tests::fidelity::scenario::Scenario;
use bondd_tests::vm::Lab;

#[test]
fn a_dead_path_with_its_carrier_on_is_left_within_the_missed_answers_and_one_interval() {
    let scenarios: Vec<Scenario> = [2, 3].map(story).into();
    let guest = own_bin(env!("CARGO_BIN_EXE_bondd-fidelity-guest"));
    let Some(lab) = Lab::for_test() else { return };
    let observed = play(&lab, &scenarios, &["tc"], &guest);
    for (scenario, missed_max) in scenarios.iter().zip([2, 3]) {
        for column in ["kernel", "tc"] {
            let took: Vec<u64> = observed
                .iter()
                .filter(|o| {
                    o["scenario"] == scenario.name.as_str() && o["column"] == column && o["moved to"].is_string()
                })
                .map(|o| o["took"].as_u64().unwrap())
                .collect();
            println!("arp_interval={INTERVAL} arp_missed_max={missed_max}: {column} loses frames for {took:?} ms");
            assert_eq!(
                took.len(),
                ROUNDS,
                "{column}: a failover that never came: {observed:#?}"
            );
            if column == "tc" {
                let bound = INTERVAL * missed_max + INTERVAL;
                assert!(took.iter().all(|took| *took <= bound), "{took:?} of {bound} ms");
            }
        }
    }
}

/// Dead ports in turn; the waits between them differ, so that they die at different moments of the interval.
fn story(missed_max: u64) -> Scenario {
    let mut text = format!(
        "switch\nhost 10.9.0.2\nbond mode=active-backup arp_interval={INTERVAL} arp_validate=all arp_ip_target=10.9.0.2 \
         arp_missed_max={missed_max}\nattach eth0 eth1\naddress 10.9.0.1/24\nup\nwait 1000\n"
    );
    for round in 0..ROUNDS {
        let (port, wait) = (round % 2, 1000 + 17 * round);
        text += &format!("?active eth{port}\nwait 300\nfail eth{port}\nwait 800\nunblock eth{port}\nwait {wait}\n");
    }
    Scenario::parse(&format!("path_dead_{missed_max}"), &text).expect("the story is readable")
}

/// Of the monitor, in ms.
const INTERVAL: u64 = 100;

const ROUNDS: usize = 6;
