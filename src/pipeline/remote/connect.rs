//! What is behind which kind of address: the one list of it.

use super::folder::FolderRemote;
use super::s3::S3;
use super::ssh::Ssh;
use super::transport::{Remote, RemoteFailure};
use super::web::Web;
use crate::remote_address::Address;

/// What is behind an address. No connection is made yet.
///
/// # Errors
/// When that cannot work, whoever answers there.
pub(super) fn connect(address: &Address) -> Result<Box<dyn Remote>, RemoteFailure> {
    Ok(match address {
        Address::Folder(path) => Box::new(FolderRemote::new(path.clone())),
        Address::S3(address) => Box::new(S3::new(address)?),
        Address::Ssh(address) => Box::new(Ssh::new(address.clone())),
        Address::Web(address) => Box::new(Web::new(address.clone())),
    })
}
