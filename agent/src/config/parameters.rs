//! The rules of the kernel's module for its parameters: files that worked with the module work here, and findings report
//! parameters without effect. [bond_main.c: bond_check_params]

use std::net::Ipv4Addr;

use super::diagnostic::{Findings, Place, Severity};
use super::option_list::{effective, is_off, switched_on, take};
use super::{Grammar, SpecOption};

/// Applies the module's rules to the parameters of one bond and leaves the effective options.
///
/// In bondd's own files an invalid address is kept, so that the option check reports it, and miimon defaults to 100.
pub(super) fn apply_module_rules(options: &mut Vec<SpecOption>, grammar: Grammar, findings: &mut Findings) {
    let own = grammar == Grammar::Own;
    drop_multicast(options, own, findings);
    let excluded = choose_monitor(options, findings);
    if !own {
        drop_bad_targets(options, findings);
    }
    name_targets_once(options, findings);
    drop_delays(options, own, findings);
    check_arp(options, own, excluded.as_ref(), findings);
}

/// A parameter of the years 2000 to 2004: the ports that receive the bond's multicast groups. [bonding.txt of 2003: multicast]
fn drop_multicast(options: &mut Vec<SpecOption>, own: bool, findings: &mut Findings) {
    let Some(SpecOption { value, place, .. }) = take(options, "multicast") else {
        return;
    };
    match value.as_str() {
        "all" if !own => {}
        "all" | "active" | "disabled" | "0" | "1" | "2" => {
            let text = format!("multicast={value} sets nothing: every port hears all multicast groups");
            findings.add(Severity::Info, "multicast-ignored", &place, text);
        }
        _ => {
            let text = format!("multicast: bad value {value:?}, expected all, active or disabled (0 to 2)");
            findings.add(Severity::Error, "bad-multicast", &place, text);
        }
    }
}

/// With one invalid address the driver switches the ARP monitor off. [bond_main.c: bond_check_params]
fn drop_bad_targets(options: &mut Vec<SpecOption>, findings: &mut Findings) {
    let Some(at) = options.iter().position(|option| option.name == "arp_ip_target") else {
        return;
    };
    let SpecOption { value, place, .. } = options[at].clone();
    let (good, bad): (Vec<&str>, Vec<&str>) = value.split(',').partition(|target| is_target(target));
    for target in &bad {
        let text = format!(
            "arp_ip_target: {target:?} is not an address that can be asked, so the ARP monitor is off, expected up to 16 \
             IPv4 addresses as a,b,c"
        );
        findings.add(Severity::Warning, "bad-arp-ip-target", &place, text);
    }
    options[at].value = good.join(",");
    if good.is_empty() {
        options.remove(at);
    }
    if !bad.is_empty() {
        take(options, "arp_interval");
    }
}

/// A target that is listed again counts once.
fn name_targets_once(options: &mut [SpecOption], findings: &mut Findings) {
    let Some(targets) = options.iter_mut().find(|option| option.name == "arp_ip_target") else {
        return;
    };
    let mut once: Vec<&str> = Vec::new();
    for target in targets.value.split(',') {
        if once.contains(&target) {
            let text = format!("arp_ip_target names {target} again, expected each target once");
            findings.add(Severity::Warning, "duplicate-arp-ip-target", &targets.place, text);
        } else {
            once.push(target);
        }
    }
    targets.value = once.join(",");
}

/// If both monitors are on, that for carrier counts, as in the module. Returns the option that excludes the ARP monitor, if
/// any.
fn choose_monitor(options: &mut Vec<SpecOption>, findings: &mut Findings) -> Option<SpecOption> {
    let miimon = switched_on(options, "miimon")?.clone();
    switched_on(options, "arp_interval")?;
    let arp = take(options, "arp_interval")?;
    let text = format!(
        "arp_interval={} has no effect, because miimon={} is given at {}, expected one monitor for a bond",
        arp.value, miimon.value, miimon.place
    );
    findings.add(Severity::Warning, "miimon-and-arp", &arp.place, text);
    Some(miimon)
}

/// Drops delays without the monitor for carrier, which is off in the driver by default.
fn drop_delays(options: &mut Vec<SpecOption>, own: bool, findings: &mut Findings) {
    let off = match options.iter().find(|option| option.name == "miimon") {
        Some(miimon) => is_off(miimon),
        None => !own,
    };
    if !off && switched_on(options, "arp_interval").is_none() {
        return;
    }
    let mut dropped: Vec<(Place, String)> = Vec::new();
    for name in ["updelay", "downdelay"] {
        let delays = |option: &SpecOption| option.name == name && option.value != "0" && effective(option).is_some();
        if options.iter().any(delays)
            && let Some(SpecOption { value, place, .. }) = take(options, name)
        {
            match dropped.iter_mut().find(|(before, _)| *before == place) {
                Some((_, text)) => *text = format!("{text} and {name}={value} have no effect"),
                None => dropped.push((place, format!("{name}={value}"))),
            }
        }
    }
    for (place, mut text) in dropped {
        if !text.ends_with("have no effect") {
            text.push_str(" has no effect");
        }
        text.push_str(", expected miimon above 0 with it");
        findings.add(Severity::Warning, "delay-without-miimon", &place, text);
    }
}

/// Reports an ARP monitor without targets, and arp_validate without an ARP monitor.
fn check_arp(options: &mut Vec<SpecOption>, own: bool, excluded: Option<&SpecOption>, findings: &mut Findings) {
    let is_list = |option: &&SpecOption| ["arp_ip_target", "ns_ip6_target"].contains(&option.name.as_str());
    let asks = options.iter().filter(is_list).any(|list| !is_off(list));
    if let Some(arp) = switched_on(options, "arp_interval").filter(|_| !asks) {
        let text = format!(
            "arp_interval={} has no targets, so ports follow their carrier, expected arp_ip_target or ns_ip6_target",
            arp.value
        );
        findings.add(
            Severity::Warning,
            "arp-interval-without-target",
            &arp.place.clone(),
            text,
        );
        if !own {
            take(options, "arp_interval");
        }
    }
    let arp = switched_on(options, "arp_interval");
    // The driver checks for the monitor before it reads the value.
    let validate = match own {
        true => switched_on(options, "arp_validate"),
        false => options.iter().find(|option| option.name == "arp_validate"),
    };
    if let Some(validate) = validate.filter(|_| arp.is_none()) {
        let why = excluded.map_or_else(String::new, |miimon| {
            format!(" and no miimon={} at {}", miimon.value, miimon.place)
        });
        let text = format!(
            "arp_validate={} without the ARP monitor, expected arp_interval above 0{why}",
            validate.value
        );
        findings.add(Severity::Error, "arp-validate-without-arp", &validate.place, text);
    }
}

/// Whether an address can be asked. [bond_main.c: bond_check_params]
fn is_target(text: &str) -> bool {
    text.parse::<Ipv4Addr>()
        .is_ok_and(|ip| ip.octets()[0] != 0 && !ip.is_broadcast())
}
