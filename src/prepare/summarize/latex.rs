//! A table in LaTeX: one `tabular`, with the rules of the package booktabs.

use super::axes::Label;
use super::pivot::{Cell, Pivot};

/// A table with its title and notes as comments.
pub(super) fn tabular(title: &str, pivot: &Pivot, notes: &[String]) -> String {
    let names = pivot.row_axes.len();
    let mut text = String::new();
    for line in std::iter::once(title).chain(notes.iter().map(String::as_str)) {
        text.push_str(&format!("% {line}\n"));
    }
    let form = "l".repeat(names) + &"r".repeat(pivot.columns.len());
    text.push_str(&format!(
        "\\begin{{tabular}}{{{form}}}\n\\toprule\n{}\\midrule\n",
        header(pivot)
    ));
    for (label, cells) in pivot.rows.iter().zip(&pivot.cells) {
        let names = label.iter().map(|value| escaped(value.as_deref().unwrap_or_default()));
        let cells =
            cells.iter().map(|it| it.as_ref().map_or(String::new(), |it| cell(it, pivot.n)));
        text.push_str(&line(names.chain(cells)));
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    text
}

/// One line per axis of the columns; neighbours with the same value on it, and on those above, share a cell.
fn header(pivot: &Pivot) -> String {
    let names = pivot.row_axes.len();
    let axes = || pivot.row_axes.iter().map(|axis| escaped(axis));
    if pivot.column_axes.is_empty() {
        return line(axes().chain(["value".to_owned()]));
    }
    let mut text = String::new();
    for (depth, axis) in pivot.column_axes.iter().enumerate() {
        let last = depth + 1 == pivot.column_axes.len();
        let mut fields: Vec<String> =
            if last { axes().collect() } else { vec![String::new(); names] };
        let mut rules = String::new();
        let mut from = 0;
        while from < pivot.columns.len() {
            let same = |column: &&Label| column[..=depth] == pivot.columns[from][..=depth];
            let span = pivot.columns[from..].iter().take_while(same).count();
            let name = pivot.columns[from][depth].as_ref();
            let name = name
                .map_or(String::new(), |value| format!("{} = {}", escaped(axis), escaped(value)));
            fields.push(match (span, last) {
                (1, _) => format!("\\multicolumn{{1}}{{c}}{{{name}}}"),
                _ => format!("\\multicolumn{{{span}}}{{c}}{{{name}}}"),
            });
            if !last && span > 1 {
                rules.push_str(&format!(
                    "\\cmidrule(lr){{{}-{}}}",
                    names + from + 1,
                    names + from + span
                ));
            }
            from += span;
        }
        text.push_str(&line(fields));
        if !rules.is_empty() {
            text.push_str(&format!("{rules}\n"));
        }
    }
    text
}

fn line(fields: impl IntoIterator<Item = String>) -> String {
    format!("{} \\\\\n", fields.into_iter().collect::<Vec<_>>().join(" & "))
}

/// The content of a cell; the number of runs if it is not that of the table.
fn cell(cell: &Cell, n: Option<usize>) -> String {
    let reference = cell.reference.as_ref().map(|value| format!("[{}]", number(value, false)));
    let Some(mean) = &cell.mean else {
        let failed = (cell.failed > 0).then(|| "failed".to_owned());
        return failed.into_iter().chain(reference).collect::<Vec<_>>().join(" ");
    };
    let mut parts = vec![match &cell.half {
        Some(half) => format!("${} \\pm {half}$", mathematical(mean, cell.best)),
        None => number(mean, cell.best),
    }];
    parts.extend(cell.uses_clean_labels.then(|| "$^\\dagger$".to_owned()));
    parts.extend(n.is_none().then(|| format!("($n = {}$)", cell.n)));
    parts.extend((cell.failed > 0).then(|| format!("({} failed)", cell.failed)));
    parts.extend(reference);
    parts.join(" ")
}

fn number(text: &str, bold: bool) -> String {
    format!("${}$", mathematical(text, bold))
}

/// A number in mathematical mode.
fn mathematical(text: &str, bold: bool) -> String {
    let text = match text {
        "NaN" => "\\mathrm{NaN}".to_owned(),
        _ => text.replace("inf", "\\infty"),
    };
    if bold { format!("\\mathbf{{{text}}}") } else { text }
}

/// The text without any meaning as LaTeX.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_have_no_meaning() {
        assert_eq!(escaped("a_b&50%"), "a\\_b\\&50\\%");
        assert_eq!(
            escaped("\\x{~^}#$\n"),
            "\\textbackslash{}x\\{\\textasciitilde{}\\textasciicircum{}\\}\\#\\$ "
        );
    }
}
