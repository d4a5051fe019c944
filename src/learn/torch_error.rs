//! What libtorch says of its failures, for people.

use anyhow::anyhow;

/// What libtorch puts before the places in its own code.
const PLACES: &str = "\nException raised from ";
/// What tch puts before the words of libtorch.
const BEFORE: &str = "Internal torch error: ";

/// An error without the places in libtorch's code, with advice if a GPU has too little memory.
///
/// Dozens of lines of addresses say nothing to people, and hide what does. Those who look for a fault in libtorch itself
/// see them where `TORCH_SHOW_CPP_STACKTRACES=1` is set, as in PyTorch.
pub fn readable(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    let in_full = std::env::var_os("TORCH_SHOW_CPP_STACKTRACES").is_some_and(|value| value == "1");
    match shortened(&text) {
        Some(text) if !in_full => anyhow!(text),
        _ => error,
    }
}

/// The text of an error of libtorch, shortened. `None` if there is nothing to shorten.
fn shortened(text: &str) -> Option<String> {
    let (said, _places) = text.split_once(PLACES)?;
    let said = said.replace(BEFORE, "libtorch: ");
    let Some(memory) = said.find("CUDA out of memory") else { return Some(said) };
    // After the numbers comes advice about variables of PyTorch's allocator.
    let end =
        said[memory..].find(" Of the allocated memory").map_or(said.len(), |end| memory + end);
    Some(format!(
        "{}\na smaller batch-size takes less memory, and so does precision = \"bf16\"; \
         `nvidia-smi` shows what else is on the GPU",
        &said[..end]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_code_of_libtorch_are_left_out() {
        for (text, shorter) in [
            ("the file is damaged", None),
            (
                "step 3: Internal torch error: shapes [2] and [3] differ\nthey must not\n\
                 Exception raised from operator() at /pytorch/Loss.cu:386 (most recent call first):\n\
                 frame #0: c10::Error::Error() + 0x9d (0x7f in libc10.so)\n",
                Some("step 3: libtorch: shapes [2] and [3] differ\nthey must not"),
            ),
            (
                "Internal torch error: CUDA out of memory. Tried to allocate 14.96 GiB. GPU 0 has a total capacity of \
                 139.80 GiB of which 2.91 GiB is free. Of the allocated memory 127.45 GiB is allocated by PyTorch. \
                 See the documentation\nException raised from malloc\nframe #0: x",
                Some(
                    "libtorch: CUDA out of memory. Tried to allocate 14.96 GiB. GPU 0 has a total capacity of \
                     139.80 GiB of which 2.91 GiB is free.\na smaller batch-size takes less memory, and so does \
                     precision = \"bf16\"; `nvidia-smi` shows what else is on the GPU",
                ),
            ),
        ] {
            assert_eq!(shortened(text).as_deref(), shorter);
        }
    }

    #[test]
    fn an_error_of_libtorch_itself_is_short() {
        let product = tch::Tensor::from_slice(&[1.0, 2.0]).f_mm(&tch::Tensor::from_slice(&[1.0]));
        let error = readable(product.unwrap_err().into()).to_string();
        assert!(error.starts_with("libtorch: ") && !error.contains("frame #"), "{error}");
    }
}
