//! Options that another tool wrote one by one to the driver's files: those that bondd takes.

use bond_modes::options::is_absent_option;

use crate::config::diagnostic::{Findings, Severity};
use crate::config::option_list::{switched_on, take};
use crate::config::parameters::apply_module_rules;
use crate::config::{Check, Grammar, SpecOption};

/// Keeps the options that a bond can have together, and reports and returns the others. `None` if the mode is refused, because
/// the other options depend on it.
///
/// For options that were written to the driver one by one, so that a refused one did not affect the others.
pub(super) fn keep_good(
    options: &mut Vec<SpecOption>,
    check: Check<'_>,
    findings: &mut Findings,
) -> Option<Vec<SpecOption>> {
    let mut left = Vec::new();
    for option in options.extract_if(.., |option| is_absent_option(&option.name)) {
        let text = format!(
            "{}={} is for modes that bondd does not have, it sets nothing, expected it to be left out",
            option.name, option.value
        );
        findings.add(Severity::Warning, "unsupported-option", &option.place, text);
    }
    drop_validation(options, findings);
    apply_module_rules(options, Grammar::Own, findings);
    loop {
        let pairs: Vec<(String, String)> = options.iter().map(SpecOption::pair).collect();
        let wrong = check(&pairs);
        let is_mode = |(at, _): &&(usize, String)| options.get(*at).is_some_and(|option| option.name == "mode");
        if let Some((at, why)) = wrong.iter().find(is_mode) {
            findings.error(&options[*at].place, why.clone());
            return None;
        }
        let Some((at, why)) = wrong.into_iter().next() else {
            return Some(left);
        };
        // A missing option is required by another one, which is dropped.
        let option = options.remove(at.min(options.len().checked_sub(1)?));
        findings.error(&option.place, why);
        left.push(option);
    }
}

/// Drops arp_validate when the ARP monitor is off. A loaded driver stores it; as a module parameter it is refused.
fn drop_validation(options: &mut Vec<SpecOption>, findings: &mut Findings) {
    let probes = switched_on(options, "arp_interval").is_some() && switched_on(options, "miimon").is_none();
    if !probes
        && switched_on(options, "arp_validate").is_some()
        && let Some(SpecOption { value, place, .. }) = take(options, "arp_validate")
    {
        let text = format!("arp_validate={value} has no effect without the ARP monitor, expected arp_interval above 0");
        findings.warning(&place, text);
    }
}
