//! Numbers as columns: widths from the content, text to the left, numbers to the right, colours only on a terminal.

use std::{fmt, io::IsTerminal, time::Duration};

/// Where a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// Rows under a heading.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    #[must_use]
    pub fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, and there is no place for more cells than columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().take(self.columns.len()).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    fn widths(&self) -> Vec<usize> {
        let widest =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        self.columns.iter().enumerate().map(|(n, (name, _))| widest(n).max(name.chars().count())).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<String> = cells
                .zip(&widths)
                .zip(&self.columns)
                .map(|((cell, &width), (_, side))| match side {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                })
                .collect();
            format!("  {}", cells.join("   ")).trim_end().to_owned()
        };
        writeln!(f, "{}", paint(Ink::Faint, &line(&mut self.columns.iter().map(|(name, _)| *name))))?;
        for row in &self.rows {
            writeln!(f, "{}", line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// The few inks of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Headings.
    Bold,
    /// What may be overlooked.
    Faint,
    /// What held.
    Green,
    /// What broke.
    Red,
}

/// Text in an ink, where standard output is a terminal and `NO_COLOR` is not set; plain otherwise.
#[must_use]
pub fn paint(ink: Ink, text: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match ink {
        Ink::Bold => 1,
        Ink::Faint => 2,
        Ink::Green => 32,
        Ink::Red => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A count with thin groups: `1 234 567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A latency with the unit that suits it: `85 µs`, `4.20 ms`, `1.50 s`.
#[must_use]
pub fn span(took: Duration) -> String {
    let micros = took.as_micros();
    let millis = took.as_secs_f64() * 1e3;
    match micros {
        0 => "–".to_owned(),
        1..1000 => format!("{micros} µs"),
        1000..10_000 => format!("{millis:.2} ms"),
        10_000..1_000_000 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", took.as_secs_f64()),
    }
}

/// A share: `91.2 %`; a dash when there is no whole.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    // Counts of a run are far below 2^52, where f64 stops being exact.
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("route", Side::Left), ("n", Side::Right)]);
        table.row(["list".to_owned(), "12 345".to_owned()]);
        table.row(["µs".to_owned()]);
        table.row(["a".to_owned(), "1".to_owned(), "one too many".to_owned()]);
        assert_eq!(table.to_string(), "  route        n\n  list    12 345\n  µs\n  a            1\n");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!(
            [0, 85, 4200, 42_000, 1_500_000].map(|micros| span(Duration::from_micros(micros))),
            ["–", "85 µs", "4.20 ms", "42 ms", "1.50 s"]
        );
        assert_eq!((share(912, 1000), share(0, 0)), ("91.2 %".to_owned(), "–".to_owned()));
    }
}
