//! The rows of the reference's tables for 1.1.0, against a world of plain values.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;

use bondd::control::proto::{ControlError, ErrorCode};

use super::*;

/// How the agent behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Answers,
    Absent,
    /// Its socket does not let this user connect.
    Denies,
    /// Refuses every change.
    Refuses,
}

struct Device {
    settings: Settings,
    ip: Option<Ipv4Addr>,
}

/// bond0 is up and has port eth2; bond1 is down; infi0 is a bond of another type; eth0 and eth1 are free; lo is lo.
struct Fake {
    agent: Agent,
    bonds: Bonds,
    devices: RefCell<BTreeMap<String, Device>>,
    /// Interfaces whose settings cannot be changed.
    stubborn: Vec<&'static str>,
    /// Interfaces whose addresses cannot be cleared.
    sticky: Vec<&'static str>,
    /// Everything that was changed, in order.
    log: Rc<RefCell<Vec<String>>>,
}

impl Fake {
    fn new() -> Fake {
        let device = |flags: libc::c_int, hardware_type, last, ip: &str| Device {
            settings: Settings {
                flags: flags as u16,
                hardware_type,
                address: [2, 0, 0, 0, 0, last],
            },
            ip: ip.parse().ok(),
        };
        let up = libc::IFF_UP;
        let devices = BTreeMap::from([
            ("bond0".to_owned(), device(up | libc::IFF_MULTICAST, 1, 1, "192.0.2.1")),
            ("bond1".to_owned(), device(0, 1, 2, "")),
            ("infi0".to_owned(), device(up, 32, 3, "")),
            ("eth0".to_owned(), device(up, 1, 4, "198.51.100.7")),
            ("eth1".to_owned(), device(0, 1, 5, "")),
            ("eth2".to_owned(), device(up, 1, 6, "")),
            ("lo".to_owned(), device(up | libc::IFF_LOOPBACK, 772, 0, "127.0.0.1")),
        ]);
        Fake {
            agent: Agent::Answers,
            bonds: [("bond0", &["eth2"][..]), ("bond1", &[]), ("infi0", &[])]
                .map(|(bond, ports)| (bond.to_owned(), ports.iter().map(|&port| port.to_owned()).collect()))
                .into(),
            devices: RefCell::new(devices),
            stubborn: Vec::new(),
            sticky: Vec::new(),
            log: Rc::default(),
        }
    }

    fn agent(agent: Agent) -> Fake {
        Fake { agent, ..Fake::new() }
    }

    fn reach(&self) -> Result<(), ClientError> {
        let path = PathBuf::from("/run/bondd/control.sock");
        match self.agent {
            Agent::Absent => Err(ClientError::NoDaemon { path }),
            Agent::Denies => Err(ClientError::Permission { path }),
            Agent::Answers | Agent::Refuses => Ok(()),
        }
    }

    fn change(&self, what: String) -> Result<(), ClientError> {
        self.reach()?;
        if self.agent == Agent::Refuses {
            return Err(ControlError::new(ErrorCode::Refused, "not today").into());
        }
        self.log.borrow_mut().push(what);
        Ok(())
    }
}

impl World for Fake {
    fn bonds(&mut self) -> Result<Bonds, ClientError> {
        self.reach().map(|()| self.bonds.clone())
    }

    fn attach(&mut self, bond: &str, port: &str) -> Result<(), ClientError> {
        self.change(format!("{bond} attach {port}"))?;
        self.bonds.get_mut(bond).unwrap().push(port.to_owned());
        Ok(())
    }

    fn detach(&mut self, bond: &str, port: &str) -> Result<(), ClientError> {
        self.change(format!("{bond} detach {port}"))?;
        self.bonds.get_mut(bond).unwrap().retain(|p| p != port);
        Ok(())
    }

    fn activate(&mut self, bond: &str, port: &str) -> Result<(), ClientError> {
        self.change(format!("{bond} active {port}"))
    }

    fn settings(&self, interface: &str) -> io::Result<Settings> {
        let devices = self.devices.borrow();
        let device = devices
            .get(interface)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        Ok(device.settings)
    }

    fn set_flags(&self, interface: &str, flags: u16) -> io::Result<()> {
        if self.stubborn.contains(&interface) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.devices.borrow_mut().get_mut(interface).unwrap().settings.flags = flags;
        self.log.borrow_mut().push(format!("{interface} flags {flags:x}"));
        Ok(())
    }

    fn clear_addresses(&self, interface: &str) -> io::Result<()> {
        if self.sticky.contains(&interface) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.devices.borrow_mut().get_mut(interface).unwrap().ip = None;
        self.log.borrow_mut().push(format!("{interface} clear"));
        Ok(())
    }

    fn address(&self, interface: &str) -> io::Result<Option<Ipv4Addr>> {
        Ok(self.devices.borrow()[interface].ip)
    }

    fn addressed_interfaces(&self) -> io::Result<Vec<String>> {
        let devices = self.devices.borrow();
        Ok(devices
            .iter()
            .filter(|(_, device)| device.ip.is_some())
            .map(|(name, _)| name.clone())
            .collect())
    }
}

/// What a run left behind.
#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
    log: Vec<String>,
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

fn run_in(mut world: Fake, line: &str) -> Ran {
    let (out, err) = (Shared::default(), Shared::default());
    let mut console = Console {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
    };
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let code =
        plan(&words, false, &mut console).map_or_else(|code| code, |task| perform(&task, &mut world, &mut console));
    let log = world.log.borrow().clone();
    Ran {
        code,
        out: out.text(),
        err: err.text(),
        log,
    }
}

fn run(line: &str) -> Ran {
    run_in(Fake::new(), line)
}

#[test]
fn texts_about_itself_go_to_standard_output_and_end_with_0() {
    for (line, wanted) in [
        ("-V", BANNER.to_owned()),
        ("--version bond0 eth0", BANNER.to_owned()),
        ("-u", USAGE.to_owned()),
        ("-h", USAGE.to_owned() + HELP),
        ("--he", USAGE.to_owned() + HELP),
        ("-v -u", BANNER.to_owned() + USAGE),
        ("-vvV", BANNER.to_owned()),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.out, ran.err.as_str()), (0, wanted, ""), "{line}");
    }
    assert_eq!(BANNER.lines().count(), 5);
}

#[test]
fn wrong_usage_is_2_with_the_usage_on_standard_error() {
    for line in [
        "",
        "-x",
        "-?",
        "-r bond0 eth0",
        "--howto",
        "--ver",
        "-f",
        "-v", // no operand, or no option of 1.1.0
        "-d -d bond0 eth2",
        "-dd bond0 eth2",
        "-V -u",
        "-f -d bond0 eth2",
        "-cf bond0 eth2",
        "-h -h", // more than one
        "-a bond0",
        "-a -v bond0",
        "-d",
        "-c",
        "-d bond0",
        "-c bond0", // operands too many or too few
    ] {
        let ran = run(line);
        assert_eq!(ran.code, 2, "{line:?}: {ran:?}");
        assert!(ran.err.ends_with(USAGE), "{line:?}: {ran:?}");
        assert!(ran.log.is_empty(), "{line:?}: {ran:?}");
    }
    assert_eq!(run("-d nosuch").code, 1, "the handshake comes before the usage");
}

#[test]
fn all_shows_every_interface_with_an_address_and_needs_no_agent() {
    let ran = run_in(Fake::agent(Agent::Absent), "-a");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let shown: Vec<_> = ran
        .out
        .lines()
        .filter_map(|l| l.strip_prefix("The result of SIOCGIFFLAGS on "))
        .collect();
    assert_eq!(shown, ["bond0 is 1001.", "eth0 is 1.", "lo is 9."]);
}

#[test]
fn one_name_is_shown_with_0_whether_it_is_a_bond_has_an_address_or_not() {
    let ran = run("bond0");
    let wanted = "The result of SIOCGIFFLAGS on bond0 is 1001.\nThe result of SIOCGIFADDR is 192.0.2.1.\n\
                  The result of SIOCGIFHWADDR is type 1  02:00:00:00:00:01.\n";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, wanted, ""));
    let ran = run("eth1");
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("SIOCGIFADDR is none.\n"), "{ran:?}");
    assert_eq!(run("nosuch").code, 1);
}

#[test]
fn enslaving_sets_down_attaches_and_clears_in_the_order_given() {
    let ran = run("bond0 eth0 eth1");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    let wanted = [
        "eth0 flags 0",
        "bond0 attach eth0",
        "eth0 clear",
        "eth1 flags 0",
        "bond0 attach eth1",
        "eth1 clear",
    ];
    assert_eq!(ran.log, wanted);
    assert_eq!(run("-f infi0 eth0").code, 0);
    assert_eq!(run("eth0 bond0").code, 1);
}

#[test]
fn a_bond_that_cannot_take_ports_is_1_before_anything_is_touched() {
    for (line, wanted) in [
        ("nosuch eth0", "handshake with bondd failed"),
        ("eth1 eth0", "is not a master"),
        ("lo eth0", "is not a master"),
        ("-d eth0 eth2", "is not a master"),
        ("-c eth0 eth2", "is not a master"),
        ("bond1 eth0", "is not up"),
        ("-d bond1 eth2", "is not up"),
        ("-c bond1 eth2", "is not up"),
        ("infi0 eth0", "is not ethernet-like"),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.log.len()), (1, 0), "{line}: {ran:?}");
        assert!(ran.err.contains(wanted), "{line}: {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
    }
}

#[test]
fn no_agent_is_1_and_its_socket_is_named() {
    for line in ["bond0", "bond0 eth0", "-d bond0 eth2", "-c bond0 eth2"] {
        let ran = run_in(Fake::agent(Agent::Absent), line);
        assert_eq!((ran.code, ran.log.len()), (1, 0), "{line}: {ran:?}");
        assert!(
            ran.err.contains("no bondd answers at /run/bondd/control.sock"),
            "{line}: {ran:?}"
        );
    }
}

#[test]
fn a_port_that_cannot_be_taken_is_skipped_and_the_last_failure_decides() {
    for (line, code, log) in [
        (
            "bond0 nosuch eth1",
            19,
            &["eth1 flags 0", "bond0 attach eth1", "eth1 clear"][..],
        ),
        ("bond0 eth2", 1, &[]),
        ("bond0 nosuch eth2", 1, &[]),
        ("bond0 eth2 nosuch", 19, &[]),
        (
            "bond0 eth1 eth1",
            1,
            &["eth1 flags 0", "bond0 attach eth1", "eth1 clear"],
        ),
        ("bond0 metric 3", 19, &[]),
        ("bond0 lo", 1, &[]),
    ] {
        let ran = run(line);
        assert_eq!(
            (ran.code, &ran.log[..]),
            (code, log.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice()),
            "{line}: {ran:?}"
        );
    }
    let ran = run("bond0 eth2");
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(
        lines,
        [
            "Illegal operation: the specified slave interface 'eth2' is already a slave",
            "Master 'bond0', Slave 'eth2': Error: enslave failed"
        ]
    );
}

#[test]
fn a_slave_of_another_driver_is_a_slave_too() {
    let world = Fake::new();
    world.devices.borrow_mut().get_mut("eth1").unwrap().settings.flags |= SLAVE;
    let ran = run_in(world, "bond0 eth1");
    assert_eq!((ran.code, ran.log.len()), (1, 0), "{ran:?}");
}

#[test]
fn a_refusal_leaves_the_interface_as_it_was() {
    let ran = run_in(Fake::agent(Agent::Refuses), "bond0 eth0 eth1");
    assert_eq!(ran.code, 1);
    assert_eq!(ran.log, ["eth0 flags 0", "eth0 flags 1", "eth1 flags 0"]);
    assert!(
        ran.err
            .contains("Error: not today\nMaster 'bond0', Slave 'eth0': Error: enslave failed\n"),
        "{ran:?}"
    );
}

#[test]
fn settings_that_cannot_be_changed_are_255() {
    let ran = run_in(
        Fake {
            stubborn: vec!["eth0"],
            ..Fake::new()
        },
        "bond0 eth0 eth1",
    );
    assert_eq!(ran.code, 255, "the failure of the first is not made good by the second");
    assert_eq!(ran.log, ["eth1 flags 0", "bond0 attach eth1", "eth1 clear"]);
    assert!(
        ran.err.contains("'eth0': Error: bringing interface down failed: "),
        "{ran:?}"
    );
    let ran = run_in(
        Fake {
            sticky: vec!["eth0"],
            ..Fake::new()
        },
        "bond0 eth0",
    );
    assert_eq!(ran.code, 255);
    assert_eq!(
        ran.log,
        ["eth0 flags 0", "bond0 attach eth0", "bond0 detach eth0", "eth0 flags 1"]
    );
}

#[test]
fn detaching_tries_every_slave() {
    let ran = run("-d bond0 eth2");
    assert_eq!(
        (ran.code, ran.log, ran.err.as_str()),
        (0, vec!["bond0 detach eth2".to_owned()], "")
    );
    for (line, code) in [
        ("-d bond0 nosuch eth2", 255),
        ("-d bond0 eth0 eth2", 1),
        ("-d bond0 nosuch eth0 eth2", 1),
        ("--detach bond0 eth0 nosuch eth2", 255),
    ] {
        let ran = run(line);
        assert_eq!(
            (ran.code, ran.log),
            (code, vec!["bond0 detach eth2".to_owned()]),
            "{line}"
        );
    }
    assert!(run("-d bond0 eth0").err.contains("is not a slave"));
    assert_eq!(run_in(Fake::agent(Agent::Refuses), "-d bond0 eth2").code, 1);
}

#[test]
fn only_the_first_slave_becomes_active_and_the_rest_is_mentioned() {
    let ran = run("-c bond0 eth2");
    assert_eq!(
        (ran.code, ran.log, ran.err.as_str()),
        (0, vec!["bond0 active eth2".to_owned()], "")
    );
    let ran = run("-c bond0 eth2 eth0");
    assert_eq!((ran.code, ran.log), (0, vec!["bond0 active eth2".to_owned()]));
    assert!(ran.err.contains("ignored: eth0"));
    for (line, code) in [
        ("-c bond0 nosuch", 255),
        ("-c bond0 eth0", 1),
        ("-c bond0 eth0 eth2", 1),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.log.len()), (code, 0), "{line}");
    }
    assert_eq!(run_in(Fake::agent(Agent::Refuses), "-c bond0 eth2").code, 1);
}

#[test]
fn a_user_who_may_not_is_told_with_the_codes_that_the_kernel_used_to_cause() {
    for (line, code) in [
        ("bond0 eth0", 255),
        ("-d bond0 eth2", 1),
        ("-c bond0 eth2", 1),
        ("bond0", 0),
        ("nosuch", 1),
    ] {
        let ran = run_in(Fake::agent(Agent::Denies), line);
        assert_eq!((ran.code, ran.log.len()), (code, 0), "{line}: {ran:?}");
    }
}

#[test]
fn verbose_says_every_step_on_standard_error() {
    let ran = run("-v bond0 eth0");
    assert_eq!((ran.code, ran.out.as_str()), (0, BANNER));
    let wanted = "Master 'bond0': hardware address 02:00:00:00:00:01, type 1\nSlave 'eth0': flags set to 0000\n\
                  Slave 'eth0': address cleared\nMaster 'bond0', Slave 'eth0': enslaved\n";
    assert_eq!(ran.err, wanted);
    assert!(run("-dv bond0 eth2").err.contains("Slave 'eth2': flags 0001\n"));
}
