//! What a plan can say and no plane of this agent can do yet: refused here, by name.

use bond_modes::ForwardingPlan;
use bond_modes::plan::{Match, Source, Spread};

use super::PlaneError;

/// Whether the planes of this agent can do everything that a plan says.
///
/// # Errors
/// [`PlaneError::NotYet`] names the first part that none of them can do.
pub fn check(plan: &ForwardingPlan) -> Result<(), PlaneError> {
    if plan.ports.values().any(|port| port.source != Source::AsSent) {
        return Err(not_yet("a source address of its own for each port"));
    }
    if !plan.rewrite.is_empty() {
        return Err(not_yet("rewriting of ARP"));
    }
    if plan.without_agent.is_some() {
        return Err(not_yet("forwarding of another kind while the agent is away"));
    }
    if plan.steer.iter().any(|steer| matches!(steer.what, Match::From(_))) {
        return Err(not_yet("steering by source address"));
    }
    check_spread(&plan.tx.kind)
}

/// As [`check`], for the way in which a new bond spreads its frames.
///
/// # Errors
/// [`PlaneError::NotYet`] if no plane can spread frames so.
pub fn check_spread(kind: &Spread) -> Result<(), PlaneError> {
    match kind {
        Spread::One | Spread::RoundRobin { .. } | Spread::Hash(_) | Spread::All => Ok(()),
        Spread::Buckets { .. } => Err(not_yet("sending by a table of buckets")),
    }
}

fn not_yet(what: &'static str) -> PlaneError {
    PlaneError::NotYet { what }
}

#[cfg(test)]
mod tests {
    use bond_modes::plan::{Accept, BucketKey, Fallback, PortPlan, Rewrite, Steer, Tx};
    use bond_modes::{PortId, XmitHashPolicy};
    use bond_monitors::{Carrier, MacAddr};

    use super::*;

    const A: PortId = PortId(1);

    fn plan() -> ForwardingPlan {
        let port = PortPlan {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            promisc: false,
            allmulti: true,
            accept: Accept::Unicast,
            source: Source::AsSent,
        };
        ForwardingPlan {
            carrier: Carrier::On,
            mac: port.mac,
            ports: [(A, port), (PortId(2), port)].into(),
            tx: Tx::one(Some(A)),
            steer: vec![Steer {
                what: Match::Queue(3),
                to: A,
            }],
            rewrite: Rewrite::default(),
            without_agent: None,
            if_lost: Default::default(),
        }
    }

    #[test]
    fn what_the_planes_can_do_is_allowed() {
        let round_robin = Spread::RoundRobin {
            packets_per_port: 7,
            igmp: Some(A),
        };
        for kind in [
            Spread::One,
            Spread::All,
            Spread::Hash(XmitHashPolicy::Layer34),
            round_robin,
        ] {
            let mut plan = plan();
            plan.tx.kind = kind;
            check(&plan).unwrap();
        }
    }

    #[test]
    fn what_no_plane_can_do_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut ForwardingPlan)| {
            let mut plan = plan();
            change(&mut plan);
            let error = check(&plan).unwrap_err();
            assert!(!error.may_pass(), "trying again cannot help");
            error.to_string()
        };
        let table = Spread::Buckets {
            key: BucketKey::Flow,
            table: vec![A],
        };
        assert_eq!(
            refused(&|plan| plan.tx.kind = table.clone()),
            "cannot do sending by a table of buckets: no data plane of this agent has it"
        );
        let own = refused(&|plan| plan.ports.get_mut(&A).unwrap().source = Source::Own);
        assert!(own.contains("a source address of its own for each port:"), "{own}");
        let from = Match::From(MacAddr::default());
        let steer = refused(&|plan| plan.steer.push(Steer { what: from, to: A }));
        assert!(steer.contains("steering by source address:"), "{steer}");
        let arp = refused(&|plan| plan.rewrite.arp_sender = [([10, 0, 0, 1].into(), A)].into());
        assert!(arp.contains("rewriting of ARP:"), "{arp}");
        let fallback = Fallback {
            after: std::time::Duration::from_secs(1),
            pairs: vec![(A, PortId(2))],
        };
        let away = refused(&|plan| plan.without_agent = Some(fallback.clone()));
        assert!(away.contains("while the agent is away:"), "{away}");
    }
}
