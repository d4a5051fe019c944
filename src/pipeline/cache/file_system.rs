//! On which kind of file system something is, by the magic numbers that statfs returns: see statfs(2) and linux/magic.h.

use std::path::Path;

/// Those of this machine, with times in nanoseconds.
const LOCAL: &[u32] = &[
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
    0x2fc1_2fc1, // zfs
    0xf2f5_2010, // f2fs
    0xca45_1a4e, // bcachefs
];

/// Those whose files the kernel makes up.
const KERNEL: &[u32] = &[
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x6265_6570, // configfs
    0x7363_6673, // securityfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup 2
    0xf97c_ff8c, // selinuxfs
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0xcafe_4a11, // bpf
    0x4249_4e4d, // binfmt_misc
    0x6573_5543, // fusectl
];

/// Whether a folder is on a file system of this machine, with times in nanoseconds.
pub(super) fn is_local(folder: &Path) -> bool {
    is_one_of(LOCAL, folder)
}

/// Whether something is in `/proc`, `/sys` or the like: it is on no disk, has any size that it says, and reading it may
/// block for ever (`/proc/kmsg`).
pub(super) fn is_made_up(path: &Path) -> bool {
    is_one_of(KERNEL, path)
}

#[cfg(target_os = "linux")]
fn is_one_of(kinds: &[u32], path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| kinds.contains(&(found.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_one_of(_kinds: &[u32], _path: &Path) -> bool {
    false
}
