//! Calls of libtorch that tch does not wrap, through the C++ files of `shim/`. A call that fails is an error with
//! libtorch's own message.

pub mod cuda_graph;

use std::ffi::{CStr, c_char};

use anyhow::bail;

/// Whether GPUs may round the factors of convolutions of 32-bit floats to TF32, from now on, in the whole process; those of
/// matrix products they may not. libtorch's own choice is yes for convolutions and no for matrix products.
///
/// # Errors
/// When libtorch fails.
pub fn allow_tf32(allowed: bool) -> anyhow::Result<()> {
    // SAFETY: the pointer is valid for the call, and the size is that of the message.
    checked(|message| unsafe { pipeline_allow_tf32(allowed, message.as_mut_ptr(), message.len()) })
}

/// Whether it is allowed for matrix products and for convolutions, as libtorch has it.
///
/// # Errors
/// When libtorch fails.
pub fn tf32_is_allowed() -> anyhow::Result<[bool; 2]> {
    let [mut products, mut convolutions] = [false; 2];
    // SAFETY: the pointers are valid for the call, and the size is that of the message.
    checked(|message| unsafe {
        let (text, size) = (message.as_mut_ptr(), message.len());
        pipeline_tf32_is_allowed(&raw mut products, &raw mut convolutions, text, size)
    })?;
    Ok([products, convolutions])
}

/// Enters a level of dual numbers, and returns its number.
///
/// # Errors
/// When libtorch fails.
pub fn enter_dual_level() -> anyhow::Result<u64> {
    let mut level = 0;
    // SAFETY: both pointers are valid for the call, and the size is that of the message.
    checked(|message| unsafe {
        pipeline_enter_dual_level(&raw mut level, message.as_mut_ptr(), message.len())
    })?;
    Ok(level)
}

/// Leaves a level of dual numbers.
///
/// # Errors
/// When it was not entered.
pub fn exit_dual_level(level: u64) -> anyhow::Result<()> {
    // SAFETY: the pointer is valid for the call, and the size is that of the message.
    checked(|message| unsafe {
        pipeline_exit_dual_level(level, message.as_mut_ptr(), message.len())
    })
}

/// Calls the shim with a place for its message.
fn checked(call: impl FnOnce(&mut [c_char; 512]) -> bool) -> anyhow::Result<()> {
    let mut message = [0; 512];
    if call(&mut message) {
        return Ok(());
    }
    // SAFETY: the shim ends what it writes with a zero, and the array was all zeros.
    let message = unsafe { CStr::from_ptr(message.as_ptr()) };
    bail!("libtorch: {}", message.to_string_lossy())
}

unsafe extern "C" {
    fn pipeline_enter_dual_level(level: *mut u64, message: *mut c_char, size: usize) -> bool;
    fn pipeline_exit_dual_level(level: u64, message: *mut c_char, size: usize) -> bool;
    fn pipeline_allow_tf32(allowed: bool, message: *mut c_char, size: usize) -> bool;
    fn pipeline_tf32_is_allowed(
        products: *mut bool,
        convolutions: *mut bool,
        message: *mut c_char,
        size: usize,
    ) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_become_errors() {
        // A level that was never entered is what libtorch throws at.
        let error = exit_dual_level(7).unwrap_err().to_string();
        assert!(error.contains("forward AD"), "{error}");
    }
}
