//! Everything that differs between platforms: which wheels hold its libtorch, their checksums, what to keep of
//! them, and the names of its shared libraries. Does not depend on how wheels are installed.

use std::fmt;

/// The libtorch that tch 0.24 binds. Wheels, checks and messages all mean this one.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// The CPython whose torch wheel is taken, regardless of the user's Python: libtorch inside is the same, and one file
/// for everybody means one checksum.
pub const WHEEL_PYTHON: &str = "3.11";
/// The ABI tag that goes with [`WHEEL_PYTHON`].
pub const WHEEL_ABI: &str = "cp311";

/// A pair of operating system and processor that has a ready-made libtorch.
#[derive(Debug)]
pub struct Platform {
    /// As in [`std::env::consts::OS`].
    pub os: &'static str,
    /// As in [`std::env::consts::ARCH`].
    pub arch: &'static str,
    /// Whether anybody has built and run the project here.
    pub tried: Tried,
    /// The oldest glibc that the wheels load with, on systems with glibc.
    pub oldest_glibc: Option<Glibc>,
    /// What to install.
    pub wheels: &'static [Wheel],
    /// Bytes that all files of the wheels take on disk, rounded up: pip can only install whole wheels.
    pub installed_bytes: u64,
    /// Every shared library that a complete `lib/` holds, by file name.
    pub libraries: &'static [&'static str],
    /// Links to make in `lib/`: name, target.
    pub links: &'static [(&'static str, &'static str)],
    /// Whether `libtorch` itself comes from the wheel or is made here.
    pub umbrella: Umbrella,
}

/// Whether somebody has seen it work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// Set up, built and tested.
    Yes,
    /// The wheels were inspected and their checksums are real, but nothing was run.
    No,
}

/// Where the library called `libtorch`, which torch-sys links, comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Umbrella {
    /// The wheel's own needs nothing but the CPU library.
    FromWheel,
    /// The wheel's own needs libtorch_cuda, which is left out: an empty one that needs libtorch_cpu stands in.
    Made,
}

/// A glibc version, major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc(pub u32, pub u32);

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// One file of the Python package index.
#[derive(Debug)]
pub struct Wheel {
    /// The package's name.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The exact file name.
    pub file: &'static str,
    /// Its size, for the check of free space.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: &'static str,
    /// The platform tags to ask pip for.
    pub tags: &'static [&'static str],
    /// What to keep.
    pub parts: &'static [WheelPart],
}

/// A file of a wheel, or a whole folder if both names end in `/`, and where it goes.
#[derive(Debug)]
pub struct WheelPart {
    /// The name inside the wheel.
    pub from: &'static str,
    /// The name inside the libtorch folder.
    pub to: &'static str,
}

impl Platform {
    /// The entry for an operating system and a processor.
    ///
    /// # Errors
    /// If there is none: names those that exist, and what to do.
    pub fn find(os: &str, arch: &str) -> anyhow::Result<&'static Self> {
        PLATFORMS.iter().find(|platform| (platform.os, platform.arch) == (os, arch)).ok_or_else(|| {
            let known: Vec<_> = PLATFORMS.iter().map(ToString::to_string).collect();
            anyhow::anyhow!(
                "there is no ready-made libtorch for {os} {arch}; there is one for {}\n\
                 Set LIBTORCH to a libtorch {LIBTORCH_VERSION} of your own, for example the `torch` folder of a PyTorch \
                 {LIBTORCH_VERSION} that was built for this machine: docs/setup.md says how.",
                known.join(", ")
            )
        })
    }

    /// The entry for the machine that this runs on.
    ///
    /// # Errors
    /// As [`Platform::find`], and on a Linux whose C library is not glibc.
    pub fn here() -> anyhow::Result<&'static Self> {
        if cfg!(target_env = "musl") {
            anyhow::bail!(
                "the ready-made libtorch needs glibc, and this is a musl system (Alpine?)\n\
                 Use a glibc distribution or container, or set LIBTORCH to a libtorch {LIBTORCH_VERSION} built for musl."
            );
        }
        Self::find(std::env::consts::OS, std::env::consts::ARCH)
    }

    /// Bytes that all wheels take together.
    pub fn download_bytes(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.bytes).sum()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.os, self.arch)
    }
}

/// The library that every libtorch has, on any machine: a libtorch of the user's own may be for a platform without an
/// entry.
pub fn main_library() -> &'static str {
    if cfg!(target_os = "macos") { "libtorch_cpu.dylib" } else { "libtorch_cpu.so" }
}

const CUPTI: &[WheelPart] = &[
    WheelPart { from: "nvidia/cu13/lib/libcupti.so.13", to: "lib/libcupti.so.13" },
    WheelPart { from: "nvidia_cuda_cupti-13.0.85.dist-info/licenses/", to: "licenses/cuda-cupti/" },
];
const CUDA_RUNTIME: &[WheelPart] = &[
    WheelPart { from: "nvidia/cu13/lib/libcudart.so.13", to: "lib/libcudart.so.13" },
    WheelPart {
        from: "nvidia_cuda_runtime-13.0.96.dist-info/licenses/",
        to: "licenses/cuda-runtime/",
    },
];
const LICENSES: WheelPart =
    WheelPart { from: "torch-2.11.0.dist-info/licenses/", to: "licenses/torch/" };
const HEADERS: WheelPart = WheelPart { from: "torch/include/", to: "include/" };

/// torch-sys links `gomp`; a machine with only clang does not have a file of that name.
const GOMP_LINK: &[(&str, &str)] = &[("libgomp.so", "libgomp.so.1")];

/// Every platform that has an entry.
pub const PLATFORMS: &[Platform] = &[
    Platform {
        os: "linux",
        arch: "x86_64",
        tried: Tried::Yes,
        oldest_glibc: Some(Glibc(2, 28)),
        wheels: &[
            Wheel {
                package: "torch",
                version: LIBTORCH_VERSION,
                file: "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
                bytes: 530_604_548,
                sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
                tags: &["manylinux_2_28_x86_64"],
                parts: &[
                    HEADERS,
                    LICENSES,
                    WheelPart { from: "torch/lib/libtorch_cpu.so", to: "lib/libtorch_cpu.so" },
                    WheelPart { from: "torch/lib/libc10.so", to: "lib/libc10.so" },
                    WheelPart { from: "torch/lib/libgomp.so.1", to: "lib/libgomp.so.1" },
                ],
            },
            Wheel {
                package: "nvidia-cuda-cupti",
                version: "13.0.85",
                file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
                bytes: 10_715_597,
                sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
                tags: &["manylinux_2_25_x86_64"],
                parts: CUPTI,
            },
            Wheel {
                package: "nvidia-cuda-runtime",
                version: "13.0.96",
                file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                bytes: 2_243_632,
                sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
                tags: &["manylinux_2_17_x86_64", "manylinux2014_x86_64"],
                parts: CUDA_RUNTIME,
            },
        ],
        installed_bytes: 1_240_000_000,
        libraries: &[
            "libtorch_cpu.so",
            "libc10.so",
            "libtorch.so",
            "libgomp.so.1",
            // libtorch_cpu.so does not load without these two, whether there is a GPU or not.
            "libcudart.so.13",
            "libcupti.so.13",
        ],
        links: GOMP_LINK,
        umbrella: Umbrella::Made,
    },
    Platform {
        os: "linux",
        arch: "aarch64",
        tried: Tried::No,
        oldest_glibc: Some(Glibc(2, 28)),
        wheels: &[
            Wheel {
                package: "torch",
                version: LIBTORCH_VERSION,
                file: "torch-2.11.0-cp311-cp311-manylinux_2_28_aarch64.whl",
                bytes: 419_718_178,
                sha256: "d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6",
                tags: &["manylinux_2_28_aarch64"],
                parts: &[
                    HEADERS,
                    LICENSES,
                    WheelPart { from: "torch/lib/libtorch_cpu.so", to: "lib/libtorch_cpu.so" },
                    WheelPart { from: "torch/lib/libc10.so", to: "lib/libc10.so" },
                    WheelPart { from: "torch/lib/libgomp.so.1", to: "lib/libgomp.so.1" },
                    WheelPart { from: "torch/lib/libarm_compute.so", to: "lib/libarm_compute.so" },
                    WheelPart {
                        from: "torch/lib/libarm_compute_graph.so",
                        to: "lib/libarm_compute_graph.so",
                    },
                    WheelPart { from: "torch/lib/libgfortran.so.5", to: "lib/libgfortran.so.5" },
                    WheelPart {
                        from: "torch/lib/libnvpl_blas_core.so.0",
                        to: "lib/libnvpl_blas_core.so.0",
                    },
                    WheelPart {
                        from: "torch/lib/libnvpl_blas_lp64_gomp.so.0",
                        to: "lib/libnvpl_blas_lp64_gomp.so.0",
                    },
                    WheelPart {
                        from: "torch/lib/libnvpl_lapack_core.so.0",
                        to: "lib/libnvpl_lapack_core.so.0",
                    },
                    WheelPart {
                        from: "torch/lib/libnvpl_lapack_lp64_gomp.so.0",
                        to: "lib/libnvpl_lapack_lp64_gomp.so.0",
                    },
                ],
            },
            Wheel {
                package: "nvidia-cuda-cupti",
                version: "13.0.85",
                file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_aarch64.whl",
                bytes: 10_310_827,
                sha256: "796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151",
                tags: &["manylinux_2_25_aarch64"],
                parts: CUPTI,
            },
            Wheel {
                package: "nvidia-cuda-runtime",
                version: "13.0.96",
                file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
                bytes: 2_261_060,
                sha256: "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
                tags: &["manylinux_2_17_aarch64", "manylinux2014_aarch64"],
                parts: CUDA_RUNTIME,
            },
        ],
        installed_bytes: 970_000_000,
        libraries: &[
            "libtorch_cpu.so",
            "libc10.so",
            "libtorch.so",
            "libgomp.so.1",
            "libarm_compute.so",
            "libarm_compute_graph.so",
            "libgfortran.so.5",
            "libnvpl_blas_core.so.0",
            "libnvpl_blas_lp64_gomp.so.0",
            "libnvpl_lapack_core.so.0",
            "libnvpl_lapack_lp64_gomp.so.0",
            "libcudart.so.13",
            "libcupti.so.13",
        ],
        links: GOMP_LINK,
        umbrella: Umbrella::Made,
    },
    Platform {
        os: "macos",
        arch: "aarch64",
        tried: Tried::No,
        oldest_glibc: None,
        wheels: &[Wheel {
            package: "torch",
            version: LIBTORCH_VERSION,
            file: "torch-2.11.0-cp311-cp311-macosx_11_0_arm64.whl",
            bytes: 80_529_712,
            sha256: "7b6a60d48062809f58595509c524b88e6ddec3ebe25833d6462eeab81e5f2ce4",
            tags: &["macosx_11_0_arm64"],
            parts: &[
                HEADERS,
                LICENSES,
                WheelPart { from: "torch/lib/libtorch_cpu.dylib", to: "lib/libtorch_cpu.dylib" },
                WheelPart { from: "torch/lib/libtorch.dylib", to: "lib/libtorch.dylib" },
                WheelPart { from: "torch/lib/libc10.dylib", to: "lib/libc10.dylib" },
                WheelPart { from: "torch/lib/libomp.dylib", to: "lib/libomp.dylib" },
            ],
        }],
        installed_bytes: 380_000_000,
        libraries: &["libtorch_cpu.dylib", "libtorch.dylib", "libc10.dylib", "libomp.dylib"],
        links: &[],
        umbrella: Umbrella::FromWheel,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The library that is made here, not unpacked, where [`Umbrella::Made`] says so.
    const MADE: &str = "libtorch.so";

    #[test]
    fn every_library_comes_from_exactly_one_part_or_is_made() {
        for platform in PLATFORMS {
            for library in platform.libraries {
                let target = format!("lib/{library}");
                let parts = platform
                    .wheels
                    .iter()
                    .flat_map(|wheel| wheel.parts)
                    .filter(|part| part.to == target);
                let made = platform.umbrella == Umbrella::Made && *library == MADE;
                assert_eq!(parts.count(), usize::from(!made), "{platform}: {library}");
            }
            assert!(
                platform
                    .wheels
                    .iter()
                    .flat_map(|wheel| wheel.parts)
                    .any(|part| part.to == "include/")
            );
            for (_, target) in platform.links {
                assert!(
                    platform.libraries.contains(target),
                    "{platform}: a link to nothing, {target}"
                );
            }
        }
    }

    #[test]
    fn every_wheel_is_named_and_checked() {
        for platform in PLATFORMS {
            for wheel in platform.wheels {
                let prefix = format!("{}-{}-", wheel.package.replace('-', "_"), wheel.version);
                assert!(wheel.file.starts_with(&prefix), "{}", wheel.file);
                assert!(
                    wheel.sha256.len() == 64
                        && wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit())
                );
                assert!(wheel.bytes > 1_000_000, "{}", wheel.file);
                assert!(wheel.tags.iter().all(|tag| wheel.file.contains(tag)), "{}", wheel.file);
                for part in wheel.parts {
                    assert_eq!(part.from.ends_with('/'), part.to.ends_with('/'), "{}", part.from);
                }
            }
        }
    }

    #[test]
    fn only_linux_on_x86_64_claims_to_be_tried() {
        let tried: Vec<_> =
            PLATFORMS.iter().filter(|p| p.tried == Tried::Yes).map(ToString::to_string).collect();
        assert_eq!(tried, ["linux x86_64"]);
    }

    #[test]
    fn the_error_of_an_unknown_platform_names_those_that_exist() {
        let message = Platform::find("linux", "riscv64").unwrap_err().to_string();
        assert!(message.starts_with(
            "there is no ready-made libtorch for linux riscv64; there is one for linux x86_64, "
        ));
        assert!(message.contains("Set LIBTORCH to"), "{message}");
    }
}
