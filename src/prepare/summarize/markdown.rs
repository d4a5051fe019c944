//! A table in Markdown, as GitHub reads it.

use super::axes::Label;
use super::pivot::{Cell, Pivot};

/// A section with a table and its notes.
pub(super) fn section(title: &str, pivot: &Pivot, notes: &[String]) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let column_names = pivot.columns.iter().map(|label| column_name(&pivot.column_axes, label));
    lines.push(pivot.row_axes.iter().map(|axis| escaped(axis)).chain(column_names).collect());
    for (label, cells) in pivot.rows.iter().zip(&pivot.cells) {
        let names = label.iter().map(|value| escaped(value.as_deref().unwrap_or_default()));
        let cells =
            cells.iter().map(|it| it.as_ref().map_or(String::new(), |it| cell(it, pivot.n)));
        lines.push(names.chain(cells).collect());
    }
    let names = pivot.row_axes.len();
    let count = names + pivot.columns.len();
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(4)
    };
    let widths: Vec<_> = (0..count).map(width).collect();
    let aligned = |line: &Vec<String>| {
        let fields = line.iter().zip(&widths).enumerate().map(|(column, (field, width))| {
            let space = " ".repeat(width - field.chars().count());
            if column < names { format!("{field}{space}") } else { format!("{space}{field}") }
        });
        format!("| {} |\n", fields.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().enumerate().map(|(column, width)| match column < names {
        true => "-".repeat(*width),
        false => format!("{}:", "-".repeat(width - 1)),
    });
    let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
    let (header, rows) = lines.split_first().expect("a table has a header");
    let rows: String = rows.iter().map(aligned).collect();
    let notes: String = notes.iter().map(|note| format!("{}\n", escaped(note))).collect();
    format!("## {}\n\n{}{rule}{rows}\n{notes}", escaped(title), aligned(header))
}

fn column_name(axes: &[String], label: &Label) -> String {
    if axes.is_empty() {
        return "value".to_owned();
    }
    let names = axes.iter().zip(label).filter_map(|(axis, value)| {
        Some(format!("{} = {}", escaped(axis), escaped(value.as_deref()?)))
    });
    names.collect::<Vec<_>>().join(", ")
}

/// The content of a cell; the number of runs if it is not that of the table.
fn cell(cell: &Cell, n: Option<usize>) -> String {
    let Some(mean) = &cell.mean else {
        let reference = cell.reference.as_ref().map(|value| format!("[{value}]"));
        let failed = (cell.failed > 0).then(|| "failed".to_owned());
        return failed.into_iter().chain(reference).collect::<Vec<_>>().join(" ");
    };
    let mean = if cell.best { format!("**{mean}**") } else { mean.clone() };
    let half = cell.half.as_ref().map_or(String::new(), |half| format!(" ± {half}"));
    let clean = if cell.uses_clean_labels { " †" } else { "" };
    let count = n.is_none().then(|| format!("n = {}", cell.n));
    let failed = (cell.failed > 0).then(|| format!("{} failed", cell.failed));
    let remarks: Vec<_> = count.into_iter().chain(failed).collect();
    let remarks =
        if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join(", ")) };
    let reference = cell.reference.as_ref().map_or(String::new(), |value| format!(" [{value}]"));
    format!("{mean}{half}{clean}{remarks}{reference}")
}

/// The text without any meaning as Markdown or HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '$' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_have_no_meaning() {
        assert_eq!(super::escaped("a_b|*c*<b>\n"), "a\\_b\\|\\*c\\*&lt;b&gt; ");
    }
}
