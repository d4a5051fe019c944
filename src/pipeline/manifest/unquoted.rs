//! What somebody meant by a value that is neither TOML nor in quotes: values of other languages, first of all.

/// What is wrong with it, and what to write.
pub(super) fn unquoted(value: &str) -> (String, String) {
    let said = |title: &str, help: String| (title.to_owned(), help);
    let quoted =
        if value.contains(['"', '\\']) { format!("'{value}'") } else { format!("{value:?}") };
    match value {
        "True" | "TRUE" | "yes" | "Yes" | "on" | "On" => {
            return said(
                "true and false are written so in TOML",
                format!("write true, or {quoted} if it is text"),
            );
        }
        "False" | "FALSE" | "no" | "No" | "off" | "Off" => {
            return said(
                "true and false are written so in TOML",
                format!("write false, or {quoted} if it is text"),
            );
        }
        "None" | "null" | "nil" => {
            let title = format!("TOML does not have '{value}'");
            return (title, format!("leave the key out, or write {quoted} if it is text"));
        }
        _ => {}
    }
    let before = |mark: &str| value.split_once(mark).map(|(value, _)| value.trim_end());
    if let Some(value) = before("//").filter(|value| is_number(value)) {
        return said("a comment begins with '#'", format!("write {value} # and the comment"));
    }
    if let Some(value) = before(";").filter(|value| is_number(value)) {
        return said(
            "a line does not end in ';'",
            format!("write {value}, and the next key on a line of its own"),
        );
    }
    let percent = value.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    if let Some(percent) = percent {
        let share = percent / 100.0;
        return said(
            "a number does not have a '%'",
            format!("write {share}, or {quoted} if it is text"),
        );
    }
    let parts: Vec<&str> = value.split_whitespace().collect();
    if parts.len() > 1 && parts.iter().all(|part| is_number(part)) {
        let items = parts.join(", ");
        return said(
            "there is a space in this number",
            format!("items of a list have commas between them: {items}"),
        );
    }
    said("text must be in quotes", format!("write {quoted}"))
}

fn is_number(text: &str) -> bool {
    matches!(text, "true" | "false") || text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_languages_write_is_understood() {
        for (value, title, help) in [
            (
                "True",
                "true and false are written so in TOML",
                "write true, or \"True\" if it is text",
            ),
            (
                "off",
                "true and false are written so in TOML",
                "write false, or \"off\" if it is text",
            ),
            (
                "None",
                "TOML does not have 'None'",
                "leave the key out, or write \"None\" if it is text",
            ),
            ("0.05 // half", "a comment begins with '#'", "write 0.05 # and the comment"),
            (
                "3; b",
                "a line does not end in ';'",
                "write 3, and the next key on a line of its own",
            ),
            ("20%", "a number does not have a '%'", "write 0.2, or \"20%\" if it is text"),
            (
                "2 3",
                "there is a space in this number",
                "items of a list have commas between them: 2, 3",
            ),
            ("plain", "text must be in quotes", "write \"plain\""),
            ("http://a", "text must be in quotes", "write \"http://a\""),
            ("a; b", "text must be in quotes", "write \"a; b\""),
            ("C:\\data", "text must be in quotes", "write 'C:\\data'"),
        ] {
            assert_eq!(unquoted(value), (title.to_owned(), help.to_owned()), "{value}");
        }
    }
}
