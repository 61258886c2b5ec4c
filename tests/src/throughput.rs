//! How fast streams, small frames and questions go through a bond, measured beside a plain cable.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::{LIMIT, Settings};
use crate::lab::{RIGHT, TwoBonds};
use crate::load::{Drain, Echo, Stream, ask, blast};
use crate::machine::Machine;
use crate::netns::{Cable, Netns};
use crate::process::Preferred;
use crate::wait::wait_for;

pub mod table;

/// Two bonds with cables between the same namespaces that lead past them.
#[derive(Debug)]
pub struct BesidePlain {
    pair: TwoBonds,
    drain: Drain,
    echo: Echo,
    _sink: Sink,
    _preferred: Preferred,
    _cables: [Cable; 3],
}

/// A way from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A cable on which nothing is attached.
    Plain,
    /// Out through a bond, to a cable's far end.
    OneBond,
    /// From one bond to another.
    TwoBonds,
}

impl Way {
    /// In the order in which they take turns.
    pub const ALL: [Way; 3] = [Way::Plain, Way::OneBond, Way::TwoBonds];

    fn address(self) -> Ipv4Addr {
        match self {
            Way::Plain => Ipv4Addr::new(10, 78, 0, 2),
            Way::OneBond => Ipv4Addr::new(10, 79, 0, 2),
            Way::TwoBonds => RIGHT,
        }
    }
}

/// What is measured of each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Streams of TCP at the same time, in Gbit/s.
    Streams(u8),
    /// UDP frames of 64 bytes that a program sends and nobody reads, in thousands a second.
    Frames,
    /// One byte of UDP and one byte back, in microseconds.
    Question,
}

impl Kind {
    /// All, in the order of the table.
    pub const ALL: [Kind; 4] = [Kind::Streams(1), Kind::Streams(8), Kind::Frames, Kind::Question];

    /// How many times as good the second is.
    fn ratio(self, plain: f64, bond: f64) -> f64 {
        if self == Kind::Question {
            plain / bond
        } else {
            bond / plain
        }
    }
}

/// Figures of one kind in rounds that took turns, so that what else the machine does hits all ways alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What was measured.
    pub kind: Kind,
    /// One for each of [`Way::ALL`] in each round.
    pub rounds: Vec<[f64; 3]>,
}

impl BesidePlain {
    /// With agents started this way.
    #[track_caller]
    pub fn new(settings: Settings) -> BesidePlain {
        let pair = TwoBonds::with(Machine::alone(), settings, "miimon=100");
        let (left, right) = (&pair.left.netns, &pair.right.netns);
        let cables = ["plain", "port0", "port1"].map(|name| Cable::new(left, name, right, name));
        pair.left.daemon.ctl("add bond1 mode=active-backup miimon=100");
        pair.left.daemon.ctl("port add bond1 port0 port1");
        left.ip("link set bond1 up");
        pair.left.daemon.wait_active("bond1", "port0");
        for (near, far, way) in [("plain", "plain", Way::Plain), ("bond1", "port0", Way::OneBond)] {
            let [a, b, c, _] = way.address().octets();
            left.ip(&format!("addr add {a}.{b}.{c}.1/24 dev {near}"));
            right.ip(&format!("addr add {}/24 dev {far}", way.address()));
            wait_for(near, LIMIT, || left.running(near));
        }
        // Where the scheduler puts who sends and who receives would make more of a difference than a bond.
        let preferred = Preferred::now();
        preferred.only_on(1);
        let (drain, echo, sink) = (Drain::start(right), Echo::start(right), Sink::open(right));
        preferred.only_on(0);
        BesidePlain {
            pair,
            drain,
            echo,
            _sink: sink,
            _preferred: preferred,
            _cables: cables,
        }
    }

    /// Measures in turns, so many rounds.
    #[track_caller]
    pub fn compare(&self, rounds: usize) -> Vec<Comparison> {
        let mut seen = Kind::ALL.map(|kind| Comparison {
            kind,
            rounds: Vec::new(),
        });
        for _ in 0..rounds {
            for comparison in &mut seen {
                let round = Way::ALL.map(|way| self.measure(comparison.kind, way.address()));
                comparison.rounds.push(round);
            }
        }
        seen.into()
    }

    #[track_caller]
    fn measure(&self, kind: Kind, to: Ipv4Addr) -> f64 {
        let left = &self.pair.left.netns;
        match kind {
            Kind::Streams(count) => {
                let streams = (0..count).map(|_| Stream::start(left, (to, self.drain.port())));
                let _streams: Vec<Stream> = streams.collect();
                thread::sleep(WARM_UP);
                let (taken, start) = (self.drain.taken(), Instant::now());
                thread::sleep(MOMENT);
                (self.drain.taken() - taken) as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
            }
            Kind::Frames => left.enter(|| blast((to, Sink::PORT), SMALL, MOMENT)) as f64 / MOMENT.as_secs_f64() / 1e3,
            Kind::Question => {
                let answers = left.enter(|| ask((to, self.echo.port()), Duration::ZERO, MOMENT));
                answers.percentile(50).as_nanos() as f64 / 1e3
            }
        }
    }
}

impl Comparison {
    /// The median of the figures of a way.
    pub fn median(&self, way: Way) -> f64 {
        quartiles(self.rounds.iter().map(|round| round[way as usize]).collect())[1]
    }

    /// How many times as good a way is as the plain cable, in one round each: quartiles, the one in the middle is the median.
    pub fn ratios(&self, way: Way) -> [f64; 3] {
        let plain = Way::Plain as usize;
        let ratios = self
            .rounds
            .iter()
            .map(|round| self.kind.ratio(round[plain], round[way as usize]));
        quartiles(ratios.collect())
    }
}

/// Values below which a quarter, half and three quarters are; of none, zeros.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    [1, 2, 3].map(|quarter| {
        let at = (last * quarter) as f64 / 4.0;
        let value = |index: f64| values.get(index as usize).copied().unwrap_or_default();
        value(at.floor()) + (value(at.ceil()) - value(at.floor())) * at.fract()
    })
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

/// A socket that is never read: once it is full, the kernel takes each frame up to it, and wakes nobody.
#[derive(Debug)]
struct Sink {
    _socket: UdpSocket,
}

impl Sink {
    const PORT: u16 = 9;

    fn open(netns: &Netns) -> Sink {
        let socket = netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, Sink::PORT)));
        Sink {
            _socket: socket.expect("the namespace is ours"),
        }
    }
}

/// Whole seconds only: iperf3 reads 0.5 as 0, which is for ever.
const SECONDS: &str = "1";
/// Until a stream is as fast as it gets.
const WARM_UP: Duration = Duration::from_millis(100);
/// What each measurement takes.
const MOMENT: Duration = Duration::from_millis(400);
/// Bytes of data; with the headers of UDP, IPv4 and Ethernet, 64.
const SMALL: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_one_round_and_more_is_better() {
        let comparison = |kind| Comparison {
            kind,
            rounds: vec![[10.0, 5.0, 10.0], [100.0, 50.0, 80.0], [1.0, 0.5, 0.6]],
        };
        assert_eq!(comparison(Kind::Streams(1)).ratios(Way::OneBond), [0.5; 3]);
        assert_eq!(comparison(Kind::Streams(8)).ratios(Way::TwoBonds)[1], 0.8);
        assert_eq!(comparison(Kind::Question).ratios(Way::OneBond), [2.0; 3]);
        assert_eq!(comparison(Kind::Question).median(Way::Plain), 10.0);
    }

    #[test]
    fn quartiles_lie_between_the_values() {
        assert_eq!(quartiles(vec![4.0, 1.0, 2.0, 3.0, 5.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(vec![2.0, 1.0]), [1.25, 1.5, 1.75]);
        assert_eq!(quartiles(vec![]), [0.0; 3]);
    }
}
