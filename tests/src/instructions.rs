//! Instructions per frame, held against the record in `docs/measured.md`: by `make bench ONLY=instructions`, which can write it, and
//! by a test in the lab's machine.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bins::{bin, root};
use crate::vm::Lab;

/// Cost per frame of one plane, mode and policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Plane, mode and policy, or `raw`.
    pub name: String,
    /// Of a frame that is sent and of one that is received; those of `raw` are the whole, others what comes on top of it.
    pub cost: [i64; 2],
}

/// Measures every row.
#[derive(Debug)]
pub struct Instructions {
    /// `uname -r` of the machine.
    pub kernel: String,
    /// In the order in which they were measured; `raw` is the first.
    pub rows: Vec<Row>,
}

impl Instructions {
    /// Boots the machine, whose clock counts instructions, and measures all rows.
    ///
    /// # Panics
    /// When the machine fails, or what it prints has another form.
    pub fn measure(lab: &Lab, sender: &Path) -> Instructions {
        let script = root().join("tests/vm/instructions.sh");
        let script = script.to_str().expect("the names of scripts are ASCII");
        let arguments = ["--timeout", "1800", "--run", script];
        let said = lab.run(MODULES, &[&bin("bondd"), &bin("bondctl"), sender], &[], &arguments);
        Instructions::parse(&said).unwrap_or_else(|| panic!("the machine printed\n{said}"))
    }

    /// The kernel and the compiler of the programs: with others, figures differ.
    pub fn setting(&self) -> String {
        format!("Linux {}, {}", self.kernel, clang())
    }

    fn parse(said: &str) -> Option<Instructions> {
        let mut lines = said.lines();
        let kernel = lines.next()?.to_owned();
        let mut rows: Vec<Row> = Vec::new();
        let mut raw = [0.0; 2];
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let [plane, mode, policy, sent, received] = words[..] else {
                return None;
            };
            let whole: [f64; 2] = [sent.parse().ok()?, received.parse().ok()?];
            let cost = [0, 1].map(|way| (whole[way] - raw[way]).round() as i64);
            if rows.is_empty() {
                raw = whole;
            }
            let name = [plane, mode, policy].into_iter().filter(|word| *word != "-");
            rows.push(Row {
                name: name.collect::<Vec<_>>().join(" "),
                cost,
            });
        }
        Some(Instructions { kernel, rows })
    }
}

/// The table of `docs/measured.md`: what was recorded, for each row, before and now.
#[derive(Debug)]
pub struct Recorded {
    text: String,
    setting: String,
    rows: BTreeMap<String, [Option<[i64; 2]>; 2]>,
    order: Vec<String>,
}

/// A row that does not cost what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// As measured.
    pub row: Row,
    /// What was recorded.
    pub recorded: [i64; 2],
}

impl std::fmt::Display for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Apart { row, recorded } = self;
        let [sent, received] = [0, 1].map(|way| {
            let [now, then] = [row.cost[way], recorded[way]].map(|cost| shown(&row.name, cost));
            format!("{now}, not {then}")
        });
        write!(f, "{}: {sent} to send, {received} to receive", row.name)
    }
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Column {
    /// Of revision 723f633.
    Before,
    /// Of the programs of today.
    Now,
}

impl Recorded {
    /// Reads the page.
    pub fn read() -> std::io::Result<Recorded> {
        std::fs::read_to_string(page()).map(Recorded::parse)
    }

    fn parse(text: String) -> Recorded {
        let (mut rows, mut order) = (BTreeMap::new(), Vec::new());
        let setting = text.lines().find_map(|line| line.strip_prefix(SETTING));
        let setting = setting.map_or_else(String::new, |setting| setting.trim_end_matches('.').to_owned());
        for line in table(&text).map_or("", |(_, table, _)| table).lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let ["", name, sent_before, sent, received_before, received, ""] = cells[..] else {
                continue;
            };
            let number = |cell: &str| cell.replace([',', '+'], "").parse::<i64>().ok();
            let pair = |sent, received| Some([number(sent)?, number(received)?]);
            let values = [pair(sent_before, received_before), pair(sent, received)];
            if values != [None, None] {
                rows.insert(name.to_owned(), values);
                order.push(name.to_owned());
            }
        }
        Recorded {
            text,
            setting,
            rows,
            order,
        }
    }

    /// The value of a row in a column.
    pub fn of(&self, column: Column, row: &str) -> Option<[i64; 2]> {
        self.rows.get(row).and_then(|values| values[column as usize])
    }

    /// Rows that cost more than a column says, by more than they may.
    pub fn dearer(&self, column: Column, measured: &[Row]) -> Vec<Apart> {
        self.apart(column, measured, |recorded, cost| cost > recorded + slack(recorded))
    }

    /// Rows that cost less: as long as that is not recorded, they may become dearer again unseen.
    pub fn cheaper(&self, column: Column, measured: &[Row]) -> Vec<Apart> {
        self.apart(column, measured, |recorded, cost| cost < recorded - slack(recorded))
    }

    fn apart(&self, column: Column, measured: &[Row], is_apart: fn(i64, i64) -> bool) -> Vec<Apart> {
        // The cable and the kernel's driver are none of ours.
        let ours = measured
            .iter()
            .filter(|row| row.name != RAW && !row.name.starts_with(DRIVER));
        let compared = ours.filter_map(|row| Some((row, self.of(column, &row.name)?)));
        compared
            .filter(|(row, recorded)| (0..2).any(|way| is_apart(recorded[way], row.cost[way])))
            .map(|(row, recorded)| Apart {
                row: row.clone(),
                recorded,
            })
            .collect()
    }

    /// Names of rows that a column has.
    pub fn names(&self, column: Column) -> impl Iterator<Item = &str> {
        let names = self.order.iter().map(String::as_str);
        names.filter(move |name| self.of(column, name).is_some())
    }

    /// The kernel and the compiler with which the table was measured; with others, figures differ.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// Stores a measurement in a column.
    pub fn record(&mut self, column: Column, setting: &str, measured: &[Row]) {
        setting.clone_into(&mut self.setting);
        for row in measured {
            if !self.rows.contains_key(&row.name) {
                self.order.push(row.name.clone());
            }
            self.rows.entry(row.name.clone()).or_default()[column as usize] = Some(row.cost);
        }
    }

    /// Writes the page with the table in place of the one that it had.
    pub fn write(&self) -> std::io::Result<()> {
        std::fs::write(page(), self.page())
    }

    fn page(&self) -> String {
        let (before, _, after) = table(&self.text).unwrap_or((&self.text, "", ""));
        let mut text = format!("{before}{HEAD}");
        for name in &self.order {
            let [then, now] = self.rows[name];
            let cell =
                |cost: Option<[i64; 2]>, way: usize| cost.map_or_else(String::new, |cost| shown(name, cost[way]));
            let cells = [cell(then, 0), cell(now, 0), cell(then, 1), cell(now, 1)];
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        let text = text + after;
        let lines = text.lines().map(|line| match line.starts_with(SETTING) {
            true => format!("{SETTING}{}.\n", self.setting),
            false => format!("{line}\n"),
        });
        lines.collect()
    }
}

/// A cost in words: those of rows other than `raw` come on top of it.
pub fn shown(row: &str, cost: i64) -> String {
    let text = grouped(cost.abs());
    match cost {
        _ if row == RAW => text,
        0.. => format!("+{text}"),
        _ => format!("-{text}"),
    }
}

/// A number that is not negative, with a comma for each thousand.
pub fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// First line of `clang --version`: it compiles the classifier programs.
fn clang() -> String {
    let said = Command::new("clang").arg("--version").output();
    let said = said.map_or_else(|_| Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&said)
        .lines()
        .next()
        .unwrap_or("no clang")
        .to_owned()
}

/// By how much a figure may differ from what was recorded.
fn slack(recorded: i64) -> i64 {
    (recorded.abs() * 3 / 100).max(20)
}

/// The page before the table, the table, and the page after it.
fn table(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find(HEAD)?;
    let rows = text[start..].lines().take_while(|line| line.starts_with('|'));
    let end = start + rows.map(|line| line.len() + 1).sum::<usize>();
    Some((&text[..start], &text[start..end], &text[end..]))
}

fn page() -> PathBuf {
    root().join("docs/measured.md")
}

/// The row of the cable alone.
pub const RAW: &str = "raw";

/// Begins the rows of the kernel's bonding driver.
const DRIVER: &str = "kernel ";

/// Kernel of the lab that has everything in one: bonding, team and tcx.
pub const KERNEL: &str = "6.12";

const SETTING: &str = "Recorded with ";

const HEAD: &str = "\
| over raw | sent, 723f633 | sent, now | received, 723f633 | received, now |
|---|--:|--:|--:|--:|
";

const MODULES: &[&str] = &[
    "bonding",
    "veth",
    "sch_ingress",
    "cls_bpf",
    "team",
    "team_mode_activebackup",
    "team_mode_loadbalance",
    "team_mode_broadcast",
];

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "6.12.9\nraw - - 8000.4 7990.0\nkernel balance-xor layer2 8435.0 8027.3\n\
         tc active-backup - 9349.2 9727.0\nteam active-backup - 8470.4 8097.0\n";

    #[test]
    fn rows_are_what_comes_on_top_of_the_cable() {
        let seen = Instructions::parse(SAID).unwrap();
        let rows: Vec<_> = seen.rows.iter().map(|row| (row.name.as_str(), row.cost)).collect();
        let expected = [
            ("raw", [8000, 7990]),
            ("kernel balance-xor layer2", [435, 37]),
            ("tc active-backup", [1349, 1737]),
            ("team active-backup", [470, 107]),
        ];
        assert_eq!((seen.kernel.as_str(), rows), ("6.12.9", expected.into()));
        assert!(Instructions::parse("6.12.9\nsomething else\n").is_none());
    }

    #[test]
    fn what_was_recorded_is_read_again() {
        let mut page = Recorded::parse(format!("{SETTING}nothing.\n\n{HEAD}\nafter\n"));
        let mut seen = Instructions::parse(SAID).unwrap().rows;
        page.record(Column::Before, "Linux 6.12.9, clang", &seen);
        let text = page.page();
        assert!(
            text.contains("| tc active-backup | +1,349 |  | +1,737 |  |\n"),
            "{text}"
        );
        let mut page = Recorded::parse(text);
        assert_eq!(page.setting(), "Linux 6.12.9, clang");
        assert_eq!(page.of(Column::Before, "raw"), Some([8000, 7990]));
        assert_eq!(page.of(Column::Now, "raw"), None);
        assert_eq!(page.names(Column::Before).count(), 4);
        assert_eq!(page.names(Column::Now).count(), 0);
        seen[2].cost[1] += 21;
        page.record(Column::Now, "Linux 6.13, clang", &seen);
        let text = page.page();
        assert!(
            text.contains("| tc active-backup | +1,349 | +1,349 | +1,737 | +1,758 |\n"),
            "{text}"
        );
        assert_eq!(text.matches(HEAD).count(), 1);
    }

    #[test]
    fn rows_are_named_that_cost_three_percent_more_or_less_and_twenty_instructions() {
        let mut page = Recorded::parse(format!("{SETTING}nothing.\n\n{HEAD}\n"));
        let recorded = Instructions::parse(SAID).unwrap().rows;
        page.record(Column::Now, "Linux 6.12.9, clang", &recorded);
        for (row, way, most) in [(2, 0, 40), (2, 1, 52), (3, 0, 20), (3, 1, 20)] {
            for (change, dearer, cheaper) in [(most, 0, 0), (most + 1, 1, 0), (-most, 0, 0), (-most - 1, 0, 1)] {
                let mut seen = recorded.clone();
                seen[row].cost[way] += change;
                let found = [page.dearer(Column::Now, &seen), page.cheaper(Column::Now, &seen)];
                assert_eq!(found.each_ref().map(Vec::len), [dearer, cheaper], "{change}: {found:?}");
            }
            assert_eq!(page.dearer(Column::Before, &recorded), []);
        }
        let mut seen = recorded.clone();
        for not_ours in seen.iter_mut().take(2) {
            not_ours.cost[0] += 1000;
        }
        assert_eq!(page.dearer(Column::Now, &seen), []);
        seen[2].cost[1] += 60;
        assert_eq!(
            page.dearer(Column::Now, &seen)[0].to_string(),
            "tc active-backup: +1,349, not +1,349 to send, +1,797, not +1,737 to receive"
        );
    }
}
