//! Numbers, times and sizes as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use pipeline_stages::message::{Metrics, Unit};
use pipeline_stages::metrics::Number;

use crate::visible;

/// Seconds: `4 ms`, `0.21 s`, `7.3 s`, `2 min 05 s`, `3 h 07 min`.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        ..0.0995 => format!("{:.0} ms", seconds * 1000.0),
        ..0.995 => format!("{seconds:.2} s"),
        ..59.95 => format!("{seconds:.1} s"),
        ..3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Seconds, roughly and rather too many: `8 s`, `12 min`, `3 h 10 min`, `41 h`.
pub(crate) fn rough_seconds(seconds: f64) -> String {
    let minutes = (seconds / 60.0).ceil() as u64;
    match seconds {
        ..=59.0 => format!("{:.0} s", seconds.ceil()),
        ..=3540.0 => format!("{minutes} min"),
        ..=36000.0 => format!("{} h {:02} min", minutes / 60, minutes % 60),
        _ => format!("{} h", count((seconds / 3600.0).ceil() as u64)),
    }
}

/// How long ago something was, in seconds since 1970: `just now`, `12 min ago`, `3 days ago`.
pub(crate) fn ago(then: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let passed = |number: u64, unit: &str| {
        format!("{number} {unit}{} ago", if number == 1 || unit == "min" { "" } else { "s" })
    };
    match now.saturating_sub(then) {
        ..60 => "just now".to_owned(),
        seconds @ ..3600 => passed(seconds / 60, "min"),
        seconds @ ..86_400 => passed(seconds / 3600, "hour"),
        seconds => passed(seconds / 86_400, "day"),
    }
}

/// A moment, in seconds since 1970, as its parts in UTC: year, month, day, hour, minute, second.
pub(crate) fn utc(seconds: u64) -> [u64; 6] {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March: the leap day is the last one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    [year, month, day, rest / 3600, rest % 3600 / 60, rest % 60]
}

/// A moment, in seconds since 1970: `2026-11-26 22:45:01 UTC`.
pub(crate) fn moment(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = utc(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A count, with its thousands apart: `1,281,167`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes: `812 B`, `2.6 MB`, `163 GB` (powers of 1000).
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            let decimals = usize::from(unit != "B" && value < 10.0);
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

/// A size that [`read_size`] reads as at least this many bytes: `8.0 GB`, `16 GiB`.
pub(crate) fn size_of_at_least(wanted: u64) -> String {
    let text = bytes(wanted);
    if read_size(&text).is_ok_and(|size| size >= wanted) {
        return text;
    }
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = units.into_iter().find(|(power, _)| wanted.is_multiple_of(1 << power));
    exact.map_or_else(
        || format!("{} kB", wanted.div_ceil(1000)),
        |(power, unit)| format!("{} {unit}", wanted >> power),
    )
}

/// Reads a number of bytes: `812 B`, `500MB`, `1.5 GB` (powers of 1000), `20 GiB` (powers of 1024). Capitals do not count. Only 0
/// needs no unit: whoever writes 200 does not mean bytes.
///
/// # Errors
/// In words: it is not one.
pub(crate) fn read_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
    let (number, unit) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = |letters: &str| "kmgtp".find(letters).map_or(0, |place| place as u32 + 1);
    let factor = match unit.as_bytes() {
        b"" | b"b" => 1,
        [b'k' | b'm' | b'g' | b't' | b'p', b'b'] => 1000_u64.pow(power(&unit[..1])),
        [b'k' | b'm' | b'g' | b't' | b'p', b'i', b'b'] => 1024_u64.pow(power(&unit[..1])),
        [b'k' | b'm' | b'g' | b't' | b'p'] if !number.is_empty() => {
            let unit = unit.to_ascii_uppercase();
            return Err(format!(
                "'{text}' may be {number} {unit}B or {number} {unit}iB: write one of them"
            ));
        }
        _ => return Err(not_a_size(text)),
    };
    let bytes = match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => {
            let number: f64 = number.parse().map_err(|_| not_a_size(text))?;
            let bytes = (number * factor as f64).round();
            (bytes < u64::MAX as f64).then_some(bytes as u64)
        }
    };
    // As it is written: what is rounded to 0 is not what 0 means.
    let is_zero = !number.contains(|letter: char| matches!(letter, '1'..='9'));
    match bytes {
        None => Err(format!("'{text}' is more than a disk can have")),
        Some(_) if unit.is_empty() && !is_zero => {
            Err(format!("'{text}' does not have a unit: write one, as in {number} GB"))
        }
        Some(0) if !is_zero => Err(format!("'{text}' is less than a byte")),
        Some(bytes) => Ok(bytes),
    }
}

fn not_a_size(text: &str) -> String {
    format!(
        "'{text}' is not a size: write a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in 20 GB"
    )
}

/// A metric: whole numbers as counts, others with four significant digits.
pub(crate) fn metric(value: f64) -> String {
    let magnitude = value.abs();
    if let Some(name) = Number(value).name() {
        name.to_owned()
    } else if value.fract() == 0.0 && magnitude < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(magnitude as u64))
    } else if (1e-3..1e5).contains(&magnitude) {
        let decimals = 3_i32.saturating_sub(magnitude.log10().floor() as i32).clamp(0, 4) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.3e}")
    }
}

/// Metrics in one line: `test-accuracy 0.763, test-loss 0.741`.
pub(crate) fn metrics<'a>(metrics: impl IntoIterator<Item = (&'a str, f64)>) -> String {
    let texts = metrics
        .into_iter()
        .map(|(name, value)| format!("{} {}", visible::line(name), metric(value)));
    texts.collect::<Vec<_>>().join(", ")
}

/// Those of a stage's metrics that its kind puts in front, in the kind's order; the first few, where the kind
/// does not have an order.
pub(crate) fn headline(all: &Metrics, names: &[&'static str]) -> String {
    const FEW: usize = 3;
    let named = names.iter().filter_map(|name| all.get_key_value(*name));
    let first = all.iter().take(if names.is_empty() { FEW } else { 0 });
    metrics(named.chain(first).map(|(name, value)| (name.as_str(), *value)))
}

/// An amount in a unit: `2.6 MB`, `5,000 images`.
pub(crate) fn amount(amount: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => bytes(amount),
        _ => format!("{} {unit}", count(amount)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_enough_is_never_rounded_down() {
        for (wanted, expected) in [
            (8_000_000_000, "8.0 GB"),
            (16 << 30, "16 GiB"),
            (17_999_999_999, "18 GB"),
            (17_100_000_001, "17100001 kB"),
            (3, "3 B"),
            (0, "0 B"),
        ] {
            let size = size_of_at_least(wanted);
            assert_eq!(size, expected);
            assert!(read_size(&size).expect("a size") >= wanted);
        }
    }

    #[test]
    fn times_are_read_at_a_glance() {
        let cases = [
            (0.0042, "4 ms"),
            (0.12, "0.12 s"),
            (0.99, "0.99 s"),
            (0.999, "1.0 s"),
            (7.28, "7.3 s"),
            (59.96, "1 min 00 s"),
            (125.0, "2 min 05 s"),
            (11220.0, "3 h 07 min"),
        ];
        for (value, text) in cases {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn rough_times_are_never_too_short() {
        for (value, text) in [
            (0.2, "1 s"),
            (58.2, "59 s"),
            (59.5, "1 min"),
            (661.0, "12 min"),
            (3541.0, "1 h 00 min"),
            (11220.0, "3 h 07 min"),
            (146_000.0, "41 h"),
            (36e6, "10,000 h"),
        ] {
            assert_eq!(rough_seconds(value), text);
        }
    }

    #[test]
    fn moments_are_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_795_733_101, "2026-11-26 22:45:01 UTC"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }

    #[test]
    fn counts_and_bytes() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_281_167), "1,281,167");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(2_620_000), "2.6 MB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(163_000_000_000), "163 GB");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, size) in [
            ("0", 0),
            ("0.0", 0),
            ("0 GB", 0),
            ("812 B", 812),
            ("500MB", 500_000_000),
            (" 1.5 GB ", 1_500_000_000),
            ("0.1 kb", 100),
            (".5MB", 500_000),
            ("20GiB", 20 << 30),
            ("1.5 TiB", 3 << 39),
            ("2 PB", 2_000_000_000_000_000),
            ("18446744073709551615 B", u64::MAX),
        ] {
            assert_eq!(read_size(text), Ok(size), "{text}");
            assert_eq!(
                read_size(&bytes(size)).map(bytes),
                Ok(bytes(size)),
                "what is printed is read"
            );
        }
        for (text, mistake) in [
            ("", "is not a size"),
            ("GB", "is not a size"),
            ("g", "is not a size"),
            (".", "is not a size"),
            ("1.5.2 GB", "is not a size"),
            ("-1", "is not a size"),
            ("1e9", "is not a size"),
            ("inf", "is not a size"),
            ("1,000 MB", "is not a size"),
            ("1 bytes", "is not a size"),
            ("1 kiloé", "is not a size"),
            ("4096", "'4096' does not have a unit: write one, as in 4096 GB"),
            (" 1.5 ", "'1.5' does not have a unit"),
            ("0.4", "'0.4' does not have a unit: write one, as in 0.4 GB"),
            ("00.0001", "does not have a unit"),
            ("0.4 B", "'0.4 B' is less than a byte"),
            ("0.0004 kB", "is less than a byte"),
            ("20G", "may be 20 GB or 20 GiB"),
            ("18446744073709551616 B", "more than a disk can have"),
            ("20000 PiB", "more than a disk can have"),
        ] {
            let error = read_size(text).expect_err(text);
            assert!(error.contains(mistake), "{text}: {error}");
        }
    }

    #[test]
    fn metrics_keep_four_digits() {
        let cases = [
            (0.0, "0"),
            (5000.0, "5,000"),
            (-3.0, "-3"),
            (0.76321, "0.7632"),
            (4.21056, "4.211"),
            (123.456, "123.5"),
            (1e-6, "1.000e-6"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, text) in cases {
            assert_eq!(metric(value), text);
        }
    }
}
