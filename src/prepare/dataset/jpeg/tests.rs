//! Files of Pillow are complete; with any part missing they are not.
//!
//! `tests/reference/jpeg/make_files.py` makes the files.

use proptest::prelude::*;

use super::check;
use crate::reference::reference_path;

/// Every kind: baseline and progressive, subsampled and not, grey, CMYK, with restart marks, with optimized tables.
const FILES: [&str; 10] = [
    "baseline",
    "full",
    "wide",
    "optimized",
    "grey",
    "cmyk",
    "restarts",
    "progressive",
    "progressive-grey",
    "progressive-restarts",
];

fn file(name: &str) -> Vec<u8> {
    std::fs::read(reference_path("jpeg").join(format!("{name}.jpg"))).unwrap()
}

/// The start of the entropy-coded data of the first scan.
fn data_start(file: &[u8]) -> usize {
    let scan = file.windows(2).position(|bytes| bytes == [0xff, 0xda]).unwrap();
    scan + 2 + usize::from(u16::from_be_bytes([file[scan + 2], file[scan + 3]]))
}

#[test]
fn complete_files_pass_with_anything_after_them() {
    for name in FILES {
        let file = file(name);
        assert_eq!(check(&file), Ok(()), "{name}");
        for behind in [&b"\0"[..], b"\xff", b"\xff\xd8\xff", b"anything at all", &[0; 5000]] {
            assert_eq!(check(&[&file[..], behind].concat()), Ok(()), "{name}");
        }
    }
}

#[test]
fn padding_before_the_end_mark_passes_and_more_does_not() {
    for name in FILES {
        let file = file(name);
        let (whole, end) = file.split_at(file.len() - 2);
        for (padding, passes) in [
            (&b"\0"[..], true),
            (b"\0\0\0", true),
            (b"\xff\xff", true),
            (b"\xff\xd0", true),
            (&[0; 4], false),
            (&[0x55; 2], false),
            (&[0; 500], false),
            (b"\xff\0", false),
        ] {
            let padded = [whole, padding, end].concat();
            assert_eq!(check(&padded).is_ok(), passes, "{name}: {padding:?}");
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    for name in FILES {
        let file = file(name);
        let start = data_start(&file);
        // Every place near the end, and some of the others.
        let near_end = file.len() - 30..file.len();
        for length in (2..near_end.start).step_by(31).chain(near_end) {
            assert!(check(&file[..length]).is_err(), "{name}, {length} of {} bytes", file.len());
            // The end mark of a program that tried to fix the file. A progressive image can have fewer scans.
            let fixed = [&file[..length], &b"\xff\xd9"[..]].concat();
            let between_scans = name.starts_with("progressive") || length + 2 >= file.len();
            if length < start || !between_scans {
                assert!(
                    check(&fixed).is_err(),
                    "{name}, {length} of {} bytes and an end",
                    file.len()
                );
            }
        }
    }
}

#[test]
fn every_hole_of_zeros_is_noticed() {
    for name in FILES {
        let file = file(name);
        for length in [128, 512, 1024] {
            for place in (data_start(&file)..file.len().saturating_sub(length)).step_by(37) {
                let mut damaged = file.clone();
                damaged[place..place + length].fill(0);
                assert!(check(&damaged).is_err(), "{name}: {length} zeros at {place}");
            }
            let mut damaged = file.clone();
            damaged[file.len() - length..].fill(0);
            assert!(check(&damaged).is_err(), "{name}: {length} zeros at its end");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_input_makes_it_panic(
        name in 0..FILES.len(), cut in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut file = file(FILES[name]);
        for (place, value) in changes {
            let place = place.index(file.len());
            file[place] = value;
        }
        file.truncate(1 + cut.index(2 * file.len()));
        let _ = check(&file);
    }
}
