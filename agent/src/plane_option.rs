//! `plane=`, which stands among a bond's options and is none of the bond machine's: it chooses the data plane of a new bond.

use bond_modes::OptionError;

use crate::control::proto::OptionPairs;
use crate::dataplane::PlaneChoice;

/// The option's name.
const NAME: &str = "plane";

/// Whether an option is `plane=`.
pub fn is_plane((name, _): &(String, String)) -> bool {
    name == NAME
}

/// The options without `plane=`.
pub fn without_plane(pairs: &[(String, String)]) -> OptionPairs {
    pairs.iter().filter(|pair| !is_plane(pair)).cloned().collect()
}

/// The chosen plane, if any, and the other options.
///
/// # Errors
/// There is no plane of that name.
pub fn take_plane(pairs: &[(String, String)]) -> Result<(Option<PlaneChoice>, OptionPairs), OptionError> {
    let choice = pairs.iter().rfind(|pair| is_plane(pair)).map(|(_, value)| {
        PlaneChoice::parse(value).ok_or_else(|| OptionError::BadValue {
            option: NAME,
            value: value.clone(),
            expected: PlaneChoice::expected().to_owned(),
        })
    });
    Ok((choice.transpose()?, without_plane(pairs)))
}
