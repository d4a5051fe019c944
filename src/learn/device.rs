//! Where tensors live and how many threads compute.
//!
//! One rule for threads: as many as the request says, else as many as there are cores, both for
//! libtorch and for preparing images. libtorch splits sums by its thread count, so on the CPU the last
//! bits of trained weights depend on that count (and on the kind of processor); with the same count
//! they are always the same, and a resumed run keeps the count that it began with. The count of
//! threads that prepare images changes nothing.

use std::sync::Once;

use anyhow::bail;
use pipeline_stages::message::{self, Execution};
use tch::{Cuda, Device};

/// Sets the threads of this process and picks the device.
///
/// # Errors
/// When the request wants a GPU that is not there.
pub fn prepare(execution: &Execution) -> anyhow::Result<Device> {
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = execution.threads.map_or(cores, |threads| threads.max(1) as usize);
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Nothing here runs two tensor operations at once.
        tch::set_num_interop_threads(1);
        // It fails when a test has made a pool of its own: then that one serves.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        cuda::register();
    });
    match execution.device {
        message::Device::Cpu => Ok(Device::Cpu),
        message::Device::Auto if Cuda::is_available() => Ok(Device::Cuda(0)),
        message::Device::Auto => Ok(Device::Cpu),
        message::Device::Cuda(number) => {
            let count = Cuda::device_count();
            if i64::from(number) >= count {
                bail!(
                    "there is no device cuda:{number}: this libtorch sees {count} GPUs; \
                     use the device 'cpu' or 'auto', or install libtorch with CUDA"
                );
            }
            Ok(Device::Cuda(number as usize))
        }
    }
}

/// The name of a device, as a record shows it: with the count of threads where that changes the last bits.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => format!("cpu, {} threads", tch::get_num_threads()),
    }
}

/// CUDA, where it is installed.
mod cuda {
    /// Loads `libtorch_cuda.so` if the loader finds it: that registers the device with libtorch. The
    /// program itself is linked to the CPU part alone, so that one build serves both.
    #[cfg(target_os = "linux")]
    pub fn register() {
        use std::ffi::{c_char, c_int, c_void};
        unsafe extern "C" {
            fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
        }
        const RTLD_NOW: c_int = 0x2;
        const RTLD_GLOBAL: c_int = 0x100;
        // SAFETY: the name is a C string, and the library's initialisers are libtorch's own. The
        // handle is never closed.
        unsafe {
            dlopen(c"libtorch_cuda.so".as_ptr(), RTLD_NOW | RTLD_GLOBAL);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn register() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_that_says_what_to_do() {
        let execution = Execution { device: message::Device::Cuda(99), ..Execution::default() };
        let error = prepare(&execution).unwrap_err().to_string();
        assert!(error.contains("cuda:99") && error.contains("'cpu'"), "{error}");
    }
}
