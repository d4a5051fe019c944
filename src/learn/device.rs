//! Where tensors live and how many threads compute.
//!
//! One rule for threads: as many as the request says, else as many as there are cores, both for
//! libtorch and for preparing images. libtorch splits sums by its thread count, so on the CPU the last
//! bits of trained weights depend on that count (and on the kind of processor); with the same count
//! they are always the same, and a resumed run keeps the count that it began with. The count of
//! threads that prepare images changes nothing. OpenMP, which libtorch uses, must not change the count on its own
//! (`OMP_DYNAMIC`), and a limit that the environment sets (`OMP_THREAD_LIMIT`) is taken into account.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};

use anyhow::bail;
use pipeline_stages::kinds::precision::Precision;
use pipeline_stages::message::{self, Execution, RanOn};
use tch::Device;

use crate::shim;

/// Sets the threads of this process, picks the device, and allows TF32 for convolutions there if and only if it is asked for.
///
/// # Errors
/// When the request wants a GPU that does not exist.
pub fn prepare(execution: &Execution, precision: Precision) -> anyhow::Result<Device> {
    let device = pick(execution)?;
    let is_tf32 = precision == Precision::Tf32;
    shim::allow_tf32(is_tf32)?;
    TF32_ON_CPU.store(is_tf32 && device == Device::Cpu, Ordering::Relaxed);
    Ok(device)
}

/// Sets the threads of this process and picks the device.
fn pick(execution: &Execution) -> anyhow::Result<Device> {
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
                    "the device cuda:{number} does not exist: this libtorch finds {count} GPUs{}; \
                     use the device 'cpu' or 'auto', or install libtorch with CUDA",
                    why_not().map(|reason| format!(" ({reason})")).unwrap_or_default()
                );
            }
            Ok(Device::Cuda(number as usize))
        }
    }
}

/// The device for a record: which GPU it is, or the count of threads, as that changes the last bits; and what kept a
/// GPU that exists from being used.
pub fn ran_on(device: Device) -> RanOn {
    if let Device::Cuda(number) = device {
        let (name, uuid) = library::gpu(number).unzip();
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        return RanOn { uuid: uuid.flatten(), ..RanOn::gpu(number, name) };
    }
    let mut cpu = RanOn::cpu(tch::get_num_threads().unsigned_abs());
    if TF32_ON_CPU.load(Ordering::Relaxed) {
        cpu = cpu.with_remark("a CPU does not have TF32: computed in f32");
    }
    match MISSED_GPU.get() {
        Some(true) => {
            let reason = why_not().unwrap_or("libtorch cannot use it");
            cpu.with_remark(format!("there is a GPU, but {reason}"))
        }
        _ => cpu,
    }
}

/// The most memory of GPUs that libtorch has held in this process at once, in bytes; `None` where it has held none, or does not
/// count. That is what its allocator has taken of them, also what it keeps for later; what CUDA and its libraries take for themselves is not in it.
pub fn peak_gpu_memory() -> Option<u64> {
    let gpus = (0..tch::Cuda::device_count()).filter_map(|gpu| i8::try_from(gpu).ok());
    // SAFETY: it takes a number and returns one, and no exception leaves it.
    let held = gpus.map(|gpu| unsafe { pipeline_peak_gpu_memory(gpu) }).sum();
    Some(held).filter(|bytes| *bytes > 0)
}

unsafe extern "C" {
    fn pipeline_peak_gpu_memory(gpu: i8) -> u64;
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
/// Whether TF32 was asked for where it does not exist.
static TF32_ON_CPU: AtomicBool = AtomicBool::new(false);

fn why_not() -> Option<&'static str> {
    match CUDA.get()? {
        Cuda::Loaded => None,
        Cuda::NotInstalled => Some("this libtorch does not have CUDA"),
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
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

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

    /// The loader says the same of a library that is missing and of one that this one needs; only the name
    /// differs.
    pub fn outcome(error: String) -> Cuda {
        let itself = CUDA_LIBRARY.to_string_lossy();
        if error.starts_with(itself.as_ref()) && error.contains("cannot open shared object file") {
            Cuda::NotInstalled
        } else {
            Cuda::Broken(error)
        }
    }

    /// What the driver calls a GPU, and its UUID, which drivers know since CUDA 9.2. It numbers GPUs as libtorch does, with
    /// `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER`. `None` without a driver.
    pub fn gpu(number: usize) -> Option<(String, Option<String>)> {
        type Initialise = extern "C" fn(c_uint) -> c_int;
        type Find = extern "C" fn(*mut c_int, c_int) -> c_int;
        type Describe = extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
        type Identify = extern "C" fn(*mut [u8; 16], c_int) -> c_int;
        const SUCCESS: c_int = 0;
        let number = c_int::try_from(number).ok()?;
        let (mut device, mut name, mut uuid) = (0, [0; 256], [0_u8; 16]);
        // SAFETY: the names are C strings. The driver stays loaded. Its functions have had these types since they exist. One
        // writes a C string within the length that it is given, and one the 16 bytes of a UUID.
        unsafe {
            let driver = dlopen(c"libcuda.so.1".as_ptr(), RTLD_NOW);
            if driver.is_null() {
                return None;
            }
            let [initialise, find, describe] =
                [c"cuInit", c"cuDeviceGet", c"cuDeviceGetName"].map(|symbol| {
                    Some(dlsym(driver, symbol.as_ptr())).filter(|found| !found.is_null())
                });
            let initialise = std::mem::transmute::<*mut c_void, Initialise>(initialise?);
            let find = std::mem::transmute::<*mut c_void, Find>(find?);
            let describe = std::mem::transmute::<*mut c_void, Describe>(describe?);
            let described = initialise(0) == SUCCESS
                && find(&raw mut device, number) == SUCCESS
                && describe(name.as_mut_ptr(), name.len() as c_int - 1, device) == SUCCESS;
            if !described {
                return None;
            }
            let identify = dlsym(driver, c"cuDeviceGetUuid".as_ptr());
            let identified = !identify.is_null()
                && std::mem::transmute::<*mut c_void, Identify>(identify)(&raw mut uuid, device)
                    == SUCCESS;
            let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
            Some((name, identified.then(|| uuid_text(&uuid))))
        }
    }

    /// As `nvidia-smi` shows it: `GPU-5d2f4e1c-…`.
    pub fn uuid_text(uuid: &[u8; 16]) -> String {
        let mut text = "GPU".to_owned();
        for (place, byte) in uuid.iter().enumerate() {
            if [0, 4, 6, 8, 10].contains(&place) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
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

    pub fn gpu(_number: usize) -> Option<(String, Option<String>)> {
        None
    }

    pub fn fix_thread_count() -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gpu_is_an_error_that_says_what_to_do() {
        let execution = Execution { device: message::Device::Cuda(99), ..Execution::default() };
        let error = pick(&execution).unwrap_err().to_string();
        assert!(error.contains("cuda:99") && error.contains("'cpu'"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_uuid_is_written_as_nvidia_smi_does() {
        let bytes = std::array::from_fn(|place| place as u8 * 17);
        assert_eq!(library::uuid_text(&bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_missing_cuda_and_a_broken_one_are_different() {
        let missing = "libtorch_cuda.so: cannot open shared object file: No such file or directory";
        let broken = "libcudnn.so.9: cannot open shared object file: No such file or directory";
        assert_eq!(library::outcome(missing.to_owned()), Cuda::NotInstalled);
        assert_eq!(library::outcome(broken.to_owned()), Cuda::Broken(broken.to_owned()));
    }

    #[test]
    fn a_record_says_what_a_run_was_on() {
        let execution = Execution { device: message::Device::Cpu, ..Execution::default() };
        for (precision, allowed) in
            [(Precision::Tf32, true), (Precision::Bf16, false), (Precision::F32, false)]
        {
            let prepared = prepare(&execution, precision).unwrap();
            // For convolutions alone, never for matrix products.
            assert_eq!(shim::tf32_is_allowed().unwrap(), [false, allowed]);
            let RanOn { device, name, threads, remark, .. } = ran_on(prepared);
            assert_eq!((device, name), (message::Device::Cpu, None));
            assert!(threads.is_some_and(|threads| threads > 0));
            let remarked = remark.is_some_and(|remark| remark.contains("does not have TF32"));
            assert_eq!(remarked, allowed, "{precision}");
        }
        // Also where there is no driver.
        assert_eq!(ran_on(Device::Cuda(99)), RanOn::gpu(99, None));
    }

    #[test]
    fn a_gpu_that_does_not_exist_has_no_memory() {
        for gpu in [-1, 99] {
            // SAFETY: as above.
            assert_eq!(unsafe { pipeline_peak_gpu_memory(gpu) }, 0);
        }
        pick(&Execution::default()).unwrap();
        if !tch::Cuda::is_available() {
            assert_eq!(peak_gpu_memory(), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_functions_of_openmp_are_found() {
        assert!((1..=i32::MAX as usize).contains(&library::fix_thread_count()));
    }
}
