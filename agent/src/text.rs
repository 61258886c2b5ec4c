//! One line for each [`Notice`], for log and subscribers: the same facts as the driver's lines, and always the reason.
//! The caller adds the bond's name in front. [bond_main.c: slave_info, netdev_info]

use std::time::Duration;

use bond_modes::options::millis;
use bond_modes::{Notice, SwitchReason, Warning};
use bond_monitors::{Carrier, Duplex, SignOfLife, Speed};
use log::Level;
use serde_json::Value;

/// The event as a sentence, without the bond's name.
pub fn describe(notice: &Notice) -> String {
    match notice {
        Notice::Attached { port, active, link_up } => {
            let role = if *active { "active port" } else { "backup port" };
            let link = if *link_up { "up" } else { "down" };
            format!("{port}: attached as {role}, link {link}")
        }
        Notice::Detached { port, was_active } => {
            let role = if *was_active {
                "the active port"
            } else {
                "a backup port"
            };
            format!("{port}: detached, was {role}")
        }
        Notice::MacStillInUse { port, mac } => {
            format!(
                "{port}: left with address {mac}, which the bond still uses: give {port} another one before using it"
            )
        }
        Notice::GoingDown { port, active, delay } => {
            let whose = if *active { " (active port)" } else { "" };
            format!("{port}: link going down, {} downdelay left{whose}", ms(*delay))
        }
        Notice::UpAgain { port, after } => format!("{port}: link up again after {}, within downdelay", ms(*after)),
        Notice::GoingBack { port, delay } => format!("{port}: link going back, {} updelay left", ms(*delay)),
        Notice::DownAgain { port, after } => format!("{port}: link down again after {}, within updelay", ms(*after)),
        Notice::Up { port, speed, duplex } => format!("{port}: link up, {}", medium(*speed, *duplex)),
        Notice::UpdelaySkipped { port, waited } => {
            format!(
                "{port}: updelay cut short after {}: no other port is usable",
                ms(*waited)
            )
        }
        Notice::Silent {
            port,
            counts,
            silent_for,
        } => format!("{port}: {} for {}", missing(*counts), ms(*silent_for)),
        Notice::Down { port, failures } => format!("{port}: link down (failure {failures})"),
        Notice::FailedOver { port, ago } => {
            format!("{port}: lost its carrier {} ago, switched in the kernel", ms(*ago))
        }
        Notice::ActiveChanged { from, to, reason } => active_changed(from.as_deref(), to.as_deref(), *reason),
        Notice::Carrier { carrier: Carrier::On } => "carrier on: a port is usable".to_owned(),
        Notice::Carrier { carrier: Carrier::Off } => "carrier off: no usable port".to_owned(),
        Notice::TargetCounts { target } => format!("target {target} is reached through this bond again: it counts"),
        Notice::Monitored { targets: true } => "monitored again: a target can be asked through this bond".to_owned(),
        Notice::Monitored { targets: false } => "monitored again: carrier decides about ports".to_owned(),
        Notice::OptionChanged { option, port, value } => {
            format!("{} set to {value}", option_of(option, port.as_deref()))
        }
        Notice::Warning { about } => warning(about),
    }
}

/// What a port that fails does not give.
fn missing(counts: SignOfLife) -> &'static str {
    match counts {
        SignOfLife::Validated => "no answer",
        SignOfLife::Any | SignOfLife::Probes => "silent",
    }
}

/// The event for programs: the notice's fields, and the phrases that the core, which has none, leaves to the agent.
pub fn for_programs(notice: &Notice) -> serde_json::Result<Value> {
    let mut fields = serde_json::to_value(notice)?;
    if let Some(fields) = fields.as_object_mut() {
        match notice {
            Notice::Warning { .. } => {
                fields.insert("text".to_owned(), describe(notice).into());
            }
            Notice::OptionChanged { option, port, .. } => {
                fields.shift_remove("port");
                fields.insert("option".to_owned(), option_of(option, port.as_deref()).into());
            }
            _ => {}
        }
    }
    Ok(fields)
}

/// An option's name, with that of its port.
fn option_of(option: &str, port: Option<&str>) -> String {
    port.map_or_else(|| option.to_owned(), |port| format!("{option} of {port}"))
}

/// Level of the log line: a warning if redundancy or the bond is lost, or if an option could not be set as given.
pub fn level(notice: &Notice) -> Level {
    match notice {
        Notice::Down { .. }
        | Notice::Silent { .. }
        | Notice::Carrier { carrier: Carrier::Off }
        | Notice::ActiveChanged { to: None, .. }
        | Notice::MacStillInUse { .. }
        | Notice::Warning { .. } => Level::Warn,
        Notice::Attached { .. }
        | Notice::Detached { .. }
        | Notice::GoingDown { .. }
        | Notice::UpAgain { .. }
        | Notice::GoingBack { .. }
        | Notice::DownAgain { .. }
        | Notice::Up { .. }
        | Notice::UpdelaySkipped { .. }
        | Notice::FailedOver { .. }
        | Notice::ActiveChanged { .. }
        | Notice::Carrier { .. }
        | Notice::TargetCounts { .. }
        | Notice::Monitored { .. }
        | Notice::OptionChanged { .. } => Level::Info,
    }
}

fn warning(about: &Warning) -> String {
    match about {
        Warning::Unmonitored => "unmonitored: with miimon=0 and no other monitor a failed port stays in use".to_owned(),
        Warning::NoTarget => {
            "unmonitored: no target can be asked through this bond, so ports follow their carrier only".to_owned()
        }
        Warning::TargetElsewhere { target, device } => {
            format!("target {target} is reached through {device}, not through this bond: it does not count")
        }
        Warning::PrioWithoutEffect { port } => format!("{port}: prio has no effect while a primary is attached"),
        Warning::DelayRounded {
            option,
            asked_ms,
            miimon_ms,
            used_ms,
        } => format!("{option} {asked_ms} ms is not a multiple of miimon {miimon_ms} ms, rounded down to {used_ms} ms"),
        Warning::ArpMonitorReplaced {
            arp_interval_ms,
            arp_validate,
        } => format!(
            "miimon replaces the ARP monitor: arp_interval is 0 and arp_validate none now, they were {arp_interval_ms} and \
             {arp_validate}"
        ),
        Warning::AddressFixed { port } => format!("{port}: cannot change its address, setting fail_over_mac to active"),
        Warning::LinkUnknown { port } => format!(
            "{port}: MII and ETHTOOL support not available for this interface, so link failures will not be detected and it \
             counts as up for ever; set use_carrier=1, or arp_interval and arp_ip_target"
        ),
        Warning::ForeignAddress { port, mac, wanted } => {
            format!("{port}: its address was changed to {mac} by another program, the bond uses {wanted}")
        }
    }
}

fn active_changed(from: Option<&str>, to: Option<&str>, reason: SwitchReason) -> String {
    let why = match reason {
        SwitchReason::FirstUsable => "first usable port".to_owned(),
        SwitchReason::LinkDown => format!("link of {} went down", from.unwrap_or("the old one")),
        SwitchReason::PortGone => format!("{} is gone", from.unwrap_or("the old one")),
        SwitchReason::Primary => "preferred as the primary".to_owned(),
        SwitchReason::Priority => "preferred by its prio".to_owned(),
        SwitchReason::Manual => "set by the operator".to_owned(),
    };
    match (from, to) {
        (Some(from), Some(to)) => format!("active port {to} instead of {from}: {why}"),
        (None, Some(to)) => format!("active port {to}: {why}"),
        (Some(from), None) => format!("{from} lost, no active port is left: {why}"),
        (None, None) => format!("no active port: {why}"),
    }
}

/// Speed and duplex in the driver's words, with unknown instead of 0. [bond_main.c: bond_miimon_link_change]
fn medium(speed: Speed, duplex: Duplex) -> String {
    match (speed.0, duplex) {
        (None, Duplex::Unknown) => "speed and duplex unknown".to_owned(),
        (Some(speed), duplex) => format!("{speed} Mbps {duplex} duplex"),
        (None, duplex) => format!("speed unknown, {duplex} duplex"),
    }
}

fn ms(duration: Duration) -> String {
    format!("{} ms", millis(duration))
}

/// An error with all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // A transparent error repeats its cause.
        if said != last {
            text += &format!(": {said}");
            last = said;
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use bond_monitors::MacAddr;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn eth0() -> String {
        "eth0".to_owned()
    }

    fn check(notice: Notice, want_level: Level, want: &str) {
        assert_eq!(describe(&notice), want);
        assert_eq!(level(&notice), want_level, "{want}");
    }

    #[test]
    fn coming_and_leaving() {
        let attached = |active, link_up| Notice::Attached {
            port: eth0(),
            active,
            link_up,
        };
        check(
            attached(true, true),
            Level::Info,
            "eth0: attached as active port, link up",
        );
        check(
            attached(false, false),
            Level::Info,
            "eth0: attached as backup port, link down",
        );
        let detached = |was_active| Notice::Detached {
            port: eth0(),
            was_active,
        };
        check(detached(true), Level::Info, "eth0: detached, was the active port");
        check(detached(false), Level::Info, "eth0: detached, was a backup port");
        check(
            Notice::MacStillInUse {
                port: eth0(),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
            },
            Level::Warn,
            "eth0: left with address 02:00:00:00:00:01, which the bond still uses: give eth0 another one before using it",
        );
    }

    #[test]
    fn an_answer_is_missed_only_where_one_was_asked_for() {
        let silent = |counts| Notice::Silent {
            port: eth0(),
            counts,
            silent_for: MS(350),
        };
        for counts in [SignOfLife::Any, SignOfLife::Probes] {
            check(silent(counts), Level::Warn, "eth0: silent for 350 ms");
        }
        check(silent(SignOfLife::Validated), Level::Warn, "eth0: no answer for 350 ms");
    }

    #[test]
    fn delays_tell_what_is_left_and_what_has_passed() {
        let going_down = |active| Notice::GoingDown {
            port: eth0(),
            active,
            delay: MS(200),
        };
        check(
            going_down(false),
            Level::Info,
            "eth0: link going down, 200 ms downdelay left",
        );
        check(
            going_down(true),
            Level::Info,
            "eth0: link going down, 200 ms downdelay left (active port)",
        );
        let (port, after) = (eth0(), MS(40));
        check(
            Notice::UpAgain { port, after },
            Level::Info,
            "eth0: link up again after 40 ms, within downdelay",
        );
        let (port, delay) = (eth0(), MS(300));
        check(
            Notice::GoingBack { port, delay },
            Level::Info,
            "eth0: link going back, 300 ms updelay left",
        );
        let (port, after) = (eth0(), MS(40));
        check(
            Notice::DownAgain { port, after },
            Level::Info,
            "eth0: link down again after 40 ms, within updelay",
        );
        let (port, waited) = (eth0(), MS(40));
        check(
            Notice::UpdelaySkipped { port, waited },
            Level::Info,
            "eth0: updelay cut short after 40 ms: no other port is usable",
        );
    }

    #[test]
    fn up_names_the_medium_as_far_as_it_is_known() {
        let up = |speed, duplex| Notice::Up {
            port: eth0(),
            speed: Speed(speed),
            duplex,
        };
        for (notice, want) in [
            (up(Some(1000), Duplex::Full), "eth0: link up, 1000 Mbps full duplex"),
            (
                up(Some(1000), Duplex::Unknown),
                "eth0: link up, 1000 Mbps unknown duplex",
            ),
            (up(None, Duplex::Half), "eth0: link up, speed unknown, half duplex"),
            (up(None, Duplex::Unknown), "eth0: link up, speed and duplex unknown"),
        ] {
            check(notice, Level::Info, want);
        }
    }

    #[test]
    fn losses_are_warnings() {
        let port = eth0();
        check(
            Notice::Down { port, failures: 3 },
            Level::Warn,
            "eth0: link down (failure 3)",
        );
        let carrier = |carrier| Notice::Carrier { carrier };
        check(carrier(Carrier::Off), Level::Warn, "carrier off: no usable port");
        check(carrier(Carrier::On), Level::Info, "carrier on: a port is usable");
        let unmonitored = "unmonitored: with miimon=0 and no other monitor a failed port stays in use";
        check(Notice::warning(Warning::Unmonitored), Level::Warn, unmonitored);
        let rounded = Warning::DelayRounded {
            option: "updelay".to_owned(),
            asked_ms: 250,
            miimon_ms: 100,
            used_ms: 200,
        };
        let text = "updelay 250 ms is not a multiple of miimon 100 ms, rounded down to 200 ms";
        check(Notice::warning(rounded), Level::Warn, text);
    }

    #[test]
    fn a_switch_always_has_its_reason() {
        use SwitchReason::{FirstUsable, LinkDown, Manual, PortGone, Primary, Priority};
        let switch = |from: Option<&str>, to: Option<&str>, reason| Notice::ActiveChanged {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            reason,
        };
        let (a, b) = (Some("eth0"), Some("eth1"));
        for (notice, level, want) in [
            (
                switch(a, b, LinkDown),
                Level::Info,
                "active port eth1 instead of eth0: link of eth0 went down",
            ),
            (
                switch(a, b, PortGone),
                Level::Info,
                "active port eth1 instead of eth0: eth0 is gone",
            ),
            (
                switch(a, b, Primary),
                Level::Info,
                "active port eth1 instead of eth0: preferred as the primary",
            ),
            (
                switch(a, b, Priority),
                Level::Info,
                "active port eth1 instead of eth0: preferred by its prio",
            ),
            (
                switch(a, b, Manual),
                Level::Info,
                "active port eth1 instead of eth0: set by the operator",
            ),
            (
                switch(None, b, FirstUsable),
                Level::Info,
                "active port eth1: first usable port",
            ),
            (
                switch(a, None, LinkDown),
                Level::Warn,
                "eth0 lost, no active port is left: link of eth0 went down",
            ),
            (
                switch(None, None, Manual),
                Level::Warn,
                "no active port: set by the operator",
            ),
        ] {
            check(notice, level, want);
        }
    }

    #[test]
    fn what_was_warned_of_is_taken_back() {
        let target = std::net::IpAddr::from([10, 9, 9, 9]);
        let counts = "target 10.9.9.9 is reached through this bond again: it counts";
        check(Notice::TargetCounts { target }, Level::Info, counts);
        for (targets, want) in [
            (true, "monitored again: a target can be asked through this bond"),
            (false, "monitored again: carrier decides about ports"),
        ] {
            check(Notice::Monitored { targets }, Level::Info, want);
        }
    }

    #[test]
    fn options_name_their_new_value() {
        let changed = |value: &str| Notice::OptionChanged {
            option: "primary".to_owned(),
            port: None,
            value: value.to_owned(),
        };
        check(changed("eth0"), Level::Info, "primary set to eth0");
        check(changed("none"), Level::Info, "primary set to none");
        let of_port = Notice::OptionChanged {
            option: "prio".to_owned(),
            port: Some(eth0()),
            value: "5".to_owned(),
        };
        check(of_port, Level::Info, "prio of eth0 set to 5");
    }

    #[test]
    fn programs_get_the_fields_in_their_order_and_the_phrases() {
        let option = |port| Notice::OptionChanged {
            option: "prio".to_owned(),
            port,
            value: "5".to_owned(),
        };
        let about = Warning::PrioWithoutEffect { port: eth0() };
        for (notice, want) in [
            (
                option(Some(eth0())),
                r#"{"kind":"option_changed","option":"prio of eth0","value":"5"}"#,
            ),
            (option(None), r#"{"kind":"option_changed","option":"prio","value":"5"}"#),
            (
                Notice::warning(about),
                r#"{"kind":"warning","about":{"prio_without_effect":{"port":"eth0"}},"text":"eth0: prio has no effect while a primary is attached"}"#,
            ),
            (
                Notice::Monitored { targets: true },
                r#"{"kind":"monitored","targets":true}"#,
            ),
        ] {
            assert_eq!(for_programs(&notice).unwrap().to_string(), want);
        }
    }
}
