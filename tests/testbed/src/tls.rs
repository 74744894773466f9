//! Certificates for one cluster: a CA, a server and a client.

use std::path::PathBuf;

/// Where the certificates are, all PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The CA both sides trust (`sslrootcert`).
    pub ca: PathBuf,
    /// The server's certificate, for 127.0.0.1 and localhost.
    pub server_certificate: PathBuf,
    /// The server's key.
    pub server_key: PathBuf,
    /// A client's certificate for the user `postgres` (`sslcert`).
    pub client_certificate: PathBuf,
    /// The client's key (`sslkey`).
    pub client_key: PathBuf,
}

#[cfg(feature = "tls")]
pub(crate) use made::write;

/// Without the feature `tls` nothing makes certificates.
#[cfg(not(feature = "tls"))]
pub(crate) fn write(_dir: &std::path::Path) -> anyhow::Result<TlsFiles> {
    anyhow::bail!("the testbed was built without its feature tls")
}

#[cfg(feature = "tls")]
mod made {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use anyhow::{Context, Result};
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        KeyUsagePurpose,
    };

    use super::TlsFiles;

    /// Makes everything anew in `dir`.
    pub(crate) fn write(dir: &Path) -> Result<TlsFiles> {
        fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
        let files = TlsFiles {
            ca: dir.join("ca.pem"),
            server_certificate: dir.join("server.pem"),
            server_key: dir.join("server.key"),
            client_certificate: dir.join("client.pem"),
            client_key: dir.join("client.key"),
        };

        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "testbed CA");
        let ca_key = KeyPair::generate()?;
        write_file(&files.ca, 0o644, &ca.self_signed(&ca_key)?.pem())?;
        let issuer = Issuer::new(ca, ca_key);

        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = leaf("localhost", names, ExtendedKeyUsagePurpose::ServerAuth)?;
        let server_key = KeyPair::generate()?;
        write_file(&files.server_certificate, 0o644, &server.signed_by(&server_key, &issuer)?.pem())?;
        write_file(&files.server_key, 0o600, &server_key.serialize_pem())?;

        let client = leaf("postgres", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
        let client_key = KeyPair::generate()?;
        write_file(&files.client_certificate, 0o644, &client.signed_by(&client_key, &issuer)?.pem())?;
        write_file(&files.client_key, 0o600, &client_key.serialize_pem())?;
        Ok(files)
    }

    fn leaf(
        name: &str,
        alternative_names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<CertificateParams> {
        let mut params = CertificateParams::new(alternative_names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        Ok(params)
    }

    /// Never readable for others in between: a server refuses such a key.
    fn write_file(path: &Path, mode: u32, text: &str) -> Result<()> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("could not write {}", path.display()))
    }
}
