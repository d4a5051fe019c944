//! The tables in a `table.md`, as the kind `summarize` writes it: sections with a title, a table and notes.

use serde::Serialize;

/// A section of a summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Which columns have numbers.
    pub(crate) numbers: Vec<bool>,
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// Whether a part of it is bold: the best of its column.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) best: bool,
}

/// The sections of a text. What is not a title or a table is a note.
pub(crate) fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push(Section { title: plain(title).text, ..Section::default() });
            continue;
        }
        if sections.is_empty() {
            sections.push(Section::default());
        }
        let Some(section) = sections.last_mut() else { continue };
        match line.strip_prefix('|') {
            None => section.notes.push(plain(line).text),
            Some(row) => add_row(section, &cells(row)),
        }
    }
    sections
}

fn add_row(section: &mut Section, cells: &[&str]) {
    let is_rule = |cell: &&str| cell.len() >= 3 && cell.chars().all(|letter| "-:".contains(letter));
    if section.header.is_empty() {
        section.header = cells.iter().map(|cell| plain(cell).text).collect();
    } else if section.numbers.is_empty() && cells.iter().all(is_rule) {
        section.numbers = cells.iter().map(|cell| cell.ends_with(':')).collect();
    } else {
        section.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }
}

/// The cells of a row behind its first `|`.
fn cells(row: &str) -> Vec<&str> {
    let (mut cells, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (place, letter) in row.char_indices() {
        if letter == '|' && !is_escaped {
            cells.push(row[start..place].trim());
            start = place + 1;
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    cells
}

/// The text without marks and escapes.
fn plain(marked: &str) -> Cell {
    let (mut text, mut best) = (String::with_capacity(marked.len()), false);
    let mut rest = marked;
    while let Some(letter) = rest.chars().next() {
        let entities = [("**", ""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
        let entity = entities.iter().find(|(written, _)| rest.starts_with(written));
        if let Some((written, meant)) = entity {
            best |= *written == "**";
            text.push_str(meant);
            rest = &rest[written.len()..];
            continue;
        }
        rest = &rest[letter.len_utf8()..];
        match (letter, rest.chars().next()) {
            ('\\', Some(next)) if next.is_ascii_punctuation() => {
                text.push(next);
                rest = &rest[next.len_utf8()..];
            }
            _ => text.push(letter),
        }
    }
    Cell { text, best }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_its_title_and_notes() {
        let text = "## test-accuracy: a\\_b &lt;1>\n\n| init | rate = 0.2 |\n| ---- | ---: |\n| x\\|y | **0.7** ± 0.1 |\n| z |  |\n\nn = 3\n";
        let sections = sections(text);
        let [section] = sections.as_slice() else { panic!("{sections:?}") };
        assert_eq!(section.title, "test-accuracy: a_b <1>");
        assert_eq!(section.header, ["init", "rate = 0.2"]);
        assert_eq!(section.numbers, [false, true]);
        let cell = |text: &str, best| Cell { text: text.to_owned(), best };
        assert_eq!(
            section.rows,
            [[cell("x|y", false), cell("0.7 ± 0.1", true)], [cell("z", false), cell("", false)]]
        );
        assert_eq!(section.notes, ["n = 3"]);
    }

    #[test]
    fn any_text_has_sections() {
        assert_eq!(sections(""), []);
        for text in ["|", "| a", "x\n|a|\n|-|\n", "## \n\\", "|é|\\", "&lt"] {
            let _ = sections(text);
        }
    }
}
