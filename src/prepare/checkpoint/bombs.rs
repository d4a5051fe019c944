//! Small files whose names all refer to the same large value: the names must be listed without work on
//! that value for each of them.

use proptest::prelude::*;

use super::contents::STEPS_PER_NAME;
use super::{CheckpointFile, CheckpointLimits, Leaf, Values};
use crate::samples::zipped;

/// A pickle of a dictionary in protocol 2: `prelude` makes a value, and all of `names` names refer to it.
fn shared(prelude: &[u8], names: u32) -> Vec<u8> {
    let mut pickle = [b"\x80\x02", prelude, b"r\xff\xff\x00\x000}("].concat();
    for name in 0..names {
        let name = format!("name{name}");
        pickle.extend([b"X", &(name.len() as u32).to_le_bytes()[..], name.as_bytes()].concat());
        pickle.extend(b"j\xff\xff\x00\x00");
    }
    pickle.extend(b"u.");
    pickle
}

/// The instruction that pushes a text.
fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Bytes as protocol 2 writes them: as text, encoded.
fn encoded(content: &str) -> Vec<u8> {
    [b"c_codecs\nencode\n", &text(content)[..], &text("latin1"), b"\x86R"].concat()
}

fn dtype(code: &str) -> Vec<u8> {
    let state = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb";
    [b"cnumpy\ndtype\n", &text(code)[..], b"K\x00K\x01\x87R", state].concat()
}

/// A NumPy array of bytes, with instructions that push its shape.
fn array(shape: &[u8], content: &str) -> Vec<u8> {
    let start =
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01";
    [start, shape, &dtype("u1"), b"\x89", &encoded(content), b"tb"].concat()
}

/// A tensor of four floats, with instructions for its shape and its strides.
fn tensor(shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage = [
        &b"("[..],
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        b"K\x04tQ",
    ]
    .concat();
    let start = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    [start, &storage[..], b"K\x00", shape, strides, b"\x89NtR"].concat()
}

/// A tuple of many ones.
fn ones(count: usize) -> Vec<u8> {
    [&b"("[..], &b"K\x01".repeat(count), b"t"].concat()
}

/// Lists the names of a checkpoint with this pickle, and returns a description of the last value.
/// The work must be proportional to the number of names.
#[track_caller]
fn last_leaf(pickle: &[u8]) -> String {
    let bytes = zipped(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])], false);
    let checkpoint = CheckpointFile::open(&bytes, &CheckpointLimits::default()).unwrap();
    let contents = checkpoint.contents().unwrap();
    let entries = contents.entries().unwrap();
    let most = STEPS_PER_NAME * (1 + entries.len());
    assert!(contents.steps() <= most, "{} steps; expected at most {most}", contents.steps());
    match &entries.last().unwrap().leaf {
        Leaf::Tensor(tensor) => match contents.values(tensor) {
            Ok(Values::Integers(integers)) => format!("{} integers", integers.len()),
            Ok(Values::Floats(floats)) => format!("{} floats", floats.len()),
            Err(error) => format!("{error:#}"),
        },
        Leaf::Damaged(problem) => problem.clone(),
        Leaf::Opaque(what) => what.clone(),
    }
}

/// Opens a file, lists its names, and returns how many bytes of memory that takes.
fn memory(bytes: &[u8]) -> usize {
    let Ok(checkpoint) = CheckpointFile::open(bytes, &CheckpointLimits::default()) else {
        return 0;
    };
    let unpacked = checkpoint.unpacked_bytes();
    let Ok(contents) = checkpoint.contents() else { return unpacked };
    let entries = contents.entries().unwrap_or_default();
    let names: usize = entries.iter().map(|entry| 250 + entry.name.capacity()).sum();
    unpacked + contents.pickle_bytes() + names
}

/// The inputs that are known to take the most memory for their size.
#[test]
fn opening_a_file_takes_memory_proportional_to_its_size() {
    const COUNT: usize = 1 << 19;
    let long_key = "k".repeat(4_000);
    let laughs = {
        let key = text(&long_key);
        let mut pickle = [b"\x80\x02", &key[..], b"r\0\0\x01\x000Nr\x01\0\x01\x000"].concat();
        pickle.extend(b"}(");
        pickle.extend(b"j\0\0\x01\0j\x01\0\x01\0".repeat(40_000));
        pickle.extend(b"u.");
        pickle
    };
    let repeated =
        |instructions: &[u8]| [b"\x80\x02]", &instructions.repeat(COUNT)[..], b"."].concat();
    let pickles = [
        repeated(b"]"),
        repeated(b"}"),
        repeated(b"]\x94"),
        repeated(b"]2a"),
        repeated(b"N"),
        repeated(b"(t"),
        repeated(b"\x85"),
        [b"\x80\x02cbuiltins\nlist\nq\x00]", &b"h\x00)\x81".repeat(COUNT / 2)[..], b"."].concat(),
        [b"\x80\x02cbuiltins\nlist\nq\x00]", &b"h\x00)\x81Na".repeat(COUNT / 2)[..], b"."].concat(),
        laughs,
        [&b"\x80\x02(N"[..], &b"2".repeat(15_700_000), b"t."].concat(),
        [&b"\x80\x02](N"[..], &b"2".repeat(15_700_000), b"e."].concat(),
    ];
    for (index, pickle) in pickles.iter().enumerate() {
        let most = 250 * pickle.len() + (32 << 20);
        assert!(memory(pickle) <= most, "{index}: {} of {most} bytes", memory(pickle));
        // Compressed, a thousandth of the size.
        let packed = zipped(&[("a/data.pkl", pickle)], true);
        let most = 250 * packed.len() + (64 << 20);
        assert!(memory(&packed) <= most, "{index}: {} of {most} bytes", memory(&packed));
    }
    let zeros = vec![0; 100 << 20];
    let storage = zipped(&[("a/data.pkl", b"}."), ("a/data/0", &zeros)], true);
    let checkpoint = CheckpointFile::open(&storage, &CheckpointLimits::default()).unwrap();
    let pickle = zipped(&[("a/data.pkl", &zeros)], true);
    let refused =
        CheckpointFile::open(&pickle, &CheckpointLimits::default()).map(drop).unwrap_err();
    assert!(format!("{refused:#}").contains("more than the"), "{refused:#}");
    assert!(checkpoint.unpacked_bytes() <= 16 << 20);
}

#[test]
fn encoded_bytes_are_decoded_only_for_a_requested_array() {
    let content = "\u{e4}a".repeat(50_000);
    let pickle = shared(&array(b"J\xa0\x86\x01\x00\x85", &content), 300);
    assert_eq!(last_leaf(&pickle), "100000 integers");
    let pickle = shared(&array(b"J\xa1\x86\x01\x00\x85", &content), 300);
    assert!(last_leaf(&pickle).contains("100000 bytes of content"), "{}", last_leaf(&pickle));
    let pickle = shared(&array(b"K\x07\x85", &content), 300);
    assert!(last_leaf(&pickle).contains("bytes of content"), "{}", last_leaf(&pickle));
    let pickle = shared(&array(b"K\x02\x85", "\u{100}"), 300);
    assert!(last_leaf(&pickle).contains("without its bytes"), "{}", last_leaf(&pickle));
}

#[test]
fn shapes_of_many_dimensions_are_refused_without_being_read() {
    for (shape, strides) in [(100_000, 1), (100_000, 100_000), (1, 100_000)] {
        let found = last_leaf(&shared(&tensor(&ones(shape), &ones(strides)), 300));
        assert_eq!(found, "a tensor of 100000 dimensions");
    }
    let found = last_leaf(&shared(&array(&ones(100_000), "a"), 300));
    assert_eq!(found, "a NumPy array of 100000 dimensions");
    let sound = last_leaf(&shared(&tensor(&ones(2), &ones(2)), 300));
    assert_eq!(sound, "1 floats");
}

#[test]
fn arguments_of_calls_are_not_traversed() {
    let ones = ones(100_000);
    for prelude in [
        [&b"cos\nsystem\n"[..], &ones, b"R"].concat(),
        [&b"ctorch._utils\n_rebuild_tensor_v2\n"[..], &ones, b"R"].concat(),
        [&b"ctorch._utils\n_rebuild_parameter\n"[..], &ones, b"R"].concat(),
        [&b"cnumpy._core.numeric\n_frombuffer\n"[..], &ones, b"R"].concat(),
        [&b"cnumpy._core.multiarray\nscalar\n"[..], &ones, b"R"].concat(),
        [&b"cbuiltins\nset\n"[..], &ones, b"\x85R"].concat(),
        ones.clone(),
    ] {
        last_leaf(&shared(&prelude, 300));
    }
}

#[test]
fn items_that_are_not_pairs_count_as_entries() {
    // The last item is not a pair: it must not be searched for once per name.
    let pairs = [&b"]("[..], &b"K\x01K\x02\x86".repeat(1_000), b"Ne"].concat();
    let prelude = [&b"ccollections\nOrderedDict\n"[..], &pairs, b"\x85R"].concat();
    last_leaf(&shared(&prelude, 40));
}

#[test]
fn keys_that_are_numpy_numbers_cost_as_much_as_others() {
    let number = |content: &str| {
        [b"cnumpy.core.multiarray\nscalar\n", &dtype("u1")[..], &encoded(content), b"\x86R"]
            .concat()
    };
    for (content, name) in [("\u{7}", "7"), (&"a".repeat(100_000), "?")] {
        let keys = b"h\x00N".repeat(300);
        let pickle = [b"\x80\x02", &number(content)[..], b"q\x000}(", &keys, b"u."].concat();
        let checkpoint = CheckpointFile::open(&pickle, &CheckpointLimits::default()).unwrap();
        let contents = checkpoint.contents().unwrap();
        let entries = contents.entries().unwrap();
        assert_eq!((entries.len(), entries[0].name.as_str()), (300, name));
        assert!(contents.steps() <= STEPS_PER_NAME * 300, "{} steps", contents.steps());
    }
}

/// Instructions that push one value, of the kinds that real calls have as arguments.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"N".to_vec()),
        Just(b"K\x01".to_vec()),
        Just(b"}".to_vec()),
        Just(b")".to_vec()),
        Just(b"K\x01K\x02\x86".to_vec()),
        Just(dtype("f4")),
        Just(encoded("abcd")),
        Just(tensor(b"K\x02\x85", b"K\x01\x85")),
        (0..2_000_usize).prop_map(ones),
        (0..2_000_usize).prop_map(|count| encoded(&"a".repeat(count))),
        (0..2_000_usize).prop_map(|count| [&b"("[..], &b"K\x01N".repeat(count), b"d"].concat()),
        (0..2_000_usize).prop_map(|count| [&b"]("[..], &b")".repeat(count), b"e"].concat()),
    ]
}

/// A call of a function that the reader interprets, with any arguments and any state.
fn call() -> impl Strategy<Value = Vec<u8>> {
    let function = prop::sample::select(vec![
        "ctorch._utils\n_rebuild_tensor_v2\n",
        "ctorch._utils\n_rebuild_parameter\n",
        "ctorch._tensor\n_rebuild_from_type_v2\n",
        "cnumpy.core.multiarray\n_reconstruct\n",
        "cnumpy.core.multiarray\nscalar\n",
        "cnumpy.core.numeric\n_frombuffer\n",
        "cnumpy\ndtype\n",
        "ccollections\nOrderedDict\n",
        "cbuiltins\nset\n",
        "cbuiltins\nbytearray\n",
        "c_codecs\nencode\n",
    ]);
    let state = prop::option::of(prop::collection::vec(part(), 0..6));
    (function, prop::collection::vec(part(), 0..6), 0..20_usize, state).prop_map(
        |(function, arguments, repeated, state)| {
            // The last argument is repeated many times.
            let last = arguments.last().cloned().unwrap_or_default().repeat(repeated);
            let mut call = [function.as_bytes(), b"(", &arguments.concat(), &last, b"tR"].concat();
            if let Some(state) = state {
                call.extend([b"(", &state.concat()[..], b"tb"].concat());
            }
            call
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_work_is_proportional_to_the_number_of_names(call in call()) {
        let pickle = shared(&call, 200);
        let limits = CheckpointLimits { entries: 1_000, ..CheckpointLimits::default() };
        let checkpoint = CheckpointFile::open(&pickle, &limits).unwrap();
        let contents = checkpoint.contents().unwrap();
        // A call that is a dictionary can have too many names.
        let looked_at = contents.entries().map_or(limits.entries, |entries| entries.len());
        prop_assert!(contents.steps() <= STEPS_PER_NAME * (1 + looked_at), "{} steps", contents.steps());
    }
}
