//! What a server says of a request, without what signs it: a message may repeat the address or the headers of the request.

use rusty_s3::Credentials;

const HIDDEN: char = '…';

/// How the names of the parameters of a signature begin.
const PARAMETER: &str = "x-amz-";

/// The words of a server without these credentials, as they are or as they are in an address, and without the values of the
/// parameters of any signature.
pub(super) fn redacted(words: &str, credentials: Option<&Credentials>) -> String {
    let own = credentials
        .into_iter()
        .flat_map(|own| [own.token().unwrap_or_default(), own.secret(), own.key()].into_iter());
    let own: Vec<&str> = own.filter(|secret| !secret.is_empty()).collect();
    let (mut shown, mut rest) = (String::new(), words);
    while let Some(letter) = rest.chars().next() {
        if let Some(bytes) = own.iter().find_map(|secret| length_of(rest, secret)) {
            shown.push(HIDDEN);
            rest = &rest[bytes..];
        } else if let Some((name, value)) = parameter(rest) {
            shown.push_str(&rest[..name]);
            shown.push(HIDDEN);
            rest = &rest[name + value..];
        } else {
            shown.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    shown
}

/// How many bytes a secret has at the beginning of a text, if it is there.
fn length_of(text: &str, secret: &str) -> Option<usize> {
    let mut rest = text.as_bytes();
    for byte in secret.bytes() {
        rest = match rest {
            [first, after @ ..] if *first == byte => after,
            [b'%', high, low, after @ ..]
                if [*high, *low].eq_ignore_ascii_case(format!("{byte:02x}").as_bytes()) =>
            {
                after
            }
            _ => return None,
        };
    }
    Some(text.len() - rest.len())
}

/// How many bytes the name of a parameter with what is between it and its value has at the beginning of a text, and how many its
/// value has.
fn parameter(text: &str) -> Option<(usize, usize)> {
    let start = text.get(..PARAMETER.len())?;
    if !start.eq_ignore_ascii_case(PARAMETER) {
        return None;
    }
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let after = text.trim_start_matches(is_name).trim_start_matches(['"', '\'']);
    let value = ["=", ":", "%3D", "%3d"].iter().find_map(|sign| after.strip_prefix(sign))?;
    let value = value.trim_start_matches([' ', '"', '\'']);
    let end = |letter: char| letter.is_whitespace() || "&\"'<>,;)".contains(letter);
    let length = value.find(end).unwrap_or(value.len());
    (length > 0).then_some((text.len() - value.len(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signs_a_request_is_not_in_what_is_shown_of_an_answer() {
        let token = "t0k/en+of==".to_owned();
        let own = Credentials::new_with_token("AKIA1", "s3/cret", token);
        for (words, shown) in [
            ("no such file", "no such file"),
            ("the token t0k/en+of== is old", "the token … is old"),
            ("t0k%2Fen%2bof%3D%3D", "…"),
            ("AKIA1 with s3/cret, s3/cre", "… with …, s3/cre"),
            (
                "Bad /b?X-Amz-Date=20&x-amz-security-token=t0k%2Fe&list-type=2&X-Amz-Signature=3c",
                "Bad /b?X-Amz-Date=…&x-amz-security-token=…&list-type=2&X-Amz-Signature=…",
            ),
            ("X-Amz-Signature%3D3c9e (é)", "X-Amz-Signature%3D… (é)"),
            (
                "x-amz-security-token: t0k/e \"X-Amz-Key\":\"ab\"",
                "x-amz-security-token: … \"X-Amz-Key\":\"…\"",
            ),
            ("X-Amz-Signature is missing; X-Amz-Key=", "X-Amz-Signature is missing; X-Amz-Key="),
            ("%2", "%2"),
        ] {
            assert_eq!(redacted(words, Some(&own)), shown);
        }
        assert_eq!(redacted("X-Amz-Signature=3c s3/cret", None), "X-Amz-Signature=… s3/cret");
    }
}
