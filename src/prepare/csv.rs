//! Lines of comma-separated values, as RFC 4180 has them; a quoted field has no line break.

/// A line with these fields.
pub(crate) fn line(fields: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|field| quoted(field.as_ref())).collect();
    fields.join(",") + "\n"
}

fn quoted(field: &str) -> String {
    match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

/// The fields of a line, without spaces around them. `None` if a quote is not closed, or not at the ends of a field.
pub(crate) fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    loop {
        let (field, after) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (field.trim().to_owned(), after)
            }
        };
        if field.contains('"') && !rest.trim_start().starts_with('"') {
            return None;
        }
        fields.push(field);
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next,
            None if after.trim().is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// The content of a field whose opening quote has been read, and what follows its closing quote.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_other_programs() {
        for (line, expected) in [
            ("a,b", Some(vec!["a", "b"])),
            (" a , \"b, \"\"c\"\"\" ,", Some(vec!["a", "b, \"c\"", ""])),
            ("", Some(vec![""])),
            (",", Some(vec!["", ""])),
            ("\"a", None),
            ("\"a\"b", None),
            ("a\"b", None),
        ] {
            let expected = expected.map(|fields| fields.into_iter().map(str::to_owned).collect());
            assert_eq!(fields(line), expected, "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_reads_back(row in prop::collection::vec("([^\\s][^\n\r]*)?[^\\s]?", 1..5)) {
            let row: Vec<String> = row.iter().map(|field| field.trim().to_owned()).collect();
            prop_assert_eq!(fields(&line(&row)), Some(row));
        }

        #[test]
        fn no_line_makes_it_panic(line in "[a\", ]*") {
            let _ = fields(&line);
        }
    }
}
