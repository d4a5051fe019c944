//! Whether a file is a web page: what servers send in place of a file, with a login form or an error.

/// Whether a file that starts like this is HTML.
pub(crate) fn is_web_page(beginning: &[u8]) -> bool {
    begins_with(beginning, &["<!doctype html", "<html", "<head"])
}

/// Whether a file that starts like this is HTML or XML, as object stores write their errors.
pub(crate) fn is_markup(beginning: &[u8]) -> bool {
    is_web_page(beginning) || begins_with(beginning, &["<!doctype", "<?xml"])
}

fn begins_with(beginning: &[u8], words: &[&str]) -> bool {
    let text = beginning.trim_ascii_start();
    words.iter().any(|word| {
        text.get(..word.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(word.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_are_recognised_by_their_start() {
        for (bytes, web_page, markup) in [
            (&b"\n <!DOCTYPE html><p>"[..], true, true),
            (b"<HTML>", true, true),
            (b"<?xml version", false, true),
            (b"PK\x03\x04", false, false),
            (b"", false, false),
        ] {
            assert_eq!((is_web_page(bytes), is_markup(bytes)), (web_page, markup), "{bytes:?}");
        }
    }
}
