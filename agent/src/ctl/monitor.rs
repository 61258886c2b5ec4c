//! `bondctl monitor`: events as lines.

use std::mem::MaybeUninit;

use nix::libc;
use serde::Deserialize;
use serde_json::Value;

/// The part of an event for people. The other fields may be newer than this client.
#[derive(Deserialize)]
struct Shown {
    time: f64,
    bond: String,
    text: String,
}

/// An event of the agent as a line of text; unchanged if it cannot be parsed.
pub(super) fn line(came: &Value) -> String {
    let Ok(Shown { time, bond, text }) = Shown::deserialize(&came["event"]) else {
        return came.to_string();
    };
    let time = local_time(time);
    if text.strip_prefix(&bond).is_some_and(|rest| rest.starts_with(':')) {
        format!("{time} {text}")
    } else {
        format!("{time} {bond}: {text}")
    }
}

/// Date and time of day in the local time zone, to the millisecond.
fn local_time(since_1970: f64) -> String {
    let millis = (since_1970 * 1000.0).round() as i64;
    let seconds = millis.div_euclid(1000) as libc::time_t;
    let mut broken = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; all bytes zero is a valid `tm`, whether or not the call fills it.
    let t = unsafe {
        libc::localtime_r(&seconds, broken.as_mut_ptr());
        broken.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        t.tm_year + 1900,
        t.tm_mon + 1,
        t.tm_mday,
        t.tm_hour,
        t.tm_min,
        t.tm_sec,
        millis.rem_euclid(1000)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(text: &str) -> Value {
        json!({"event": {"time": 1_700_000_000.999_6, "bond": "bond0", "text": text, "notice": {"kind": "from the future"}}})
    }

    #[test]
    fn an_event_is_a_line_that_names_its_bond_once() {
        for text in ["eth1: link down", "bond0: eth1: link down"] {
            let line = line(&event(text));
            let (time, rest) = line.split_at(23);
            assert_eq!(rest, " bond0: eth1: link down");
            assert!(time.starts_with("2023-11-1") && time.ends_with(":21.000"), "{time}");
        }
        assert!(line(&event("bond0x: link down")).ends_with(" bond0: bond0x: link down"));
    }

    #[test]
    fn what_is_not_understood_is_printed_as_it_came() {
        let odd = json!({"event": {"hour": 3}});
        assert_eq!(line(&odd), odd.to_string());
    }
}
