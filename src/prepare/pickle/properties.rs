//! Reading any bytes ends, and never with a panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{PickleLimits, opcode};
use crate::fuzzing::look_at_pickle;

fn read_and_look(data: &[u8]) {
    look_at_pickle(data, &PickleLimits { instructions: 10_000, values: 5_000, marks: 100 });
}

/// Instructions with operands that are usually valid.
fn instruction() -> impl Strategy<Value = Vec<u8>> {
    let text = |prefix: u8, text: &'static str| Just([&[prefix], text.as_bytes()].concat());
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(
            &b"(012N)]}aeuslt)dob\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94RQ"[..]
        )
        .prop_map(|byte| vec![byte]),
        (0..8u8).prop_map(|index| vec![opcode::BINPUT, index]),
        (0..8u8).prop_map(|index| vec![opcode::BINGET, index]),
        any::<u8>().prop_map(|value| vec![opcode::BININT1, value]),
        vec(any::<u8>(), 0..12)
            .prop_map(|b| [vec![opcode::SHORT_BINBYTES, b.len() as u8], b].concat()),
        text(opcode::GLOBAL, "numpy.core.multiarray\n_reconstruct\n"),
        text(opcode::GLOBAL, "numpy.core.multiarray\nscalar\n"),
        text(opcode::GLOBAL, "numpy._core.numeric\n_frombuffer\n"),
        text(opcode::GLOBAL, "numpy\ndtype\n"),
        text(opcode::GLOBAL, "collections\nOrderedDict\n"),
        text(opcode::GLOBAL, "_codecs\nencode\n"),
        text(opcode::GLOBAL, "builtins\nset\n"),
        text(opcode::SHORT_BINUNICODE, "\u{2}f4"),
        text(opcode::SHORT_BINUNICODE, "\u{6}latin1"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(data in vec(any::<u8>(), 0..200)) {
        read_and_look(&data);
    }

    #[test]
    fn arbitrary_instructions(instructions in vec(instruction(), 0..60)) {
        let mut data = instructions.concat();
        data.push(opcode::STOP);
        read_and_look(&data);
    }
}
