//! The picture of `docs/failover.svg`: one row for each competitor, one dot for each failure, on a logarithmic axis.

use super::Failover;
use crate::pulls::median;

/// The whole file.
pub fn draw(failovers: &[Failover]) -> String {
    let mut rows = String::new();
    let mut y = TOP;
    for (dead, title) in GROUPS {
        let group: Vec<&Failover> = failovers.iter().filter(|failover| failover.dead == dead).collect();
        rows += &text(MARGIN, y, "group", "start", title);
        y += ROW;
        for failover in group {
            rows += &row(failover, y);
            y += ROW;
        }
        y += GAP;
    }
    let bottom = y - GAP;
    let height = bottom + FOOT;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{TITLE}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n{}{}{}{rows}</svg>\n",
        text(MARGIN, 26, "title", "start", TITLE),
        text(MARGIN, 46, "note", "start", NOTE),
        axis(bottom),
    )
}

/// Lines of the axis, with frames below and the silence that they are above.
fn axis(bottom: u32) -> String {
    let mut lines = String::new();
    for (frames, silence) in TICKS {
        let x = place(frames);
        lines += &format!("<path class=\"grid\" d=\"M{x} {} V{bottom}\"/>\n", TOP - 14);
        lines += &text(x, TOP - 20, "tick", "middle", silence);
        lines += &text(x, bottom + 16, "tick", "middle", &frames.to_string());
    }
    let middle = (LEFT + RIGHT) / 2;
    lines += &text(middle, TOP - 36, "tick", "middle", "silence");
    lines
        + &text(
            middle,
            bottom + 34,
            "tick",
            "middle",
            "frames lost, of 10,000 a second (logarithmic)",
        )
}

/// All failures of one competitor: a strip from the least to the most, the dots, and the median.
fn row(failover: &Failover, y: u32) -> String {
    let Failover { name, how, lost, .. } = failover;
    let kind = if name.starts_with("bondd") { "ours" } else { "theirs" };
    let label = format!("{name}: {how}");
    let mut drawn = format!(
        "<g class=\"{kind}\">\n{}",
        text(LEFT - 12, y + 4, "label", "end", &label)
    );
    if failover.unnoticed > 0 {
        drawn += &text(
            RIGHT,
            y + 4,
            "label",
            "end",
            "not noticed: every frame is lost \u{2192}",
        );
        return drawn + "</g>\n";
    }
    if let (Some(least), Some(most)) = (lost.first(), lost.last()) {
        let (from, to, middle) = (place(*least), place(*most), median(lost));
        drawn += &format!("<path class=\"strip\" d=\"M{from} {y} H{to}\"/>\n");
        for frames in lost {
            drawn += &format!("<circle cx=\"{}\" cy=\"{y}\" r=\"3\"/>\n", place(*frames));
        }
        let x = place(middle);
        drawn += &format!("<path class=\"median\" d=\"M{x} {} V{}\"/>\n", y - 8, y + 8);
        drawn += &text(to + 10, y + 4, "value", "start", &middle.to_string());
    }
    drawn + "</g>\n"
}

/// Where so many frames are: none at the left end, then one width for each power of ten.
fn place(frames: u64) -> u32 {
    let decades = match frames {
        0 => 0.0,
        frames => FIRST + (frames as f64).log10(),
    };
    LEFT + (decades / DECADES * f64::from(RIGHT - LEFT)).round() as u32
}

fn text(x: u32, y: u32, class: &str, anchor: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{words}</text>\n")
}

const TITLE: &str = "Frames lost until the other port is used";
const NOTE: &str = "One dot for each of 30 failures, the number is the median; active-backup, in the lab's machine (emulated, Linux 6.12).";
const GROUPS: [(bool, &str); 2] = [(false, "Cable pulled"), (true, "Path dead, carrier stays")];

const WIDTH: u32 = 860;
const MARGIN: u32 = 16;
/// Where none are lost, and where the axis ends.
const LEFT: u32 = 285;
const RIGHT: u32 = 820;
/// Of the first row.
const TOP: u32 = 118;
const ROW: u32 = 24;
/// Between the groups.
const GAP: u32 = 12;
/// Below the last row.
const FOOT: u32 = 46;
/// From none to one frame, in widths of a power of ten.
const FIRST: f64 = 0.5;
/// Up to 10,000 frames.
const DECADES: f64 = FIRST + 4.0;
const TICKS: [(u64, &str); 6] = [
    (0, "none"),
    (1, "0.1 ms"),
    (10, "1 ms"),
    (100, "10 ms"),
    (1_000, "100 ms"),
    (10_000, "1 s"),
];

/// The colours follow the reader's choice of light or dark.
const STYLE: &str = "
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:17px;font-weight:600}.group{font-weight:600}
.note,.tick{font-size:12px;fill:#57606a}.back{fill:#ffffff}.grid{stroke:#d0d7de}
.strip{stroke-width:8;stroke-linecap:round;stroke-opacity:.3}circle{fill-opacity:.55}.median{stroke-width:3}
.ours path{stroke:#0969da}.ours circle{fill:#0969da}.theirs path{stroke:#bc4c00}.theirs circle{fill:#bc4c00}
.ours .label{font-weight:600}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note,.tick{fill:#9da7b3}.back{fill:#0d1117}.grid{stroke:#30363d}
.ours path{stroke:#58a6ff}.ours circle{fill:#58a6ff}.theirs path{stroke:#f0883e}.theirs circle{fill:#f0883e}}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn failover(name: &str, dead: bool, lost: &[u64], unnoticed: u64) -> Failover {
        Failover {
            name: name.to_owned(),
            how: "a < b".to_owned(),
            dead,
            lost: lost.into(),
            longest_gap: 0,
            unnoticed,
        }
    }

    #[test]
    fn each_competitor_has_a_row_with_a_dot_for_each_failure_or_says_that_it_is_not_noticed() {
        let drawn = draw(&[
            failover("kernel bonding", false, &[0, 3, 700], 0),
            failover("bondd, tc", false, &[1, 1, 2, 4], 0),
            failover("Open vSwitch", true, &[6_000, 6_000], 2),
        ]);
        assert_eq!(drawn.matches("<g class=\"theirs\">").count(), 2);
        assert_eq!(drawn.matches("<g class=\"ours\">").count(), 1);
        assert_eq!(drawn.matches("<circle").count(), 7);
        assert_eq!(drawn.matches("not noticed").count(), 1);
        for label in [
            "kernel bonding: a &lt; b",
            "bondd, tc: a &lt; b",
            "Open vSwitch: a &lt; b",
        ] {
            assert!(drawn.contains(label), "{label}: {drawn}");
        }
        assert!(drawn.contains(&format!("V{}\"/>", TOP + ROW + 8)), "{drawn}");
    }

    #[test]
    fn every_element_is_closed_and_nothing_lies_outside() {
        let drawn = draw(&[failover("teamd", false, &[0, 10_000], 0)]);
        let mut open = Vec::new();
        for tag in drawn.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag ends");
            let name = tag.split([' ', '\n']).next().unwrap();
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert_eq!([place(0), place(10_000)], [LEFT, RIGHT]);
        assert!(place(1) > LEFT && place(2) > place(1));
    }
}
