//! Pickles of CPython and NumPy are read exactly; damaged and hostile ones are refused.

use serde_json::{Value as Json, json};

use super::{Array, PickleError, PickleLimits, Value, read};
use crate::reference::reference_path;

/// A value as `make_pickles.py` describes it.
fn described(value: Value<'_>, depth: usize) -> Json {
    assert!(depth < 20, "a value within itself");
    let all = |items: Vec<Value<'_>>| -> Vec<Json> {
        items.into_iter().map(|item| described(item, depth + 1)).collect()
    };
    if let Some(array) = Array::of(value) {
        let array = array.unwrap();
        let elements = match array.integers() {
            Ok(integers) => json!(integers),
            Err(_) => json!(array.floats().unwrap()),
        };
        return json!({"array": elements, "shape": array.shape});
    }
    if let Some(entries) = value.entries() {
        let entries = entries.iter().map(|(key, value)| all(vec![key, value]));
        return json!({"dict": entries.collect::<Vec<_>>()});
    }
    if let Some(items) = value.items() {
        let items = items.iter().collect();
        let kind = value.describe();
        return if kind.contains("set") {
            let mut items = all(items);
            items.sort_by_key(Json::as_i64);
            json!({"set": items})
        } else if kind.contains("tuple") {
            json!({"tuple": all(items)})
        } else {
            json!(all(items))
        };
    }
    if value.is_none() {
        Json::Null
    } else if let Some(integer) = value.integer() {
        json!(integer)
    } else if let Some(float) = value.float() {
        json!(float)
    } else if let Some(boolean) = value.boolean() {
        json!(boolean)
    } else if let (false, Some(bytes)) = (value.describe().starts_with("the text"), value.bytes()) {
        let bytes = bytes.decoded().unwrap();
        json!({"bytes": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
    } else if let Some(text) = value.text() {
        json!(text)
    } else {
        json!({"object": class(value)})
    }
}

/// The class of an object, also if protocol 0 or 1 makes it through `copyreg`.
fn class(value: Value<'_>) -> String {
    let call = value.call().expect("nothing else is left");
    let (module, name) = match call.arguments.items().unwrap().get(0) {
        Some(class) if call.is(&["copyreg", "copy_reg"], "_reconstructor") => {
            class.global().unwrap()
        }
        _ => (call.module, call.name),
    };
    // Python 3.13 and later pickle paths under a module of their own.
    format!("{}.{}", module.trim_end_matches("._local"), name.trim_start_matches("Pure"))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

#[test]
fn what_cpython_and_numpy_wrote_is_read() {
    let cases = std::fs::read(reference_path("import/pickles.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 60);
    for case in cases {
        let data = from_hex(case["pickle"].as_str().unwrap());
        let pickle = read(&data, &PickleLimits::default())
            .unwrap_or_else(|e| panic!("{}: {e}", case["name"]));
        assert_eq!(pickle.length(), data.len());
        let mut expected = case["holds"].clone();
        plain_paths(&mut expected);
        assert_eq!(described(pickle.root(), 0), expected, "{}", case["name"]);
    }
}

/// Removes the difference between a class and its pickled name.
fn plain_paths(json: &mut Json) {
    match json {
        Json::String(text) if text.starts_with("pathlib.Pure") => *text = text.replace("Pure", ""),
        Json::Array(items) => items.iter_mut().for_each(plain_paths),
        Json::Object(map) => map.values_mut().for_each(plain_paths),
        _ => {}
    }
}

#[test]
fn every_cut_of_a_pickle_is_an_error() {
    let cases = std::fs::read(reference_path("import/pickles.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_slice(&cases).unwrap();
    for case in cases {
        let data = from_hex(case["pickle"].as_str().unwrap());
        for length in 0..data.len() {
            assert!(
                read(&data[..length], &PickleLimits::default()).is_err(),
                "{length} of {}",
                case["name"]
            );
        }
    }
}

/// The problem of a pickle that must not be read.
fn problem(data: &[u8]) -> (usize, String) {
    let limits = PickleLimits { instructions: 10_000, values: 1_000, marks: 50 };
    let PickleError { offset, problem } = read(data, &limits).map(drop).unwrap_err();
    (offset, problem)
}

#[test]
fn damage_is_reported_with_its_offset() {
    for (data, offset, words) in [
        (&b""[..], 0, "it ends too early: 1 bytes should follow, but 0 are left"),
        (b"\x80\x06N.", 0, "protocol 6; the highest known is 5"),
        (b"N0.", 2, "it uses a value that does not exist"),
        (b"(.", 1, "it uses a value that does not exist"),
        (b"(N\x85\x85a.", 4, "it uses a value that does not exist"),
        (b"Nt.", 1, "it uses a mark that does not exist"),
        (b"h\x00.", 0, "the memo has no entry 0"),
        (b"B\xff\xff\xff\xffab.", 0, "4294967295 bytes should follow, but 3 are left"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffab.", 0, "18446744073709551615 bytes should follow"),
        (b"T\xff\xff\xff\xff.", 0, "a length of -1 bytes"),
        (b"\x8b\x00\x00\x00\x80.", 0, "a length of -2147483648 bytes"),
        (b"\x95\xff\x00\x00\x00\x00\x00\x00\x00N.", 0, "255 bytes should follow, but 2 are left"),
        (b"I12x\n.", 0, "the text of an integer is invalid"),
        (b"Fone\n.", 0, "the text of a float is invalid"),
        (b"Sabc\n.", 0, "a string without quotes"),
        (b"S'\\q'\n.", 0, "an unknown escape"),
        (b"V\\u12\n.", 0, "an escape in text is cut off"),
        (b"V\\U00110000\n.", 0, "the code point 0x110000 does not exist"),
        (b"NNa.", 2, "it adds an item to a value that is not a container"),
        (b"NNNs.", 3, "it sets an entry of a value that is not a dictionary"),
        (b"(NNNd.", 4, "a dictionary has a key without a value"),
        (b"NNb.", 2, "it sets the state of a value that is not an object"),
        (b"NNR.", 2, "the arguments of a call are not a tuple"),
        (b"NN\x93.", 2, "the name of a class is not text"),
        (b"cmodule\nname", 0, "it ends within a line of text"),
        (b"\x82\x01.", 0, "extension registry"),
        (b"\x97.", 0, "a buffer outside of it"),
        (b"?", 0, "unknown instruction '?'"),
        (b"\xff", 0, "unknown instruction 0xff"),
    ] {
        let (found, problem) = problem(data);
        assert!(found == offset && problem.contains(words), "{data:?}: at {found}: {problem}");
    }
}

#[test]
fn limits_hold() {
    let (_, marks) = problem(&[b'('; 100]);
    assert_eq!(marks, "it is nested deeper than 50");
    let (_, values) = problem(&[b']'; 2_000]);
    assert_eq!(values, "it has more than 1000 values");
    let push_and_pop: Vec<u8> = b"N".iter().chain(b"20".repeat(10_000).iter()).copied().collect();
    let (_, instructions) = problem(&push_and_pop);
    assert_eq!(instructions, "it has more than 10000 instructions");
}

#[test]
fn depth_does_not_use_the_stack() {
    // Lists nested a million deep, which are also dropped.
    let mut data = vec![b']'; 1_000_000];
    data.extend(vec![b'a'; 999_999]);
    data.push(b'.');
    let pickle = read(&data, &PickleLimits::default()).unwrap();
    assert_eq!(pickle.root().describe(), "a list of 1");
}

#[test]
fn a_billion_laughs_are_a_few_hundred_values() {
    // Each list contains the previous one ten times.
    let mut data = b"]q\x00".to_vec();
    for level in 1..200u8 {
        data.extend([b']', b'q', level, b'(']);
        data.extend([b'h', level - 1].repeat(10));
        data.push(b'e');
    }
    data.push(b'.');
    let limits = PickleLimits { values: 200, ..PickleLimits::default() };
    let pickle = read(&data, &limits).unwrap();
    assert_eq!(pickle.root().describe(), "a list of 10");
}

#[test]
fn a_value_can_contain_itself() {
    let pickle = read(b"]q\x00h\x00a.", &PickleLimits::default()).unwrap();
    let inner = pickle.root().items().unwrap().get(0).unwrap();
    assert_eq!(inner.describe(), "a list of 1");
}

#[test]
fn nested_encoded_bytes_do_not_use_the_stack() {
    // Each call has the previous one as its encoding.
    let mut data = b"c_codecs\nencode\nq\x00V\nq\x01".to_vec();
    data.extend(b"h\x00h\x01".repeat(200_000));
    data.extend(b"h\x01");
    data.extend(b"\x86R".repeat(200_000));
    data.push(b'.');
    let pickle = read(&data, &PickleLimits::default()).unwrap();
    assert_eq!(pickle.root().text(), None);
    assert_eq!(pickle.root().integer(), None);
}

#[test]
fn calls_are_recorded_and_never_made() {
    for data in [
        &b"cos\nsystem\n(S'touch /tmp/never'\ntR."[..],
        b"(S'touch /tmp/never'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch /tmp/never'\no.",
        b"cos\nsystem\n(S'touch /tmp/never'\nt\x81.",
        b"cos\nsystem\n(S'touch /tmp/never'\nt}\x92.",
        b"\x8c\x02os\x8c\x06system\x93(S'touch /tmp/never'\ntR.",
    ] {
        let pickle = read(data, &PickleLimits::default()).unwrap();
        let call = pickle.root().call().unwrap();
        assert!(call.is(&["os", "posix"], "system"));
        let arguments = call.arguments.items().unwrap();
        assert_eq!(arguments.get(0).and_then(Value::text), Some("touch /tmp/never"));
        assert_eq!(pickle.root().describe(), "an object of os.system");
        assert!(pickle.root().items().is_none() && pickle.root().entries().is_none());
    }
}

#[test]
fn an_object_of_the_first_protocols_is_described_by_its_class() {
    for (data, expected) in [
        (
            &b"ccopy_reg\n_reconstructor\n(cmodels\nNet\nc__builtin__\nobject\nNtR(dS'a'\nI1\nsb."
                [..],
            "an object of models.Net",
        ),
        (b"ccopyreg\n__newobj__\n(cmodels\nNet\ntR.", "an object of models.Net"),
        (b"ccopyreg\n_reconstructor\n)R.", "an object of copyreg._reconstructor"),
        (b"cother\n_reconstructor\n(cmodels\nNet\ntR.", "an object of other._reconstructor"),
    ] {
        assert_eq!(read(data, &PickleLimits::default()).unwrap().root().describe(), expected);
    }
}

#[test]
fn a_dictionary_of_an_unknown_class_is_a_dictionary() {
    // Like Lightning's hyperparameters: NEWOBJ, SETITEM, BUILD.
    let data =
        b"clightning\nAttributeDict\n)\x81X\x02\x00\x00\x00lrG?\xb9\x99\x99\x99\x99\x99\x9as}b.";
    let pickle = read(data, &PickleLimits::default()).unwrap();
    assert_eq!(pickle.root().get("lr").and_then(Value::float), Some(0.1));
    assert_eq!(pickle.root().get("other").map(Value::describe), None);
}

#[test]
fn the_last_of_two_equal_keys_counts() {
    let pickle = read(b"}(U\x01aK\x01U\x01aK\x02u.", &PickleLimits::default()).unwrap();
    assert_eq!(pickle.root().get("a").and_then(Value::integer), Some(2));
}

#[test]
fn keys_do_not_fill_a_message() {
    let mut data = b"}(".to_vec();
    for key in 0..300 {
        let key = format!("{key}{}", "a".repeat(3_000));
        data.extend([b"T", &(key.len() as u32).to_le_bytes()[..], key.as_bytes(), b"N"].concat());
    }
    data.extend(b"u.");
    let pickle = read(&data, &PickleLimits::default()).unwrap();
    let keys = pickle.root().keys_in_short().unwrap();
    assert!(keys.len() < 1_100 && keys.ends_with(" and 290 more"), "{keys}");
    let empty = read(b"}.", &PickleLimits::default()).unwrap();
    assert_eq!(empty.root().keys_in_short(), None);
}

#[test]
fn values_outside_the_pickle_keep_their_names() {
    for data in [&b"\x80\x02(U\x07storageK\x07tQ."[..], b"Pa line\n."] {
        let pickle = read(data, &PickleLimits::default()).unwrap();
        assert!(pickle.root().persistent().is_some());
    }
}

#[test]
fn integers_beyond_64_bits() {
    // PyTorch's magic number, as protocol 2 and as protocol 0 write it.
    let magic = 0x1950_a86a_20f9_469c_fc6c_i128;
    for data in [&b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."[..], b"L119547037146038801333356L\n."] {
        let pickle = read(data, &PickleLimits::default()).unwrap();
        assert_eq!(pickle.root().wide_integer(), Some(magic));
        assert_eq!(pickle.root().integer(), None);
    }
    let huge = [&b"\x8a\xff"[..], &[0x7f; 255], b"."].concat();
    assert_eq!(read(&huge, &PickleLimits::default()).unwrap().root().wide_integer(), None);
}

/// An array of three 32-bit integers whose shape, bytes and type can be changed.
fn array(shape: &str, bytes: &str, dtype: &str) -> String {
    let start = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n";
    let dtype = format!("cnumpy\ndtype\n(S'{dtype}'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb");
    format!("{start}({shape}t{dtype}I00\n{bytes}tb.")
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let twelve = "S'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x03\\x00\\x00\\x00'\n";
    let good = array("I3\n", twelve, "i4");
    let good = read(good.as_bytes(), &PickleLimits::default()).unwrap();
    assert_eq!(Array::of(good.root()).unwrap().unwrap().integers().unwrap(), [1, 2, 3]);
    let many = "I1\n".repeat(65);
    for (data, words) in [
        (array("I4\n", twelve, "i4"), "shape [4] with elements of 4 bytes, but 12 bytes"),
        (array("I2\n", twelve, "i4"), "shape [2] with elements of 4 bytes, but 12 bytes"),
        (array("I-3\n", twelve, "i4"), "without its shape"),
        (array(&format!("I{0}\nI{0}\n", i64::MAX), twelve, "i4"), "but 12 bytes of content"),
        (array(&many, "S'aaaa'\n", "i4"), "a NumPy array of 65 dimensions"),
        (array("I3\n", "N", "i4"), "without its bytes"),
        (array("I3\n", twelve, "O8"), "whose elements are not plain numbers"),
        (array("I3\n", twelve, "V4"), "whose elements are not plain numbers"),
    ] {
        let pickle = read(data.as_bytes(), &PickleLimits::default()).unwrap();
        let problem = Array::of(pickle.root()).unwrap().unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
}
