//! Option files that bonds follow.

use super::Change;
use super::with_bond;
use crate::config;
use crate::instances::check_options;

/// Lets the bond follow a file with these options.
fn follow(instances: &mut Change<'_>, options: &str) {
    let source = config::Source {
        path: "bonds.conf".into(),
        text: format!("alias bond0 bonding\noptions bond0 {options}\n"),
        grammar: config::Grammar::Own,
    };
    let parsed = config::parse(&[source], &config::NoFiles, &check_options);
    instances.ensure(&parsed.bonds[0]);
}

#[test]
fn a_change_of_a_file_is_followed_as_a_whole_or_not_at_all() {
    with_bond("whole", |instances, plane, _| {
        let arp = "arp_interval=100 arp_ip_target=10.0.0.1 arp_validate=active";
        follow(instances, &format!("mode=1 {arp}"));
        let options = |instances: &Change<'_>| {
            let options = instances.bonds[0].bond.options();
            (options.mode as u8, options.arp_validate.to_string())
        };
        assert_eq!(options(instances), (1, "active".to_owned()));
        let configured = instances.bonds[0].configured.clone();
        // The plane could do the new mode alone, which resets arp_validate.
        plane.cannot("arp_validate");
        follow(instances, &format!("mode=2 {arp}"));
        assert_eq!(options(instances), (1, "active".to_owned()), "refused");
        assert_eq!(instances.bonds[0].configured, configured, "the next start tries again");
        plane.cannot("lp_interval");
        follow(instances, &format!("mode=2 {arp}"));
        assert_eq!(options(instances), (2, "active".to_owned()), "followed");
    });
}
