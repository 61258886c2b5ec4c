//! Text of `bondctl doctor`: the abilities of each data plane on this machine, and the one that a bond would get.

use crate::control::proto::DoctorReport;

/// The whole text.
pub(super) fn report(report: &DoctorReport) -> String {
    let mut text = String::new();
    for plane in &report.planes {
        text += &match (&plane.why_not, &plane.differs) {
            (Some(why), _) => format!("{}: not usable: {why}\n", plane.plane),
            (None, Some(differs)) => format!("{}: usable, but not for these options: {differs}\n", plane.plane),
            (None, None) => format!("{}: usable, exact for these options\n", plane.plane),
        };
        if let (true, Some(why)) = (plane.usable, &plane.short_lived) {
            text += &format!("bonds on plane {}: {why}\n", plane.plane);
        }
        if let (true, Some(failover)) = (plane.usable, &plane.failover) {
            text += &format!("failover on plane {}: {failover}\n", plane.plane);
        }
        if let (true, Some(device)) = (plane.usable, &plane.device) {
            text += &format!("interface of new bonds on plane {}: {device}\n", plane.plane);
        }
    }
    text + &match &report.choice {
        Some(plane) => format!("such a bond gets plane {plane}\n"),
        None => "such a bond cannot be made here\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::dataplane::PlaneReport;

    #[test]
    fn every_plane_says_whether_and_why_not() {
        let plane = |name: &str, why_not: Option<&str>, differs: Option<&str>| PlaneReport {
            plane: name.to_owned(),
            usable: why_not.is_none(),
            why_not: why_not.map(str::to_owned),
            exact: differs.is_none(),
            differs: differs.map(str::to_owned),
            short_lived: None,
            device: None,
            failover: None,
        };
        let mut report = super::DoctorReport {
            schema: 1,
            choice: Some("tc".to_owned()),
            planes: vec![
                plane("team", Some("this kernel has no team driver"), None),
                plane("tc", None, None),
            ],
        };
        assert_eq!(
            super::report(&report),
            "team: not usable: this kernel has no team driver\ntc: usable, exact for these options\n\
             such a bond gets plane tc\n"
        );
        report.planes[0].short_lived = Some("not usable anyway".to_owned());
        report.planes[1].short_lived = Some("they end".to_owned());
        report.planes[1].device = Some("netkit".to_owned());
        assert!(
            super::report(&report)
                .contains("options\nbonds on plane tc: they end\ninterface of new bonds on plane tc: netkit\nsuch")
        );
        report.choice = None;
        report.planes = vec![plane("team", None, Some("no IGMP rule"))];
        assert_eq!(
            super::report(&report),
            "team: usable, but not for these options: no IGMP rule\nsuch a bond cannot be made here\n"
        );
    }
}
