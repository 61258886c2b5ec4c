//! The scenario language: one step a line, `#` begins a comment, a leading `!` says that the step must be refused, `?` that
//! it may be: what matters is that every column answers the same.
//!
//! ```text
//! ports 3                                   how many cables there are (2); near ends eth0.., far ends p0..
//! switch                                    the far ends are ports of one learning bridge; without it each ends at the hosts
//! host 10.9.0.2       host 10.9.7.2 vlan=7  a far host that answers ARP or neighbour discovery, if need be behind a VLAN
//! bond mode=active-backup miimon=50         makes bond0
//! attach eth0 eth1        detach eth0       one step each
//! pull eth0               plug eth0         the far end of the cable goes down, comes up
//! mute 10.9.0.2           unmute 10.9.0.2   that host stops answering, while everything else goes on
//! block eth0              unblock eth0      the switch's port drops every frame, both ways, with its carrier on
//! fail eth0                                 blocks it while frames flow: how long until they leave by another port?
//! cut eth0                                  the same with its cable pulled
//! set primary eth1        set primary none  an option of the bond, one a step
//! port eth1 prio 10                         an option of a port
//! active eth1             active none
//! up [eth0]               down [eth0]       the bond, or a port behind its back
//! mac bond0 02:..         mtu bond0 1400
//! address 10.9.0.1/24     .. dev=bond0.7    on the bond or another device here
//! group 239.1.1.1         .. dev=bond0.7    we join a multicast group there
//! vlan 7                                    a VLAN device bond0.7 above the bond
//! wait 200                                  milliseconds
//! send 40 udp4 vary=sport,dip each=2        flows out of the bond: where does each leave?
//! send 40 udp4 dev=bond0.7                  the same out of a device above it
//! arrive eth1 3 udp4 dmac=ff:ff:ff:ff:ff:ff frames from the far end: what reaches the bond?
//! asks 400                                  who is asked for by which port, in so many milliseconds from now?
//! look                                      state, once it has come to rest
//! delete                                    the bond goes
//! ```

use std::net::IpAddr;

use super::frame::Traffic;

/// One story, played on every column.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name of its file: the rule that it shows.
    pub name: String,
    /// The whole text, for conditions on it.
    pub text: String,
    /// How many cables there are.
    pub ports: usize,
    /// Whether their far ends are ports of one switch.
    pub switch: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One line, or one port of a line that names several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its text in reports.
    pub text: String,
    /// Its expected result.
    pub expect: Expect,
    /// The action.
    pub verb: Verb,
}

/// Expected result of a step, which must also be the same on every column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Done.
    Done,
    /// Refused.
    Refused,
    /// Either.
    Either,
}

/// Action of a step; names of devices and options are passed on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make the bond with these options.
    Bond(Vec<(String, String)>),
    /// Remove it.
    Delete,
    /// Attach a port.
    Attach(String),
    /// Detach a port.
    Detach(String),
    /// Take a port's carrier.
    Pull(String),
    /// Give it back.
    Plug(String),
    /// Stop the switch's port of a cable forwarding, and measure how long frames of ours are lost.
    Fail(String, Fault),
    /// Change an option of the bond.
    Set(String, String),
    /// Change an option of a port.
    PortSet(String, String, String),
    /// Make a port the active one; none lets the bond choose.
    Active(Option<String>),
    /// Set a device up or down.
    Admin(String, bool),
    /// Change a device's hardware address.
    Mac(String, [u8; 6]),
    /// Change a device's MTU.
    Mtu(String, u32),
    /// Give a device here an address with its prefix length.
    Address(IpAddr, u8, String),
    /// Join a multicast group on a device here.
    Group(IpAddr, String),
    /// Put a host at the far ends, behind a VLAN or 0.
    Host(IpAddr, u16),
    /// Let a far host answer, or not.
    Answers(IpAddr, bool),
    /// Let the switch's port of a cable forward, or not.
    Forwards(String, bool),
    /// Make a VLAN device above the bond.
    Vlan(u16),
    /// Wait this number of milliseconds.
    Wait(u64),
    /// Send flows out of the bond.
    Send(Traffic),
    /// Send frames from the far end of a port's cable.
    Arrive(String, Traffic),
    /// Report the questions of the ports within this number of milliseconds.
    Asks(u64),
    /// Tell the state.
    Look,
}

/// How a port becomes a dead end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The far switch drops everything while the carrier stays.
    Path,
    /// The cable is pulled.
    Cable,
}

impl Scenario {
    /// Reads a scenario; an error names the line.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, String> {
        let mut scenario = Scenario {
            name: name.to_owned(),
            text: text.to_owned(),
            ports: 2,
            switch: false,
            steps: Vec::new(),
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let (expect, line) = match line.split_at_checked(1) {
                Some(("!", rest)) => (Expect::Refused, rest.trim()),
                Some(("?", rest)) => (Expect::Either, rest.trim()),
                _ => (Expect::Done, line),
            };
            if line.is_empty() {
                continue;
            }
            let wrong = |why: String| format!("{name}.scn:{}: '{line}': {why}", number + 1);
            if let Some(ports) = line.strip_prefix("ports ") {
                scenario.ports = ports.trim().parse().map_err(|_| wrong("not a number".to_owned()))?;
                continue;
            }
            if line == "switch" {
                scenario.switch = true;
                continue;
            }
            for verb in verbs(line).map_err(wrong)? {
                let text = match &verb {
                    Verb::Attach(port) => format!("attach {port}"),
                    Verb::Detach(port) => format!("detach {port}"),
                    _ => line.to_owned(),
                };
                scenario.steps.push(Step { text, expect, verb });
            }
        }
        Ok(scenario)
    }
}

fn verbs(line: &str) -> Result<Vec<Verb>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let own = |word: &&str| (*word).to_owned();
    let one = |verb: Verb| Ok(vec![verb]);
    match words.as_slice() {
        ["bond", options @ ..] => {
            let pairs = options.iter().map(|word| {
                let (name, value) = word.split_once('=').ok_or("an option is NAME=VALUE")?;
                Ok((name.to_owned(), value.to_owned()))
            });
            one(Verb::Bond(pairs.collect::<Result<_, String>>()?))
        }
        ["delete"] => one(Verb::Delete),
        ["attach", ports @ ..] if !ports.is_empty() => Ok(ports.iter().map(|p| Verb::Attach(own(p))).collect()),
        ["detach", ports @ ..] if !ports.is_empty() => Ok(ports.iter().map(|p| Verb::Detach(own(p))).collect()),
        ["pull", port] => one(Verb::Pull(own(port))),
        ["plug", port] => one(Verb::Plug(own(port))),
        ["set", name, value] => one(Verb::Set(own(name), own(value))),
        ["port", port, name, value] => one(Verb::PortSet(own(port), own(name), own(value))),
        ["active", "none"] => one(Verb::Active(None)),
        ["active", port] => one(Verb::Active(Some(own(port)))),
        ["up"] => one(Verb::Admin("bond0".to_owned(), true)),
        ["down"] => one(Verb::Admin("bond0".to_owned(), false)),
        ["up", port] => one(Verb::Admin(own(port), true)),
        ["down", port] => one(Verb::Admin(own(port), false)),
        ["mac", device, mac] => one(Verb::Mac(own(device), super::frame::mac(mac)?)),
        ["mtu", device, mtu] => one(Verb::Mtu(own(device), mtu.parse().map_err(|_| "not an MTU")?)),
        ["address", address, rest @ ..] => {
            let (address, prefix) = address.split_once('/').ok_or("an address has its prefix length here")?;
            let prefix = prefix.parse().map_err(|_| "not a prefix length")?;
            one(Verb::Address(
                ip(address)?,
                prefix,
                own(&setting(rest, "dev", "bond0")?),
            ))
        }
        ["group", group, rest @ ..] => one(Verb::Group(ip(group)?, own(&setting(rest, "dev", "bond0")?))),
        ["host", host, rest @ ..] => {
            let vlan = setting(rest, "vlan", "0")?.parse().map_err(|_| "not a VLAN")?;
            one(Verb::Host(ip(host)?, vlan))
        }
        ["mute", host] => one(Verb::Answers(ip(host)?, false)),
        ["unmute", host] => one(Verb::Answers(ip(host)?, true)),
        ["fail", port] => one(Verb::Fail(own(port), Fault::Path)),
        ["cut", port] => one(Verb::Fail(own(port), Fault::Cable)),
        ["block", port] => one(Verb::Forwards(own(port), false)),
        ["unblock", port] => one(Verb::Forwards(own(port), true)),
        ["vlan", id] => one(Verb::Vlan(id.parse().map_err(|_| "not a VLAN")?)),
        ["wait", time] => one(Verb::Wait(millis(time)?)),
        ["asks", time] => one(Verb::Asks(millis(time)?)),
        ["send", rest @ ..] => one(Verb::Send(Traffic::parse(rest)?)),
        ["arrive", port, rest @ ..] => one(Verb::Arrive(own(port), Traffic::parse(rest)?)),
        ["look"] => one(Verb::Look),
        _ => Err("no such step".to_owned()),
    }
}

fn millis(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is no number of milliseconds"))
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is no address"))
}

/// The value of the one setting `NAME=VALUE` that may end a line.
fn setting<'a>(rest: &[&'a str], name: &str, default: &'a str) -> Result<&'a str, String> {
    match rest {
        [] => Ok(default),
        [word] => {
            let value = word.strip_prefix(name).and_then(|value| value.strip_prefix('='));
            value.ok_or_else(|| format!("expected {name}=VALUE"))
        }
        _ => Err("too many words".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_a_line_is_a_step_and_comments_are_none() {
        let text = "# a rule\nports 3\nbond mode=1 miimon=50 # bond\nattach eth0 eth1\n!set mode 0\nlook\n";
        let scenario = Scenario::parse("x", text).unwrap();
        assert_eq!(scenario.ports, 3);
        let texts: Vec<_> = scenario.steps.iter().map(|s| (s.text.as_str(), s.expect)).collect();
        assert_eq!(
            texts,
            [
                ("bond mode=1 miimon=50", Expect::Done),
                ("attach eth0", Expect::Done),
                ("attach eth1", Expect::Done),
                ("set mode 0", Expect::Refused),
                ("look", Expect::Done)
            ]
        );
    }

    #[test]
    fn a_line_that_is_no_step_is_named() {
        for text in [
            "look twice",
            "bond mode",
            "wait soon",
            "mac bond0 02",
            "send 3 nonsense",
            "host 10.9.0",
            "address 10.9.0.1",
            "group 239.1.1.1 on=bond0",
        ] {
            let error = Scenario::parse("x", &format!("look\n{text}")).unwrap_err();
            assert!(error.contains("x.scn:2") && error.contains(text), "{error}");
        }
    }
}
