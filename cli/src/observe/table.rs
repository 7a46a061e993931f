//! Text in columns, as wide as what stands in them.

/// Where a column's text goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows below their headings. The last column is not filled up.
pub(super) fn render<const N: usize>(headings: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let heading = headings.get(column).map_or(0, |(text, _)| text.len());
        cells
            .map(|cell| cell.chars().count())
            .fold(heading, usize::max)
    });
    let mut text = String::new();
    let first = headings.map(|(heading, _)| heading.to_owned());
    for row in std::iter::once(&first).chain(rows) {
        let mut line = String::new();
        for ((cell, (_, align)), width) in row.iter().zip(headings).zip(widths) {
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                Align::Right => line.push_str(&format!("{cell:>width$}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let rows = [
            ["a", "1", "x"].map(str::to_owned),
            ["bbbb", "10000", ""].map(str::to_owned),
        ];
        let headings = [
            ("NAME", Align::Left),
            ("N", Align::Right),
            ("LAST", Align::Left),
        ];
        assert_eq!(
            render(headings, &rows),
            "NAME      N  LAST\na         1  x\nbbbb  10000\n"
        );
    }
}
