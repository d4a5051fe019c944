//! Logins: files of profiles and of hosts, and what a program prints.

pub(crate) fn read(bytes: &[u8]) -> bool {
    let profiles = pipeline::fuzzing::read_store_profiles(bytes);
    let hosts = pipeline_prepare::fuzzing::read_netrc(bytes);
    profiles || hosts
}
