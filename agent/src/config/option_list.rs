//! Operations on the options of a bond as files give them: a list with each option once, under whichever of its names.

use bond_modes::options::{parse, row_name, show};

use super::SpecOption;

/// Sets an option and returns its former value.
pub(super) fn set(options: &mut Vec<SpecOption>, option: SpecOption) -> Option<SpecOption> {
    match options.iter_mut().find(|o| is_same(&o.name, &option.name)) {
        Some(before) => Some(std::mem::replace(before, option)),
        None => {
            options.push(option);
            None
        }
    }
}

/// Later values over earlier ones.
pub(super) fn put(options: &mut Vec<SpecOption>, over: Vec<SpecOption>) {
    for option in over {
        set(options, option);
    }
}

/// Takes an option out of the list.
pub(super) fn take(options: &mut Vec<SpecOption>, name: &str) -> Option<SpecOption> {
    let at = options.iter().position(|option| option.name == name)?;
    Some(options.remove(at))
}

/// The value of an option as a number.
pub(super) fn number(options: &[SpecOption], name: &str) -> Option<i64> {
    options.iter().find(|option| option.name == name)?.value.parse().ok()
}

/// The option, if its value is valid and switches something on.
pub(super) fn switched_on<'a>(options: &'a [SpecOption], name: &str) -> Option<&'a SpecOption> {
    let option = options.iter().find(|option| option.name == name)?;
    (effective(option).is_some() && !is_off(option)).then_some(option)
}

/// Whether two names are those of one option.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    row_name(one) == row_name(other)
}

/// Whether two values of one option mean the same.
pub(super) fn means_the_same(one: &SpecOption, other: &SpecOption) -> bool {
    one.value == other.value || effective(one).is_some_and(|value| effective(other) == Some(value))
}

/// Whether its value switches it off.
pub(super) fn is_off(option: &SpecOption) -> bool {
    effective(option).is_some_and(|value| ["0", "none", ""].contains(&value.as_str()))
}

/// The value as parsed by the option table; `None` for a bad one, which is reported elsewhere.
pub(super) fn effective(option: &SpecOption) -> Option<String> {
    let change = parse(&[option.pair()]).ok()?;
    show(&change.options, &option.name).map(|value| value.to_string())
}
