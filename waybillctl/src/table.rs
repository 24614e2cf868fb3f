//! Tables: fitted to the terminal, or in aligned columns without wrapping when piped.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table as Drawn};

/// Narrowest terminal that is fitted to: below it, a table is unreadable either way.
const WIDTH_COLUMNS_MIN: u16 = 60;

/// A table that is being filled.
pub(crate) struct Table {
    drawn: Drawn,
    rows: usize,
    /// By column, whether every cell is one word: an id that is cut in two can not be copied.
    words: Vec<bool>,
}

impl Table {
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut drawn = Drawn::new();
        drawn.load_style(NOTHING).set_header(columns.iter().map(|column| column.to_uppercase()));
        for column in drawn.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { drawn, rows: 0, words: vec![true; columns.len()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A line end inside a cell would look like another row.
        let cells = cells.map(|cell| cell.replace(['\n', '\r', '\t'], " "));
        for (word, cell) in self.words.iter_mut().zip(&cells) {
            *word &= !cell.contains(' ');
        }
        self.drawn.add_row(cells);
        self.rows += 1;
    }

    /// As text, for standard output. `nothing` stands for a table without rows.
    pub(crate) fn text(self, nothing: &str) -> String {
        self.sized(width(), nothing)
    }

    fn sized(mut self, width: Option<u16>, nothing: &str) -> String {
        if self.rows == 0 {
            return nothing.to_owned();
        }
        match width {
            Some(width) => {
                self.drawn.set_content_arrangement(ContentArrangement::Dynamic);
                self.drawn.set_width(width.max(WIDTH_COLUMNS_MIN));
                for (column, word) in self.drawn.column_iter_mut().zip(&self.words) {
                    if *word {
                        column.set_constraint(ColumnConstraint::ContentWidth);
                    }
                }
            }
            None => {
                self.drawn.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        let text = self.drawn.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n")
    }
}

/// Columns of the terminal that standard output is; `None` when it is none.
fn width() -> Option<u16> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| terminal.size().1)
}

/// A text that may be missing.
pub(crate) fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".to_owned())
}

/// `1.2 MiB`, for people.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = format!("{bytes} B");
    let mut unit = 1_u128;
    for name in UNITS {
        unit *= 1024;
        if u128::from(bytes) >= unit {
            let tenths = u128::from(bytes) * 10 / unit;
            shown = format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["id", "what"]);
        table.row([
            "1".to_owned(),
            "a long text that does not fit into so narrow a terminal as this".to_owned(),
        ]);
        table.row(["22".to_owned(), "two\nlines".to_owned()]);
        table
    }

    #[test]
    fn piped_it_is_aligned_and_never_wrapped() {
        assert_eq!(
            table().sized(None, ""),
            "ID  WHAT\n1   a long text that does not fit into so narrow a terminal as this\n22  two lines"
        );
        assert_eq!(Table::new(&["id"]).sized(None, "nothing"), "nothing");
    }

    #[test]
    fn on_a_terminal_it_fits() {
        let text = table().sized(Some(60), "");
        assert!(text.lines().all(|line| line.len() <= 60) && text.lines().count() == 4, "{text}");
    }

    #[test]
    fn an_id_is_never_cut() {
        let mut table = table();
        let id = "01980000-0000-7000-8000-00000000000a";
        table.row([id.to_owned(), "some words that have to be broken up so that all fits".to_owned()]);
        let text = table.sized(Some(60), "");
        assert!(text.lines().any(|line| line.starts_with(id)), "{text}");
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!([0, 1023, 1024, 1_572_864].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
    }
}
