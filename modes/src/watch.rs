//! Passes facts from the agent to the monitors of ports, and their requests to the agent.

use bond_monitors::{Ask, Carrier, Fact, FrameKinds, ReceiveStamps, Time};

use crate::action::Action;
use crate::ids::PortId;
use crate::outbox::Outbox;
use crate::port::{Port, Ports};

/// A fact about one port, for its monitors.
pub(crate) fn pass_fact(now: Time, port: &mut Port, fact: Fact<'_>, out: &mut Outbox) {
    let mut asks = Vec::new();
    if fact == Fact::Carrier(Carrier::Off) && port.carrier().is_on() {
        port.loss_seen = now;
    }
    port.health.on_fact(now, fact, &mut asks);
    request(port.id, asks, out);
}

/// Stamps of the data plane for each port; ports that are missing could not be read.
pub(crate) fn pass_stamps(now: Time, stamps: &[(PortId, ReceiveStamps)], ports: &mut Ports, out: &mut Outbox) {
    for port in ports.iter_mut() {
        let read = stamps.iter().find(|(id, _)| *id == port.id);
        pass_fact(now, port, Fact::Stamps(read.map(|(_, stamps)| stamps)), out);
    }
}

/// A frame that arrived at a port, if a monitor of it wants its kind.
pub(crate) fn pass_frame(now: Time, id: PortId, frame: &[u8], ports: &mut Ports, out: &mut Outbox) {
    if let Some(port) = ports.get_mut(id)
        && port.health.wants().meets(FrameKinds::of(frame))
    {
        pass_fact(now, port, Fact::Frame(frame), out);
    }
}

/// Lets the time of all monitors pass.
pub(crate) fn handle_timeout(now: Time, ports: &mut Ports, out: &mut Outbox) {
    for port in ports.iter_mut() {
        let mut asks = Vec::new();
        port.health.on_timeout(now, &mut asks);
        request(port.id, asks, out);
    }
}

fn request(port: PortId, asks: Vec<Ask>, out: &mut Outbox) {
    for ask in asks {
        out.act(match ask {
            Ask::PollCarrier => Action::PollCarriers { ports: vec![port] },
            Ask::ReadStamps => Action::ReadReceiveStamps,
            Ask::Send { frame } => Action::Probe { port, frame },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_monitor_asks_for_is_done_through_its_port() {
        let mut out = Outbox::default();
        let frame = vec![1, 2, 3];
        let asks = vec![Ask::PollCarrier, Ask::ReadStamps, Ask::Send { frame: frame.clone() }];
        let port = PortId(7);
        request(port, asks, &mut out);
        let asked = [
            Action::PollCarriers { ports: vec![port] },
            Action::ReadReceiveStamps,
            Action::Probe { port, frame },
        ];
        for action in asked {
            assert_eq!(out.pop(), Some(action));
        }
        assert_eq!(out.pop(), None);
    }
}
