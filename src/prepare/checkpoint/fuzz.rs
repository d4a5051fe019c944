//! A fuzzer: damages real files in many ways, a given number of times, and reads the result.
//!
//!     PIPELINE_FUZZ_RUNS=1000000 cargo test -p pipeline-prepare fuzz -- --ignored --nocapture
//!
//! A run that panics prints its input. Limit the memory from outside (`ulimit -v`): a reader that
//! trusts a size in a file fails there. `PIPELINE_FUZZ_SEED` sets the seed.

use super::tests::{SMALL, file, read_all, unzipped};
use crate::pickle;
use crate::reference::reference_path;
use crate::samples::zipped;

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Changes bytes in one of several ways.
fn damage(bytes: &mut Vec<u8>, donor: &[u8], random: &mut Random) {
    const EXTREMES: [u64; 8] =
        [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len());
        let end = (place + 1 + random.below(16)).min(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..end)),
            2 => {
                let copy = bytes[place..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            3 => {
                let from = random.below(donor.len());
                let piece = &donor[from..(from + 1 + random.below(32)).min(donor.len())];
                bytes.splice(place..place, piece.iter().copied());
            }
            4 => {
                let extreme = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                for (byte, value) in bytes[place..].iter_mut().zip(&extreme[..width]) {
                    *byte = *value;
                }
            }
            5 if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            _ if place < bytes.len() => bytes[place] = random.next() as u8,
            _ => {}
        }
    }
}

/// A damaged checkpoint; an archive is damaged as a file, or inside and packed again with good checksums.
fn damaged_checkpoint(files: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = files[random.below(files.len())].clone();
    let donor = &files[random.below(files.len())];
    if !bytes.starts_with(b"PK") || random.below(3) == 0 {
        damage(&mut bytes, donor, random);
        return bytes;
    }
    let mut entries = unzipped(&bytes);
    let pickle = entries.iter().position(|(name, _)| name.ends_with("data.pkl")).unwrap_or(0);
    let place = if random.below(4) == 0 { random.below(entries.len()) } else { pickle };
    damage(&mut entries[place].1, donor, random);
    let entries: Vec<(&str, &[u8])> =
        entries.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    zipped(&entries, random.below(2) == 0)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Prints the input if a panic unwinds.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: {:02x?}", self.0);
        }
    }
}

#[test]
#[ignore = "a tool: runs for a given number of inputs"]
fn fuzz() {
    let mut random = Random(number("PIPELINE_FUZZ_SEED", 1) | 1 << 63);
    let files: Vec<Vec<u8>> =
        SMALL.iter().chain(&["simclr.pth.tar"]).map(|name| file(name)).collect();
    let cases = std::fs::read(reference_path("import/pickles.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&cases).unwrap();
    let pickles: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| {
            let digits = case["pickle"].as_str().unwrap().as_bytes().chunks(2);
            let pair = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.map(pair).collect()
        })
        .collect();
    let runs = number("PIPELINE_FUZZ_RUNS", 10_000);
    let mut sound = 0u64;
    for run in 1..=runs {
        if random.below(2) == 0 {
            let mut bytes = pickles[random.below(pickles.len())].clone();
            let donor = random.below(pickles.len());
            damage(&mut bytes, &pickles[donor], &mut random);
            let _shown = Shown(&bytes);
            let limits = pickle::Limits { instructions: 100_000, values: 50_000, marks: 100 };
            sound += u64::from(pickle::read(&bytes, &limits).is_ok());
        } else {
            let bytes = damaged_checkpoint(&files, &mut random);
            let _shown = Shown(&bytes);
            sound += u64::from(read_all(&bytes));
        }
        if run % 100_000 == 0 || run == runs {
            println!("{run} runs, {sound} of them read without an error");
        }
    }
}
