//! Logins: files of profiles and of hosts, and what a program prints.

pub(crate) fn read(bytes: &[u8]) -> bool {
    let profiles = pipeline::testing::read_store_profiles(bytes);
    let hosts = pipeline_prepare::testing::read_netrc(bytes);
    profiles || hosts
}
