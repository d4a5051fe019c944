//! Whom an encrypted connection trusts.

use anyhow::{Context as _, ensure};
use ureq::tls::{PemItem, RootCerts, TlsConfig};

/// Mozilla's certificates, or those that `SSL_CERT_FILE` names, such as a company's own.
///
/// # Errors
/// When the file cannot be read, or does not have a certificate.
pub fn tls_config() -> anyhow::Result<TlsConfig> {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) else {
        return Ok(TlsConfig::default());
    };
    let path = std::path::Path::new(&path);
    let what = || format!("SSL_CERT_FILE names {}", path.display());
    let text = std::fs::read(path).with_context(what)?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.with_context(what)? {
            certificates.push(certificate);
        }
    }
    ensure!(!certificates.is_empty(), "{}, which does not contain a certificate", what());
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
}
