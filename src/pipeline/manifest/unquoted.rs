//! What somebody meant by a value that is neither TOML nor in quotes.

/// What is wrong with it, and what to write.
pub(super) fn unquoted(value: &str) -> (String, String) {
    foreign(value).unwrap_or_else(|| {
        ("text must be in quotes".to_owned(), format!("write {}", quoted(value)))
    })
}

/// The same for a value of other languages. `None` for any other.
pub(super) fn foreign(value: &str) -> Option<(String, String)> {
    let said = |title: &str, help: String| Some((title.to_owned(), help));
    let or_text = format!("or {} if it is text", quoted(value));
    let lower = value.to_ascii_lowercase();
    if let Some(truth) = match lower.as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    } {
        return said(
            "TOML has 'true' and 'false', in small letters",
            format!("write {truth}, {or_text}"),
        );
    }
    if matches!(lower.as_str(), "none" | "null" | "nil") {
        let title = format!("TOML does not have '{value}'");
        return Some((title, format!("leave the key out, {or_text}")));
    }
    let before = |mark: &str| {
        let (number, _) = value.split_once(mark)?;
        Some(number.trim_end()).filter(|number| is_number(number))
    };
    if let Some(number) = before("//") {
        return said("a comment begins with '#'", format!("write {number} # and the comment"));
    }
    if let Some(number) = before(";") {
        return said(
            "a line does not end in ';'",
            format!("write {number}, and each key on a line of its own"),
        );
    }
    let percent = value.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    if let Some(percent) = percent.filter(|percent| percent.is_finite()) {
        // Without the last digits of the division.
        let share = (percent * 1e8).round() / 1e10;
        return said("a number does not have a '%'", format!("write {share}, {or_text}"));
    }
    let parts: Vec<&str> = value.split_whitespace().collect();
    if parts.len() > 1 && parts.iter().all(|part| is_number(part)) {
        let (items, one) = (parts.join(", "), parts.concat());
        return said(
            "a number does not have a space in it",
            format!("commas are between the items of a list, {items}; one number is {one}"),
        );
    }
    None
}

fn quoted(value: &str) -> String {
    if value.contains(['"', '\\']) { format!("'{value}'") } else { format!("{value:?}") }
}

fn is_number(text: &str) -> bool {
    matches!(text, "true" | "false") || text.parse::<f64>().is_ok()
}
