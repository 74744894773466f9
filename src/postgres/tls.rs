//! TLS as `sslmode` and its companions ask for it.
//!
//! Owns the verification of the server's certificate, and the files of certificates and keys. Opens no connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::url::{SslMode, Tls};
use crate::postgres::certificate::{self, Noting};

/// A certificate or key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {parameter} {}: {problem}", file.display())]
pub struct TlsFileError {
    pub(super) parameter: &'static str,
    pub(super) file: PathBuf,
    pub(super) problem: String,
}

/// What rustls needs to know. The cryptography is named here: rustls panics when it has to
/// choose between several that happen to be compiled in.
///
/// `server_end` is told when the server's certificate ends.
pub(super) fn tls_config(tls: &Tls, server_end: &Arc<OnceLock<u64>>) -> Result<ClientConfig, TlsFileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("ring knows TLS 1.2 and 1.3");
    let judge: Arc<dyn ServerCertVerifier> = match tls.mode {
        SslMode::VerifyFull => {
            let authorities = Arc::new(authorities(tls)?);
            let provider = Arc::clone(builder.crypto_provider());
            WebPkiServerVerifier::builder_with_provider(authorities, provider)
                .build()
                .expect("there are authorities, and no lists of revoked certificates")
        }
        SslMode::VerifyCa => Arc::new(Verifier { authorities: Some(authorities(tls)?), algorithms }),
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            Arc::new(Verifier { authorities: None, algorithms })
        }
    };
    let noting = Noting { judge, end: Arc::clone(server_end) };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(noting));
    let (Some(cert_file), Some(key_file)) = (&tls.client_cert, &tls.client_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("sslcert", cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound => {
                "no unencrypted private key in it (PEM, PKCS#8, PKCS#1 or SEC1)".to_owned()
            }
            error => error.to_string(),
        };
        TlsFileError { parameter: "sslkey", file: key_file.clone(), problem }
    })?;
    builder.with_client_auth_cert(chain, key).map_err(|error| TlsFileError {
        parameter: "sslkey",
        file: key_file.clone(),
        problem: format!("it does not fit sslcert {}: {error}", cert_file.display()),
    })
}

/// When our own certificate ends.
pub(super) fn client_end(tls: &Tls) -> Option<u64> {
    let chain = certificates("sslcert", tls.client_cert.as_ref()?).ok()?;
    certificate::end_of(chain.first()?)
}

/// TLS for a web server, believing the file's authorities or those Mozilla ships.
///
/// # Errors
/// When the file cannot be used.
pub fn https_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsFileError> {
    let tls = Tls { root_cert: ca_file.map(Path::to_owned), ..Tls::default() };
    Ok(ClientConfig::builder().with_root_certificates(authorities(&tls)?).with_no_client_auth())
}

/// Whom to believe: the file's authorities, or those Mozilla ships.
fn authorities(tls: &Tls) -> Result<RootCertStore, TlsFileError> {
    let Some(file) = &tls.root_cert else {
        return Ok(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()));
    };
    let mut store = RootCertStore::empty();
    // A system's bundle may hold one that rustls cannot read; the others still count.
    let (added, _) = store.add_parsable_certificates(certificates("sslrootcert", file)?);
    if added == 0 {
        return Err(TlsFileError {
            parameter: "sslrootcert",
            file: file.clone(),
            problem: "no certificate in it can be read as an authority".to_owned(),
        });
    }
    Ok(store)
}

fn certificates(parameter: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let error = |problem: String| TlsFileError { parameter, file: file.to_owned(), problem };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|cause| error(cause.to_string()))?;
    if certificates.is_empty() {
        return Err(error("no certificate in it (PEM)".to_owned()));
    }
    Ok(certificates)
}

/// Checks as much of the server's certificate as `sslmode` asks for, short of verify-full.
#[derive(Debug)]
struct Verifier {
    /// `None` believes every certificate, also one that rustls could not even read: the X.509
    /// version 1 certificates that come out of the recipe in PostgreSQL's own manual. Whoever
    /// could forge the handshake could present a certificate of their own just as well.
    authorities: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(authorities) = &self.authorities {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                authorities,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.authorities {
            Some(_) => verify_tls12_signature(message, cert, dss, &self.algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.authorities {
            Some(_) => verify_tls13_signature(message, cert, dss, &self.algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What an operator can do about a certificate that is refused.
pub(super) fn remedy_for_certificate(reason: &CertificateError) -> &'static str {
    use CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => "give the authority that signed the server's certificate as sslrootcert",
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            "use a host name that the certificate lists as subjectAltName; its common name does \
             not count"
        }
        Reason::Expired | Reason::ExpiredContext { .. } => "renew the server's certificate",
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => "check the clocks of both hosts",
        _ => {
            "issue the server an X.509 version 3 certificate, signed by an authority and with a \
             subjectAltName"
        }
    }
}
