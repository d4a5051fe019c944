//! Where tensors live and how many threads compute.
//!
//! One rule for threads: as many as the request says, else as many as there are cores, both for
//! libtorch and for preparing images. libtorch splits sums by its thread count, so on the CPU the last
//! bits of trained weights depend on that count (and on the kind of processor); with the same count
//! they are always the same, and a resumed run keeps the count that it began with. The count of
//! threads that prepare images changes nothing. OpenMP, which libtorch uses, must not change the count on its own
//! (`OMP_DYNAMIC`), and a limit that the environment sets (`OMP_THREAD_LIMIT`) is taken into account.

use std::error::Error;
use std::sync::{Once, OnceLock};

use anyhow::bail;
use pipeline_stages::message::{self, Execution};
use tch::Device;

/// Sets the threads of this process and picks the device.
///
/// # Errors
/// When the request wants a GPU that is not there.
pub fn prepare(execution: &Execution) -> anyhow::Result<Device> {
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = execution.threads.map_or(cores, |threads| threads.max(1) as usize);
    let threads = threads.min(library::fix_thread_count());
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    static ONCE: Once = Once::new();
    static NO_THREADS: OnceLock<String> = OnceLock::new();
    ONCE.call_once(|| {
        // Nothing here runs two tensor operations at once.
        tch::set_num_interop_threads(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        // Another failure has no cause: a test has made a pool of its own, which serves.
        if let Some(error) = pool.as_ref().err().and_then(Error::source) {
            let _ = NO_THREADS.set(error.to_string());
        }
    });
    if let Some(error) = NO_THREADS.get() {
        bail!("cannot start {threads} threads: {error}; `threads` in 'execution' asks for fewer");
    }
    if execution.device != message::Device::Cpu {
        let _ = CUDA.get_or_init(library::register_cuda);
    }
    match execution.device {
        message::Device::Cpu => Ok(Device::Cpu),
        message::Device::Auto if tch::Cuda::is_available() => Ok(Device::Cuda(0)),
        message::Device::Auto => {
            let _ = MISSED_GPU.set(gpu_is_there());
            Ok(Device::Cpu)
        }
        message::Device::Cuda(number) => {
            let count = tch::Cuda::device_count();
            if i64::from(number) >= count {
                bail!(
                    "there is no device cuda:{number}: this libtorch sees {count} GPUs{}; \
                     use the device 'cpu' or 'auto', or install libtorch with CUDA",
                    why_not().map(|reason| format!(" ({reason})")).unwrap_or_default()
                );
            }
            Ok(Device::Cuda(number as usize))
        }
    }
}

/// The name of a device, as a record shows it: with the count of threads where that changes the last
/// bits, and with what kept a GPU that is there from being used.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ if MISSED_GPU.get() == Some(&true) => format!(
            "cpu, {} threads (there is a GPU, but {})",
            tch::get_num_threads(),
            why_not().unwrap_or("libtorch can't use it")
        ),
        _ => format!("cpu, {} threads", tch::get_num_threads()),
    }
}

/// What became of libtorch's CUDA part.
#[derive(Debug, PartialEq, Eq)]
enum Cuda {
    /// It is loaded.
    Loaded,
    /// This libtorch has none.
    NotInstalled,
    /// It is there and does not load, in the loader's words.
    Broken(String),
}

static CUDA: OnceLock<Cuda> = OnceLock::new();
/// Whether the CPU was picked although there is a GPU.
static MISSED_GPU: OnceLock<bool> = OnceLock::new();

fn why_not() -> Option<&'static str> {
    match CUDA.get()? {
        Cuda::Loaded => None,
        Cuda::NotInstalled => Some("this libtorch has no CUDA"),
        Cuda::Broken(reason) => Some(reason),
    }
}

/// Whether the driver of an NVIDIA GPU is at work.
fn gpu_is_there() -> bool {
    std::path::Path::new("/dev/nvidiactl").exists()
}

/// What the dynamic loader knows.
#[cfg(target_os = "linux")]
mod library {
    use std::ffi::{CStr, c_char, c_int, c_void};

    use super::Cuda;

    unsafe extern "C" {
        fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
        fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }

    const RTLD_NOW: c_int = 0x2;
    const RTLD_GLOBAL: c_int = 0x100;
    const CUDA_LIBRARY: &CStr = c"libtorch_cuda.so";

    /// Loads libtorch's CUDA part if the loader finds it: that registers the device with libtorch. The
    /// program itself is linked to the CPU part alone, so that one build serves both.
    pub fn register_cuda() -> Cuda {
        // SAFETY: the name is a C string, and the library's initialisers are libtorch's own. The
        // handle is never closed. What `dlerror` returns is a C string, read before the next call.
        let error = unsafe {
            if !dlopen(CUDA_LIBRARY.as_ptr(), RTLD_NOW | RTLD_GLOBAL).is_null() {
                return Cuda::Loaded;
            }
            let error = dlerror();
            if error.is_null() {
                return Cuda::NotInstalled;
            }
            CStr::from_ptr(error).to_string_lossy().into_owned()
        };
        outcome(error)
    }

    /// The loader says the same of a library that is not there and of one that this one needs; only the name
    /// differs.
    pub fn outcome(error: String) -> Cuda {
        let itself = CUDA_LIBRARY.to_string_lossy();
        if error.starts_with(itself.as_ref()) && error.contains("cannot open shared object file") {
            Cuda::NotInstalled
        } else {
            Cuda::Broken(error)
        }
    }

    /// Keeps OpenMP from choosing a count of threads, and returns the most that it can have.
    pub fn fix_thread_count() -> usize {
        // SAFETY: the names are C strings; the loader searches what is loaded. These functions of OpenMP have these
        // types.
        unsafe {
            let everywhere = std::ptr::null_mut();
            let set_dynamic = dlsym(everywhere, c"omp_set_dynamic".as_ptr());
            if !set_dynamic.is_null() {
                std::mem::transmute::<*mut c_void, extern "C" fn(c_int)>(set_dynamic)(0);
            }
            let limit = dlsym(everywhere, c"omp_get_thread_limit".as_ptr());
            if limit.is_null() {
                return usize::MAX;
            }
            let limit = std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(limit)();
            usize::try_from(limit).unwrap_or(usize::MAX).max(1)
        }
    }
}

/// There is no CUDA on other systems.
#[cfg(not(target_os = "linux"))]
mod library {
    pub fn register_cuda() -> super::Cuda {
        super::Cuda::NotInstalled
    }

    pub fn fix_thread_count() -> usize {
        usize::MAX
    }
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

    #[cfg(target_os = "linux")]
    #[test]
    fn a_cuda_that_is_missing_is_told_from_one_that_is_broken() {
        let missing = "libtorch_cuda.so: cannot open shared object file: No such file or directory";
        let broken = "libcudnn.so.9: cannot open shared object file: No such file or directory";
        assert_eq!(library::outcome(missing.to_owned()), Cuda::NotInstalled);
        assert_eq!(library::outcome(broken.to_owned()), Cuda::Broken(broken.to_owned()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_functions_of_openmp_are_found() {
        assert!((1..=i32::MAX as usize).contains(&library::fix_thread_count()));
    }
}
