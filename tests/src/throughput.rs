//! How fast TCP goes over a bond, measured beside a plain cable.

use std::net::Ipv4Addr;
use std::process::Stdio;

use serde_json::Value;

use crate::daemon::{LIMIT, Settings};
use crate::lab::{RIGHT, TwoBonds};
use crate::machine::Machine;
use crate::netns::{Cable, Netns};
use crate::wait::wait_for;

/// Two bonds with one more cable between the same namespaces, on which nothing is attached.
#[derive(Debug)]
pub struct BesidePlain {
    pair: TwoBonds,
    _plain: Cable,
}

/// Gbit/s in rounds that took turns, so that what else the machine does hits both alike.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Over the plain cable.
    pub plain: Vec<f64>,
    /// Over the bond.
    pub bond: Vec<f64>,
}

impl BesidePlain {
    /// With agents started this way.
    #[track_caller]
    pub fn new(settings: Settings) -> BesidePlain {
        let pair = TwoBonds::with(Machine::alone(), settings, "miimon=100");
        let (left, right) = (&pair.left.netns, &pair.right.netns);
        let plain = Cable::new(left, "plain", right, "plain");
        left.ip("addr add 10.78.0.1/24 dev plain");
        right.ip(&format!("addr add {PLAIN}/24 dev plain"));
        wait_for("the plain cable", LIMIT, || left.running("plain"));
        BesidePlain { pair, _plain: plain }
    }

    /// Measures in turns, so many rounds.
    #[track_caller]
    pub fn compare(&self, rounds: usize) -> Comparison {
        let (left, right) = (&self.pair.left.netns, &self.pair.right.netns);
        let mut seen = Comparison::default();
        for _ in 0..rounds {
            seen.plain.push(gigabits(left, right, PLAIN));
            seen.bond.push(gigabits(left, right, RIGHT));
        }
        seen
    }
}

impl Comparison {
    /// Bond to plain cable, the best of each: what else the machine does only ever takes away.
    pub fn ratio(&self) -> f64 {
        best(&self.bond) / best(&self.plain)
    }
}

/// The highest of all; 0 for none.
pub fn best(all: &[f64]) -> f64 {
    all.iter().copied().fold(0.0, f64::max)
}

/// Gbit/s of one stream of iperf3.
#[track_caller]
pub fn gigabits(client: &Netns, server: &Netns, address: Ipv4Addr) -> f64 {
    let address = &address.to_string();
    let mut listening = server.command("iperf3");
    listening.args(["-s", "-1", "-B", address]).stdout(Stdio::null());
    let mut listening = listening.spawn().expect("iperf3 is installed");
    wait_for("iperf3 listens", LIMIT, || {
        server.exec(&["ss", "-Hltn"]).contains(&format!("{address}:5201"))
    });
    let output = client.try_exec(&["iperf3", "-c", address, "-t", SECONDS, "-J"]);
    let _ = listening.kill();
    let _ = listening.wait();
    let report: Value = serde_json::from_slice(&output.stdout).expect("iperf3 -J prints JSON");
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.unwrap_or_else(|| panic!("iperf3: {report}")) / 1e9
}

/// Far end of the plain cable.
const PLAIN: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// Whole seconds only: iperf3 reads 0.5 as 0, which is for ever.
const SECONDS: &str = "1";
